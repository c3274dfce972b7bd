# SPDX-License-Identifier: Apache-2.0
"""A Jetstream v1 server of the standard library alone, which can misbehave by seed.

    server = Jetstream(events, mischief=Mischief(seed=7))
    server.port; server.stop(); server.problems

It keeps what the public servers keep to: events at or behind the cursor are told again, a
cursor older than the look-back is silently taken as its beginning, one in the future means
what is new, delivery is at least once. It notes in `problems` whatever a client may not do: a
wrong handshake, another query, a frame without a mask, a frame with data, a missing pong.

Run as a program it serves numbered posts and prints its port: jetstream.py [--count N]
[--seed N] [--port N] [--tls CERTIFICATE KEY].
"""
import argparse
import base64
import hashlib
import json
import random
import select
import socket
import ssl
import struct
import threading
import time
import urllib.parse

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
COLLECTION = "app.bsky.feed.post"
TID = "234567abcdefghijklmnopqrstuvwxyz"
FIRST_US = 10 ** 15
TEXT, PING, PONG, CLOSE = 1, 9, 10, 8


def tid(number):
    """13 digits of base32, sortable."""
    return "".join(TID[number >> 5 * i & 31] for i in range(12, -1, -1))


def accept_of(key):
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


def frame(opcode, payload, fin=True):
    head = bytes([(0x80 if fin else 0) | opcode])
    n = len(payload)
    if n < 126:
        return head + bytes([n]) + payload
    if n < 65536:
        return head + b"\x7e" + struct.pack(">H", n) + payload
    return head + b"\x7f" + struct.pack(">Q", n) + payload


# --- Events --------------------------------------------------------------------------------

def event(did, time_us, operation, rkey, rev, record=None):
    commit = {"rev": rev, "operation": operation, "collection": COLLECTION, "rkey": rkey}
    if record is not None:
        commit["record"] = record
        commit["cid"] = "bafyrei" + rkey
    return {"did": did, "time_us": time_us, "kind": "commit", "commit": commit}


class Raw(dict):
    """An event that is told in these bytes, whatever they are."""

    def __init__(self, time_us, data):
        super().__init__(time_us=time_us)
        self.data = data


