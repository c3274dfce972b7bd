# SPDX-License-Identifier: Apache-2.0
"""The negative control: a store that is right is damaged by hand, in one way at a time, and the
checker has to say which."""
import shutil
import sqlite3

import checker
from classifier import Classifier
from ground import Ground
from posts import ToRecords

# What is done to the store, and what the checker has to count: (lost, doubled, wrong).
PLANTS = {
    "a post is lost":
        ("DELETE FROM posts WHERE id = (SELECT id FROM posts LIMIT 1 OFFSET 7); "
         "DELETE FROM results WHERE post_id NOT IN (SELECT id FROM posts)", (1, 0, 0)),
    "a post is there twice":
        ("INSERT INTO posts (key, version, source, mode, text, received_ns, n_reposts) SELECT key || '+', "
         "version, source, mode, text, received_ns, n_reposts FROM posts LIMIT 1 OFFSET 3", (0, 1, 0)),
    "an old edit": ("UPDATE posts SET text = replace(text, 'e1x', 'e9x') WHERE id = "
                    "(SELECT id FROM posts WHERE text LIKE '%e1x%' LIMIT 1)", (0, 0, 1)),
    "a withdrawn post": ("UPDATE posts SET text = replace(text, 'tok', 'tok9999') WHERE id = "
                         "(SELECT id FROM posts WHERE n_reposts = 0 LIMIT 1)", (1, 0, 1)),
    "a result is lost": ("DELETE FROM results WHERE post_id = (SELECT min(id) FROM posts)", (1, 0, 0)),
    "a result is there twice":
        ("INSERT INTO results SELECT post_id, version, 'ff' || substr(model_sha256, 3), model_name, dtype, "
         "label, score, probability, threshold, band, n_tokens, n_windows, is_truncated, created_ns "
         "FROM results WHERE (post_id, version) IN (SELECT id, version FROM posts LIMIT 1)", (0, 1, 1)),
    "another's result": ("UPDATE results SET probability = abs(probability - 0.5) WHERE (post_id, version) "
                         "IN (SELECT id, version FROM posts LIMIT 1)", (0, 0, 1)),
    "a repost counts twice": ("UPDATE posts SET n_reposts = n_reposts + 1 WHERE id = "
                              "(SELECT min(id) FROM posts)", (0, 1, 0)),
    "a repost is lost": ("UPDATE posts SET n_reposts = n_reposts - 1 WHERE id = "
                         "(SELECT min(id) FROM posts WHERE n_reposts > 0)", (1, 0, 0)),
    "a fold's row is gone": ("DELETE FROM folds WHERE key_hash = (SELECT min(key_hash) FROM folds)",
                             (1, 0, 0)),
    "a post waits": ("INSERT INTO queue (post_id, version) SELECT id, version FROM posts LIMIT 1",
                     (0, 0, 1)),
    "a raw line waits": ("INSERT INTO raw (source, received_ns, line) VALUES ('file', 1, x'31')",
                         (0, 0, 1)),
    "a dead letter is lost": ("DELETE FROM dead_letters", (1, 0, 0)),
    "the audit was changed": ("UPDATE audit SET actor = 'nobody' WHERE seq = 1", (0, 0, 1)),
}
COUNTED = {
    "one was counted twice": ("UPDATE aggregates SET n_posts = n_posts + 1 WHERE label = "
                              "(SELECT max(label) FROM aggregates)", (0, 1, 0)),
    "one was not counted": ("UPDATE aggregates SET n_posts = n_posts - 1 WHERE label = "
                            "(SELECT min(label) FROM aggregates)", (1, 0, 0)),
}


def damage(path, sql):
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA foreign_keys = OFF")
        for statement in sql.split("; "):
            if db.execute(statement).rowcount == 0:
                raise RuntimeError(f"nothing was damaged by: {statement}")
    db.close()


def try_plants(ground, plants, look, what):
    with sqlite3.connect(ground.store) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    for name, (sql, expected) in plants.items():
        folder = ground.folder / "planted"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in ground.folder.glob("vigil.db*"):
            shutil.copy(path, folder)
        damage(folder / "vigil.db", sql)
        found = look(folder / "vigil.db")
        got = (found.lost, found.doubled, found.wrong)
        ground.outcome.faults += 1
        ground.outcome.check(got == expected,
                             f"{what}, {name}: counted {got}, expected {expected}: {found.notes[:3]}")


def through(ground, label, *arguments):
    """A file into the store, and all of it classified."""
    model = Classifier()
    ground.until_closed(model.close)
    ground.stream("a.jsonl", *arguments, label=f"stream-{label}").finish()
    ground.worker(label, model.port, "--once").finish()


def run(outcome, tier):
    with Ground(outcome) as ground:
        to = ToRecords(outcome.seed)
        lines = [to.line() for _ in range(400)]
        (ground.folder / "a.jsonl").write_text("".join(lines) + '{"id": "bad\n')
        to.story.ledger.n_dead = 1
        through(ground, "posts")
        # Something for the audit.
        ground.program("dlq", "--store", ground.store, "retry", "all").finish()
        ground.stream("a.jsonl", label="stream-again").finish()
        checker.settle_posts(ground, to.story.ledger)
        outcome.check(checker.query(ground.store, "SELECT seq FROM audit") != [], "no audit to look at")
        if outcome.is_good:
            try_plants(ground, PLANTS, lambda path: checker.check(path, to.story.ledger), "posts")
    with Ground(outcome) as ground:
        to = ToRecords(outcome.seed + 1, edits=0, deletes=0, reposts=0)
        (ground.folder / "a.jsonl").write_text("".join(to.line() for _ in range(200)))
        through(ground, "counted", "--mode", "aggregate")
        checker.check_counted(ground.store, 200).give(outcome)
        outcome.posts += 200
        if outcome.is_good:
            try_plants(ground, COUNTED, lambda path: checker.check_counted(path, 200), "counts")
