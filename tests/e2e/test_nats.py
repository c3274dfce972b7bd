# SPDX-License-Identifier: Apache-2.0
"""The queue against real NATS servers: one node, and three whose nodes die all the time.

The parts (publisher, consumers) are played by the unit test's program, in processes of their
own. VIGIL_NATS_KILLS sets how often nodes die: 8 here; tests/faults/pipeline has more of it.
"""
import http.server
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import threading
import time

import pytest

from nats_cluster import Cluster
from serving import BIN

PROGRAM = BIN.parent / "tests" / "test_queue"
KILLS = int(os.environ.get("VIGIL_NATS_KILLS", "8"))
SECONDS = 240  # a bound on hangs

pytestmark = pytest.mark.skipif(
    not shutil.which("nats-server", path=os.environ.get("PATH", "") + ":/usr/sbin"),
    reason="no nats-server")


@pytest.fixture(scope="module", autouse=True)
def program():
    assert PROGRAM.exists(), f"{PROGRAM} is not built; run make tests"


def play(*arguments, expected=0):
    done = subprocess.run([str(PROGRAM), *map(str, arguments)], capture_output=True, text=True,
                          timeout=SECONDS, stdin=subprocess.DEVNULL)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout.strip() if expected == 0 else done.stderr


def start(*arguments, log):
    with open(log, "wb") as err:
        return subprocess.Popen([str(PROGRAM), *map(str, arguments)], stdout=subprocess.PIPE,
                                stderr=err, stdin=subprocess.DEVNULL)


def keys(path):
    return pathlib.Path(path).read_text("utf-8").split()


@pytest.mark.parametrize("nodes", [1, 3])
def test_queue_against_a_server(tmp_path, nodes):
    """Every case of the unit test that needs a server."""
    with Cluster(tmp_path, nodes) as cluster:
        servers = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
        done = subprocess.run([str(PROGRAM)], capture_output=True, text=True, timeout=SECONDS,
                              env=dict(os.environ, VIGIL_TEST_NATS=f"nats://{servers}"))
        assert done.returncode == 0, done.stdout + done.stderr
        if nodes == 3:
            streams = cluster.nodes[0].get("/jsz?streams=1&config=1")["account_details"]
            copies = {stream["config"]["num_replicas"]
                      for account in streams for stream in account["stream_detail"]}
            assert copies <= {1, 3} and 3 in copies, copies  # one case asks for 1


def test_erased_posts_leave_no_bytes(tmp_path):
    """Neither text nor key nor author of what was erased is in the server's files."""
    with Cluster(tmp_path) as cluster:
        play("publish", cluster.url(), 0, 300, 50, tmp_path / "acked")
        # The last batch may lie in the server's memory for a moment.
        for needle in (b"MARKED-TEXT-5 ", b"MARKED-TEXT-299 "):
            until = time.monotonic() + 30
            while not cluster.bytes_found(needle) and time.monotonic() < until:
                time.sleep(0.05)
            assert cluster.bytes_found(needle), "the files are not where the test looks"
        assert play("erase", cluster.url(), "-", "-", "test:5") == "1"
        assert play("erase", cluster.url(), "-", "author-2", "-") == "43"
        for i in [5, *range(2, 300, 7)]:
            assert not cluster.bytes_found(b"MARKED-TEXT-%d " % i), i
            assert not cluster.bytes_found(b"test:%d@" % i), i
        assert not cluster.bytes_found(b"author-2")
        assert cluster.bytes_found(b"MARKED-TEXT-6 ")
        assert play("erase", cluster.url(), "test", "-", "-") == "256"
        assert not cluster.bytes_found(b"MARKED-TEXT")
        assert not cluster.bytes_found(b"author-")
        cluster.nodes[0].stop()
        assert not cluster.bytes_found(b"MARKED-TEXT")


def test_three_nodes_that_die_lose_nothing(tmp_path, record_property):
    """One, two and all nodes are killed or halted at seeded moments while a publisher and two
    consumers run. What was acknowledged to the publisher is consumed. The consumers wait for
    the publisher's end: ones that give up in an outage look like loss."""
    chance = random.Random(20261126)
    acked, done = tmp_path / "acked", tmp_path / "done"
    with Cluster(tmp_path / "nodes", 3) as cluster:
        url = cluster.url()
        parts = {"publisher": start("publish", url, 0, 0, 20, acked, log=tmp_path / "p.log")}
        for name in "ab":
            parts[name] = start("consume", url, "enrich", done, tmp_path / f"out-{name}",
                                log=tmp_path / f"{name}.log")
        for kill in range(KILLS):
            time.sleep(chance.uniform(0.1, 0.8))
            for part, process in parts.items():
                assert process.poll() is None, f"{part} ended: " + "".join(
                    path.read_text() for path in tmp_path.glob("*.log"))
            victims = chance.sample(cluster.nodes, chance.choice([1, 1, 1, 2, 3]))
            if kill % 5 == 4:  # one that hangs is no better than one that is dead
                victims = victims[:1]
                victims[0].pause()
                time.sleep(chance.uniform(0.2, 2.0))
                victims[0].go_on()
                continue
            for node in victims:
                node.kill()
                time.sleep(chance.uniform(0, 0.1))
            time.sleep(chance.uniform(0, 0.5))
            for node in victims:
                node.start()
            if chance.random() < 0.4:  # else the next one finds them as they are
                cluster.wait_healthy()
        cluster.wait_healthy()
        pathlib.Path(f"{acked}.stop").touch()
        assert parts["publisher"].wait(SECONDS) == 0, (tmp_path / "p.log").read_text()
        done.touch()
        for name in "ab":
            assert parts[name].wait(SECONDS) == 0, (tmp_path / f"{name}.log").read_text()
    sent = keys(acked)
    consumed = keys(tmp_path / "out-a") + keys(tmp_path / "out-b")
    lost = set(sent) - set(consumed)
    again = len(consumed) - len(set(consumed))
    print(f"{KILLS} kills, {len(sent)} acknowledged, {len(lost)} lost, {again} consumed again")
    record_property("acknowledged", len(sent))
    record_property("again", again)
    assert len(sent) > 100 and len(set(sent)) == len(sent)
    assert not lost, sorted(lost)[:20]


