# SPDX-License-Identifier: Apache-2.0
"""A fake Mastodon instance: /api/v2/instance, streams of server-sent events from a script, and
timelines: pages of `statuses`, from min_id on, the newest first.

A script is a list of plans, one for each time a stream is asked for; the last one goes on
serving; a dict has a script for each path below /api/v1/streaming/. Steps, besides those of
fakes/x.py that have the same names ("status", "split", "slow", "sleep", "close", "rst",
"unanswered", "silence"):

    ("event", name, data)   data is a str or is made JSON; ("raw", bytes) anything
    ("thump",)              a heartbeat
    ("until_gone",)         heartbeats until the client leaves
    ("live", n)             n of `published` (statuses, or pairs of an event's name and its
                            data, in which bytes that are no UTF-8 are surrogates), with
                            mischief by seed
"""
import json
import random
import time
import urllib.parse

from fakes.wire import Gone, Wire

TOKEN = "TOKEN-qzmark7731"


def status(number, text="hello", **more):
    """A status as the API shows it."""
    whole = {"id": str(number), "created_at": "2026-01-02T03:04:05.678Z", "edited_at": None,
             "visibility": "public", "language": "en", "spoiler_text": "",
             "uri": f"https://m.example/users/ann/statuses/{number}",
             "url": f"https://m.example/@ann/{number}", "content": f"<p>{text} {number}</p>",
             "reblog": None, "account": {"id": "7", "username": "ann", "acct": "ann@m.example",
                                         "url": "https://m.example/@ann", "fields": []}}
    whole.update(more)
    return whole


