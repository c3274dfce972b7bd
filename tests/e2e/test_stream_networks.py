# SPDX-License-Identifier: Apache-2.0
"""vigil stream with X and Mastodon: from a fake network into the store, through kills."""
import os
import random
import signal
import sqlite3
import subprocess
import time

import pytest
from serving import BIN, MARK, PATIENCE
from sourcing import secret, until

from fakes import mastodon as fake_mastodon
from fakes import x as fake
from fakes.mastodon import FakeMastodon, status
from fakes.x import FakeX


def words(n):
    """A text that is kept; no two have nearly the same words."""
    return f"zoloft gave me a rash {MARK} " + " ".join(f"w{n * 31 + k}x{n}" for k in range(8))


class Stream:
    def __init__(self, folder, *arguments, scale=0.01):
        (folder / "watch").write_text("sertraline: zoloft\n")
        self.folder = folder
        self.log = open(folder / "log", "ab")
        self.process = subprocess.Popen(
            [str(BIN / "vigil-stream"), "--store", "vigil.db", "--watch-list", "watch",
             "--allow-plain", "--quiet", *map(str, arguments)], cwd=folder, stdout=self.log,
            stderr=self.log, env={**os.environ, "VIGIL_TEST_TIME_SCALE": str(scale)})

    def keys(self):
        """{key: version} of what the store has."""
        try:
            with sqlite3.connect(f"file:{self.folder}/vigil.db?mode=ro", uri=True) as db:
                return dict(db.execute("SELECT key, version FROM posts"))
        except sqlite3.OperationalError:
            return {}

    def end(self, number=signal.SIGTERM, code=0):
        self.process.send_signal(number)
        got = self.process.wait(PATIENCE)
        self.log.close()
        log = (self.folder / "log").read_text()
        assert code is None or got == code, log[-2000:]
        assert MARK not in log and fake.TOKEN not in log
        return log


@pytest.mark.parametrize("seed", range(2))
def test_x_into_the_store_through_kills(tmp_path, seed):
    """Posts, edits and withdrawals of a server that misbehaves, a program that is killed at
    any moment: each post is there once, in its newest version, and none that was withdrawn."""
    n, chance = 300, random.Random(seed)
    server = FakeX([[("live",)]], seed=seed, rules=[{"value": "theirs", "tag": "cats"}])
    (tmp_path / "rules").write_text("(zoloft OR sertraline) lang:en -is:retweet\n")
    arguments = ["--token-file", secret(tmp_path, "token", fake.TOKEN), "--rules-file", "rules",
                 "--mode", "pseudonymous", "x:" + server.url]
    stream = Stream(tmp_path, *arguments)
    until(lambda: server.connects, "a connection")
    begin, expected = time.time() - n * 5, {}
    for i in range(n):
        number = fake.id_of(begin + i * 5)
        first = random.Random(seed * 1000 + i).choice([None, None, None, "edit"])
        if first and i > 5:  # a newer version of an earlier post
            old = chance.choice(sorted(expected))
            version = expected[old] + 1
            history = [old.split(":")[1], *["1"] * (version - 2), str(number)]
            server.publish(number, fake.post(number, text=words(n + i),
                                             edit_history_tweet_ids=history))
            expected[old] = version
        else:
            server.publish(number, fake.post(number, text=words(i)))
            expected[f"x:{number}"] = 1
        time.sleep(0.003)
        if chance.random() < 0.015:
            stream.end(signal.SIGKILL, None)
            stream = Stream(tmp_path, *arguments)
    until(lambda: stream.keys() == expected, "the posts")
    stream.end()
    assert stream.keys() == expected
    assert {"value": "theirs", "tag": "cats"} in server.rules.values()
    until(lambda: server.n_streams == 0, "an open stream")
    assert server.violations == []
    server.stop()


def test_withdrawn_posts_of_x(tmp_path):
    server = FakeX([[("post", 1, {"text": words(1)}), ("post", 2, {"text": words(2)}),
                     ("line", {"delete": {"status": {"id_str": "1"}}}), ("until_gone",)]])
    (tmp_path / "rules").write_text("zoloft\n")
    stream = Stream(tmp_path, "--token-file", secret(tmp_path, "token", fake.TOKEN),
                    "--rules-file", "rules", "--mode", "full", "x:" + server.url)
    until(lambda: stream.keys() == {"x:2": 1}, "one post")
    stream.end()
    assert all(c.ended_cleanly for c in server.connections)
    server.stop()


def test_mastodon_into_the_store(tmp_path):
    server = FakeMastodon([[
        *[("event", "update", status(i, words(i))) for i in range(1, 6)],
        ("event", "status.update", status(2, words(9), edited_at="2026-01-03T00:00:00Z")),
        ("event", "delete", "3"), ("event", "notification", {}), ("rst",)],
        [("event", "update", status(5, words(5))), ("event", "update", status(6, words(6))),
         ("until_gone",)]])
    stream = Stream(tmp_path, "--token-file", secret(tmp_path, "token", fake_mastodon.TOKEN),
                    "mastodon:" + server.url)
    expected = {"mastodon:1": 1, "mastodon:2": 1767398400000, "mastodon:4": 1, "mastodon:5": 1,
                "mastodon:6": 1}
    until(lambda: stream.keys() == expected, "the posts")
    stream.end()
    with sqlite3.connect(f"file:{tmp_path}/vigil.db?mode=ro", uri=True) as db:
        # A link names who wrote it: not in this mode.
        assert db.execute("SELECT count(*) FROM posts WHERE url <> '' OR author LIKE 'http%'"
                          ).fetchone() == (0,)
    assert server.violations == []
    server.stop()
