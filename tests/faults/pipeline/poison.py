# SPDX-License-Identifier: Apache-2.0
"""Lines that cannot be read, or that want to do harm, among good posts, from each kind of
source: each is stored, is a dead letter, or (pushed) was refused to who sent it; and the next
good post goes on at once.
"""
import http.client
import json
import os
import re
import time

import checker
from classifier import Classifier
from fakes import jetstream as fake_jetstream
from fakes import mastodon as fake_mastodon
from fakes import x as fake_x
from fakes.jetstream import Jetstream
from fakes.mastodon import FakeMastodon
from fakes.x import FakeX
from ground import BIN, Ground, free_port, until, wait_for_port
from posts import Ledger, ToJetstream, text
from sourcing import secret

ON_S = 1.0    # within which the next post has to be there …
BUSY_S = 4.0  # … and what a machine may need that does other things too
POISON = re.compile(r"poison(\d+)z")
LONG = "x" * (2 << 20)


def poisons(make):
    """(name, bytes) of each. make(words): the line of a good post, as bytes."""
    def words(k):
        return f"zoloft poison{k}z of {k * 77} words w{k}"
    yield "NUL escaped", make(words(0) + " @@").replace(b"@@", b"\\u0000")
    yield "lone surrogate", make(words(1) + " @@").replace(b"@@", b"\\ud800 here")
    yield "2 MB", make(words(2) + " " + LONG)
    yield "bad UTF-8", make(words(3) + " @@").replace(b"@@", b"\xff\xc3(")
    yield "bad JSON", make(words(4))[:-9]
    yield "NUL bytes", b"\0\0\0" + make(words(5))
    yield "deep", b'{"data":' + b"[" * 100000
    yield "big number", make(words(7)).replace(b'"en"', b"1" * 400)


class Feed:
    """A source that can be given a good post (its number) or bytes."""
    refused = 0
    cannot_say = ()  # poisons that the protocol itself has no way to carry


class Lines(Feed):
    """A file that is followed, or a pipe."""

    def __init__(self, ground, is_pipe):
        path = ground.folder / "lines"
        more = {}
        if is_pipe:
            os.mkfifo(path)
            command = ["/bin/sh", "-c", 'exec "$0" "$@" <lines', BIN / "vigil-stream"]
            more, words = {"command": command}, ("--format", "jsonl", "--name", "pipe", "-")
        else:
            path.touch()
            words = ("--follow", "--format", "jsonl", "lines")
        self.stream = ground.stream(*words, **more)
        self.file = open(path, "ab", buffering=0)
        self.is_pipe = is_pipe

    def line(self, words, number=None):
        return json.dumps({"id": str(number if number is not None else words[7:15]), "text": words,
                           "lang": "en"}).encode()

    def give(self, data):
        self.file.write(data + b"\n")

    def good(self, n):
        self.give(self.line(text(n), n))

    def end(self):
        self.file.close()
        if self.is_pipe:
            self.stream.finish()
        else:
            self.stream.stop()


class Push(Feed):
    def __init__(self, ground):
        self.port = free_port()
        self.stream = ground.stream("--name", "push", f"push:127.0.0.1:{self.port}", scale=1)
        wait_for_port(self.port)

    line = Lines.line

    def give(self, data):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", "/v1/posts", data, {"Content-Type": "application/json"})
        code = connection.getresponse().status
        connection.close()
        self.refused += 400 <= code < 429
        return code

    def good(self, n):
        code = self.give(self.line(text(n), n))
        if code != 200:
            raise RuntimeError(f"a good post was answered {code}")

    def end(self):
        self.stream.stop()


class X(Feed):
    def __init__(self, ground):
        self.source = FakeX([[("calm",)]])
        ground.until_closed(self.source.stop)
        (ground.folder / "rules").write_text("(zoloft OR sertraline) lang:en\n")
        self.stream = ground.stream("--name", "x", "--token-file",
                                    secret(ground.folder, "token", fake_x.TOKEN), "--rules-file", "rules",
                                    "--mode", "pseudonymous", "x:" + self.source.url, scale=0.1)
        until(lambda: self.source.connects)
        time.sleep(0.3)  # from now on it hears what is published
        self.at = time.time() - 80000

    def line(self, words):
        self.at += 5
        return json.dumps(fake_x.post(fake_x.id_of(self.at), text=words)).encode()

    def give(self, data):
        with self.source.lock:
            self.source.live.append((0, data))

    def good(self, n):
        self.give(self.line(text(n)))

    def end(self):
        self.stream.stop()


class FromJetstream(Feed):
    # A text frame that is no UTF-8 ends a WebSocket's connection (RFC 6455, 8.1), each time.
    cannot_say = ("bad UTF-8",)

    def __init__(self, ground):
        self.source = Jetstream()
        ground.until_closed(self.source.stop)
        self.to = ToJetstream(self.source, 1)
        self.stream = ground.stream("--name", "jetstream", "jetstream:" + self.source.url, scale=0.1)
        until(lambda: self.source.requests)
        time.sleep(0.3)
        self.n = 0

    def line(self, words):
        self.n += 1
        self.to.now_us += 20000
        return json.dumps(fake_jetstream.event(
            "did:plc:" + "a" * 24, self.to.now_us, "create", fake_jetstream.tid((1 << 61) + self.n),
            fake_jetstream.tid(self.to.now_us << 10),
            {"$type": fake_jetstream.COLLECTION, "text": words, "langs": ["en"],
             "createdAt": "2026-01-02T03:04:05Z"})).encode()

    def give(self, data):
        self.source.add(fake_jetstream.Raw(self.to.now_us, data))

    def good(self, n):
        self.give(self.line(text(n)))

    def end(self):
        self.stream.stop()