class FakeMastodon(Wire):
    def __init__(self, script=None, *, tls=None, seed=1, instance=None,
                 instance_answers=(), until_read=False):
        super().__init__(self._handle, tls, seed)
        self.script = script or [[("until_gone",)]]
        self.instance = instance  # None: names itself as ws(s)://
        self.instance_answers = list(instance_answers)  # codes before the good one
        self.connects, self.published, self.given = [], [], 0
        self.statuses, self.pages = [], []  # what timelines have; which were asked for
        self.timeline_answers = []  # codes before the good ones
        self.random = random.Random(seed)
        self.until_read = until_read  # the client has all of it before a connection ends

    def _handle(self, request, connection):
        if not request.headers.get("user-agent", "").startswith("vigil/"):
            self.violation(f"{request}: User-Agent")
        if request.path == "/api/v2/instance":
            if "authorization" in request.headers:
                self.violation(f"{request}: a token where none is asked for")
            if self.instance_answers:
                return connection.answer(self.instance_answers.pop(0), b"{}")
            what = self.instance
            if what is None:
                what = {"configuration": {"urls": {"streaming": self.url.replace("http", "ws")}}}
            return connection.answer(200, what if isinstance(what, bytes)
                                     else json.dumps(what).encode())
        if request.path.startswith("/api/v1/timelines/"):
            return self._timeline(request, connection)
        prefix = "/api/v1/streaming/"
        if not request.path.startswith(prefix) or request.method != "GET":
            self.violation(f"{request}: no such page")
            return connection.answer(404)
        if request.headers.get("accept") != "text/event-stream":
            self.violation(f"{request}: Accept")
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return connection.answer(401, b'{"error":"Missing access token"}')
        with self.lock:
            self.connects.append((request.at, request.target[len(prefix):]))
            script = self.script
            if isinstance(script, dict):
                script = script[request.path[len(prefix):]]
            plan = script[0] if len(script) == 1 else script.pop(0)
        return self._play(plan, connection)

    def _timeline(self, request, connection):
        query = dict(urllib.parse.parse_qsl(request.target.partition("?")[2]))
        if request.headers.get("authorization") != f"Bearer {TOKEN}" or request.method != "GET":
            return connection.answer(401, b'{"error":"Missing access token"}')
        if not 1 <= int(query.get("limit", 20)) <= 40 or not query.get("min_id", "0").isdigit():
            self.violation(f"{request}: limit, min_id")
        with self.lock:
            self.pages.append(request.target[len("/api/v1/timelines/"):])
            if self.timeline_answers:
                return connection.answer(self.timeline_answers.pop(0), b"{}")
            behind = [s for s in self.statuses if int(s["id"]) > int(query["min_id"])]
        page = sorted(behind, key=lambda s: int(s["id"]))[:int(query["limit"])]
        return connection.answer(200, json.dumps(page[::-1]).encode())

    def _play(self, plan, connection):
        begun, how = False, {}
        for step in plan:
            what = step[0]
            if what == "status":
                return connection.answer(step[1], step[2] if len(step) > 2 else b"{}",
                                         step[3] if len(step) > 3 else ())
            if what == "unanswered":
                connection.sleep(3600)
            if not begun:
                connection.begin_stream("text/event-stream")
                begun = True
            if what == "event":
                data = step[2] if isinstance(step[2], str) else json.dumps(step[2])
                connection.chunk(f"event: {step[1]}\ndata: {data}\n\n".encode(), **how)
            elif what == "raw":
                connection.chunk(step[1], **how)
            elif what == "thump":
                connection.chunk(b":thump\n", **how)
            elif what == "sleep":
                connection.sleep(step[1])
            elif what == "split":
                how = {"split": True}
            elif what == "slow":
                how = {"slow_s": step[1]}
            elif what == "rst":
                time.sleep(0.05)
                connection.reset()
            elif what == "close":
                connection.send(b"0\r\n\r\n")
                return False
            elif what == "until_gone":
                while True:
                    connection.chunk(b":thump\n")
                    connection.sleep(0.02)  # often enough for any scale and a busy machine
            elif what == "silence":
                connection.sleep(3600)
            elif what == "live":
                self._live(connection, step[1])
        return False

    def _live(self, connection, n):
        """What a stream may do that loses nothing: any split, duplicates, comments, events
        that nobody knows, ids, all three ends of lines; then an end of some kind."""
        chance = self.random
        for _ in range(n):
            with self.lock:
                if self.given == len(self.published):
                    break
                one = self.published[self.given]
                self.given += 1
            name, one = one if isinstance(one, tuple) else ("update", one)
            data = one if isinstance(one, str) else json.dumps(one)
            end = chance.choice(("\n", "\r\n", "\r"))
            fields = [f"event: {name}{end}", f"data: {data}{end}"]
            if chance.random() < 0.3 and isinstance(one, dict):
                fields.insert(0, f"id:{one['id']}{end}")
            if chance.random() < 0.3:
                fields.reverse()
            text = "".join(fields) + end
            if chance.random() < 0.1:
                text += text
            if chance.random() < 0.2:
                text = f":thump{end}{end}" + text
            if chance.random() < 0.1:
                text = f"event: announcement{end}data: {{}}{end}{end}" + text
            connection.chunk(text.encode("utf-8", "surrogateescape"), split=chance.random() < 0.5)
        ending = chance.choice(("close", "rst", "silence", "half an event"))
        if self.until_read:
            self._wait_read(connection)
        else:
            time.sleep(0.05)
        if ending == "half an event":
            connection.chunk(b"event: update\ndata: {\"id\":")
        if ending == "silence":
            connection.sleep(5)
        if ending != "close":
            connection.reset()
        connection.send(b"0\r\n\r\n")
        raise Gone

    @staticmethod
    def _wait_read(connection):
        """Until nothing lies in the client's socket: a reset would take it away."""
        ours, theirs = (f"{port:04X}" for port in (connection.socket.getsockname()[1],
                                                   connection.socket.getpeername()[1]))
        for _ in range(1000):
            with open("/proc/net/tcp", encoding="ascii") as file:
                rows = [line.split() for line in file.readlines()[1:]]
            waiting = [row[4] for row in rows
                       if {row[1][-4:], row[2][-4:]} == {ours, theirs} and row[4] != "00000000:00000000"]
            if not waiting:
                time.sleep(0.02)  # what was read is handed on
                return
            time.sleep(0.01)
