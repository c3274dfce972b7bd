# SPDX-License-Identifier: Apache-2.0
"""The Jetstream source against a fake that keeps to the protocol, one that does not, by seed,
and one that is not ours (python3-websockets); then with the whole of vigil stream. Waits are
not slept through: they are a hundredth or less of the real ones."""
import asyncio
import json
import pathlib
import re
import sqlite3
import subprocess
import threading
import time

import pytest
from serving import BIN, MARK, PATIENCE
from sourcing import Source, until

from fakes.jetstream import COLLECTION, Jetstream, Mischief, event, posts, tid
from fakes.wire import certificate

STEP_US = 300_000  # between posts: the rewind of 3 s is then ten of them


@pytest.fixture
def jetstream():
    """jetstream(server, ...): the source against that server; both are stopped behind the test."""
    running = []

    def one(*servers, target=None, **settings):
        settings.setdefault("allows_plain", not servers[0].context)
        settings.setdefault("scale", 0.01)
        source = Source("jetstream", target or ",".join(server.url for server in servers), **settings)
        running.append((servers, source))
        return source

    yield one
    for servers, source in running:
        source.kill()
        for server in servers:
            server.stop()
    for servers, source in running:
        for server in servers:
            assert server.problems == []


def what_is_left(source):
    """({native id: text}, {native id}) after all that came, by the newest version of each."""
    newest = {}
    for line in list(source.lines):
        post = line.get("post")
        if post and post["action"] != "nothing":
            known = newest.get(post["native_id"])
            if not known or post["version"] >= known["version"]:
                newest[post["native_id"]] = post
    return ({key: post["text"] for key, post in newest.items() if post["action"] == "put"},
            {key for key, post in newest.items() if post["action"] == "delete"})


def came_through(source, left, gone):
    source.wait(lambda: what_is_left(source) == (left, gone), "what the server told",
                seconds=PATIENCE)


def test_posts_updates_and_deletes(jetstream):
    made, left, gone = posts(300, seed=1, step_us=STEP_US, updates=0.1, deletes=0.1, others=0.2,
                             text=f"post {{n}} {MARK} \U0001f48a")
    server = Jetstream(made)
    source = jetstream(server, cursor=made[0]["time_us"])
    source.wait_lines(len(made))
    came_through(source, left, gone)
    assert len(source.lines) == len(made) and gone
    assert [json.loads(line["line"]) for line in source.lines] == made
    assert not any("dead" in line for line in source.lines)
    times = [each["time_us"] for each in made]
    assert [int(line["cursor"]) for line in source.lines] == times
    end = source.stop()
    assert (end["connects"], end["disconnects"], end["errors"], end["gaps"]) == (1, 0, 0, 0)
    assert server.n_closed_by_client == 1  # with a close frame
    # What is counted of accounts says no name.
    gone_accounts = sum(each["kind"] == "account" for each in made)
    assert f"{gone_accounts} accounts" in "\n".join(source.log)
    assert "did:plc" not in "\n".join(source.log)


