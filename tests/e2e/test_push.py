# SPDX-License-Identifier: Apache-2.0
"""HTTP push: the source behind its listener, and with the whole of vigil stream: an answer 200
means that the posts are in the store."""
import http.client
import json
import re
import socket
import sqlite3
import subprocess
import threading
import time

import pytest
from serving import BIN, MARK, PATIENCE
from sourcing import Source, until

KEY = "a-key-for-those-who-push"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def send(port, body, content_type="application/json", **headers):
    """(code, answer, headers)"""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    if not isinstance(body, (str, bytes)):
        body = json.dumps(body)
    connection.request("POST", "/v1/posts", body, {"Content-Type": content_type, **headers})
    answer = connection.getresponse()
    data = json.loads(answer.read())
    connection.close()
    assert MARK not in json.dumps(data)
    return answer.status, data, answer.headers


@pytest.fixture
def push():
    running = []

    def one(target="127.0.0.1:0", **settings):
        source = Source("push", target, **settings)
        running.append(source)
        source.wait(lambda: any("push_listens" in line for line in source.log), "its port")
        found = re.search(r"port (\d+)", "\n".join(source.log))
        source.port = int(found.group(1))
        return source

    yield one
    for source in running:
        source.kill()


def test_what_is_sent_comes_out(push):
    source = push()
    code, data, _ = send(source.port, {"posts": [{"id": "1", "text": f"a {MARK}"}, f"b {MARK}"]})
    assert (code, data) == (200, {"accepted": 2})
    lines = '{"id":"3","text":"c"}\n\n{"id":"1","deleted":true}\n'
    assert send(source.port, lines, "application/x-ndjson")[:2] == (200, {"accepted": 2})
    assert send(source.port, '{"text":"\\ud800"}')[0] == 200  # a dead letter, and told apart
    source.wait_lines(5)
    assert [post["text"] for post in source.posts()] == [f"a {MARK}", f"b {MARK}", "c"]
    assert [post["native_id"] for post in source.posts("delete")] == ["1"]
    assert "dead" in source.lines[4]
    assert [line["cursor"] for line in source.lines] == ["1", "2", "3", "4", "5"]
    source.stop()


@pytest.mark.parametrize("body, content_type, code, kind, says", [
    ("{}", "text/plain", 415, "unsupported_media_type", "application/json"),
    ("", "application/json", 400, "malformed", "post 1"),
    ("[]", "application/json", 400, "malformed", "post 1"),
    (f'{{"text":"{MARK}"', "application/json", 400, "malformed", "post 1 is not JSON"),
    (f'{{"posts":[{{}},"{MARK}]}}', "application/json", 400, "malformed", "not JSON"),
    (f'{{}}\n{MARK}\n', "application/jsonlines", 400, "malformed", "line 2"),
    (b'{}\n"\xff"\n', "application/jsonlines", 400, "malformed", "line 2 is not JSON"),
    ('"' + "x" * (1 << 20) + '"', "application/json", 413, "too_large", "post 1"),
    ("x" * (7 << 20), "application/json", 413, "too_large", "body"),
], ids=lambda value: str(value)[:20])
def test_refused(push, body, content_type, code, kind, says):
    source = push()
    got, data, _ = send(source.port, body, content_type)
    assert (got, data["error_type"]) == (code, kind)
    assert says in data["error"]
    assert send(source.port, '"still there"')[0] == 200
    source.wait_lines(1)
    source.stop()
    assert len(source.lines) == 1


def test_keys(push, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY} feeder\n")
    keys.chmod(0o600)
    source = push("0.0.0.0:0", push_keys=keys)
    code, data, headers = send(source.port, '"a"')
    assert (code, data["error_type"]) == (401, "unauthorized")
    assert headers["WWW-Authenticate"] == "Bearer"
    assert send(source.port, '"a"', Authorization=f"Bearer {KEY}")[0] == 200
    assert send(source.port, '"a"', **{"X-API-Key": KEY})[0] == 200
    source.stop()
    refused = Source("push", "0.0.0.0:0")
    refused.wait(lambda: refused.end, "a refusal")
    assert refused.end["end"] == "invalid" and "keys" in refused.end["message"]


def test_many_at_once(push):
    source = push()
    codes = []

    def sender(n):
        for i in range(20):
            codes.append(send(source.port, {"posts": [{"id": f"{n}.{i}.{k}", "text": "x"}
                                                      for k in range(5)]})[0])
    threads = [threading.Thread(target=sender, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [200] * 160
    source.wait_lines(800)
    assert len({post["native_id"] for post in source.posts()}) == 800
    source.stop()


# ---- The whole of vigil stream -----------------------------------------------------------------

class Stream:
    def __init__(self, folder, port):
        self.store, self.port = folder / "vigil.db", port
        self.process = subprocess.Popen(
            [BIN / "vigil-stream", "--mode", "full", "--watch-list", "none", "--languages", "any",
             "--no-fold", "--quiet", "--store", self.store, f"push:127.0.0.1:{port}"],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def stop(self, number=15):
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=PATIENCE)
        assert MARK not in said
        return self.process.returncode, said

    def is_up(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False


def stored(store):
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as db:
        return sorted(key for key, in db.execute("SELECT key FROM posts"))


def spooled(store):
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as db:
        return db.execute("SELECT count(*) FROM raw").fetchone()[0]


def test_accepted_means_stored_whatever_is_killed(tmp_path):
    """A feeder that sends again what was not answered with 200, and kill -9 in between."""
    port = free_port()
    stream = Stream(tmp_path, port)
    accepted, ended = set(), threading.Event()

    def feed(feeder):
        n = 0
        while not ended.is_set():
            ids = [f"{feeder}.{n}.{k}" for k in range(3)]
            body = {"posts": [{"id": one, "text": f"post {one} {MARK}"} for one in ids]}
            while True:
                try:
                    if send(port, body)[0] == 200:
                        accepted.update(ids)
                        break
                except (OSError, http.client.HTTPException, ValueError):
                    pass
                if ended.wait(0.01):
                    return
            n += 1

    feeders = [threading.Thread(target=feed, args=(n,)) for n in range(4)]
    try:
        until(stream.is_up, "the listener")
        for thread in feeders:
            thread.start()
        for _ in range(5):
            before = len(accepted)
            until(lambda: len(accepted) > before + 30, "accepted posts")
            stream.stop(9)
            stream = Stream(tmp_path, port)
        until(stream.is_up, "the listener")
        before = len(accepted)
        until(lambda: len(accepted) > before + 30, "accepted posts")
        ended.set()
        for thread in feeders:
            thread.join()
        until(lambda: spooled(stream.store) == 0, "an empty spool")
        code, said = stream.stop()
        assert code == 0, said
    finally:
        ended.set()
        stream.process.kill()
    keys = stored(stream.store)
    assert len(keys) == len(set(keys))
    assert {f"push:{one}" for one in accepted} <= set(keys)