def posts(count, seed=0, start_us=None, step_us=10_000, text="post {n} about prozac today",
          updates=0.0, deletes=0.0, others=0.0):
    """(events, what must be left): numbered posts, and a part of them changed or deleted later.
    What is left is {native id: text}, and what is gone {native id}."""
    dice = random.Random(seed)
    now_us = start_us or (time.time_ns() // 1000 - 3600 * 10 ** 6)
    made, left, gone = [], {}, set()
    alive = []

    def add(*what):
        nonlocal now_us
        now_us += step_us
        made.append(event(what[0], now_us, what[1], what[2], tid(now_us << 10), *what[3:]))

    def uri(did, rkey):
        return f"at://{did}/{COLLECTION}/{rkey}"

    for n in range(count):
        did, rkey = f"did:plc:{n % 97:024d}", tid((now_us << 10) + n % 1024)
        words = text.format(n=n)
        add(did, "create", rkey,
            {"$type": COLLECTION, "text": words, "langs": ["en"],
             "createdAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_us // 10 ** 6))})
        left[uri(did, rkey)] = words
        alive.append((did, rkey))
        if dice.random() < updates:
            did, rkey = dice.choice(alive)
            words = f"changed {words}"
            add(did, "update", rkey, {"$type": COLLECTION, "text": words, "langs": ["en"],
                                      "createdAt": "2026-01-01T00:00:00Z"})
            left[uri(did, rkey)] = words
        if dice.random() < deletes:
            did, rkey = alive.pop(dice.randrange(len(alive)))
            add(did, "delete", rkey)
            del left[uri(did, rkey)]
            gone.add(uri(did, rkey))
            if not alive:
                alive.append((did, rkey))
                alive.clear()
        if dice.random() < others:
            now_us += step_us
            made.append(dice.choice([
                {"did": did, "time_us": now_us, "kind": "identity",
                 "identity": {"did": did, "handle": "a.example", "seq": n}},
                {"did": did, "time_us": now_us, "kind": "account",
                 "account": {"active": False, "did": did, "seq": n, "status": "deactivated"}},
                {"did": did, "time_us": now_us, "kind": "a kind to come", "news": [n]},
                event(did, now_us, "create", rkey, tid(now_us << 10), {"subject": {}}),
            ]))
            if made[-1]["kind"] == "commit":
                made[-1]["commit"]["collection"] = "app.bsky.feed.like"
    return made, left, gone


class Mischief:
    """What goes wrong, how often. All of it off: Mischief(0, **{})."""

    def __init__(self, seed, breaks=0.02, duplicates=0.05, reorders=0.05, window=8, fragments=0.2,
                 pings=0.05, junk=0.0, refusals=0.2, silence=0.0, limit=None):
        self.dice = random.Random(seed)
        self.breaks, self.duplicates, self.reorders, self.window = breaks, duplicates, reorders, window
        self.fragments, self.pings, self.junk = fragments, pings, junk
        self.refusals, self.silence = refusals, silence
        self.limit = limit  # so many breaks and refusals, then it behaves
        self.n_broken = 0
        self.lock = threading.Lock()

    def happens(self, chance, counts=False):
        with self.lock:
            if counts and self.limit is not None and self.n_broken >= self.limit:
                return False
            does = self.dice.random() < chance
            self.n_broken += counts and does
            return does

    def choose(self, options):
        with self.lock:
            return self.dice.choice(options)

    def number(self, below):
        with self.lock:
            return self.dice.randrange(max(1, below))


class Break(Exception):
    """The connection is to end now."""


# --- The server ----------------------------------------------------------------------------

class Jetstream:
    def __init__(self, events=(), mischief=None, lookback_us=36 * 3600 * 10 ** 6, tls=None,
                 ping_s=None, stays=True, port=0, rate=None):
        self.events = list(events)  # in the order of their time
        self.mischief = mischief or Mischief(0, 0, 0, 0, 1, 0, 0, 0, 0, 0)
        self.lookback_us, self.ping_s, self.stays, self.rate = lookback_us, ping_s, stays, rate
        self.context = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*tls)
            self.context.set_alpn_protocols(["h2", "http/1.1"])
        self.problems, self.requests = [], []
        self.n_sent = self.n_closed_by_client = 0
        self.alpn = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads = []
        self.socket = socket.create_server(("127.0.0.1", port))
        self.socket.settimeout(0.1)
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"{'wss' if self.context else 'ws'}://{'localhost' if self.context else '127.0.0.1'}:{self.port}"

    def add(self, *events):
        with self.lock:
            self.events += events

    def stop(self):
        self.stopping.set()
        self.thread.join()
        for thread in self.threads:
            thread.join()

    def run(self):
        while not self.stopping.is_set():
            try:
                connection, _ = self.socket.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self.serve, args=(connection,), daemon=True)
            self.threads.append(thread)
            thread.start()
        self.socket.close()

    def complain(self, what):
        with self.lock:
            self.problems.append(what)

    def serve(self, connection):
        try:
            connection.settimeout(20)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context:
                connection = self.context.wrap_socket(connection, server_side=True)
                self.alpn.append(connection.selected_alpn_protocol())
            query = self.shake_hands(connection)
            if query is not None:
                Session(self, connection, query).run()
        except (Break, OSError, ValueError):
            pass
        finally:
            connection.close()

    # The handshake, and what is wrong with the client's side of it.
    def shake_hands(self, connection):
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(4096)
            if not more:
                raise Break
            data += more
        head, rest = data.split(b"\r\n\r\n", 1)
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {}
        for name, _, value in (field.partition(":") for field in fields):
            if name.lower() in headers:
                self.complain(f"{name} twice")
            headers[name.lower()] = value.strip()
        method, target, version = line.split(" ")
        path, _, query = target.partition("?")
        query = urllib.parse.parse_qs(query, keep_blank_values=True, strict_parsing=bool(query))
        with self.lock:
            self.requests.append({"path": path, "query": query, "headers": headers})
        self.judge(method, path, version, headers, query, rest)
        if self.mischief.happens(self.mischief.refusals, counts=True):
            self.refuse(connection, headers)
            return None
        answer = ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  f"Sec-WebSocket-Accept: {accept_of(headers.get('sec-websocket-key', ''))}\r\n\r\n").encode()
        cut = self.mischief.number(len(answer)) if self.mischief.happens(self.mischief.fragments) else 0
        connection.sendall(answer[:cut])
        connection.sendall(answer[cut:])
        return query

    def judge(self, method, path, version, headers, query, rest):
        wanted = {
            "GET and HTTP/1.1": (method, version) == ("GET", "HTTP/1.1"),
            "the path": path == "/subscribe",
            "Host": headers.get("host", "").endswith(f":{self.port}"),
            "Upgrade": headers.get("upgrade", "").lower() == "websocket",
            "Connection": "upgrade" in headers.get("connection", "").lower(),
            "the version": headers.get("sec-websocket-version") == "13",
            "no extension": "sec-websocket-extensions" not in headers,
            "no body": "content-length" not in headers and "transfer-encoding" not in headers,
            "nothing behind the request": rest == b"",
            "a User-Agent": headers.get("user-agent", "").startswith("vigil/"),
            "no Origin, no cookie": not {"origin", "cookie", "authorization"} & set(headers),
            "one collection": query.get("wantedCollections") == [COLLECTION],
            "no other parameter": set(query) <= {"wantedCollections", "cursor"},
            "a cursor that is a number": all(len(query[k]) == 1 and query[k][0].isdigit()
                                             for k in query if k == "cursor"),
        }
        try:
            wanted["16 bytes of key"] = len(base64.b64decode(headers["sec-websocket-key"], validate=True)) == 16
        except (KeyError, ValueError):
            wanted["16 bytes of key"] = False
        keys = [request["headers"].get("sec-websocket-key") for request in self.requests]
        wanted["a new key each time"] = len(set(keys)) == len(keys)
        for what, is_so in wanted.items():
            if not is_so:
                self.complain(f"the client's handshake lacks: {what}")

    def refuse(self, connection, headers):
        kind = self.mischief.choose(["503", "429", "404", "accept", "cut", "end", "silent"])
        good = accept_of(headers.get("sec-websocket-key", ""))
        switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        answers = {
            "503": "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
            "429": "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n",
            "404": "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n",
            "accept": f"{switch}Sec-WebSocket-Accept: {good[::-1]}\r\n\r\n",
            "cut": f"{switch}Sec-WebSocket-Acc", "end": "", "silent": "HTTP/1.1 101 Sw",
        }
        connection.sendall(answers[kind].encode())
        if kind == "silent":
            time.sleep(0.1)