def test_live_and_pings(jetstream):
    server = Jetstream(ping_s=0.02)
    source = jetstream(server)
    source.wait(lambda: "streaming" in source.phase_names())
    assert "cursor" not in server.requests[0]["query"]
    made, left, gone = posts(5, start_us=time.time_ns() // 1000)
    server.add(*made)
    came_through(source, left, gone)
    time.sleep(0.2)  # pings on a quiet line, and their pongs
    assert len(server.requests) == 1


@pytest.mark.parametrize("seed", range(6))
def test_mischief(jetstream, seed):
    made, left, gone = posts(250, seed=seed, step_us=STEP_US, updates=0.1, deletes=0.1, others=0.1,
                             text=f"post {{n}} {MARK}")
    mischief = Mischief(seed, breaks=0.05, junk=0.03, silence=0.2)
    server = Jetstream(made, mischief)
    source = jetstream(server, cursor=made[0]["time_us"], scale=0.002)
    came_through(source, left, gone)
    assert mischief.n_broken > 5
    end = source.stop()
    assert end["gaps"] == 0
    assert end["connects"] > 1


def test_tls(jetstream, tmp_path):
    crt, key = certificate(tmp_path)
    made, left, gone = posts(300, step_us=STEP_US)
    server = Jetstream(made, Mischief(3, breaks=0.03, limit=10), tls=(crt, key))
    source = jetstream(server, ca_file=crt, cursor=made[0]["time_us"])
    came_through(source, left, gone)
    assert source.stop()["end"] == "cancelled"
    assert set(server.alpn) == {"http/1.1"}  # h2 was on offer


def test_a_certificate_that_is_not_trusted(jetstream, tmp_path):
    crt, key = certificate(tmp_path)
    server = Jetstream(posts(3)[0], tls=(crt, key))
    source = jetstream(server, scale=0.001)
    source.wait(lambda: sum("jetstream_lost" in line for line in source.log) > 2, "tries")
    assert not source.lines and not server.requests
    assert "certificate" in "\n".join(source.log).lower()
    source.stop()


def test_a_gap_is_told_with_its_length(jetstream):
    made, left, gone = posts(100, step_us=10_000_000)
    server = Jetstream(made, lookback_us=300 * 10 ** 6)  # the last half of them
    source = jetstream(server, cursor=made[0]["time_us"])
    source.wait(lambda: what_is_left(source)[0].keys() >= set(list(left)[-30:]), "the last ones")
    told = [line for line in source.log if "jetstream_gap" in line]
    seconds = (made[-1]["time_us"] - 300 * 10 ** 6 - made[0]["time_us"]) // 10 ** 6
    assert len(told) == 1 and re.search(rf"seconds={seconds}\b", told[0]), told
    assert source.stop()["gaps"] == 1


def test_another_host_takes_over(jetstream):
    made, left, gone = posts(100, step_us=STEP_US)
    first, second = Jetstream(made[:40]), Jetstream(made)
    source = jetstream(first, second, cursor=made[0]["time_us"], scale=0.001)
    source.wait_lines(40)
    first.stop()
    came_through(source, left, gone)
    # The cursor goes back 15 s of the second's clock: all of the first's posts.
    asked = int(second.requests[0]["query"]["cursor"][0])
    assert asked == made[39]["time_us"] - 15 * 10 ** 6
    source.stop()


def test_nobody_is_there_then_somebody(jetstream):
    server = Jetstream([])
    port = server.port
    source = jetstream(server, cursor="2", scale=0.01)
    source.wait(lambda: "streaming" in source.phase_names())
    server.stop()
    source.wait(lambda: sum("jetstream_lost" in line for line in source.log) > 80, "tries")
    waits = [int(re.search(r"wait_ms=(\d+)", line).group(1)) for line in source.log
             if "wait_ms" in line]
    # 250 ms more each time, up to 16 s; a hundredth of it.
    assert waits[0] <= 5 and max(waits) in (159, 160) and waits[:10] == sorted(waits[:10])
    made, left, gone = posts(5)
    again = Jetstream(made, port=port)
    source.wait_lines(3)
    assert again.requests[0]["query"]["cursor"] == ["2"]  # a number of the sequence, as it was
    source.stop()
    again.stop()


def test_stopping_while_nobody_is_there(jetstream):
    server = Jetstream([])
    server.stop()
    source = jetstream(server, scale=1, deadline_ms=60000)
    source.wait(lambda: "jetstream_lost" in "\n".join(source.log), "a try")
    begin = time.monotonic()
    assert source.stop()["end"] == "cancelled"
    assert time.monotonic() - begin < PATIENCE / 2


# ---- A server that is not ours ---------------------------------------------------------------

class Independent:
    """Debian's python3-websockets, in a thread: tells lines, closes after some of them."""

    def __init__(self, lines, breaks_after=None):
        self.lines, self.breaks_after = lines, breaks_after
        self.paths, self.problems, self.context = [], [], None
        self.ready, self.loop = threading.Event(), asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        assert self.ready.wait(PATIENCE)
        self.url = f"ws://127.0.0.1:{self.port}"

    def run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.serve())

    async def serve(self):
        websockets = pytest.importorskip("websockets")
        self.end = asyncio.Event()
        async with websockets.serve(self.tell, "127.0.0.1", 0, ping_interval=0.05,
                                    ping_timeout=10, max_size=100) as server:
            self.port = server.sockets[0].getsockname()[1]
            self.ready.set()
            await self.end.wait()

    async def tell(self, socket, path):
        self.paths.append(path)
        for i, line in enumerate(self.lines):
            if self.breaks_after is not None and i == self.breaks_after:
                self.breaks_after = None
                await socket.close(1012, "restart")
                return
            if i % 10 == 3:  # in fragments
                await socket.send([line[:5], line[5:9], line[9:]])
            else:
                await socket.send(line)
        await socket.ping()
        await socket.wait_closed()
        if socket.close_code not in (1000, 1001):
            self.problems.append(f"closed with {socket.close_code}")

    def stop(self):
        self.loop.call_soon_threadsafe(self.end.set)
        self.thread.join(PATIENCE)


