# SPDX-License-Identifier: Apache-2.0
"""Holds a store against a ledger: what is lost, what is there twice, what is wrong.

It asks as people do, with `vigil query`, whichever database it is.

lost     a post that is not there, a result that is not there, a repost that was not counted,
         a line that is neither a post nor a dead letter
doubled  a post in two rows, two results of one version, a repost that was counted twice
wrong    a post that was withdrawn or never sent, an old edit, another's result, what is left
         in the queue or the spool, a dead letter, an audit whose chain is broken
"""
import hashlib
import json
import sqlite3
import subprocess
import time

import classifier
from ground import BIN, HANG_SECONDS
from posts import TOKEN, text

QUERY_SECONDS = 300


def query(store, sql):
    """Rows as dicts."""
    done = subprocess.run([str(BIN / "vigil-query"), "--store", str(store), "--format", "jsonl",
                           "--max-rows", "0", "--timeout", "0", sql], capture_output=True,
                          timeout=QUERY_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode("utf-8", "replace")[-500:])
    return [json.loads(line) for line in done.stdout.splitlines()]


def counts(store):
    """A quick look; None while there is no store."""
    try:
        row, = query(store, "SELECT (SELECT count(*) FROM posts) AS posts, "
                            "(SELECT count(*) FROM queue) AS queue, "
                            "(SELECT count(*) FROM raw) AS raw, "
                            "(SELECT count(*) FROM results) AS results, "
                            "(SELECT count(*) FROM dead_letters) AS dead, "
                            "(SELECT COALESCE(sum(n_posts), 0) FROM aggregates) AS counted")
    except RuntimeError:
        return None
    return {name: int(value) for name, value in row.items()}


class Findings:
    def __init__(self):
        self.lost = self.doubled = self.wrong = 0
        self.notes = []

    def add(self, kind, text_of_it, n=1):
        setattr(self, kind, getattr(self, kind) + n)
        if len(self.notes) < 12:
            self.notes.append(f"{kind}: {text_of_it}")

    @property
    def is_clean(self):
        return self.lost == self.doubled == self.wrong == 0

    def give(self, outcome):
        outcome.lost += self.lost
        outcome.doubled += self.doubled
        outcome.wrong += self.wrong
        for each in self.notes:
            outcome.note(each)


def check_posts(rows, ledger, found):
    """{row id: (number, edit)} of posts that are right."""
    by_number, good = {}, {}
    for row in rows:
        match = TOKEN.search(row["text"])
        if not match:
            found.add("wrong", f"row {row['id']} is no post that was sent")
            continue
        by_number.setdefault(int(match[1]), []).append((row, int(match[2])))
    for n, edit in ledger.alive.items():
        some = by_number.pop(n, [])
        if not some:
            found.add("lost", f"post {n} (edit {edit}) is not there")
            continue
        if len(some) > 1:
            found.add("doubled", f"post {n} is there {len(some)} times", len(some) - 1)
        row, have = some[0]
        if have != edit or row["text"] != text(n, edit):
            found.add("wrong", f"post {n} has edit {have}, expected {edit}")
        else:
            good[row["id"]] = (n, edit)
        check_folds(n, row, ledger.folds.get(n, 0), found)
    for n in by_number:
        found.add("wrong", f"post {n} is there" +
                  (" and was withdrawn" if n in ledger.gone else " and was never sent"))
    return good


def check_folds(n, row, expected, found):
    have = int(row["n_reposts"])
    if have < expected:
        found.add("lost", f"{expected - have} of {expected} reposts of post {n}", expected - have)
    if have > expected:
        found.add("doubled", f"{have} reposts of post {n}, {expected} were sent", have - expected)


def check_results(posts, results, good, models, probability, found):
    """Each post has one result of its present version by each of the models."""
    versions = {row["id"]: (int(row["version"]), row["text"]) for row in posts}
    by_post = {}
    for row in results:
        by_post.setdefault(row["post_id"], []).append(row)
    for post_id, (n, edit) in good.items():
        version, words = versions[post_id]
        mine = [row for row in by_post.get(post_id, ()) if int(row["version"]) == version]
        if len(mine) < len(models):
            found.add("lost", f"post {n} (edit {edit}) has {len(mine)} results", len(models) - len(mine))
        if len(mine) > len(models):
            found.add("doubled", f"post {n} has {len(mine)} results", len(mine) - len(models))
        for row in mine:
            if row["model_sha256"] not in models:
                found.add("wrong", f"post {n} has a result of another model")
            elif probability and abs(float(row["probability"]) - probability(words)) > 1e-6:
                found.add("wrong", f"post {n} has another's result")
        if any(int(row["version"]) > version for row in by_post.get(post_id, ())):
            found.add("wrong", f"post {n} has a result of a version that it has not")
    strange = set(by_post) - set(versions)
    if strange:
        found.add("wrong", f"results of {len(strange)} posts that are not there", len(strange))


