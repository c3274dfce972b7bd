# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that breaks connections by a seed: what lies between two machines.

    proxy = Proxy(("127.0.0.1", 8080), seed=7)
    ... clients talk to proxy.address ...
    proxy.set("blackhole")     # by hand, or
    proxy.play(seconds=20)     # by a schedule made of the seed
    proxy.close()

Weathers, each of them for new and for open connections alike:
  open       bytes pass
  refuse     new connections are reset; open ones are reset at once
  blackhole  connections are taken, nothing passes in either direction, nothing is closed
  half       nothing passes from the server to the client; requests get through
  drip       a byte every 50 ms in each direction
  late       everything passes, up to a second late
  cut        a connection is reset in the middle of what passes next

play() goes through weathers by the seed and ends in `open` ("heal"): at that moment a test may
start to wait for things to be well again.
"""
import random
import select
import socket
import struct
import threading
import time

WEATHERS = ("open", "refuse", "blackhole", "half", "drip", "late", "cut")
PIECE = 65536


def reset(sock):
    """Closes with a RST instead of a FIN."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    sock.close()


class Pair:
    """A client's connection and ours to the server behind it."""

    def __init__(self, proxy, client):
        self.proxy, self.client = proxy, client
        self.server = None
        self.is_over = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            self.server = socket.create_connection(self.proxy.target, 10)
            self.pump()
        except OSError:
            pass
        finally:
            self.end()

    def pump(self):
        ends = {self.client: self.server, self.server: self.client}
        while not self.is_over:
            weather = self.proxy.weather
            if weather == "refuse":
                return
            if weather == "blackhole":
                time.sleep(0.01)
                continue
            watched = [self.client] if weather == "half" else list(ends)
            for source in select.select(watched, [], [], 0.02)[0]:
                data = source.recv(1 if weather == "drip" else PIECE)
                if not data:
                    return
                if not self.passes(weather, ends[source], data):
                    return

    def passes(self, weather, sink, data):
        if weather == "late":
            time.sleep(self.proxy.uniform(0, 1))
        elif weather == "drip":
            time.sleep(0.05)
        elif weather == "cut":
            sink.sendall(data[:self.proxy.below(len(data))])
            return False
        sink.sendall(data)
        self.proxy.n_bytes += len(data)
        return True

    def end(self):
        self.is_over = True
        is_soft = self.proxy.weather in ("open", "late", "drip")
        for sock in (self.client, self.server):
            if sock is None:
                continue
            if is_soft:
                sock.close()
            else:
                reset(sock)


class Proxy:
    def __init__(self, target, seed=0, port=0):
        self.target, self.weather = target, "open"
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.n_connections = self.n_bytes = 0
        self.history = []
        self.pairs = []
        self.listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.address = self.listener.getsockname()
        self.is_closed = False
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def port(self):
        return self.address[1]

    def uniform(self, low, high):
        with self.lock:
            return self.random.uniform(low, high)

    def below(self, n):
        with self.lock:
            return self.random.randrange(n) if n > 0 else 0

    def accept(self):
        while not self.is_closed:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.n_connections += 1
            if self.weather == "refuse":
                reset(client)
                continue
            self.pairs = [pair for pair in self.pairs if not pair.is_over]
            self.pairs.append(Pair(self, client))

    def set(self, weather):
        assert weather in WEATHERS, weather
        self.history.append((time.monotonic(), weather))
        self.weather = weather

    def play(self, seconds, weathers=WEATHERS, shortest=0.1, longest=2.0):
        """Weather after weather for so long, then fair."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with self.lock:
                weather = self.random.choice(weathers)
                duration = self.random.uniform(shortest, longest)
            self.set(weather)
            time.sleep(min(duration, max(0.0, end - time.monotonic())))
        self.set("open")

    def close(self):
        self.is_closed = True
        self.listener.close()
        for pair in self.pairs:
            pair.is_over = True