AUTHORISED = """
accounts {{ A {{ jetstream: enabled, users: [ {{user: "vigil", password: "S3CRET-word"}} ] }} }}
"""


def test_secrets_are_not_shown(tmp_path):
    with Cluster(tmp_path, extra=AUTHORISED.format()) as cluster:
        good = cluster.url(secret="vigil:S3CRET%2dword@")
        play("publish", good, 0, 10, 10, tmp_path / "acked")
        assert play("erase", good, "-", "-", "-") == "10"
        said = play("erase", cluster.url(secret="vigil:S3CRET-wrong@"), "-", "-", "-", expected=1)
        assert "cannot connect" in said and "127.0.0.1" in said
        assert "S3CRET" not in said and "vigil:" not in said
        said = play("erase", cluster.url(secret="S3CRET-token@"), "-", "-", "-", expected=1)
        assert "S3CRET" not in said


def test_a_server_without_jetstream_is_refused(tmp_path):
    with Cluster(tmp_path) as cluster:
        node = cluster.nodes[0]
        node.kill()
        node.config.write_text(f'listen: "127.0.0.1:{node.port}"\nhttp: "127.0.0.1:{node.monitor}"\n')
        node.start()
        cluster.wait_healthy()
        assert "no JetStream" in play("erase", cluster.url(), "-", "-", "-", expected=1)
        assert play("check", cluster.url()).split("|")[1] == "0"


class Server(threading.Thread):
    """Says what a newer nats-server would say first, to each that connects."""

    def __init__(self, info):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.info = info
        self.start()

    def run(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            with peer:
                peer.sendall(self.info)

    @property
    def port(self):
        return self.listener.getsockname()[1]


def monitor(config):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"jetstream": {"config": config}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_check_knows_what_the_server_flushes(tmp_path):
    with Cluster(tmp_path) as cluster:
        version, jetstream, is_cluster, old, known, always, warning = \
            play("check", cluster.url(options=f"monitor=127.0.0.1:{cluster.nodes[0].monitor}")).split("|")
        assert version.count(".") == 2 and (jetstream, is_cluster) == ("1", "0")
        if old == "1":
            assert "2.10.23" in warning
        assert always == "0" and known == "1"

    def facts(version, config=None):
        info = json.dumps({"version": version, "jetstream": True, "cluster": "c"}).encode()
        server = Server(b"INFO " + info + b"\r\n")
        options = ""
        if config is not None:
            options = "?monitor=127.0.0.1:%d" % monitor(config).server_address[1]
        said = play("check", f"nats://127.0.0.1:{server.port}/X{options}").split("|")
        server.listener.close()
        return said

    assert facts("2.10.22")[3] == "1" and facts("2.9.30")[3] == "1" and facts("?")[3] == "1"
    assert facts("2.10.23")[3] == "0" and facts("2.11.0-RC.1")[3] == "0" and facts("3.0")[3] == "0"
    assert "not known" in facts("2.12.1")[6]
    assert "set sync_interval" in facts("2.12.1", {"sync_interval": 120})[6]
    assert facts("2.12.1", {"sync_always": True})[4:] == ["1", "1", ""]
    bad = Server(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert "no nats-server" in play("check", f"nats://127.0.0.1:{bad.port}", expected=1)


def certificate(folder, name, alternative):
    """A key and a certificate that signs itself, for one name."""
    key, cert = folder / f"{name}.key", folder / f"{name}.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(key), "-out", str(cert),
                    "-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={alternative}"],
                   check=True, capture_output=True)
    return key, cert


@pytest.mark.parametrize("alternative,works", [("IP:127.0.0.1", True), ("DNS:elsewhere", False)])
def test_tls_wants_the_right_certificate(tmp_path, alternative, works):
    key, cert = certificate(tmp_path, "server", alternative)
    tls = f'tls {{ cert_file: "{cert}", key_file: "{key}" }}'
    with Cluster(tmp_path / "nodes", extra=tls) as cluster:
        url = cluster.url().replace("nats://", "tls://") + "?ca="
        if works:
            play("publish", url + str(cert), 0, 10, 10, tmp_path / "acked")
            assert play("erase", url + str(cert), "-", "-", "-") == "10"
            _, other = certificate(tmp_path, "other", alternative)
            assert "cannot connect" in play("erase", url + str(other), "-", "-", "-", expected=1)
        else:
            assert "cannot connect" in play("erase", url + str(cert), "-", "-", "-", expected=1)
