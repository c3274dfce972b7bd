# SPDX-License-Identifier: Apache-2.0
"""A proxy with seeded weathers (tests/fakes/proxy.py) between stream and source, worker and
server, all and PostgreSQL, all and NATS. After each schedule the network heals, and a post
that is published then has to come through: how long that takes is measured.

Waits for X and Jetstream are made shorter by VIGIL_TEST_TIME_SCALE; the bound of 16 s after
healing is scaled in the same way, with a second for a machine that is busy. The worker's
breaker, libnats and PostgreSQL have waits of their own, which are not scaled.
"""
import time

import checker
import postgres
from classifier import Classifier
from fakes import x as fake_x
from fakes.jetstream import Jetstream
from fakes.proxy import Proxy
from fakes.x import FakeX
from ground import Ground, until
from kills import LEASE, Publisher, drop_untold, has_cursor, settle_x
from nats_cluster import Cluster
from posts import ToJetstream, ToRecords, ToX
from sourcing import secret

SCALE = 0.1
RECONNECT_S = 16.0
BREAKER_S = 30.0  # after its random wait of 1 to 30 s a probe goes
BUSY_S = 1.0      # a machine that does other things too
PATIENT = ("--timeout", "2s")


def model_of(ground):
    model = Classifier(counts=False)
    ground.until_closed(model.close)
    return model


def proxy_to(ground, port, seed):
    proxy = Proxy(("127.0.0.1", port), seed=seed)
    ground.until_closed(proxy.close)
    return proxy


def schedules(ground, links, n, publish, stored, bound_s, label, seconds=1.0):
    """n schedules, each over one link (a proxy) or all of them. stored(): how many posts the
    store has to have by now, and has. The time from healing to the store is measured."""
    outcome, chance = ground.outcome, ground.chance
    longest = 0.0
    for k in range(n):
        victims = [links[k % len(links)]] if chance.random() < 0.7 else links
        for victim in victims[1:]:
            victim.set(chance.choice(("refuse", "blackhole", "half", "cut")))
        victims[0].play(chance.uniform(0.3, 1.7) * seconds, shortest=0.05, longest=0.6)
        for victim in victims:
            victim.set("open")
        outcome.faults += 1
        ground.look_after()
        healed = time.monotonic()
        mark = publish()
        come = until(lambda: stored(mark), bound_s + 60, 0.01)
        longest = max(longest, time.monotonic() - healed)
        if not come:
            outcome.is_wrong(f"{label}: schedule {k} ({[v.history[-6:] for v in victims]}): what was "
                             f"published after healing did not come in {bound_s + 60} s")
            break
        outcome.check(time.monotonic() - healed <= bound_s,
                      f"{label}: {time.monotonic() - healed:.1f} s after schedule {k}, at most {bound_s}")
    outcome.figures[f"{label} longest s"] = round(longest, 2)
    outcome.figures[f"{label} connections"] = sum(link.n_connections for link in links)


def has_newer(store, mark):
    """That post, or one that came later: what comes by itself again. (What was missed meanwhile
    X tells to who searches for it, ten seconds later.)"""
    rows = checker.query(store, "SELECT text FROM posts ORDER BY id DESC LIMIT 50")
    return any(int(checker.TOKEN.search(row["text"])[1]) >= mark for row in rows)


def one_more(to):
    """Publishes until a post came of it that is there now, and gives its number."""
    before = to.story.n
    while to.story.n == before:
        to.publish()
    return before


def result_of(store, mark):
    return bool(checker.query(store, "SELECT r.post_id FROM results r JOIN posts p ON p.id = r.post_id "
                                     f"WHERE p.text LIKE '%tok{mark}e%'"))


def jetstream_leg(ground, n, seed):
    source = Jetstream()
    ground.until_closed(source.stop)
    # Posts that are awaited by their number are not changed meanwhile.
    to = ToJetstream(source, seed, edits=0.02, deletes=0)
    proxy = proxy_to(ground, source.port, seed)
    model = model_of(ground)
    stream = ground.stream("--name", "jetstream", f"jetstream:ws://127.0.0.1:{proxy.port}", scale=SCALE)
    until(lambda: source.requests)
    to.publish()
    until(lambda: (to.publish() or True) and has_cursor(ground.store), pause=0.05)
    worker = ground.worker(0, model.port, *LEASE)
    publisher = Publisher(to.publish, 200)
    schedules(ground, [proxy], n, lambda: one_more(to), lambda mark: has_newer(ground.store, mark),
              RECONNECT_S * SCALE + BUSY_S, "jetstream")
    publisher.stop()
    drop_untold(ground, to.story.ledger, 100)
    checker.settle_posts(ground, to.story.ledger)
    for program in (stream, worker):
        program.stop()


