# SPDX-License-Identifier: Apache-2.0
"""A hundred callers ask a server that goes away and comes back. While it is away, what is sent
again is at most a tenth of what is sent; when it is back, the peak is at most 1.5 times what
was steady; and no post is lost. CI has it away for 12 s, the night for 60 s, with each way to
be away: it answers 503, or it hangs up.
"""
import threading
import time

import checker
from classifier import Classifier
from ground import Ground, until
from posts import ToRecords

N_WORKERS, N_CALLERS = 4, 25
SAVED = 5  # retries that a worker's budget holds at most: client/retry.h


def per_second(requests, begin, end, bin_s=1.0):
    """Requests in each second of that time."""
    n = max(1, int((end - begin) / bin_s))
    counts = [0] * n
    for at, *_ in requests:
        if begin <= at < begin + n * bin_s:
            counts[int((at - begin) / bin_s)] += 1
    return [count / bin_s for count in counts]


def storm(ground, how, down_s, n_posts):
    outcome = ground.outcome
    to = ToRecords(outcome.seed, edits=0, deletes=0, reposts=0)
    (ground.folder / "a.jsonl").write_text("".join(to.line() for _ in range(n_posts)))
    ground.stream("a.jsonl").finish()
    model = Classifier(seconds=0.5)
    model.how = how
    ground.until_closed(model.close)
    begin = time.monotonic()
    workers = [ground.worker(k, model.port, "--batch", "4", "--parallel", N_CALLERS, "--timeout", "20s")
               for k in range(N_WORKERS)]
    time.sleep(4)
    steady = sum(per_second(model.requests, begin + 1, begin + 4)) / 3
    model.is_down = True
    outcome.faults += 1
    went = time.monotonic()
    time.sleep(down_s)
    model.is_down = False
    came = time.monotonic()
    checker.settle_posts(ground, to.story.ledger)
    ended = time.monotonic()
    down = [request for request in model.requests if request[2]]
    again = sum(request[1] > 0 for request in down)
    after = per_second(model.requests, came, ended)
    figures = {"steady/s": round(steady), "sent while down": len(down), "again": again,
               "probes": model.n_probes, "peak/s": round(max(after))}
    outcome.figures.update({f"{how} {name}": value for name, value in figures.items()})
    until_back = [request for request in model.requests if request[0] <= came]
    resent = sum(request[1] > 0 for request in until_back)
    outcome.check(steady > 20, f"{how}: only {steady:.0f} requests a second when all is well")
    outcome.check(len(down) > 0, f"{how}: nobody asked while it was down")
    outcome.check(resent * 10 <= len(until_back),
                  f"{how}: of {len(until_back)} requests until it was back {resent} were retries")
    outcome.check(again <= N_WORKERS * SAVED, f"{how}: {again} retries while it was down")
    outcome.check(max(after) <= 1.5 * steady, f"{how}: a peak of {max(after):.0f}/s, steady was {steady:.0f}/s")
    outcome.check(len(down) <= 2 * N_WORKERS * N_CALLERS + down_s * N_WORKERS,
                  f"{how}: {len(down)} requests in {came - went:.0f} s to a server that is away")
    for worker in workers:
        worker.stop()


def run(outcome, tier):
    """Both at the same time: nearly all of it is waiting."""
    def leg(how):
        try:
            with Ground(outcome) as ground:
                storm(ground, how, 12 if tier == "ci" else 60, 4800 if tier == "ci" else 12000)
        except Exception as problem:
            outcome.is_wrong(f"{how}: {type(problem).__name__}: {problem}")
    legs = [threading.Thread(target=leg, args=(how,)) for how in ("503", "reset")]
    for each in legs:
        each.start()
    for each in legs:
        each.join()