def check_rest(store, ledger, has_results, found):
    have = counts(store)
    if has_results and have["queue"]:
        found.add("wrong", f"{have['queue']} posts wait in the queue", have["queue"])
    if have["raw"]:
        found.add("wrong", f"{have['raw']} raw lines were not read", have["raw"])
    letters = query(store, "SELECT stage, source, reason FROM dead_letters")
    n_parse = sum(row["stage"] == "parse" for row in letters)
    for row in letters:
        if row["stage"] != "parse":
            found.add("wrong", f"a dead letter of stage {row['stage']}: {row['reason']}")
    if n_parse < ledger.n_dead:
        found.add("lost", f"{n_parse} dead letters, expected {ledger.n_dead}", ledger.n_dead - n_parse)
    if n_parse > ledger.n_dead:
        found.add("wrong", f"{n_parse} dead letters, expected {ledger.n_dead}: "
                  f"{letters[0]['reason']}", n_parse - ledger.n_dead)
    n_folds, = query(store, "SELECT count(*) AS n FROM folds WHERE kind = 1")
    expected = sum(ledger.folds.values())
    if int(n_folds["n"]) != expected:
        kind = "lost" if int(n_folds["n"]) < expected else "doubled"
        found.add(kind, f"{n_folds['n']} folds, expected {expected}")


def check_audit(store, found):
    """Every entry's hash covers its fields and the hash before it."""
    previous = ""
    for number, row in enumerate(query(store, "SELECT * FROM audit ORDER BY seq"), 1):
        fields = [str(row["seq"]), str(row["at_ns"]), row["actor"], row["action"], row["subject"],
                  row["details"], row["previous"]]
        body = b"".join(len(field.encode()).to_bytes(8, "little") + field.encode() for field in fields)
        if int(row["seq"]) != number or row["previous"] != previous or \
                row["hash"] != hashlib.sha256(body).hexdigest():
            found.add("wrong", f"the audit's chain is broken at {row['seq']}")
            return
        previous = row["hash"]


def check_pages(store, found):
    """SQLite's own look at its file."""
    if str(store).startswith("postgres"):
        return
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=30) as db:
        said = db.execute("PRAGMA integrity_check").fetchall()
    if said != [("ok",)]:
        found.add("wrong", f"integrity_check: {said[:3]}")


def check(store, ledger, models=(classifier.SHA256,), probability=classifier.probability,
          has_results=True):
    """Findings. models: whose results each post must have; probability: what such a model says
    of a text, or None."""
    found = Findings()
    posts = query(store, "SELECT id, key, version, text, n_reposts FROM posts")
    good = check_posts(posts, ledger, found)
    if has_results:
        results = query(store, "SELECT post_id, version, model_sha256, probability FROM results")
        check_results(posts, results, good, set(models), probability, found)
    check_rest(store, ledger, has_results, found)
    check_audit(store, found)
    check_pages(store, found)
    return found


def check_counted(store, n_posts):
    """Of aggregate mode: each post counts once, and nothing else is left of it."""
    found = Findings()
    have = counts(store)
    if have["counted"] < n_posts:
        found.add("lost", f"{have['counted']} of {n_posts} are counted", n_posts - have["counted"])
    if have["counted"] > n_posts:
        found.add("doubled", f"{have['counted']} counted, {n_posts} sent", have["counted"] - n_posts)
    for what in ("posts", "queue", "raw", "results", "dead"):
        if have[what]:
            found.add("wrong", f"{have[what]} rows in {what}", have[what])
    check_pages(store, found)
    return found


def settle(look, is_near, look_after=lambda: None, still_seconds=45, seconds=2 * HANG_SECONDS):
    """Looks until all is right; else, when nothing has moved for so long, the last findings.
    Waiting for stillness and not for a while keeps a slow machine from looking like loss."""
    end = time.monotonic() + seconds
    last, moved = None, time.monotonic()
    while True:
        look_after()
        now = is_near()
        found = None
        if now[0]:
            found = look()
            if found.is_clean:
                return found
        if now != last:
            last, moved = now, time.monotonic()
        if time.monotonic() - moved > still_seconds or time.monotonic() > end:
            return found or look()
        time.sleep(0.1 if not now[0] else 0.3)


WORKER_DIED = "never settled"  # in the reason


def send_round_again(ground, store):
    """A post in whose claims too many workers have died is a dead letter, as it may be what kills
    them. Here it was us: so they are sent round again, as an operator would, and counted."""
    letters = query(store, "SELECT id, reason FROM dead_letters WHERE stage = 'classify'")
    for row in letters:
        if WORKER_DIED in row["reason"]:
            ground.program("dlq", "--store", store, "retry", row["id"]).finish()
            figures = ground.outcome.figures
            figures["sent round again"] = figures.get("sent round again", 0) + 1


def settle_posts(ground, ledger, store=None, **how):
    """The usual end: all posts there, all classified; the findings go to the outcome."""
    store = store or ground.store
    has_results = how.get("has_results", True)
    stillness = {k: how.pop(k) for k in ("still_seconds", "seconds", "look_after") if k in how}
    stillness.setdefault("look_after", ground.look_after)
    stillness.setdefault("still_seconds", 45)  # a worker's breaker waits for up to 30 s

    def is_near():
        have = counts(store)
        if not have:
            return False, None
        near = have["posts"] == len(ledger.alive) and not have["raw"] and \
            (not has_results or not have["queue"])
        if near and have["dead"] > ledger.n_dead:
            send_round_again(ground, store)
        return near, have

    found = settle(lambda: check(store, ledger, **how), is_near, **stillness)
    found.give(ground.outcome)
    ground.outcome.posts += ledger.n_posts
    return found
