# SPDX-License-Identifier: Apache-2.0
"""Three NATS nodes, three copies: nodes, stream and workers are killed while posts go from
Jetstream through the queue into a store.

A consumer that gives up in an outage would look like loss (shared traps of such tests): here
the programs run on until all has settled, and one that ends by itself is counted as wrong.
"""
import time

import checker
import postgres
from classifier import Classifier
from fakes.jetstream import Jetstream, Mischief
from ground import Ground, until
from kills import LEASE, Publisher, drop_untold, has_cursor
from nats_cluster import Cluster
from posts import ToJetstream


def kill_nodes(ground, cluster):
    """One, now and then two or all of them; or one hangs for a while. An event each."""
    chance = ground.chance
    if chance.random() < 0.15:
        victim = chance.choice(cluster.nodes)
        victim.pause()
        time.sleep(chance.uniform(0.2, 1.5))
        victim.go_on()
    else:
        victims = chance.sample(cluster.nodes, chance.choice((1, 1, 1, 2, 3)))
        for node in victims:
            node.kill()
        time.sleep(chance.uniform(0, 0.4))
        for node in victims:
            node.start()
    ground.outcome.faults += 1
    if chance.random() < 0.4:  # else the next one finds them as they are
        heal(cluster, 5)


def heal(cluster, seconds):
    """Until all nodes say that they are well, or for so long: nats-server 2.9 now and then never
    says so again of a consumer of one copy more. What counts is what arrives."""
    try:
        cluster.wait_healthy(seconds)
    except AssertionError:
        pass


def leg(ground, n_events, seed, store):
    source = Jetstream(mischief=Mischief(seed, breaks=0.001, refusals=0.1))
    ground.until_closed(source.stop)
    to = ToJetstream(source, seed)
    model = Classifier(counts=False)
    ground.until_closed(model.close)
    chance, outcome = ground.chance, ground.outcome
    with Cluster(ground.folder / "nodes", 3) as cluster:
        queue = ("--queue", cluster.url())
        to.publish()
        stream = ground.stream(*queue, "--name", "jetstream", "jetstream:" + source.url, store=store)
        until(lambda: (to.publish() or True) and has_cursor(store), pause=0.05)
        workers = [ground.worker(n, model.port, *LEASE, *queue, store=store) for n in range(2)]
        publisher = Publisher(to.publish, 200)
        begun = outcome.faults
        while outcome.faults - begun < n_events:
            time.sleep(chance.uniform(0.1, 0.8))
            ground.look_after()
            if chance.random() < 0.5:
                kill_nodes(ground, cluster)
            else:
                ground.kill(chance.choice([stream, *workers]))
        publisher.stop()
        heal(cluster, 30)
        until(lambda: (checker.counts(store) or {}).get("posts", 0) > 0)
        drop_untold_late(store, to.story.ledger, ground)
        checker.settle_posts(ground, to.story.ledger, store=store, still_seconds=60, seconds=300)
        for program in (stream, *workers):
            program.stop()
    outcome.check(source.problems == [], f"the fake was asked wrongly: {source.problems[:3]}")


def drop_untold_late(store, ledger, ground):
    """As drop_untold; a post comes into the store with its result, so they come later here."""
    until(lambda: (checker.counts(store) or {}).get("posts", 0) >= len(ledger.alive) - 100, 300, 0.3)
    time.sleep(1)
    drop_untold(ground, ledger, 100, store)


def nats(outcome, tier):
    n_sqlite, n_postgres = {"ci": (14, 6), "night": (150, 50)}[tier]
    with Ground(outcome) as ground:
        leg(ground, n_sqlite, outcome.seed, ground.store)
    with Ground(outcome) as ground, postgres.Server(fsync=True) as database:
        leg(ground, n_postgres, outcome.seed + 1, database.url)
