# SPDX-License-Identifier: Apache-2.0
"""The clock on the wall jumps, by faketime, under programs that run: an hour, 400 days, both
ways, and ten times as fast. What waits and leases are measured by must not move with it.

Held  a slow server has posts in hand while the clock jumps: another worker must not take them
      (each text is asked once)
Over  a worker dies with posts in hand, then the clock is turned back by 400 days: they are
      taken again after the lease, neither at once nor in a year
"""
import itertools
import os
import time

import checker
from classifier import Classifier
from fakes.jetstream import Jetstream
from ground import Ground, until
from kills import Publisher, drop_untold, has_cursor
from posts import ToJetstream, ToRecords

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
JUMPS = ("+1h", "-1h", "+400d", "-400d", "+0 x10")


class Clock:
    """What programs started with its environment take the time of day from."""

    def __init__(self, ground):
        self.path = ground.folder / "clock"
        self.environment = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(self.path),
                            "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1",
                            "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        self.set("+0")

    def set(self, offset):
        """In one step: a program that reads half of it would be told another time."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(offset + "\n")
        os.replace(fresh, self.path)


def check_clock(ground, clock):
    """The negative control: the clock that programs see really moves."""
    clock.set("+400d")
    done = ground.program("date", "+%s", command=["/bin/date"], environment=clock.environment)
    done.finish()
    ground.outcome.check(abs(int(done.log()) - time.time() - 400 * 86400) < 3600, "the clock cannot be turned")
    clock.set("+0")


def jumps(ground, clock, n, pause_s):
    for offset in itertools.islice(itertools.cycle(JUMPS), n):
        clock.set(offset)
        ground.outcome.faults += 1
        time.sleep(ground.chance.uniform(0.5, 1.5) * pause_s)
    clock.set("+0")


def running(ground, n):
    """Posts flow from Jetstream while the clock jumps under all programs."""
    source = Jetstream()
    ground.until_closed(source.stop)
    to = ToJetstream(source, ground.outcome.seed)
    clock = Clock(ground)
    check_clock(ground, clock)
    model = Classifier()
    ground.until_closed(model.close)
    stream = ground.stream("--name", "jetstream", "jetstream:" + source.url, environment=clock.environment)
    until(lambda: source.requests)
    until(lambda: (to.publish() or True) and has_cursor(ground.store), pause=0.05)
    workers = [ground.worker(k, model.port, "--lease", "60s", "--batch", "16", environment=clock.environment)
               for k in range(2)]
    publisher = Publisher(to.publish, 300)
    jumps(ground, clock, n, 0.6)
    publisher.stop()
    drop_untold(ground, to.story.ledger, 100)
    checker.settle_posts(ground, to.story.ledger)
    for program in (stream, *workers):
        program.stop()


def fill(ground, clock, n):
    to = ToRecords(ground.outcome.seed, edits=0, deletes=0, reposts=0)
    (ground.folder / "a.jsonl").write_text("".join(to.line() for _ in range(n)))
    ground.stream("a.jsonl", environment=clock.environment).finish()
    return to.story.ledger


def held(ground):
    """Leases of living workers hold through every jump."""
    clock = Clock(ground)
    ledger = fill(ground, clock, 64)
    model = Classifier(seconds=0.8)
    ground.until_closed(model.close)
    workers = [ground.worker(k, model.port, "--lease", "60s", "--batch", "4", "--parallel", "1",
                             environment=clock.environment) for k in range(2)]
    until(lambda: model.requests)
    jumps(ground, clock, 10, 0.5)
    checker.settle_posts(ground, ledger)
    again = sum(n - 1 for text, n in model.asked.items() if text in set(texts_of(ground)))
    ground.outcome.check(again == 0, f"{again} posts were taken from workers that had them")
    for worker in workers:
        worker.stop()


def texts_of(ground):
    return [row["text"] for row in checker.query(ground.store, "SELECT text FROM posts")]


def over(ground, offset, lease_s=3):
    """A dead worker's lease ends by the time that passes, wherever the clock is turned."""
    clock = Clock(ground)
    ledger = fill(ground, clock, 8)
    model = Classifier(seconds=30)
    ground.until_closed(model.close)
    first = ground.worker(0, model.port, "--lease", f"{lease_s}s", environment=clock.environment)
    until(lambda: model.requests)
    died = time.monotonic()
    first.kill()
    clock.set(offset)
    ground.outcome.faults += 2
    model.seconds = 0
    n_before = len(model.requests)
    second = ground.worker(1, model.port, "--lease", f"{lease_s}s", environment=clock.environment)
    until(lambda: len(model.requests) > n_before, 60)
    waited = time.monotonic() - died
    # A lease is extended when a third of it is over: it may end a little sooner than three
    # seconds behind the death, and not much later.
    ground.outcome.check(lease_s / 2 <= waited <= lease_s + 5,
                         f"{offset}: taken again {waited:.1f} s after the death, the lease is {lease_s} s")
    ground.outcome.figures[f"lease {offset} s"] = round(waited, 1)
    checker.settle_posts(ground, ledger)
    second.stop()


def run(outcome, tier):
    with Ground(outcome) as ground:
        running(ground, 10 if tier == "ci" else 100)
    with Ground(outcome) as ground:
        held(ground)
    for offset in ("+400d", "-400d", "-1h") if tier == "night" else ("+400d", "-400d"):
        with Ground(outcome) as ground:
            over(ground, offset)
