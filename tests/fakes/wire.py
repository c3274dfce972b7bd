# SPDX-License-Identifier: Apache-2.0
"""What the fake servers have in common: HTTP by hand over plain TCP or TLS, a thread a
connection, and ways to misbehave on the wire. Standard library alone.

A handler is called as handler(request, connection) for each request; when it returns True the
connection is kept, else it is closed.
"""
import pathlib
import random
import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.parse


def certificate(folder):
    """(certificate, key) of a throw-away certificate for 127.0.0.1 and localhost."""
    folder = pathlib.Path(folder)
    crt, key = folder / "fake.crt", folder / "fake.key"
    if not crt.exists():
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(key), "-out", str(crt),
                        "-days", "2", "-subj", "/CN=localhost", "-addext",
                        "subjectAltName=DNS:localhost,IP:127.0.0.1"],
                       check=True, capture_output=True)
    return crt, key


class Request:
    def __init__(self, method, target, headers, body):
        self.method, self.target, self.headers, self.body = method, target, headers, body
        parts = urllib.parse.urlsplit(target)
        self.path = parts.path
        self.query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        self.at = time.monotonic()

    def __repr__(self):
        return f"<{self.method} {self.target}>"


class Gone(Exception):
    """The client has closed, or the server is being stopped."""


class Connection:
    """One TCP connection with the means to use and abuse it."""

    def __init__(self, server, sock):
        self.server, self.socket = server, sock
        self.is_open = True
        self.ended_cleanly = None  # by the client: True with an end, False with a reset
        self.random = random.Random(server.seed)

    def send(self, data, split=False, slow_s=0):
        """All of it; split: in pieces of random sizes, each by itself on the wire."""
        try:
            while data:
                n = self.random.randint(1, min(40, len(data))) if split or slow_s else len(data)
                self.socket.sendall(data[:n])
                data = data[n:]
                if slow_s:
                    self.sleep(slow_s)
                elif split and self.random.random() < 0.02:
                    time.sleep(0.001)
        except (OSError, ssl.SSLError) as error:
            self.is_open = False
            raise Gone from error

    def chunk(self, data, **how):
        """A chunk of a body with Transfer-Encoding: chunked."""
        if data:
            self.send(b"%x\r\n%s\r\n" % (len(data), data), **how)

    def answer(self, code, body=b"", headers=(), content_type="application/json"):
        head = f"HTTP/1.1 {code} X\r\nContent-Type: {content_type}\r\n" \
               f"Content-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers)
        self.send(head.encode() + b"\r\n" + body)
        return True

    def begin_stream(self, content_type="application/json"):
        self.send(f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n"
                  "Transfer-Encoding: chunked\r\n\r\n".encode())

    def sleep(self, seconds):
        """Until then, or until the client is gone: Gone."""
        until = time.monotonic() + seconds
        while not self.server.is_stopping:
            left = until - time.monotonic()
            if self.is_gone(max(0, min(left, 0.05))):
                raise Gone
            if left <= 0:
                return
        raise Gone

    def is_gone(self, wait_s=0.0):
        """Has the client closed? (It sends nothing while it listens.)"""
        try:
            self.socket.settimeout(max(wait_s, 0.0005))
            data = self.socket.recv(4096)
        except (TimeoutError, socket.timeout, ssl.SSLWantReadError):
            return False
        except (ConnectionResetError, ssl.SSLError, OSError):
            self.ended_cleanly = False
            return True
        finally:
            self.socket.settimeout(30)
        if not data:
            self.ended_cleanly = True
        return not data

    def reset(self):
        """Closes with RST."""
        raw = self.socket
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # A TLS socket would say goodbye first.
        socket.socket(fileno=raw.detach()).close()
        self.is_open = False
        raise Gone

    def read_request(self, pending):
        while b"\r\n\r\n" not in pending:
            data = self.socket.recv(65536)
            if not data:
                return None, b""
            pending += data
        head, _, rest = pending.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        while len(rest) < length:
            data = self.socket.recv(65536)
            if not data:
                return None, b""
            rest += data
        return Request(method, target, headers, rest[:length]), rest[length:]


class Wire:
    def __init__(self, handler, tls=None, seed=1):
        """tls: (certificate, key) or None."""
        self.handler, self.seed = handler, seed
        self.is_stopping = False
        self.requests, self.violations, self.connections = [], [], []
        self.lock = threading.RLock()
        self.context = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*map(str, tls))
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def violation(self, what):
        with self.lock:
            self.violations.append(what)

    def _accept(self):
        while not self.is_stopping:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        connection = None
        try:
            sock.settimeout(30)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context:
                sock = self.context.wrap_socket(sock, server_side=True)
            connection = Connection(self, sock)
            with self.lock:
                self.connections.append(connection)
            pending = b""
            while not self.is_stopping:
                request, pending = connection.read_request(pending)
                if not request:
                    connection.ended_cleanly = True
                    break
                with self.lock:
                    self.requests.append(request)
                if not self.handler(request, connection):
                    break
        except (Gone, OSError, ssl.SSLError, ValueError):
            pass
        finally:
            if connection:
                connection.is_open = False
            try:
                sock.close()
            except OSError:
                pass

    def stop(self):
        self.is_stopping = True
        self.listener.close()
