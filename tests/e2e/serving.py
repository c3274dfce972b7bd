# SPDX-License-Identifier: Apache-2.0
"""A running `vigil serve`, and HTTP said by hand: what every end-to-end test stands on.

Standard library alone. Every server takes a free port, and its log goes to a file of its
own, so that tests can run beside each other and beside another checkout.

MARK is in the texts that tests send. Whatever goes wrong, it must be neither in an answer that
says so nor in a log: Answer.error and Server.stop look for it each time.
"""
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BIN = pathlib.Path(os.environ.get("VIGIL_BIN", ROOT / "build/bin"))
MODEL = ROOT / "weights/ade"
MARK = "qzmark7731"
PATIENCE = 60  # seconds until something counts as hanging; no test measures with it

AE = f"this drug gave me a terrible rash, {MARK}"
NOT_AE = f"picked up my prescription today, {MARK}"

_SANITIZER = re.compile(r"AddressSanitizer|ThreadSanitizer|LeakSanitizer|runtime error:")


class Answer:
    def __init__(self, code, headers, body, reason=""):
        self.code, self.body, self.reason = code, body, reason
        self.headers = {}
        for name, value in headers:
            self.headers.setdefault(name.lower(), value)

    def __repr__(self):
        return f"<{self.code} {self.body[:300]!r}>"

    def json(self):
        assert self.headers.get("content-type", "").split(";")[0] == "application/json", \
            self.headers
        return json.loads(self.body)

    def ok(self):
        """The JSON of an answer that has to be a 200."""
        assert self.code == 200, self
        assert self.headers.get("x-request-id"), self.headers
        return self.json()

    def error(self, code, *kinds):
        """Checks that this is an error of that code as the contract has them."""
        assert self.code == code, self
        what = self.json()
        assert set(what) == {"error", "error_type"}, what
        assert not kinds or what["error_type"] in kinds, what
        check_message(what["error"])
        assert self.headers.get("x-request-id"), self.headers
        assert "server" not in self.headers
        if code == 429:
            assert int(self.headers["retry-after"]) >= 1
        if code == 405:
            assert self.headers["allow"]
        if code == 401:
            assert self.headers["www-authenticate"].startswith("Bearer")
        return what


def check_message(message):
    """An error's words say nothing of the text, the machine or the build."""
    assert 0 < len(message.encode()) <= 256, message
    assert MARK not in message
    assert str(ROOT) not in message and "0x" not in message and ".c:" not in message, message
    assert message.isprintable(), message


def check_failed_item(item, *kinds, item_id=None):
    expected = {"error", "error_type"} | ({"id"} if item_id is not None else set())
    assert set(item) == expected, item
    assert item["error_type"] in kinds, item
    assert item.get("id") == item_id
    check_message(item["error"])


