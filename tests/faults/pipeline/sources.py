# SPDX-License-Identifier: Apache-2.0
"""Sources that misbehave by seed: gaps, duplicates, disorder, breaks within lines, edits and
withdrawals that overtake their posts. In the end the store's state is the source's own.

What a protocol cannot tell again is not asked for: a withdrawal while X does not reach us is
told again, and Mastodon, which has no memory at all, ends a connection only when all that it
said has been read.
"""
import time

import checker
from classifier import Classifier
from fakes import mastodon as fake_mastodon
from fakes import x as fake_x
from fakes.jetstream import Jetstream, Mischief
from fakes.mastodon import FakeMastodon
from fakes.x import FakeX
from ground import Ground, until
from kills import drop_untold, settle_x
from posts import ToJetstream, ToMastodon, ToX
from sourcing import secret


def worker_of(ground):
    model = Classifier(counts=False)
    ground.until_closed(model.close)
    return ground.worker(0, model.port, "--batch", "256")


def store_keeps_up(ground, n_published, most=5000):
    """Publishing waits for the store, so that memory stays small."""
    until(lambda: (checker.counts(ground.store) or {"posts": 0})["posts"] > n_published * 0.8 - most)


def jetstream(ground, n, seed):
    source = Jetstream(mischief=Mischief(seed, breaks=0.002, refusals=0.2))
    ground.until_closed(source.stop)
    to = ToJetstream(source, seed, min(20_000, 20 * 3600 * 10 ** 6 // n), edits=0.1, deletes=0.1)
    to.publish()
    stream = ground.stream("--name", "jetstream", "jetstream:" + source.url)
    until(lambda: (to.publish() or True) and (checker.counts(ground.store) or {}).get("posts"), pause=0.05)
    first = to.story.n
    worker = worker_of(ground)
    while to.story.ledger.n_posts < n:
        to.publish(500)
        if to.story.ledger.n_posts % 20000 < 500:
            store_keeps_up(ground, to.story.ledger.n_posts)
    until(lambda: checker.counts(ground.store)["posts"] >= len(to.story.ledger.alive) - first, 600)
    drop_untold(ground, to.story.ledger, first)
    checker.settle_posts(ground, to.story.ledger, seconds=600)
    ground.outcome.faults += source.mischief.n_broken
    ground.outcome.check(source.problems == [], f"jetstream was asked wrongly: {source.problems[:3]}")
    for program in (stream, worker):
        program.stop()


def x(ground, n, seed):
    source = FakeX([[("live",)]], seed=seed)
    ground.until_closed(source.stop)
    to = ToX(source, seed, step_s=min(2.0, 100000 / n), edits=0.1, deletes=0.05, reposts=0.1)
    (ground.folder / "rules").write_text("(zoloft OR sertraline) lang:en\n")
    stream = ground.stream("--name", "x", "--token-file", secret(ground.folder, "token", fake_x.TOKEN),
                           "--rules-file", "rules", "--mode", "pseudonymous", "x:" + source.url)
    until(lambda: source.connects)
    until(lambda: (to.publish() or True) and checker.counts(ground.store)["posts"], pause=0.05)
    first = to.story.n
    worker = worker_of(ground)
    while to.story.ledger.n_posts < n:
        to.publish(20)
        time.sleep(0.04)
        if to.story.ledger.n_posts % 2000 < 20:
            store_keeps_up(ground, to.story.ledger.n_posts)
    settle_x(ground, to, first)
    ground.outcome.faults += len(source.connects) - 1
    ground.outcome.check(source.violations == [], f"x was asked wrongly: {source.violations[:3]}")
    for program in (stream, worker):
        program.stop()


def mastodon(ground, n, seed):
    # The scale leaves 2 s until a connection counts as dead: a busy fake must not look so, as
    # what it was saying then would be lost.
    source = FakeMastodon([[("live", max(200, n // 40))]], seed=seed, until_read=True)
    ground.until_closed(source.stop)
    to = ToMastodon(source, seed, edits=0.1, deletes=0.1, reposts=0.1)
    stream = ground.stream("--name", "mastodon", "--token-file",
                           secret(ground.folder, "token", fake_mastodon.TOKEN), "mastodon:" + source.url,
                           scale=0.1)
    until(lambda: source.connects)
    worker = worker_of(ground)
    while to.story.ledger.n_posts < n:
        to.publish(500)
        if len(source.published) - source.given > 5000:
            until(lambda: len(source.published) - source.given < 1000)
    checker.settle_posts(ground, to.story.ledger, seconds=600)
    ground.outcome.faults += len(source.connects) - 1
    ground.outcome.check(source.violations == [], f"mastodon was asked wrongly: {source.violations[:3]}")
    for program in (stream, worker):
        program.stop()


LEGS = ((jetstream, 6000, 900000), (x, 1500, 20000), (mastodon, 2500, 80000))


def run(outcome, tier):
    for k, (leg, n_ci, n_night) in enumerate(LEGS):
        n_before = outcome.posts
        with Ground(outcome) as ground:
            leg(ground, n_ci if tier == "ci" else n_night, outcome.seed + k)
        outcome.figures[leg.__name__] = outcome.posts - n_before