def x_leg(ground, n, seed):
    source = FakeX([[("calm",)]], seed=seed)
    ground.until_closed(source.stop)
    to = ToX(source, seed, edits=0.02, deletes=0)
    proxy = proxy_to(ground, source.port, seed)
    model = model_of(ground)
    (ground.folder / "rules").write_text("(zoloft OR sertraline) lang:en\n")
    stream = ground.stream("--name", "x", "--token-file", secret(ground.folder, "token", fake_x.TOKEN),
                           "--rules-file", "rules", "--mode", "pseudonymous",
                           f"x:http://127.0.0.1:{proxy.port}", scale=SCALE)
    until(lambda: source.connects)
    until(lambda: (to.publish() or True) and has_cursor(ground.store), pause=0.05)
    first = to.story.n
    worker = ground.worker(0, model.port, *LEASE)
    publisher = Publisher(to.publish, 100)
    schedules(ground, [proxy], n, lambda: one_more(to), lambda mark: has_newer(ground.store, mark),
              RECONNECT_S * SCALE + BUSY_S, "x")
    publisher.stop()
    settle_x(ground, to, first)
    for program in (stream, worker):
        program.stop()


def server_leg(ground, n, seed):
    """Workers and server; the posts come from a file."""
    to = ToRecords(seed, deletes=0, edits=0.02)
    model = model_of(ground)
    proxy = proxy_to(ground, model.port, seed)
    path = ground.folder / "a.jsonl"
    path.touch()
    with open(path, "ab", buffering=0) as file:
        to.publish = lambda count=1: file.write("".join(to.line() for _ in range(count)).encode())
        stream = ground.stream("--follow", "a.jsonl")
        workers = [ground.worker(k, proxy.port, *LEASE, *PATIENT) for k in range(2)]
        publisher = Publisher(to.publish, 300)
        schedules(ground, [proxy], n, lambda: one_more(to), lambda mark: result_of(ground.store, mark),
                  BREAKER_S + 2 + BUSY_S, "server")
        publisher.stop()
    checker.settle_posts(ground, to.story.ledger)
    for program in (stream, *workers):
        program.stop()


def postgres_leg(ground, n, seed):
    """Stream and worker, each by a way of its own, and PostgreSQL."""
    to = ToRecords(seed, deletes=0, edits=0.02)
    model = model_of(ground)
    path = ground.folder / "a.jsonl"
    path.touch()
    with postgres.Server() as database, open(path, "ab", buffering=0) as file:
        links = [proxy_to(ground, database.port, seed + k) for k in range(2)]
        urls = [database.url.replace(f":{database.port}/", f":{link.port}/") for link in links]
        to.publish = lambda count=1: file.write("".join(to.line() for _ in range(count)).encode())
        programs = [ground.stream("--follow", "a.jsonl", store=urls[0]),
                    ground.worker(0, model.port, *LEASE, store=urls[1])]
        until(lambda: checker.counts(database.url))
        publisher = Publisher(to.publish, 300)
        schedules(ground, links, n, lambda: one_more(to), lambda mark: result_of(database.url, mark),
                  RECONNECT_S + BUSY_S, "postgres")
        publisher.stop()
        checker.settle_posts(ground, to.story.ledger, store=database.url)
        for program in programs:
            program.stop()
            ground.outcome.check(database.password not in program.log(), "the password is in a log")


def nats_leg(ground, n, seed):
    """Stream and worker, each by a way of its own, and a NATS node."""
    to = ToRecords(seed, deletes=0, edits=0.02)
    model = model_of(ground)
    path = ground.folder / "a.jsonl"
    path.touch()
    with Cluster(ground.folder / "nats") as cluster, open(path, "ab", buffering=0) as file:
        links = [proxy_to(ground, cluster.nodes[0].port, seed + k) for k in range(2)]
        queues = [f"nats://127.0.0.1:{link.port}/VIGIL" for link in links]
        to.publish = lambda count=1: file.write("".join(to.line() for _ in range(count)).encode())
        programs = [ground.stream("--queue", queues[0], "--follow", "a.jsonl"),
                    ground.worker(0, model.port, *LEASE, "--queue", queues[1])]
        until(lambda: checker.counts(ground.store))
        publisher = Publisher(to.publish, 300)
        schedules(ground, links, n, lambda: one_more(to), lambda mark: result_of(ground.store, mark),
                  RECONNECT_S + BUSY_S, "nats")
        publisher.stop()
        checker.settle_posts(ground, to.story.ledger)
        for program in programs:
            program.stop()


LEGS = ((jetstream_leg, 5, 125), (x_leg, 4, 100), (server_leg, 4, 50), (postgres_leg, 4, 125),
        (nats_leg, 3, 100))


def run(outcome, tier):
    for k, (leg, n_ci, n_night) in enumerate(LEGS):
        with Ground(outcome) as ground:
            leg(ground, n_ci if tier == "ci" else n_night, outcome.seed + k)