class Server:
    """vigil serve, started with --port 0 and stopped by stop(), which checks its log."""

    def __init__(self, folder, *flags, model=MODEL, env=None, wait=True, log_format="logfmt"):
        folder = pathlib.Path(folder)
        self.log_path = folder / f"serve-{time.monotonic_ns()}.log"
        self.tls = "--tls-cert" in flags
        self.port = None
        command = [str(BIN / "vigil"), "serve", "--model", str(model), "--port", "0",
                   "--log-format", log_format, *map(str, flags)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("VIGIL_")}
        environment.update(env or {})
        if "VIGIL_CUDA_LIBRARY" not in environment:  # the same on a machine with a GPU
            environment["VIGIL_DEVICE"] = "cpu"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment,
                                            stdin=subprocess.DEVNULL,
                                            stdout=subprocess.DEVNULL, stderr=log)
        if wait:
            self.wait_ready()

    # --- The process ---------------------------------------------------------------------------

    def log(self):
        return self.log_path.read_text("utf-8", "replace")

    def wait_log(self, pattern, count=1, seconds=PATIENCE):
        """Waits until the log has that many matches; returns the last one."""
        end = time.monotonic() + seconds
        while True:
            found = list(re.finditer(pattern, self.log()))
            if len(found) >= count:
                return found[-1]
            assert self.process.poll() is None, f"the server ended:\n{self.log()}"
            assert time.monotonic() < end, f"no {pattern!r} in:\n{self.log()}"
            time.sleep(0.01)

    def wait_ready(self):
        found = self.wait_log(r'event=ready\b.*\bport=(\d+)|"event":"ready".*"port":"?(\d+)')
        self.port = int(found[1] or found[2])

    def signal(self, number):
        self.process.send_signal(number)

    def rss(self):
        """Resident bytes."""
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def wait_end(self, seconds=PATIENCE):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end:\n{self.log()}") from None

    def stop(self, expected=0):
        """Ends it in the way of an operator and holds its log against the rules."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        code = self.wait_end()
        log = self.log()
        assert code == expected, f"exit code {code}:\n{log[-4000:]}"
        check_log(log)

    # --- HTTP ----------------------------------------------------------------------------------

    def connect(self, timeout=PATIENCE, source=None):
        """A connected socket, in TLS where the server speaks it."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout,
                                         (source, 0) if source else None)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.tls:
            return plain
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(plain)

    def connection(self):
        """A keep-alive connection of http.client."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.sock = self.connect()
        return connection

    def request(self, method, path, body=None, headers=(), connection=None):
        own = connection is None
        connection = connection or self.connection()
        try:
            connection.request(method, path, body, dict(headers))
            got = connection.getresponse()
            return Answer(got.status, got.getheaders(), got.read(), got.reason)
        finally:
            if own:
                connection.close()

    def get(self, path, **headers):
        return self.request("GET", path, headers={k.replace("_", "-"): v
                                                  for k, v in headers.items()})

    def post(self, path, value, content_type="application/json", headers=(), connection=None):
        """value: bytes are sent as they are, anything else as JSON."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        all_headers = dict(headers)
        if content_type is not None:
            all_headers["Content-Type"] = content_type
        return self.request("POST", path, body, all_headers, connection)

    def classify(self, inputs, **options):
        """The results of POST /v1/classify."""
        return self.post("/v1/classify", {"inputs": inputs, **options}).ok()["results"]

    def raw(self, data, timeout=PATIENCE, wants_close=True):
        """Sends bytes, reads until the server closes (or, without wants_close, until no more
        comes for half a second). Returns (answers, whether it closed)."""
        with self.connect(timeout) as sock:
            try:
                sock.sendall(data)
            except OSError:
                pass  # it may refuse before all has come
            return read_until_close(sock, timeout if wants_close else 0.5)


def check_log(log):
    assert MARK not in log, [line for line in log.splitlines() if MARK in line][:3]
    assert not _SANITIZER.search(log), log[-8000:]
    for line in log.splitlines():
        assert line.isprintable(), repr(line)


def read_until_close(sock, timeout):
    sock.settimeout(timeout)
    received, closed = b"", False
    try:
        while True:
            some = sock.recv(65536)
            if not some:
                closed = True
                break
            received += some
    except socket.timeout:
        pass
    except OSError:
        closed = True
    return parse_answers(received), closed


def parse_answers(data, heads=()):
    """Every HTTP answer in a run of bytes. heads: numbers of the answers without a body."""
    answers = []
    while data:
        head, separator, rest = data.partition(b"\r\n\r\n")
        assert separator, f"half an answer: {data[:200]!r}"
        lines = head.decode("latin-1").split("\r\n")
        version, code, reason = (lines[0] + " ").split(" ", 2)
        assert version in ("HTTP/1.1", "HTTP/1.0"), lines[0]
        headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:]]
        length = [int(value) for name, value in headers if name.lower() == "content-length"]
        n_body = length[0] if length else 0
        if int(code) < 200 or len(answers) in heads:
            n_body = 0
        assert len(rest) >= n_body, f"a body cut short: {len(rest)} of {n_body} bytes"
        answers.append(Answer(int(code), headers, rest[:n_body], reason.strip()))
        data = rest[n_body:]
    return answers


def http_bytes(method, path, body=b"", *headers, host=True):
    """The bytes of a request; headers are whole lines."""
    lines = [f"{method} {path} HTTP/1.1"]
    if host:
        lines.append("Host: localhost")
    lines.extend(headers)
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
