# SPDX-License-Identifier: Apache-2.0
"""kill -9 of programs at random moments, each at once started anew, while posts come in."""
import http.client
import json
import pathlib
import sys
import threading
import time

import checker
from fakes import x as fake_x
from fakes.jetstream import Jetstream
from fakes.jetstream import Mischief
from fakes.x import FakeX
from ground import Ground, free_port, until, wait_for_port
from posts import ToJetstream, ToRecords, ToX, text
from sourcing import secret

LEASE = ("--lease", "1s", "--batch", "16", "--parallel", "2")
FAKE_MODEL = pathlib.Path(__file__).resolve().parent / "classifier.py"


class Publisher:
    """Goes on publishing, so many a second, until it is stopped."""

    def __init__(self, publish, rate):
        self.publish, self.rate = publish, rate
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping.wait(0.01):
            self.publish(max(1, self.rate // 100))

    def stop(self):
        self.stopping.set()
        self.thread.join()


def fake_server(ground, port):
    ground_server = ground.program("classifier", "--port", port, command=[sys.executable, FAKE_MODEL])
    wait_for_port(port)
    return ground_server


def real_server(ground, port):
    server = ground.program("serve", "--port", port, "--log-level", "warning", "--no-log-requests",
                            "--max-per-address", "1000", "--max-wait", "0",
                            environment={"VIGIL_DEVICE": "cpu"})
    wait_for_port(port)
    return server


def kill_all_over(ground, programs, n_kills, longest=0.25):
    """At random moments, now and then two at once."""
    chance = ground.chance
    n_before = ground.outcome.faults
    while ground.outcome.faults - n_before < n_kills:
        time.sleep(chance.uniform(0.01, longest))
        ground.look_after()
        for victim in chance.sample(programs, chance.choice((1, 1, 1, 2))):
            if ground.outcome.faults - n_before < n_kills:
                ground.kill(victim)


def real_answers(ground, server):
    """What the real server says of texts: its model's name, and a function."""
    store = ground.store
    if server.process is None:
        server.start()
    port = server.command[server.command.index("--port") + 1]
    wait_for_port(int(port))
    said, models = {}, set()

    def ask(texts):
        for _ in range(100):
            connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
            connection.request("POST", "/v1/classify", json.dumps({"inputs": texts}),
                               {"Content-Type": "application/json"})
            got = connection.getresponse()
            answer = json.loads(got.read())
            connection.close()
            if got.status == 200:
                models.add(answer["model"]["sha256"])
                return [result["probs"]["Adverse_Event"] for result in answer["results"]]
            time.sleep(0.1)  # it is busy with the workers
        raise RuntimeError(f"the server says {got.status}, {answer['error_type']}")

    texts = [row["text"] for row in checker.query(store, "SELECT text FROM posts")]
    for at in range(0, len(texts), 256):
        some = texts[at:at + 256]
        said.update(zip(some, ask(some)))
    return models, lambda words: said.get(words, -1)


def jetstream_leg(ground, n_kills, seed, rate, is_real):
    source = Jetstream(mischief=Mischief(seed, breaks=0.001, duplicates=0.05, reorders=0.05,
                                         refusals=0.1))
    ground.until_closed(source.stop)
    to = ToJetstream(source, seed)
    to.publish()  # Jetstream begins with what is new: all before that nobody is told
    port = free_port()
    server = (real_server if is_real else fake_server)(ground, port)
    stream = ground.stream("--name", "jetstream", "jetstream:" + source.url)
    until(lambda: source.requests)
    until(lambda: source.n_sent > 0 or to.publish() or False)
    workers = [ground.worker(n, port, *LEASE) for n in range(2)]
    # A cursor is what makes it the strict case: from here on nothing may be missing.
    until(lambda: has_cursor(ground.store))
    publisher = Publisher(to.publish, rate)
    kill_all_over(ground, [stream, *workers, server], n_kills)
    publisher.stop()
    ledger = to.story.ledger
    how = {}
    if is_real:
        until(lambda: (checker.counts(ground.store) or {}).get("posts") == len(ledger.alive), 60)
        models, probability = real_answers(ground, server)
        how = {"models": models, "probability": probability}
    drop_untold(ground, ledger, 100)
    checker.settle_posts(ground, ledger, **how)
    for program in (stream, *workers):
        program.stop()
    ground.outcome.check(source.problems == [], f"the fake was asked wrongly: {source.problems[:3]}")


def has_cursor(store):
    try:
        return checker.query(store, "SELECT cursor FROM cursors")
    except RuntimeError:
        return False


def drop_untold(ground, ledger, n_first, store=None):
    """Posts from before the first connection, which the protocol does not tell: those of the
    first few that are not there."""
    have = {int(checker.TOKEN.search(row["text"])[1])
            for row in checker.query(store or ground.store, "SELECT text FROM posts")}
    for n in [n for n in ledger.alive if n < n_first and n not in have]:
        del ledger.alive[n]


def settle_x(ground, to, n_first):
    """What was withdrawn while nobody listened is told again, as long as it is there. Of the
    first posts some may have come before the first connection, when nobody is told."""
    ledger = to.story.ledger
    until(lambda: (checker.counts(ground.store) or {}).get("posts", 0) >= len(ledger.alive) - n_first)
    drop_untold(ground, ledger, n_first)

    def tell_again():
        ground.look_after()
        try:
            rows = checker.query(ground.store, "SELECT text FROM posts")
        except RuntimeError:
            return
        if len(rows) > len(ledger.alive):
            there = {int(checker.TOKEN.search(row["text"])[1]) for row in rows}
            for n in sorted(there & ledger.gone)[:10]:
                to.withdraw(to.ids[n][0])
    checker.settle_posts(ground, ledger, look_after=tell_again)


def x_leg(ground, n_kills, seed, rate):
    source = FakeX([[("live",)]], seed=seed)
    ground.until_closed(source.stop)
    to = ToX(source, seed)
    (ground.folder / "rules").write_text("(zoloft OR sertraline) lang:en\n")
    port = free_port()
    server = fake_server(ground, port)
    stream = ground.stream("--name", "x", "--token-file", secret(ground.folder, "token", fake_x.TOKEN),
                           "--rules-file", "rules", "--mode", "pseudonymous", "x:" + source.url)
    until(lambda: source.connects)
    until(lambda: (to.publish() or True) and has_cursor(ground.store), pause=0.05)
    first = to.story.n
    workers = [ground.worker(n, port, *LEASE) for n in range(2)]
    publisher = Publisher(to.publish, rate)
    kill_all_over(ground, [stream, *workers, server], n_kills)
    publisher.stop()
    settle_x(ground, to, first)
    for program in (stream, *workers):
        program.stop()
    ground.outcome.check(source.violations == [], f"the fake was asked wrongly: {source.violations[:3]}")


def sqlite(outcome, tier):
    legs = {"ci": (40, 40, 20), "night": (450, 450, 100)}[tier]
    with Ground(outcome) as ground:
        jetstream_leg(ground, legs[0], outcome.seed, 400, False)
        outcome.figures["jetstream"] = outcome.posts
    with Ground(outcome) as ground:
        x_leg(ground, legs[1], outcome.seed + 1, 200)
        outcome.figures["x"] = outcome.posts - outcome.figures["jetstream"]
    with Ground(outcome) as ground:
        jetstream_leg(ground, legs[2], outcome.seed + 2, 200, True)


# ---- pushed posts ----

class Pusher(threading.Thread):
    """Sends its posts until it was told 200, as whoever pushes has to."""

    def __init__(self, port, numbers, chance):
        super().__init__(daemon=True)
        self.port, self.numbers, self.chance = port, numbers, chance
        self.n_sent = self.n_refused = 0
        self.problems = []
        self.stopping = threading.Event()
        self.told = []  # numbers of which 200 was said
        self.start()

    def run(self):
        while not self.stopping.is_set():
            batch = [next(self.numbers) for _ in range(self.chance.randint(1, 20))]
            body = json.dumps({"posts": [{"id": str(n), "text": text(n), "lang": "en"} for n in batch]})
            while not self.send(body, len(batch)):
                time.sleep(0.02)
            self.told += batch

    def send(self, body, n):
        self.n_sent += 1
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                connection.request("POST", "/v1/posts", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                said = answer.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return False
        if answer.status == 200:
            if json.loads(said) != {"accepted": n}:
                self.problems.append(f"200 with {said[:80]}")
            return True
        self.n_refused += 1
        if answer.status not in (429, 503):
            self.problems.append(f"{answer.status}: {said[:80]}")
        return False


def push(outcome, tier):
    n_kills = {"ci": 40, "night": 300}[tier]
    with Ground(outcome) as ground:
        port, model_port = free_port(), free_port()
        server = fake_server(ground, model_port)
        stream = ground.stream("--name", "push", f"push:127.0.0.1:{port}", scale=1)
        worker = ground.worker(0, model_port, *LEASE)
        wait_for_port(port)
        chance = ground.chance
        pushers = [Pusher(port, iter(range(k * 10 ** 6, (k + 1) * 10 ** 6)),
                          type(chance)(outcome.seed + k)) for k in range(4)]
        kill_all_over(ground, [stream, stream, worker, server], n_kills)
        for each in pushers:
            each.stopping.set()
        for each in pushers:
            each.join()
            for problem in each.problems:
                outcome.is_wrong(problem)
        ledger = ToRecords(outcome.seed).story.ledger
        for each in pushers:
            ledger.alive.update((n, 1) for n in each.told)
        outcome.figures["requests"] = sum(each.n_sent for each in pushers)
        checker.settle_posts(ground, ledger)
        for program in (stream, worker):
            program.stop()


# ---- a file ----

def file_leg(ground, n_kills, label, mode, shares, rate):
    to = ToRecords(ground.outcome.seed + len(label), **shares)
    port = free_port()
    server = fake_server(ground, port)
    path = ground.folder / "a.jsonl"
    path.touch()
    chance = ground.chance
    with open(path, "ab", buffering=0) as file:
        def publish(count):
            """Lines come in pieces, as of a program that is writing."""
            data = "".join(to.line() for _ in range(count)).encode()
            cut = chance.randrange(len(data))
            file.write(data[:cut])
            file.write(data[cut:])
        stream = ground.stream("--follow", "--mode", mode, "a.jsonl")
        worker = ground.worker(0, port, *LEASE)
        publisher = Publisher(publish, rate)
        kill_all_over(ground, [stream, stream, worker, server], n_kills)
        publisher.stop()
    ledger = to.story.ledger
    if mode == "aggregate":
        found = checker.settle(
            lambda: checker.check_counted(ground.store, ledger.n_posts),
            lambda: (lambda have: (bool(have) and have["counted"] >= ledger.n_posts and not have["queue"],
                                   have))(checker.counts(ground.store)), ground.look_after)
        found.give(ground.outcome)
        ground.outcome.posts += ledger.n_posts
    else:
        checker.settle_posts(ground, ledger)
    for program in (stream, worker):
        program.stop()


def file(outcome, tier):
    n_kills = {"ci": 30, "night": 300}[tier]
    with Ground(outcome) as ground:
        file_leg(ground, n_kills, "posts", "pseudonymous", {}, 1500)
    with Ground(outcome) as ground:
        file_leg(ground, n_kills, "counts", "aggregate", {"edits": 0, "deletes": 0, "reposts": 0}, 1000)