class Session:
    """One connection: tells events, reads what the client says."""

    def __init__(self, server, connection, query):
        self.server, self.connection, self.mischief = server, connection, server.mischief
        self.at = self.begin(int(query["cursor"][0]) if "cursor" in query else None)
        self.n_pings = self.n_pongs = 0
        self.unread = b""
        self.is_closing = False

    def begin(self, cursor):
        with self.server.lock:
            times = [each["time_us"] for each in self.server.events]
        if cursor is None or not times or (cursor >= FIRST_US and cursor > times[-1]):
            return len(times)
        if cursor < FIRST_US:  # a number in the sequence
            return min(cursor, len(times))
        cursor = max(cursor, times[-1] - self.server.lookback_us)
        return next(i for i, each in enumerate(times) if each >= cursor)

    def run(self):
        pinged = time.monotonic()
        pending = []  # what is held back, to come in another order
        while not self.server.stopping.is_set():
            with self.server.lock:
                ready = self.server.events[self.at:self.at + 256]
            for each in ready:
                self.at += 1
                pending.append(each)
                if self.mischief.happens(self.mischief.reorders):
                    continue
                self.tell(pending)
            if not ready:
                self.tell(pending)
                if not self.server.stays and self.at == len(self.server.events):
                    break
                self.listen(0.005)
            if self.server.ping_s and time.monotonic() - pinged > self.server.ping_s:
                pinged = time.monotonic()
                self.ping()
        self.say_goodbye(1001)

    def tell(self, pending):
        """What is held back, shuffled within the window, now and then some of it twice."""
        while pending:
            index = self.mischief.number(min(len(pending), self.mischief.window)) \
                if self.mischief.reorders else 0
            self.send(pending.pop(index))

    def send(self, each):
        text = each.data if isinstance(each, Raw) else \
            json.dumps(each, ensure_ascii=False, separators=(",", ":")).encode()
        times = 2 if self.mischief.happens(self.mischief.duplicates) else 1
        for _ in range(times):
            if self.mischief.happens(self.mischief.breaks, counts=True):
                self.break_off(text)
            if self.mischief.happens(self.mischief.junk):
                self.write(frame(TEXT, self.mischief.choose(
                    [b"", b"junk", b"{", b"[]", b'{"kind":"commit"}', b'{"kind":7}', b"\xc3\xa4",
                     b'{"did":"did:plc:x","time_us":4102444800000000,"kind":"nothing"}',
                     b'{"did":"did:plc:x","time_us":1,"kind":"commit","commit":{}}'])))
            self.write_text(text)
        with self.server.lock:
            self.server.n_sent += 1
        if self.mischief.happens(self.mischief.pings):
            self.ping()
        if self.server.rate:
            time.sleep(1 / self.server.rate)
        self.listen(0)

    def write_text(self, text):
        if not self.mischief.happens(self.mischief.fragments):
            self.write(frame(TEXT, text))
            return
        cuts = sorted(self.mischief.number(len(text)) for _ in range(self.mischief.number(4)))
        parts = [text[a:b] for a, b in zip([0] + cuts, cuts + [len(text)])]
        for i, part in enumerate(parts):
            self.write(frame(TEXT if i == 0 else 0, part, fin=i == len(parts) - 1))
            if self.mischief.happens(self.mischief.pings):
                self.ping()

    def write(self, data):
        if self.mischief.happens(self.mischief.fragments / 4):  # anywhere at all
            cut = self.mischief.number(len(data))
            self.connection.sendall(data[:cut])
            data = data[cut:]
        self.connection.sendall(data)

    def ping(self):
        self.n_pings += 1
        self.write(frame(PING, b"%d" % self.n_pings))

    def break_off(self, text):
        kind = self.mischief.choose(["close", "close without code", "end", "reset", "cut", "cut and reset",
                                     "masked", "reserved", "binary", "not UTF-8"]
                                    + ["silent"] * bool(self.mischief.silence))
        whole = frame(TEXT, text)
        if kind == "close":
            self.say_goodbye(1001)
        elif kind == "close without code":
            self.write(frame(CLOSE, b""))
            self.hear_goodbye()
        elif kind.startswith("cut"):
            self.connection.sendall(whole[:1 + self.mischief.number(len(whole) - 1)])
        elif kind == "masked":
            self.connection.sendall(b"\x81\x82\x00\x00\x00\x00{}")
        elif kind == "reserved":
            self.connection.sendall(b"\xc1\x02{}")
        elif kind == "binary":
            self.connection.sendall(frame(2, b"{}"))
        elif kind == "not UTF-8":
            self.connection.sendall(frame(TEXT, b'{"a":"\xff"}'))
        elif kind == "silent":
            self.server.stopping.wait(self.mischief.silence)
        if kind.endswith("reset") and not self.server.context:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Break

    # --- What the client says

    def listen(self, seconds):
        """Reads what is there: pongs, and the close frame."""
        pending = getattr(self.connection, "pending", lambda: 0)()
        if not pending and not select.select([self.connection], [], [], seconds)[0]:
            return
        more = self.connection.recv(65536)
        if not more:
            raise Break
        self.unread += more
        while len(self.unread) >= 2:
            opcode, size = self.unread[0] & 15, self.unread[1] & 127
            if not self.unread[1] & 128:
                self.server.complain("a frame of the client without a mask")
                raise Break
            if self.unread[0] & 0x70 or size > 125 or opcode not in (PONG, CLOSE):
                self.server.complain(f"the client sent a frame of kind {opcode}, {size} bytes")
                raise Break
            if len(self.unread) < 6 + size:
                return
            mask, payload = self.unread[2:6], self.unread[6:6 + size]
            payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
            self.unread = self.unread[6 + size:]
            if opcode == PONG:
                self.n_pongs += 1
                if payload != b"%d" % self.n_pongs:
                    self.server.complain("a pong that answers no ping")
            else:
                with self.server.lock:
                    self.server.n_closed_by_client += 1
                if not self.is_closing:
                    self.connection.sendall(frame(CLOSE, payload[:2]))
                raise Break

    def hear_goodbye(self):
        self.is_closing = True
        end = time.monotonic() + 2
        try:
            while time.monotonic() < end:
                self.listen(0.05)
        except Break:
            pass
        raise Break

    def say_goodbye(self, code):
        self.write(frame(CLOSE, struct.pack(">H", code) + b"bye"))
        self.hear_goodbye()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, help="misbehave by this seed")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"))
    options = parser.parse_args()
    made, _, _ = posts(options.count)
    server = Jetstream(made, Mischief(options.seed) if options.seed is not None else None,
                       tls=options.tls, ping_s=30, port=options.port)
    print(server.url, flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    main()
