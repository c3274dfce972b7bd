# SPDX-License-Identifier: Apache-2.0
"""HTTP as an attacker, a broken client and a slow one write it: one answer, the right code,
the connection closed, nothing smuggled, nobody kept waiting."""
import json
import socket
import threading
import time

import pytest

from serving import AE, MARK, NOT_AE, PATIENCE, http_bytes, parse_answers, read_until_close

HANG = 8  # the rule is 6 s; the rest is for a busy machine
BODY = json.dumps({"inputs": "a rash"}).encode()
# What an attacker would hide behind a request. It must never be answered.
HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /ready HTTP/1.1\r\nHost: localhost\r\n"


def post(*lines, body=BODY):
    return POST + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def get(*lines):
    return GET + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


N = str(len(BODY)).encode()
LENGTH = b"Content-Length: " + N
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)

# name, bytes, the codes that are right. The server closes behind each of them.
REFUSED = [
    # Content-Length
    ("length twice, the same", post(LENGTH, LENGTH), {400}),
    ("length twice, different", post(LENGTH, b"Content-Length: 5"), {400}),
    ("length twice, first zero", post(b"Content-Length: 0", LENGTH), {400}),
    ("length twice, other case", post(LENGTH, b"content-length: " + N), {400}),
    ("length as a list", post(b"Content-Length: " + N + b", " + N), {400}),
    ("length with a comma", post(b"Content-Length: " + N + b","), {400}),
    ("length with plus", post(b"Content-Length: +" + N), {400}),
    ("length negative", post(b"Content-Length: -1"), {400}),
    ("length minus zero", post(b"Content-Length: -0"), {400}),
    ("length with a letter", post(b"Content-Length: 3x"), {400}),
    ("length in hex", post(b"Content-Length: 0x16"), {400}),
    ("length with a point", post(b"Content-Length: 22.0"), {400}),
    ("length with exponent", post(b"Content-Length: 2e1"), {400}),
    ("length with a gap", post(b"Content-Length: 2 2"), {400}),
    ("length empty", post(b"Content-Length:"), {400}),
    ("length of blanks", post(b"Content-Length:   "), {400}),
    ("length quoted", post(b'Content-Length: "22"'), {400}),
    ("length in other digits", post("Content-Length: ٢٢".encode()), {400}),
    ("length with underscore", post(b"Content-Length: 2_2"), {400}),
    ("length over 2^64", post(b"Content-Length: 18446744073709551638"), {413}),
    ("length over 2^64, far", post(b"Content-Length: " + b"9" * 100), {413}),
    ("length 2^63", post(b"Content-Length: 9223372036854775808"), {413}),
    ("length 2^32 and some", post(b"Content-Length: 4294967318"), {413}),
    ("length over the limit", post(b"Content-Length: 99999999"), {413}),
    ("length with a vertical tab", post(b"Content-Length:\x0b22"), {400}),
    ("length before a blank", post(b"Content-Length: " + N + b" "), {400}),
    ("length, space before colon", post(b"Content-Length : " + N), {400}),
    ("length, tab before colon", post(b"Content-Length\t: " + N), {400}),
    # Transfer-Encoding
    ("length and chunked", post(LENGTH, b"Transfer-Encoding: chunked", body=CHUNKED), {400}),
    ("chunked and length", post(b"Transfer-Encoding: chunked", LENGTH, body=CHUNKED), {400}),
    ("zero length and chunked", post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=CHUNKED), {400}),
    ("chunked twice", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=CHUNKED), {400}),
    ("chunked and identity", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=CHUNKED), {400}),
    ("chunked", post(b"Transfer-Encoding: chunked", body=CHUNKED), {411}),
    ("chunked with extensions", post(b"Transfer-Encoding: chunked", body=b"1;x=y\r\na\r\n0\r\n\r\n"), {411}),
    ("Chunked", post(b"transfer-encoding: Chunked", body=CHUNKED), {411}),
    ("unknown coding", post(b"Transfer-Encoding: cow"), {411, 400}),
    ("xchunked", post(b"Transfer-Encoding: xchunked"), {411, 400}),
    ("identity", post(b"Transfer-Encoding: identity"), {411, 400}),
    ("list of codings", post(b"Transfer-Encoding: gzip, chunked", body=CHUNKED), {411}),
    ("empty coding", post(b"Transfer-Encoding:"), {411, 400}),
    ("coding behind a tab", post(b"Transfer-Encoding:\tchunked", body=CHUNKED), {411}),
    ("coding, space before colon", post(b"Transfer-Encoding : chunked", body=CHUNKED), {400}),
    ("coding with a vertical tab", post(b"Transfer-Encoding: \x0bchunked", body=CHUNKED), {400, 411}),
    ("coding folded", post(b"Transfer-Encoding:", b" chunked", body=CHUNKED), {400, 411}),
    ("chunked get", get(b"Transfer-Encoding: chunked") + CHUNKED, {411}),
    # The shape of header lines
    ("folded header", get(b"X-A: b", b" c"), {400}),
    ("folded first header", b"GET /ready HTTP/1.1\r\n Host: localhost\r\n\r\n", {400}),
    ("folded with a tab", get(b"X-A: b", b"\tc"), {400}),
    ("header without a colon", get(b"X-A"), {400}),
    ("header without a name", get(b": x"), {400}),
    ("space in a name", get(b"X A: b"), {400}),
    ("bracket in a name", get(b"X(A): b"), {400}),
    ("high byte in a name", get(b"X\xe9: b"), {400}),
    ("NUL in a name", get(b"X\x00A: b"), {400}),
    ("NUL in a value", get(b"X-A: b\x00c"), {400}),
    ("control in a value", get(b"X-A: b\x01c"), {400}),
    ("escape in a value", get(b"X-A: \x1b[31m"), {400}),
    ("DEL in a value", get(b"X-A: b\x7fc"), {400}),
    ("bare LF for a line end", GET + b"X-A: b\nX-B: c\r\n\r\n", {400}),
    ("bare LF for all", b"GET /ready HTTP/1.1\nHost: localhost\n\n", {400}),
    ("bare LF at the end", GET + b"\n", {400}),
    ("bare CR in a value", get(b"X-A: b\rContent-Length: 5"), {400}),
    ("bare CR for line ends", b"GET /ready HTTP/1.1\rHost: localhost\r\r", {400}),
    ("CR CR LF", b"GET /ready HTTP/1.1\r\r\nHost: localhost\r\n\r\n", {400}),
    ("LF CR", b"GET /ready HTTP/1.1\n\rHost: localhost\n\r\n\r", {400}),
    # Host
    ("no Host", b"GET /ready HTTP/1.1\r\n\r\n", {400}),
    ("two Hosts", get(b"Host: other"), {400}),
    ("two Hosts, the same", get(b"Host: localhost"), {400}),
    ("empty Host", b"GET /ready HTTP/1.1\r\nHost:\r\n\r\n", {400}),
    # The request line
    ("HTTP/0.9", b"GET /ready\r\n\r\n", {400}),
    ("HTTP/2.0", b"GET /ready HTTP/2.0\r\nHost: localhost\r\n\r\n", {400}),
    ("HTTP/1.2", b"GET /ready HTTP/1.2\r\nHost: localhost\r\n\r\n", {400}),
    ("HTTP/1.10", b"GET /ready HTTP/1.10\r\nHost: localhost\r\n\r\n", {400}),
    ("http/1.1", b"GET /ready http/1.1\r\nHost: localhost\r\n\r\n", {400}),
    ("other protocol", b"GET /ready FTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    ("no version", b"GET /ready \r\nHost: localhost\r\n\r\n", {400}),
    ("space behind the version", b"GET /ready HTTP/1.1 \r\nHost: localhost\r\n\r\n", {400}),
    ("two spaces", b"GET  /ready HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    ("tab for a space", b"GET\t/ready\tHTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    ("space in the path", b"GET /rea dy HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    ("space in front", b" GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    ("two empty lines in front", b"\r\n\r\n" + get(), {400}),
    ("bare LF in front", b"\n" + get(), {400}),
    ("no method", b"/ready HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    ("bracket in the method", b"GE(T /ready HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    ("method of 5,000 bytes", b"G" * 5000 + b" /ready HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    ("whole URL", b"GET http://localhost/ready HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    ("CONNECT", b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", {400, 404, 405}),
    ("high byte in the path", b"GET /\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    ("NUL in the path", b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    ("path without slash", b"GET ready HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    # Other protocols
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9, {400}),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2, {400}),
    ("zeros", b"\0" * 1000, {400}),
    ("random bytes", b"\xff\xfe" + bytes(range(256)), {400}),
    # Size
    ("path of 1,025 bytes", b"GET /" + b"a" * 1024 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", {414}),
    ("path of 60 kB", b"GET /" + b"a" * 60000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", {414}),
    ("header of 9 kB", get(b"X-A: " + b"b" * 9000), {431}),
    ("header of 100 kB", get(b"X-A: " + b"b" * 100000), {431}),
    ("name of 9 kB", get(b"X" * 9000 + b": a"), {431}),
    ("65 headers", get(*[b"X-%d: a" % n for n in range(64)]), {431}),
    ("1,000 headers", get(*[b"X-%d: a" % n for n in range(1000)]), {431}),
    # A body that is not announced
    ("post without a length", post(body=b""), {411}),
    ("post without a length, with a body", post(), {411}),
    ("underscore for a dash", post(b"Content_Length: " + N), {411}),
]


@pytest.mark.parametrize("data,codes", [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused(server, data, codes):
    start = time.monotonic()
    answers, closed = server.raw(data + HIDDEN, HANG)
    assert closed, f"still open after {time.monotonic() - start:.1f} s: {answers}"
    assert len(answers) == 1, answers
    assert answers[0].headers.get("connection", "").lower() == "close"
    answers[0].error(answers[0].code)
    assert answers[0].code in codes, answers


@pytest.mark.parametrize("data,codes", [case[1:] for case in REFUSED[:46:5]],
                         ids=[case[0] for case in REFUSED[:46:5]])
def test_refused_behind_a_good_one(server, data, codes):
    """On a connection that was kept alive, and in one packet with what went before."""
    answers, closed = server.raw(get() + post(LENGTH) + data + HIDDEN, HANG)
    assert closed and [answer.code for answer in answers[:2]] == [200, 200], answers
    assert len(answers) == 3 and answers[2].code in codes, answers


def test_refused_in_single_bytes(server):
    for name, data, codes in REFUSED[::12]:
        if len(data) > 500:
            continue
        with server.connect() as sock:
            try:
                for byte in data:
                    sock.sendall(bytes([byte]))
            except OSError:
                pass
            answers, closed = read_until_close(sock, HANG)
        assert closed and [answer.code for answer in answers] in [[code] for code in codes], name


# name, bytes, the codes of all answers. Unusual, but with one reading.
TAKEN = [
    ("one empty line in front", b"\r\n" + get(), [200]),
    ("empty line between", get() + b"\r\n" + get(), [200, 200]),
    ("length with leading zeros", post(b"Content-Length: 000" + N), [200]),
    ("length behind blanks", post(b"Content-Length:  \t" + N), [200]),
    ("length without a blank", post(b"Content-Length:" + N), [200]),
    ("HTTP/1.0 without Host", b"GET /ready HTTP/1.0\r\n\r\n", [200]),
    ("get with a body", b"GET /ready HTTP/1.1\r\nHost: a\r\nContent-Length: 44\r\n\r\n" + HIDDEN[:44].ljust(44) + get(), [200, 200]),
    ("get with zero length", get(b"Content-Length: 0") + get(), [200, 200]),
    ("not found, with a body", b"POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + get(), [404, 200]),
    ("unknown method, with a body", b"FOO /ready HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + get(), [405, 200]),
    ("lower case method", b"get /ready HTTP/1.1\r\nHost: localhost\r\n\r\n", [405]),
    ("asterisk", b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", [404]),
    ("encoded NUL", b"GET /ready%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", [404]),
    ("high bytes in a value", get(b"X-A: \xe9\xff"), [200]),
    ("empty value", get(b"X-A:"), [200]),
    ("64 headers", get(*[b"X-%d: a" % n for n in range(63)]), [200]),
    ("upgrade", get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"), [200]),
    ("websocket", get(b"Connection: Upgrade", b"Upgrade: websocket"), [200]),
    ("path of 1,024 bytes", b"GET /" + b"a" * 1023 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", [404]),
    ("empty body", post(b"Content-Length: 0", body=b"") + get(), [400, 200]),
    ("malformed body, then another", post(b"Content-Length: 1", body=b"{") + get(), [400, 200]),
    ("unusable, then another", post(b"Content-Length: 2", body=b"{}") + get(), [422, 200]),
    ("wrong type, then another", post(LENGTH, b"Content-Type: a/b") + get(), [415, 200]),
    ("a request in a body", post(b"Content-Length: %d" % len(HIDDEN), body=HIDDEN) + get(), [400, 200]),
]


@pytest.mark.parametrize("data,codes", [case[1:] for case in TAKEN], ids=[case[0] for case in TAKEN])
def test_taken(server, data, codes):
    last = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    if b"HTTP/1.0" in data:
        last = b""
    answers, closed = server.raw(data + last, HANG)
    got = [answer.code for answer in answers]
    # Having answered an error the server may close; it must not go on out of step.
    assert closed and got in (codes + [200] * bool(last), codes[:1] if codes[0] >= 400 else None), got


def test_codes_seen():
    assert len(REFUSED) >= 60


# --- A connection that lives ---------------------------------------------------------------------


def test_pipelining(server):
    data, expected = b"", []
    for n in range(30):
        name = f"X-Request-Id: pipe-{n}"
        if n % 3 == 0:
            data += http_bytes("GET", "/ready", b"", name)
        else:
            data += http_bytes("POST", "/v1/classify", BODY * (n % 3), name)
        expected.append((f"pipe-{n}", 400 if n % 3 == 2 else 200))
    data += http_bytes("GET", "/ping", b"", "Connection: close", "X-Request-Id: last")
    answers, closed = server.raw(data)
    assert closed
    got = [(answer.headers["x-request-id"], answer.code) for answer in answers]
    assert got == expected + [("last", 200)]


def test_keep_alive(server):
    connection = server.connection()
    first = connection.sock.getsockname()
    for n in range(100):
        answer = server.post("/v1/classify", {"inputs": AE if n % 2 else NOT_AE}, connection=connection)
        assert answer.ok()["results"][0]["label"] == ("Adverse_Event" if n % 2 else "Not_AE")
        assert connection.sock.getsockname() == first
    connection.close()


def test_close_and_http_1_0(server):
    answers, closed = server.raw(http_bytes("GET", "/ready", b"", "Connection: close"))
    assert closed and answers[0].headers["connection"].lower() == "close"
    answers, closed = server.raw(b"POST /v1/classify HTTP/1.0\r\nContent-Length: " + N + b"\r\n\r\n" + BODY)
    assert closed and [answer.code for answer in answers] == [200]


def test_single_bytes(server):
    with server.connect() as sock:
        for byte in http_bytes("POST", "/v1/classify", BODY, "Connection: close"):
            sock.sendall(bytes([byte]))
        answers, closed = read_until_close(sock, HANG)
    assert closed and answers[0].ok()["results"]


def test_100_continue(server):
    head = http_bytes("POST", "/v1/classify", BODY, "Expect: 100-continue", "Connection: close")
    with server.connect() as sock:
        sock.sendall(head[:-len(BODY)])
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(BODY)
        answers, closed = read_until_close(sock, HANG)
    assert closed and answers[-1].ok()["results"]
    # Who does not wait is served as well, and who is refused is not told to go on.
    answers, _ = server.raw(head)
    assert [answer.code for answer in answers if answer.code != 100] == [200]
    head = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"
    answers, closed = server.raw(head, HANG)
    assert closed and [answer.code for answer in answers] == [413]


def test_head_has_no_body_on_the_wire(server):
    data = http_bytes("HEAD", "/info") + http_bytes("HEAD", "/no") + http_bytes("GET", "/ready", b"", "Connection: close")
    with server.connect() as sock:
        sock.sendall(data)
        sock.settimeout(HANG)
        received = b""
        while some := sock.recv(65536):
            received += some
    answers = parse_answers(received, heads=(0, 1))
    assert [answer.code for answer in answers] == [200, 404, 200]
    assert int(answers[0].headers["content-length"]) > 0


# --- Clients that are slow, or leave --------------------------------------------------------------


def drip(server, data, then, pause):
    """Sends data, then `then` a byte each `pause` seconds; returns (answers, closed, seconds)."""
    start = time.monotonic()
    answers, closed = [], False
    with server.connect() as sock:
        sock.sendall(data)
        sock.settimeout(pause)
        received = b""
        while time.monotonic() - start < 30:
            try:
                if then:
                    sock.sendall(then)
                some = sock.recv(65536)
                if not some:
                    closed = True
                    break
                received += some
            except socket.timeout:
                continue
            except OSError:
                closed = True
                break
        answers = parse_answers(received)
    return answers, closed, time.monotonic() - start


def test_slow_clients(server):
    """All at once, and others are served meanwhile. 15 s is more than any rule allows."""
    long_body = http_bytes("POST", "/v1/classify", b"x" * 100000)[:-100000]
    cases = {
        "half a request line": (b"GET /rea", b"", 15),
        "half a header": (GET + b"X-A", b"", 15),
        "no empty line": (GET, b"", 15),
        "a header byte a second": (GET + b"X-A: ", b"a", 15),
        "header lines for ever": (GET, b"X: y\r\n", 15),
        "no body": (long_body, b"", 20),
        "a body byte a second": (long_body, b"x", 20),
        "half a body": (long_body + b"x" * 50000, b"", 20),
    }
    results = {}
    threads = [threading.Thread(target=lambda name=name, case=case: results.__setitem__(
        name, drip(server, case[0], case[1], 0.5))) for name, case in cases.items()]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert server.classify(AE)[0]["label"] == "Adverse_Event"
        time.sleep(0.2)
    for name, (answers, closed, seconds) in results.items():
        assert closed and seconds < cases[name][2], (name, seconds)
        assert [answer.code for answer in answers] in ([408], []), (name, answers)
        for answer in answers:
            answer.error(408, "slow_client")


def test_idle_connections(start):
    server = start("--idle-timeout", "1s")
    with server.connect() as never, server.connect() as once:
        once.sendall(http_bytes("GET", "/ready"))
        answers, closed = read_until_close(once, PATIENCE)
        assert closed and [answer.code for answer in answers] == [200]
        answers, closed = read_until_close(never, PATIENCE)
        assert closed and not answers


def test_many_half_open_connections(start):
    server = start("--max-per-address", "2000", "--max-connections", "2000")
    idle = []
    try:
        for n in range(400):
            idle.append(server.connect())
            idle[-1].sendall([b"", GET, b"POST / HT"][n % 3])
        for _ in range(5):
            assert server.classify(AE)[0]["label"] == "Adverse_Event"
    finally:
        for sock in idle:
            sock.close()


def test_slow_reader(start):
    """Who asks for much and reads nothing is dropped, and holds nobody up."""
    server = start()
    body = json.dumps({"inputs": ["rash " * 2000] * 100}).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(http_bytes("POST", "/tokenize", body))
        for _ in range(10):
            assert server.classify(AE)[0]["label"] == "Adverse_Event"
        # Reads at last: all of it came, or the server had given up; either ends in time.
        sock.settimeout(30)
        n_read = 0
        try:
            while n_read < 10_000_000:
                some = sock.recv(65536)
                if not some:
                    break
                n_read += len(some)
        except socket.timeout:
            pass  # everything that there was has been read
        except OSError:
            pass
    assert server.classify(AE)[0]["label"] == "Adverse_Event"


@pytest.mark.parametrize("reset", [False, True])
def test_clients_that_leave(start, reset):
    """At every point of a request; the server goes on, and keeps no descriptor."""
    server = start("--max-per-address", "500")
    assert server.classify(AE)
    before = server.open_files()
    request = http_bytes("POST", "/v1/classify", json.dumps({"inputs": [AE] * 20}).encode())
    for n in range(0, len(request) + 1, 23):
        sock = server.connect()
        sock.sendall(request[:n])
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
    for _ in range(20):
        sock = server.connect()
        sock.sendall(request)
        sock.close()
    end = time.monotonic() + 15
    while server.post("/v1/classify", {"inputs": AE}).code == 429:  # until it has seen them go
        assert time.monotonic() < end
    assert server.classify(AE)[0]["label"] == "Adverse_Event"
    while server.open_files() > before + 2 and time.monotonic() < end:
        time.sleep(0.1)
    assert server.open_files() <= before + 2


def test_nothing_of_the_text_in_errors(server):
    """MARK in the path, a header, a method, a body: Answer.error and the log check look for it."""
    mark = MARK.encode()
    for data in (b"GET /" + mark + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                 mark + b" /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                 b"GET /ready HTTP/1.1\r\nHost: a\r\nX(" + mark + b": b\r\n\r\n",
                 b"GET /ready?q=" + mark + b" HTTP/9.9\r\nHost: a\r\n\r\n",
                 http_bytes("POST", "/v1/classify", b'{"' + mark + b'": ' + mark, "Connection: close"),
                 http_bytes("POST", "/v1/classify", b'{"inputs": "a", "' + mark + b'": 1}', "Connection: close"),
                 http_bytes("POST", "/v1/classify", BODY, "Content-Type: " + MARK, "Connection: close"),
                 http_bytes("POST", "/v1/classify", BODY, "Authorization: Bearer " + MARK, "X-Api-Key: " + MARK,
                      "User-Agent: " + MARK, "X-Forwarded-For: " + MARK, "Connection: close")):
        answers, closed = server.raw(data, HANG)
        assert closed and len(answers) == 1, data
        if answers[0].code != 200:
            answers[0].error(answers[0].code)