def test_python3_websockets(jetstream):
    made, left, gone = posts(200, seed=5, step_us=STEP_US, updates=0.1, deletes=0.1)
    server = Independent([json.dumps(each) for each in made], breaks_after=120)
    source = jetstream(server, cursor=made[0]["time_us"])
    came_through(source, left, gone)
    time.sleep(0.2)  # a few pings
    assert source.stop()["connects"] == 2
    assert len(server.paths) == 2
    assert all(re.fullmatch(rf"/subscribe\?wantedCollections={re.escape(COLLECTION)}&cursor=\d+", path)
               for path in server.paths)


# ---- The whole of vigil stream -----------------------------------------------------------------

def rows(store, sql):
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as db:
        return db.execute(sql).fetchall()


def stored(store):
    """{native id: text}; None while there is no store yet."""
    try:
        found = rows(store, "SELECT key, text FROM posts")
    except sqlite3.OperationalError:
        return None
    return {key.removeprefix("bsky:"): text for key, text in found}


class Stream:
    def __init__(self, folder, server, *flags, scale="0.002"):
        self.store = folder / "vigil.db"
        self.process = subprocess.Popen(
            [BIN / "vigil-stream", "--mode", "full", "--watch-list", "none", "--languages", "any", "--no-fold",
             "--allow-plain", "--store", self.store, "--seed", "1", "--quiet", *flags,
             f"jetstream:{server.url}"],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={"VIGIL_TEST_TIME_SCALE": scale, "PATH": "/usr/bin:/bin"})

    def stop(self, number=15):
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=PATIENCE)
        assert MARK not in said
        return self.process.returncode, said


def test_the_whole_way_with_kills(tmp_path):
    """Mischief on the wire and kill -9 of the program, over and over: nothing is lost, nothing
    is there twice, what was deleted is gone."""
    # Events of now: without a cursor yet, a run asks from the moment at which it connected.
    made, left, gone = posts(600, seed=11, step_us=STEP_US, updates=0.1, deletes=0.1, others=0.1,
                             start_us=time.time_ns() // 1000 + 5 * 10 ** 6,
                             text=f"post {{n}} {MARK}")
    server = Jetstream([], Mischief(11, breaks=0.02, limit=60), rate=2000)
    stream = Stream(tmp_path, server)
    try:
        until(lambda: server.requests, "a connection")
        time.sleep(0.3)
        server.add(*made)
        until(lambda: stored(stream.store), "a first cursor")  # without one there is no way back
        for _ in range(6):
            time.sleep(0.25)
            stream.stop(9)
            n_before = len(server.requests)
            stream = Stream(tmp_path, server)
        until(lambda: len(server.requests) > n_before, "the last one's connection")
        until(lambda: stored(stream.store) == left, "what the server told", 20)
        code, said = stream.stop()
        assert code == 0, said
    finally:
        stream.process.kill()
        server.stop()
    assert server.problems == []
    assert stored(stream.store) == left
