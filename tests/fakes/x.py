# SPDX-License-Identifier: Apache-2.0
"""A fake of X's API v2: OAuth 2 tokens, the rules and the stream of the filtered stream, the
recent search. It answers from a script, checks what the client sends, and writes down what
was wrong (`violations`) and when the stream was asked for (`connects`).

A script is a list of plans, one for each time the stream is asked for; the last one goes on
serving. A plan is a list of steps:

    ("status", 503, body, headers)   this answer instead of a stream
    ("post", id, {more fields})      a post; ("line", bytes) anything
    ("keepalive",)                   \\r\\n
    ("sleep", seconds)               nothing for a while
    ("split",) ("slow", seconds)     from here on in small pieces, with pauses between them
    ("close",) ("rst",)              the end, in an orderly way or not
    ("cut", bytes)                   the beginning of a line, then a reset
    ("unanswered",)                  the request is read and nothing is said
    ("until_gone",)                  keep-alives until the client leaves
    ("silence",)                     the same without them
    ("live",)                        posts as publish() makes them, and mischief (see Mischief)
    ("calm",)                        the same without mischief
"""
import base64
import json
import random
import threading
import time

from fakes.wire import Gone, Wire

TOKEN = "TOKEN-qzmark7731"
KEY, SECRET = "app-key", "app-secret-qzmark7731"
ID_EPOCH_MS = 1288834974657
FIELDS = ("author_id", "created_at", "edit_history_tweet_ids", "lang", "referenced_tweets",
          "note_tweet", "geo")

PROBLEM = "https://api.twitter.com/2/problems/"
TOO_MANY = {"title": "ConnectionException", "connection_issue": "TooManyConnections",
            "detail": "This stream is currently at the maximum allowed connection limit.",
            "type": PROBLEM + "streaming-connection"}
TOO_MANY_REQUESTS = {"title": "Too Many Requests", "detail": "Too Many Requests",
                     "type": "about:blank", "status": 429}


def disconnect(kind="UpstreamOperationalDisconnect"):
    return {"errors": [{"title": "operational-disconnect", "disconnect_type": kind,
                        "detail": "This stream has been disconnected upstream for operational "
                                  "reasons.",
                        "type": PROBLEM + "operational-disconnect"}]}


def id_of(seconds):
    """The id of a post of that moment (seconds since 1970)."""
    return (int(seconds * 1000) - ID_EPOCH_MS) << 22


def post(number, **more):
    """The object that the stream sends for a post."""
    data = {"id": str(number), "text": f"post {number}", "author_id": "42", "lang": "en",
            "created_at": "2026-01-02T03:04:05.000Z", "edit_history_tweet_ids": [str(number)]}
    data.update(more)
    return {"data": data, "includes": {"users": [{"id": "42", "username": "somebody",
                                                  "location": "Austin, TX"}]},
            "matching_rules": [{"id": "1", "tag": "vigil:x"}]}


def line_of(whole):
    """As the stream has it; bytes are told as they are."""
    return (whole if isinstance(whole, bytes) else json.dumps(whole).encode()) + b"\r\n"


def is_parenthesised(value):
    """No OR stands beside something else outside of parentheses."""
    depth, quoted, words = 0, False, []
    for word in value.replace("(", " ( ").replace(")", " ) ").split():
        quoted ^= word.count('"') % 2 == 1
        if word in "()" and not quoted:
            depth += 1 if word == "(" else -1
        elif depth == 0:
            words.append(word)
    return depth == 0 and not ("OR" in words and len(words) > 2)