class Mastodon(Feed):
    def __init__(self, ground):
        self.source = FakeMastodon([[("live", 10 ** 6)]], until_read=True)
        ground.until_closed(self.source.stop)
        self.stream = ground.stream("--name", "mastodon", "--token-file",
                                    secret(ground.folder, "token", fake_mastodon.TOKEN),
                                    "mastodon:" + self.source.url)
        until(lambda: self.source.connects)
        self.n = 0

    def line(self, words):
        self.n += 1
        return json.dumps(fake_mastodon.status(10 ** 6 + self.n, content=f"<p>{words}</p>")).encode()

    def give(self, data):
        with self.source.lock:
            self.source.published.append(("update", data.decode("utf-8", "surrogateescape")))

    def good(self, n):
        self.give(self.line(text(n)))

    def end(self):
        self.stream.stop()


def there(store):
    """(numbers of good posts, numbers of poisons that are posts)."""
    rows = [row["text"] for row in checker.query(store, "SELECT text FROM posts")]
    return ({int(checker.TOKEN.search(words)[1]) for words in rows if checker.TOKEN.search(words)},
            [int(POISON.search(words)[1]) for words in rows if POISON.search(words)])


def has(store, n):
    try:
        return n in there(store)[0]
    except RuntimeError:
        return False


def leg(ground, kind, feed):
    outcome = ground.outcome
    model = Classifier(counts=False)
    ground.until_closed(model.close)
    ledger, longest, n = Ledger(), 0.0, 0
    feed.good(0)
    ledger.alive[0] = 1
    if not until(lambda: has(ground.store, 0), 30):
        outcome.is_wrong(f"{kind}: not even a good post comes through: {feed.stream.tail()}")
        return
    worker = ground.worker(0, model.port)
    names = []
    for name, data in poisons(feed.line):
        if name in feed.cannot_say:
            continue
        names.append(name)
        feed.give(data)
        n += 1
        begin = time.monotonic()
        feed.good(n)
        ledger.alive[n] = 1
        come = until(lambda: has(ground.store, n), 20)
        longest = max(longest, time.monotonic() - begin)
        if not come:
            outcome.lost += 1
            outcome.note(f"{kind}: nothing came behind {name}: {feed.stream.tail()}")
            return
        outcome.check(time.monotonic() - begin <= ON_S + BUSY_S,
                      f"{kind}: {time.monotonic() - begin:.1f} s behind {name}")
    outcome.faults += len(names)
    until(lambda: checker.counts(ground.store)["queue"] == 0 and checker.counts(ground.store)["raw"] == 0, 20)
    posts = checker.query(ground.store, "SELECT id, key, version, text, n_reposts FROM posts")
    stored = [POISON.search(row["text"])[1] for row in posts if POISON.search(row["text"])]
    found = checker.Findings()
    good = checker.check_posts([row for row in posts if not POISON.search(row["text"])], ledger, found)
    results = checker.query(ground.store, "SELECT post_id, version, model_sha256, probability FROM results")
    checker.check_results(posts, results, good, {checker.classifier.SHA256},
                          checker.classifier.probability, found)
    letters = checker.query(ground.store, "SELECT stage, reason FROM dead_letters")
    n_dead = len(letters)
    for row in letters:
        if "poison" in row["reason"] or "zoloft" in row["reason"]:
            found.add("wrong", "a reason says what the post says")
    if len(set(stored)) != len(stored):
        found.add("doubled", f"{kind}: poison is there twice: {sorted(stored)}")
    account = len(set(stored)) + n_dead + feed.refused
    if account < len(names):
        found.add("lost", f"{kind}: of {len(names)} poisons {len(stored)} are stored ({sorted(stored)}), "
                          f"{n_dead} dead, {feed.refused} refused", len(names) - account)
    if account > len(names):
        found.add("wrong", f"{kind}: {len(names)} poisons, {len(stored)} stored, {n_dead} dead letters, "
                           f"{feed.refused} refused: {[row['reason'] for row in letters]}")
    found.give(outcome)
    outcome.posts += len(ledger.alive) + len(names)
    outcome.figures[f"{kind} on in s"] = round(longest, 2)
    feed.end()
    worker.stop()
    for program in (feed.stream, worker):
        outcome.check("poison" not in program.log(), f"{kind}: a log says what a post says")


KINDS = {"file": lambda ground: Lines(ground, False), "pipe": lambda ground: Lines(ground, True),
         "push": Push, "x": X, "jetstream": FromJetstream, "mastodon": Mastodon}


def run(outcome, _tier):
    for kind, make in KINDS.items():
        with Ground(outcome) as ground:
            leg(ground, kind, make(ground))
