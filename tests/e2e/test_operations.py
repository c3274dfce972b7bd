# SPDX-License-Identifier: Apache-2.0
"""What an operator meets: start errors, keys, TLS, limits of connections, overload, reload,
drain, logs, metrics."""
import concurrent.futures
import hashlib
import http.client
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import warnings

import pytest

from serving import (AE, BIN, MARK, MODEL, NOT_AE, PATIENCE, ROOT, Server, check_log,
                     http_bytes)
from test_http_raw import HIDDEN, REFUSED


def vigil(*arguments, env=None):
    return subprocess.run([str(BIN / "vigil"), *map(str, arguments)], capture_output=True, text=True,
                          timeout=PATIENCE, check=False, env=env, cwd=ROOT)


# --- Start ----------------------------------------------------------------------------------------


def bad_starts(folder):
    (folder / "empty").mkdir()
    shutil.copytree(MODEL, folder / "cut")
    weights = folder / "cut/model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:1_000_000])
    shutil.copytree(MODEL, folder / "novocab")
    (folder / "novocab/vocab.txt").unlink()
    shutil.copytree(MODEL, folder / "badconfig")
    (folder / "badconfig/config.json").write_text("{")
    (folder / "keys").write_text("sha256:123 short\n")
    (folder / "nokeys").write_text("\n# none\n")
    (folder / "cert.pem").write_text("no certificate")
    start = ["--port", "0", "--model", MODEL]
    return [
        (2, ["--nonsense"]), (2, ["--port", "70000"]), (2, ["--port", "x"]), (2, ["extra"]),
        (2, ["--log-format", "xml"]), (1, ["--isa", "z80", "--port", "0"]), (2, ["--threads", "-1"]),
        (1, ["--port", "0", "--model", folder / "none"]),
        (1, ["--port", "0", "--model", folder / "empty"]),
        (1, ["--port", "0", "--model", folder / "cut"]),
        (1, ["--port", "0", "--model", folder / "novocab"]),
        (1, ["--port", "0", "--model", folder / "badconfig"]),
        (1, [*start, "--api-keys", folder / "none"]),
        (1, [*start, "--api-keys", folder / "keys"]),
        (1, [*start, "--api-keys", folder / "nokeys"]),
        (1, [*start, "--tls-cert", folder / "cert.pem", "--tls-key", folder / "cert.pem"]),
        ((1, 2), [*start, "--tls-cert", folder / "cert.pem"]),
        ((1, 2), [*start, "--host", "0.0.0.0"]),
        ((1, 2), [*start, "--host", "::"]),
        ((1, 2), [*start, "--host", "not an address"]),
        (1, [*start, "--host", "192.0.2.1", "--allow-public"]),
    ]


def test_start_errors(tmp_path):
    """One clear line each, the right exit code, at once."""
    for codes, arguments in bad_starts(tmp_path):
        ended = vigil("serve", *arguments)
        assert ended.returncode in (codes if isinstance(codes, tuple) else (codes,)), (arguments, ended)
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        assert 1 <= len(lines) <= 4 and not ended.stdout, (arguments, ended)
        assert "Sanitizer" not in ended.stderr, ended.stderr


def test_port_in_use(server):
    ended = vigil("serve", "--model", MODEL, "--port", server.port)
    assert ended.returncode == 1
    assert str(server.port) in ended.stderr and "in use" in ended.stderr, ended.stderr


def test_help():
    for name in ("vigil", "vigil-serve"):
        ended = subprocess.run([str(BIN / name), "--version"], capture_output=True, text=True, check=True)
        assert re.search(r"\d+\.\d+\.\d+", ended.stdout)
    ended = vigil("serve", "--help")
    assert ended.returncode == 0 and "Examples" in ended.stdout
    for flag in ("--port", "--api-keys", "--tls-cert", "--drain-timeout", "--max-body", "--queue-requests"):
        assert flag in ended.stdout