class Mischief:
    """How a live stream misbehaves, by seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def is_time(self, share):
        return self.random.random() < share


class FakeX(Wire):
    def __init__(self, script=None, *, tls=None, seed=1, rules=(), page=1000, one_stream=False,
                 max_query=512, search_limits=()):
        super().__init__(self._handle, tls, seed)
        self.script = list(script or [[("until_gone",)]])
        self.rules = {str(1000 + i): dict(rule) for i, rule in enumerate(rules)}
        self.page, self.one_stream, self.max_query = page, one_stream, max_query
        self.search_limits = list(search_limits)  # (code, headers) for the first searches
        self.next_rule = 2000
        self.connects = []       # monotonic times
        self.n_streams = 0       # open now
        self.n_at_once = 0       # most at once
        self.history = {}        # id: post, what the search finds
        self.searches, self.dry_runs, self.live = [], [], []
        self.mischief = Mischief(seed)
        self.token_answers = []  # (code, body) before good ones
        self.wake = threading.Condition()

    # ---- the API ----

    def _problem(self, connection, code, what, headers=()):
        return connection.answer(code, json.dumps(what).encode(), headers)

    def _handle(self, request, connection):
        if request.headers.get("user-agent", "").startswith("vigil/") is False:
            self.violation(f"{request}: User-Agent")
        if request.path == "/oauth2/token":
            return self._token(request, connection)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            if "expected_401" not in self.__dict__:
                self.violation(f"{request}: Authorization")
            return self._problem(connection, 401, {"title": "Unauthorized", "status": 401})
        if request.path == "/2/tweets/search/stream/rules":
            return self._rules(request, connection)
        if request.path == "/2/tweets/search/stream" and request.method == "GET":
            return self._stream(request, connection)
        if request.path == "/2/tweets/search/recent" and request.method == "GET":
            return self._search(request, connection)
        self.violation(f"{request}: no such page")
        return self._problem(connection, 404, {"title": "Not Found Error"})

    def _token(self, request, connection):
        expected = "Basic " + base64.b64encode(f"{KEY}:{SECRET}".encode()).decode()
        if request.method != "POST" or request.headers.get("authorization") != expected:
            self.violation(f"{request}: wrong key")
            return self._problem(connection, 403, {"errors": [{"code": 99}]})
        if not request.headers.get("content-type", "").startswith(
                "application/x-www-form-urlencoded") or \
                request.body != b"grant_type=client_credentials":
            self.violation(f"{request}: body or type of the token request")
        if self.token_answers:
            code, body = self.token_answers.pop(0)
            return self._problem(connection, code, body)
        return self._problem(connection, 200, {"token_type": "bearer", "access_token": TOKEN})

    def _rules(self, request, connection):
        if request.method == "GET":
            begin = int(request.query.get("pagination_token", "p0")[1:])
            some = list(self.rules.items())[begin:begin + self.page]
            answer = {"meta": {"result_count": len(some), "sent": "2026-01-01T00:00:00Z"}}
            if some:
                answer["data"] = [{"id": i, **rule} for i, rule in some]
            if begin + self.page < len(self.rules):
                answer["meta"]["next_token"] = f"p{begin + self.page}"
            return self._problem(connection, 200, answer)
        if request.headers.get("content-type") != "application/json":
            self.violation(f"{request}: Content-Type of rules")
        body = json.loads(request.body)
        if set(body) not in ({"add"}, {"delete"}):
            self.violation(f"{request}: body {sorted(body)}")
        is_dry = request.query.get("dry_run") == "true"
        if "delete" in body:
            for number in body["delete"]["ids"]:
                if number not in self.rules:
                    self.violation(f"deleted rule {number}, which there is not")
                elif not is_dry:
                    del self.rules[number]
            return self._problem(connection, 200, {"meta": {"summary": {
                "deleted": len(body["delete"]["ids"]), "not_deleted": 0}}})
        data, errors = [], []
        for rule in body["add"]:
            value = rule["value"]
            if len(value) > 1024 or not is_parenthesised(value):
                self.violation(f"rule of {len(value)} bytes, or without parentheses: {value}")
            if any(value == r["value"] for r in self.rules.values()):
                errors.append({"title": "DuplicateRule", "value": value, "id": "1",
                               "type": PROBLEM + "duplicate-rules"})
            elif "refuse-me" in value:
                errors.append({"title": "UnprocessableEntity", "value": value, "id": "",
                               "details": ["Rule is no good"], "type": PROBLEM + "invalid-rules"})
            else:
                self.next_rule += 1
                data.append({"id": str(self.next_rule), **rule})
                if not is_dry:
                    self.rules[str(self.next_rule)] = dict(rule)
        if is_dry:
            self.dry_runs.append(len(body["add"]))
        answer = {"data": data, "meta": {"summary": {
            "created": len(data), "not_created": len(errors), "valid": len(data),
            "invalid": len(errors)}}}
        if errors:
            answer["errors"] = errors
        return self._problem(connection, 201 if data else 200, answer)

    def _search(self, request, connection):
        query = request.query
        self.searches.append(query)
        if len(query.get("query", "")) > self.max_query or not query.get("query"):
            self.violation(f"{request}: query")
        if self.search_limits:
            code, headers = self.search_limits.pop(0)
            return self._problem(connection, code, TOO_MANY_REQUESTS, headers)
        since = int(query.get("since_id", 0))
        if since < id_of(time.time() - 7 * 86400):
            return self._problem(connection, 400, {"title": "Invalid Request"})
        with self.lock:
            found = sorted((i for i in self.history if i > since), reverse=True)
        begin = int(query.get("next_token", "n0")[1:])
        some = found[begin:begin + 10]
        answer = {"meta": {"result_count": len(some)}}
        if some:
            whole = [self.history[i] for i in some]
            answer["data"] = [each["data"] for each in whole]
            answer["includes"] = {"users": whole[0]["includes"]["users"], "tweets": [
                tweet for each in whole for tweet in each["includes"].get("tweets", [])]}
        if begin + 10 < len(found):
            answer["meta"]["next_token"] = f"n{begin + 10}"
        return self._problem(connection, 200, answer)

    # ---- the stream ----

    def _stream(self, request, connection):
        with self.lock:
            self.connects.append(request.at)
            plan = self.script[0] if len(self.script) == 1 else self.script.pop(0)
            is_second = self.one_stream and self.n_streams > 0
            if not is_second:
                self.n_streams += 1
                self.n_at_once = max(self.n_at_once, self.n_streams)
        if is_second:
            return self._problem(connection, 429, TOO_MANY)
        try:
            for name in ("tweet.fields", "expansions", "user.fields"):
                if name not in request.query:
                    self.violation(f"{request}: {name}")
            for field in FIELDS:
                if field not in request.query.get("tweet.fields", "").split(","):
                    self.violation(f"{request}: no field {field}")
            return self._play(plan, connection)
        finally:
            with self.lock:
                self.n_streams -= 1

    def _play(self, plan, connection):
        begun, how = False, {}
        for step in plan:
            what = step[0]
            if what == "status":
                body = step[2] if len(step) > 2 else {"title": "Service Unavailable"}
                headers = step[3] if len(step) > 3 else ()
                return self._problem(connection, step[1], body, headers)
            if what == "unanswered":
                connection.sleep(3600)
            if not begun:
                connection.begin_stream()
                begun = True
            if what == "post":
                number = step[1]
                whole = post(number, **(step[2] if len(step) > 2 else {}))
                connection.chunk(json.dumps(whole).encode() + b"\r\n", **how)
            elif what == "line":
                data = step[1] if isinstance(step[1], bytes) else json.dumps(step[1]).encode()
                connection.chunk(data + b"\r\n", **how)
            elif what == "keepalive":
                connection.chunk(b"\r\n", **how)
            elif what == "sleep":
                connection.sleep(step[1])
            elif what == "split":
                how = {"split": True}
            elif what == "slow":
                how = {"slow_s": step[1]}
            elif what == "cut":
                connection.chunk(step[1])
                time.sleep(0.05)
                connection.reset()
            elif what == "rst":
                time.sleep(0.05)
                connection.reset()
            elif what == "close":
                connection.send(b"0\r\n\r\n")
                return False
            elif what == "until_gone":
                while True:
                    connection.chunk(b"\r\n")
                    connection.sleep(0.02)  # often enough for any scale and a busy machine
            elif what == "silence":
                connection.sleep(3600)
            elif what == "live":
                self._live(connection)
            elif what == "calm":
                self._calm(connection)
        return False

    # ---- live ----

    def publish(self, number, whole):
        """A post appears: the search has it at once, a stream that is up a moment later."""
        with self.lock:
            self.history[number] = whole
            self.live.append((number, whole))
        with self.wake:
            self.wake.notify_all()

    def _calm(self, connection):
        """What is published from now on."""
        with self.lock:
            at = len(self.live)
        while True:
            with self.lock:
                some = self.live[at:]
            at += len(some)
            for _, whole in some:
                connection.chunk(line_of(whole))
            if not some:
                connection.chunk(b"\r\n")
                with self.wake:
                    self.wake.wait(0.01)
                connection.sleep(0)

    def _live(self, connection):
        """What is published from now on, with all that can go wrong: resets within lines,
        silence, duplicates, disorder, keep-alives, messages that nobody knows, fields that
        are missing, gaps. A connection lasts for some dozens of posts."""
        chance = self.mischief
        with self.lock:
            at = len(self.live)
        left = chance.random.randint(20, 60)
        while left > 0 and not self.is_stopping:
            with self.lock:
                some = self.live[at:at + chance.random.randint(1, 5)]
            if not some:
                connection.chunk(b"\r\n")
                with self.wake:
                    self.wake.wait(0.01)
                connection.sleep(0)
                continue
            at += len(some)
            if chance.is_time(0.2):
                chance.random.shuffle(some)
            for number, whole in some:
                left -= 1
                line = line_of(whole)
                if chance.is_time(0.05):
                    connection.chunk(line)
                if chance.is_time(0.05):
                    connection.chunk(b'{"what":{"is":["this"]}}\r\n')
                if chance.is_time(0.05):
                    connection.chunk(b"\r\n")
                if chance.is_time(0.02):
                    connection.chunk(line[:chance.random.randint(1, len(line) - 3)])
                    connection.reset()
                connection.chunk(line, split=chance.is_time(0.3))
        ending = chance.random.choice(("close", "rst", "disconnect", "silence"))
        if ending == "rst":
            connection.reset()
        if ending == "disconnect":
            connection.chunk(json.dumps(disconnect()).encode() + b"\r\n")
            connection.sleep(5)
        if ending == "silence":
            connection.sleep(5)
        connection.send(b"0\r\n\r\n")
        raise Gone