def test_options_from_the_environment(start):
    server = start(env={"VIGIL_MAX_INPUTS": "2", "VIGIL_MAX_TEXT": "100"})
    assert server.post("/v1/classify", {"inputs": ["a", "b"]}).code == 200
    server.post("/v1/classify", {"inputs": ["a", "b", "c"]}).error(413, "too_large")
    server.post("/v1/classify", {"inputs": "a" * 101}).error(422)


def test_limits_of_the_flags(start):
    server = start("--max-body", "2000", "--max-inputs", "3", "--max-text", "50")
    server.post("/v1/classify", {"inputs": "a" * 51}).error(422)
    server.post("/v1/classify", {"inputs": ["a"] * 4}).error(413, "too_large")
    server.post("/v1/classify", b" " * 2001).error(413, "too_large")
    body = b'{"inputs": "a rash"}'
    assert server.post("/v1/classify", body + b" " * (2000 - len(body))).code == 200


def test_ready_only_when_warm(tmp_path):
    """From the first connection that is taken, /ready is 503 until it is 200."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(tmp_path, "--port", port, wait=False)
    server.port, seen, end = port, [], time.monotonic() + PATIENCE
    while not seen or seen[-1] != 200:
        assert time.monotonic() < end and server.process.poll() is None, server.log()
        try:
            answer = server.get("/ready")
        except OSError:
            assert not seen
            continue
        if answer.code != 200:
            answer.error(503, "not_ready")
            server.post("/v1/classify", {"inputs": AE})
        seen.append(answer.code)
    assert set(seen[:-1]) <= {503}
    assert server.classify(AE)
    server.stop()


# --- Keys -----------------------------------------------------------------------------------------


def test_keys(start, tmp_path):
    plain, hashed = "plain-key-0123456789", f"hashed-{MARK}"
    keys = tmp_path / "keys"
    keys.touch(0o600)
    keys.write_text(f"{plain}\nsha256:{hashlib.sha256(hashed.encode()).hexdigest()} alice\n")
    server = start("--api-keys", keys)
    body = {"inputs": AE}
    for path in ("/ping", "/health", "/ready"):
        assert server.get(path).code == 200
        assert server.get(path, Authorization="Bearer wrong").code == 200
    for key in (plain, hashed):
        for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key},
                        {"Authorization": f"bearer {key}"}):
            assert server.post("/v1/classify", body, headers=headers).code == 200, headers
            assert server.request("GET", "/info", headers=headers).code == 200
    wrong = ["", "x", plain[:-1], plain + "x", plain.upper(), plain[::-1], " ", plain + " " + plain,
             hashlib.sha256(hashed.encode()).hexdigest(), "alice", "x" * 5000,
             "sha256:" + hashlib.sha256(hashed.encode()).hexdigest()]
    for key in wrong:
        for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}):
            server.post("/v1/classify", body, headers=headers).error(401, "unauthorized")
    for headers in ({}, {"Authorization": plain}, {"Authorization": f"Basic {plain}"},
                    {"Authorization": "Bearer"}, {"Cookie": plain}, {"X-Api-Keys": plain}):
        server.post("/v1/classify", body, headers=headers).error(401, "unauthorized")
    for path in ("/", "/info", "/metrics", "/openapi.json"):
        server.get(path).error(401, "unauthorized")
    for path in ("/v1/classify", "/invocations", "/endpoints/a/invocations", "/predict", "/tokenize", "/"):
        server.post(path, body).error(401, "unauthorized")
    # A body is not read for who has no key.
    server.post("/v1/classify", b"x" * 3_000_000).error(401, "unauthorized")
    assert server.get(f"/v1/classify?key={plain}").code in (401, 405)
    log = server.log()
    assert plain not in log and hashed not in log


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", folder / "key.pem",
                    "-out", folder / "cert.pem"], check=True, capture_output=True)
    return folder


def test_tls(start, certificate):
    server = start("--tls-cert", certificate / "cert.pem", "--tls-key", certificate / "key.pem")
    context = ssl.create_default_context(cafile=certificate / "cert.pem")
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=PATIENCE)
    for _ in range(3):
        answer = server.post("/v1/classify", {"inputs": AE}, connection=connection)
        assert answer.ok()["results"][0]["label"] == "Adverse_Event"
    assert connection.sock.version() in ("TLSv1.2", "TLSv1.3")
    connection.close()
    large = server.post("/tokenize", {"inputs": ["rash " * 200] * 300})
    assert len(large.ok()) == 300 and len(large.body) > 1_000_000
    # Plain HTTP on this port is no request.
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
        sock.sendall(http_bytes("GET", "/ready", b"", "Connection: close"))
        sock.settimeout(10)
        try:
            assert b"200 OK" not in sock.recv(1000)
        except OSError:
            pass
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
            old.wrap_socket(sock)
    assert server.classify(AE)


def test_half_a_handshake(start, certificate):
    server = start("--tls-cert", certificate / "cert.pem", "--tls-key", certificate / "key.pem")
    half = [socket.create_connection(("127.0.0.1", server.port), PATIENCE) for _ in range(20)]
    for sock in half[::2]:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01")
    for sock in half:
        sock.settimeout(15)  # the rule is 6 s
        while sock.recv(100):
            pass
        sock.close()
    assert server.classify(AE)


def test_the_gate_holds_behind_tls(start, certificate):
    server = start("--tls-cert", certificate / "cert.pem", "--tls-key", certificate / "key.pem")
    for name, data, codes in REFUSED[::4]:
        answers, closed = server.raw(data + HIDDEN, 8)
        assert closed and len(answers) == 1 and answers[0].code in codes, (name, answers)
    assert server.classify(AE)


# --- Limits of connections --------------------------------------------------------------------------


def refused(sock):
    """Whether the server has sent this connection away."""
    sock.settimeout(2)
    try:
        sock.sendall(http_bytes("GET", "/ready"))
        answer = sock.recv(1000)
    except OSError:
        return True
    return not answer or b" 200 " not in answer.split(b"\r\n")[0]


def test_connections_of_one_address(start):
    server = start("--max-per-address", "5")
    held = [server.connect() for _ in range(5)]
    assert not any(refused(sock) for sock in held)
    over = [server.connect() for _ in range(5)]
    assert all(refused(sock) for sock in over)
    other = server.connect(source="127.0.0.2")
    assert not refused(other)
    assert not any(refused(sock) for sock in held)
    for sock in held + over:
        sock.close()
    end = time.monotonic() + PATIENCE
    while refused(server.connect()):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_connections_in_all(start):
    server = start("--max-connections", "8", "--max-per-address", "100")
    held = [server.connect(source=f"127.0.0.{n + 2}") for n in range(8)]
    assert not any(refused(sock) for sock in held)
    over = server.connect(source="127.0.0.99")
    assert refused(over)
    for sock in held:
        sock.close()
    end = time.monotonic() + PATIENCE
    while refused(server.connect()):
        assert time.monotonic() < end
        time.sleep(0.05)


# --- Overload -------------------------------------------------------------------------------------


def flood(server, body, n_clients, n_requests):
    """Codes of all answers, by closed-loop clients on connections of their own."""
    def client(_):
        codes = []
        for _ in range(n_requests):
            answer = server.post("/v1/classify", body)
            if answer.code == 200:
                answer.ok()
            else:
                answer.error(answer.code)
            codes.append(answer.code)
        return codes
    with concurrent.futures.ThreadPoolExecutor(n_clients) as pool:
        return [code for codes in pool.map(client, range(n_clients)) for code in codes]


def test_overload(start):
    server = start("--queue-requests", "4", "--max-per-address", "200")
    server.classify(AE)
    codes = flood(server, {"inputs": [AE + " rash" * 100] * 8}, 24, 4)
    assert set(codes) == {200, 429}, set(codes)
    assert codes.count(200) >= 4
    # And right after it is as before.
    assert server.classify(AE)[0]["label"] == "Adverse_Event"
    assert server.get("/ready").code == 200


def test_memory_for_bodies(start):
    """Sixty bodies of 5 MB at a time, with 32 MB for them: some are refused, none is kept."""
    server = start("--memory", "32M", "--max-per-address", "200")
    server.classify(AE)
    before = server.rss()
    peak, over = [before], threading.Event()

    def watch():
        while not over.is_set():
            peak[0] = max(peak[0], server.rss())
            time.sleep(0.01)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        body = json.dumps({"inputs": ["x" * 65000] * 75, "truncate": True}).encode()
        codes = flood(server, body, 30, 2)
    finally:
        over.set()
        watcher.join()
    assert set(codes) <= {200, 429}, set(codes)
    assert codes.count(429) > 0
    if "asan" not in str(BIN) and "tsan" not in str(BIN):
        assert peak[0] - before < 160 * 2**20, f"{(peak[0] - before) >> 20} MiB more than before"
    assert server.classify(AE)[0]["label"] == "Adverse_Event"


def test_deadline(start):
    server = start("--timeout", "1s", "--threads", "1")
    answer = server.post("/v1/classify", {"inputs": ["rash and nausea " * 4000] * 80})
    answer.error(503, "timeout")
    assert server.classify(AE)[0]["label"] == "Adverse_Event"


def test_work_of_clients_that_left(start):
    """A queue of requests that nobody waits for any more does not hold up the next one."""
    server = start("--threads", "1", "--timeout", "600s")
    heavy = http_bytes("POST", "/v1/classify", json.dumps({"inputs": ["rash and nausea " * 4000] * 80}).encode())
    left = [server.connect() for _ in range(8)]
    for sock in left:
        sock.sendall(heavy)
    for sock in left:
        sock.close()
    # Together they would be minutes of work, and nothing but their leaving ends it.
    end = time.monotonic() + PATIENCE
    while server.post("/v1/classify", {"inputs": AE}).code == 429:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert server.classify(AE)[0]["label"] == "Adverse_Event"
    while re.search(r"^vigil_queue_tokens [1-9]", server.get("/metrics").body.decode(), re.M):
        assert time.monotonic() < end, "their work is still queued"
        time.sleep(0.1)


# --- Reload and drain -------------------------------------------------------------------------------


class Load:
    """Clients that ask without end, on keep-alive connections. answers: (sent, code, model);
    code None: the connection ended without a byte of an answer."""

    def __init__(self, server, n_clients=6):
        self.server, self.over, self.answers, self.broken = server, threading.Event(), [], []
        self.threads = [threading.Thread(target=self.client, args=(n,)) for n in range(n_clients)]
        for thread in self.threads:
            thread.start()

    def client(self, number):
        connection = None
        body = {"inputs": [AE] * (1 + number), "entities": number % 2 == 1}
        while not self.over.is_set():
            sent = time.monotonic()
            try:
                connection = connection or self.server.connection()
                sent = time.monotonic()
                answer = self.server.post("/v1/classify", body, connection=connection)
            except ConnectionRefusedError:
                return
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                self.answers.append((sent, None, None))
                connection = None
                continue
            except (OSError, http.client.HTTPException, ValueError) as problem:
                self.broken.append(problem)
                return
            if answer.code == 200:
                model = answer.ok()
                self.answers.append((sent, 200, model["model"]["sha256"]))
                assert len(model["results"]) == 1 + number
            else:
                answer.error(answer.code)
                self.answers.append((sent, answer.code, None))
            if answer.headers.get("connection", "").lower() == "close":
                connection.close()
                connection = None

    def finish(self):
        self.over.set()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert not self.broken, self.broken[:3]
        return self.answers


def other_model(folder):
    """A model of the same shape with other weights."""
    shutil.copytree(MODEL, folder)
    weights = folder / "model.safetensors"
    weights.chmod(0o644)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1  # one bit of one scale or bias: still a valid model
    weights.write_bytes(data)


def put_model(place, source):
    """As an operator does it: the new directory is whole before it has the name."""
    link = place.with_name("next")
    link.symlink_to(source)
    link.replace(place)


def test_reload_under_load(start, tmp_path):
    shutil.copytree(MODEL, tmp_path / "a")
    other_model(tmp_path / "b")
    shutil.copytree(MODEL, tmp_path / "bad")
    (tmp_path / "bad/model.safetensors").chmod(0o644)
    (tmp_path / "bad/model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    current = tmp_path / "current"
    put_model(current, tmp_path / "a")
    server = start("--max-wait", "0", model=current)

    def hash_now():
        return server.post("/v1/classify", {"inputs": AE}).ok()["model"]["sha256"]
    first = hash_now()
    load = Load(server)
    hashes = {first}
    for n, name in enumerate(("b", "a", "bad", "b", "bad", "a")):
        old = hash_now()
        put_model(current, tmp_path / name)
        server.signal(signal.SIGHUP)
        server.wait_log(r"event=reload", n + 1)
        if name == "bad":
            assert hash_now() == old, "a bad model took over"
        else:
            end = time.monotonic() + PATIENCE
            while hash_now() == old:
                assert time.monotonic() < end, server.log()[-3000:]
                time.sleep(0.02)
        hashes.add(hash_now())
        time.sleep(0.1)
    answers = load.finish()
    assert len(hashes) == 2 and len(answers) > 10
    assert {code for _, code, _ in answers} == {200}
    assert {model for _, _, model in answers} <= hashes


def test_drain_under_load(tmp_path):
    for round_number in range(4):
        server = Server(tmp_path, "--max-wait", "0")
        load = Load(server)
        time.sleep(0.2 + 0.13 * round_number)
        asked = time.monotonic()
        server.stop()
        answers = load.finish()
        before = [code for sent, code, _ in answers if sent < asked - 0.001]
        assert before and set(before) == {200}, set(before)
        assert {code for _, code, _ in answers} <= {200, 503, None}


def heavy_request(connection):
    body = json.dumps({"inputs": ["rash and nausea " * 300] * 20}).encode()
    connection.request("POST", "/v1/classify", body, {"Content-Type": "application/json"})


def test_drain_answers_what_it_has(start):
    server = start("--threads", "1", "--timeout", "60s", "--drain-timeout", "60s")
    busy, idle = server.connection(), server.connection()
    assert server.request("GET", "/ready", connection=idle).code == 200
    heavy_request(busy)
    end = time.monotonic() + PATIENCE
    while not re.search(r"^vigil_queue_jobs [1-9]", server.get("/metrics").body.decode(), re.M):
        assert time.monotonic() < end, "the request is not queued"
    server.signal(signal.SIGTERM)
    time.sleep(0.05)
    try:  # who is connected is told, or sent away
        server.request("GET", "/ready", connection=idle).error(503, "not_ready")
    except (OSError, http.client.HTTPException):
        pass
    answer = busy.getresponse()
    assert answer.status == 200 and len(json.loads(answer.read())["results"]) == 20
    assert answer.getheader("connection", "").lower() == "close"
    assert server.wait_end() == 0


def test_drain_does_not_wait_for_ever(start):
    """Nor for clients that never finish their request."""
    server = start("--drain-timeout", "2s")
    half = server.connect()
    half.sendall(http_bytes("POST", "/v1/classify", b"x" * 1000)[:-900])
    server.signal(signal.SIGTERM)
    assert server.wait_end(30) == 0


def test_second_signal_ends_at_once(tmp_path):
    """In the middle of work."""
    for round_number in range(3):
        server = Server(tmp_path, "--threads", "1", "--max-wait", "0")
        load = Load(server)
        busy = server.connection()
        body = json.dumps({"inputs": ["rash and nausea " * 4000] * 80}).encode()
        busy.request("POST", "/v1/classify", body, {"Content-Type": "application/json"})
        time.sleep(0.3 + 0.07 * round_number)
        server.signal(signal.SIGTERM)
        time.sleep(0.1)
        server.signal(signal.SIGTERM)
        assert server.wait_end(15) == 0, server.log()[-2000:]
        try:  # it is told so, if there is time
            answer = busy.getresponse()
            assert answer.status == 503 and json.loads(answer.read())["error_type"] == "not_ready"
        except (http.client.RemoteDisconnected, ConnectionResetError):
            pass
        server.stop()
        assert {code for _, code, _ in load.finish()} <= {200, 503, None}


def test_interrupt(start):
    server = start()
    server.classify(AE)
    server.signal(signal.SIGINT)
    assert server.wait_end() == 0


# --- Logs and metrics -------------------------------------------------------------------------------


def test_log_lines(start):
    for log_format in ("logfmt", "json"):
        server = start(log_format=log_format)
        server.post("/v1/classify", {"inputs": AE}, headers={"X-Request-Id": "find-me"})
        server.post("/v1/classify", {"inputs": "", MARK: 1}, headers={"X-Request-Id": "bad-one"})
        server.get(f"/{MARK}%0aevent=fake", X_Request_Id="lost")
        server.wait_log("lost")
        lines = server.log().splitlines()
        if log_format == "json":
            records = [json.loads(line) for line in lines]
        else:
            records = [dict(re.findall(r'(\S+?)=("(?:[^"\\]|\\.)*"|\S*)', line)) for line in lines]
        by_id = {record.get("request_id"): record for record in records
                 if record.get("event") == "request"}
        good, bad, lost = by_id["find-me"], by_id["bad-one"], by_id["lost"]
        assert good["method"] == "POST" and good["route"] == "/v1/classify"
        assert (int(good["code"]), int(bad["code"]), int(lost["code"])) == (200, 422, 404)
        assert int(good["bytes_in"]) > 0 and int(good["bytes_out"]) > 0 and float(good["ms"]) > 0
        assert not any(record.get("event") == "fake" for record in records)
        check_log(server.log())


def test_log_level(start):
    server = start("--log-level", "debug")
    server.classify([AE, "", "x" * 70000], entities=True)
    server.post("/v1/classify", b'{"inputs": "' + MARK.encode()).error(400)
    server.post("/invocations", MARK.encode(), "text/plain").ok()
    server.post("/tokenize", {"inputs": MARK}).ok()


def test_metrics(server):
    for text in (AE, NOT_AE, "rash " * 2000):
        server.classify(text)
        server.classify(text, truncate=True)
    server.post("/v1/classify", {}).error(422)
    server.get("/nothing").error(404)
    for _ in range(2):
        assert server.get("/").code == server.post("/", {"inputs": AE}).code == 200
    answer = server.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.body.decode()
    assert MARK not in text and "nothing" not in text
    names = set(re.findall(r"^# TYPE (\S+)", text, re.M))
    assert names and all(name.startswith(("vigil_", "process_")) for name in names)
    assert names == set(re.findall(r"^# HELP (\S+)", text, re.M))
    for word in ("request", "queue", "batch", "token", "truncat", "label", "build_info", "seconds"):
        assert any(word in name for name in names), word
    series = [line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series)), "a series twice"
    for name in names:
        buckets = re.findall(rf'^{name}_bucket{{(.*?)}} (\S+)', text, re.M)
        series = {}
        for labels, value in buckets:
            series.setdefault(re.sub(r',?le="[^"]*"', "", labels), []).append(float(value))
        for values in series.values():
            assert values == sorted(values)
    assert 'le="0.0001"' in text, "the latency histogram starts at 100 us"
    promtool = shutil.which("promtool") or shutil.which("promtool", path=ROOT / "build/tools/usr/bin")
    if not promtool:
        pytest.skip("no promtool here")
    checked = subprocess.run([promtool, "check", "metrics"], input=answer.body, capture_output=True,
                             timeout=PATIENCE, check=False)
    assert checked.returncode == 0 and not checked.stdout and not checked.stderr, checked


def test_metrics_do_not_grow_with_what_clients_send(server):
    def n_series():
        return sum(not line.startswith(b"#") for line in server.get("/metrics").body.splitlines())
    for method in ("FOO", "GET"):
        server.request(method, "/x")
        server.request(method, "/ready")
    server.post("/endpoints/e/invocations", AE)
    server.get("/metrics")
    before = n_series()
    for n in range(60):
        server.get(f"/x{n}")
        server.post(f"/endpoints/e{n}/invocations", AE)
        server.request(f"M{n}", "/ready")
    assert n_series() == before
