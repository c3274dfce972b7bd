# SPDX-License-Identifier: Apache-2.0
"""vigil enrich with a real server and real stores: every post gets its result once, whoever
dies, and nothing that a post says gets out."""
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request

import pytest

import postgres
from nats_cluster import Cluster
from serving import AE, BIN, MARK, NOT_AE, PATIENCE, ROOT, Server, check_log

FILLER = BIN.parent / "tests/test_worker"
PUBLISHER = BIN.parent / "tests/test_queue"
TOO_LONG = "x" * 70000


def needs(program):
    assert program.exists(), f"make {program}"


def fill(store, texts, first=0, mode=1):
    """Posts into a store, in the way of vigil stream."""
    needs(FILLER)
    subprocess.run([str(FILLER), "fill", str(store), str(first), str(mode)], check=True,
                   input="".join(text + "\n" for text in texts).encode(), timeout=PATIENCE)


def texts(n):
    return [f"{AE if i % 3 == 0 else NOT_AE}, no. {i}" for i in range(n)]


def rows(store, sql):
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=30) as db:
        return db.execute(sql).fetchall()


def number(store, sql):
    return rows(store, sql)[0][0]


class Worker:
    def __init__(self, folder, store, port, *flags):
        self.log_path = pathlib.Path(folder) / f"enrich-{time.monotonic_ns()}.log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("VIGIL_")}
        environment["TERM"] = "dumb"
        command = [str(BIN / "vigil-enrich"), "--store", str(store),
                   "--server", f"http://127.0.0.1:{port}", *map(str, flags)]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log,
                                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def log(self):
        return self.log_path.read_text("utf-8", "replace")

    def wait_log(self, pattern):
        end = time.monotonic() + PATIENCE
        while not re.search(pattern, self.log()):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, f"no {pattern!r} in:\n{self.log()}"
            time.sleep(0.01)
        return re.search(pattern, self.log())

    def wait(self, expected=0):
        try:
            out = self.process.communicate(timeout=2 * PATIENCE)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it did not end:\n{self.log()}") from None
        log = self.log()
        assert self.process.returncode == expected, log
        check_log(log)
        return out.decode()

    def kill(self):
        self.process.kill()
        self.process.wait()


def run(folder, store, port, *flags, expected=0):
    worker = Worker(folder, store, port, *flags)
    out = worker.wait(expected)
    return (json.loads(out) if "--json" in flags else out), worker.log()


def check_once_each(store, n):
    """Each of n posts has exactly one result."""
    assert number(store, "SELECT count(*) FROM queue") == 0
    assert number(store, "SELECT count(*) FROM results") == n
    assert number(store, "SELECT count(DISTINCT post_id) FROM results") == n


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


# --- What goes well ------------------------------------------------------------------------------


def test_results_are_the_servers(tmp_path, server):
    store = tmp_path / "store.db"
    some = texts(150) + ["Z\u00e9 took \U0001f48a Zoloft and got a terrible rash"]
    fill(store, some)
    summary, log = run(tmp_path, store, server.port, "--once", "--json", "--batch", "16")
    assert summary["posts"] == 151 and summary["lost"] == summary["retried"] == 0
    check_once_each(store, 151)
    found = rows(store, "SELECT p.text, r.label, r.score, r.probability, r.band, r.n_tokens, "
                        "r.n_windows, r.is_truncated, r.model_sha256, r.dtype, r.post_id "
                        "FROM results r JOIN posts p ON p.id = r.post_id ORDER BY p.id")
    said = server.post("/v1/classify", {"inputs": some, "threshold": 0.6, "entities": True}).ok()
    for row, text, want in zip(found, some, said["results"]):
        assert row[0] == text
        assert row[1] == want["label"] and abs(row[2] - want["score"]) < 1e-6
        p = want["probs"]["Adverse_Event"]
        assert abs(row[3] - p) < 1e-6
        assert row[4] == ("positive" if p >= 0.6 else "review" if p >= 0.4 else "negative")
        assert row[5:8] == (want["tokens"], want["windows"], want["truncated"])
        assert row[8] == said["model"]["sha256"] and row[9] == said["model"]["dtype"]
        mentions = rows(store, "SELECT type, text, begin_cp, end_cp FROM mentions WHERE "
                               f"post_id = {row[10]} ORDER BY n")
        assert mentions == [(e["type"], e["text"], e["begin"], e["end"])
                            for e in want["entities"]]
        for _, words, begin, end in mentions:
            assert text[begin:end] == words
    assert "event=ready" in log
    # Nothing is left to do, for posts as for this model.
    again, _ = run(tmp_path, store, server.port, "--once", "--json")
    rerun, _ = run(tmp_path, store, server.port, "--model", "current", "--since", "7d", "--json")
    assert again["posts"] == rerun["posts"] == 0


def test_bands_by_option(tmp_path, server):
    store = tmp_path / "store.db"
    fill(store, texts(30))
    summary, _ = run(tmp_path, store, server.port, "--once", "--json", "--threshold", "1",
                     "--review-band", "0.0")
    assert (summary["positive"], summary["review"], summary["negative"]) == (0, 30, 0)


def test_posts_that_come_later_are_taken(tmp_path, server):
    store = tmp_path / "store.db"
    fill(store, texts(10))
    worker = Worker(tmp_path, store, server.port, "--metrics", "127.0.0.1:0")
    port = worker.wait_log(r"metrics_port=(\d+)")[1]
    end = time.monotonic() + PATIENCE
    for first in range(10, 60, 10):
        fill(store, texts(10), first)
    while number(store, "SELECT count(*) FROM results") < 60:
        assert time.monotonic() < end, worker.log()
        time.sleep(0.02)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE) as answer:
        assert json.load(answer) == {"status": "ok", "breaker": "closed"}
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        page = answer.read().decode()
    assert "\nvigil_enrich_claimed_total 60\n" in page
    assert "\nvigil_enrich_queue_waiting 0\n" in page
    assert MARK not in page
    promtool = shutil.which("promtool") or shutil.which("promtool", path=ROOT / "build/tools/usr/bin")
    if promtool:
        done = subprocess.run([promtool, "check", "metrics"], input=page.encode(),
                              capture_output=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    worker.process.send_signal(signal.SIGTERM)
    worker.wait()
    check_once_each(store, 60)


# --- What goes wrong -----------------------------------------------------------------------------


def test_bad_posts_are_dead_letters_and_harm_nobody(tmp_path, server):
    store = tmp_path / "store.db"
    some = texts(100)
    some[17] = MARK + TOO_LONG
    some[71] = MARK + TOO_LONG
    fill(store, some)
    summary, _ = run(tmp_path, store, server.port, "--once", "--json")
    assert summary["posts"] == 98 and summary["given_up"] == 2
    check_once_each(store, 98)
    assert rows(store, "SELECT key, reason, stage FROM dead_letters ORDER BY key") == [
        ("test:17", "server: this text: too_large", "classify"),
        ("test:71", "server: this text: too_large", "classify")]


def test_a_server_with_small_limits_gets_small_requests(tmp_path, start):
    small = start("--max-inputs", "4", "--max-body", "8K", "--max-text", "16K")
    store = tmp_path / "store.db"
    some = [text + " lorem" * 300 for text in texts(20)]
    some[7] = MARK + "x" * 9000  # more than a body may have
    fill(store, some)
    summary, _ = run(tmp_path, store, small.port, "--once", "--json")
    assert summary["posts"] == 19 and summary["given_up"] == 1
    assert rows(store, "SELECT key, reason FROM dead_letters") == [
        ("test:7", "server: 413 too_large")]


def test_it_waits_for_the_server(tmp_path):
    store = tmp_path / "store.db"
    fill(store, texts(20))
    port = free_port()
    worker = Worker(tmp_path, store, port, "--once")
    worker.wait_log(r"event=waiting .*")
    late = Server(tmp_path, "--port", str(port))
    worker.wait()
    check_once_each(store, 20)
    late.stop()


def test_keys(tmp_path, start):
    store = tmp_path / "store.db"
    fill(store, texts(5))
    keys, wrong, open_to_all = (tmp_path / name for name in ("keys", "wrong", "open"))
    for path, key in ((keys, "key-1-abcdefghijkl"), (wrong, "key-2-abcdefghijkl"),
                      (open_to_all, "key-1-abcdefghijkl")):
        path.write_text(key + "\n", "ascii")
        path.chmod(0o600)
    open_to_all.chmod(0o644)
    locked = start("--api-keys", keys)
    for flags in ((), ("--api-key-file", wrong), ("--api-key-file", open_to_all)):
        out, log = run(tmp_path, store, locked.port, "--once", *flags, expected=1)
        assert "vigil enrich: " in log and "key-" not in log
    assert number(store, "SELECT count(*) FROM queue WHERE tries = 0") == 5
    run(tmp_path, store, locked.port, "--once", "--api-key-file", keys)
    check_once_each(store, 5)


def test_tls(tmp_path, start):
    """With a key over TLS; an authority that is not known is the end, and no key is sent."""
    store, cert, key = (tmp_path / name for name in ("store.db", "cert.pem", "key.pem"))
    secret = tmp_path / "secret"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out",
                    str(cert)], check=True, capture_output=True, timeout=PATIENCE)
    secret.write_text("key-1-abcdefghijkl\n", "ascii")
    secret.chmod(0o600)
    fill(store, texts(5))
    locked = start("--api-keys", secret, "--tls-cert", cert, "--tls-key", key)
    flags = ("--server", f"https://127.0.0.1:{locked.port}", "--api-key-file", secret, "--once")
    _, log = run(tmp_path, store, locked.port, *flags, expected=1)
    assert "vigil enrich: " in log and "key-1" not in log
    run(tmp_path, store, locked.port, *flags, "--ca-file", cert)
    check_once_each(store, 5)


def test_a_second_signal_ends_it_at_once(tmp_path):
    """While the server hangs: the claims are free again after the lease."""
    store = tmp_path / "store.db"
    fill(store, texts(20))
    first = Server(tmp_path)
    worker = Worker(tmp_path, store, first.port, "--batch", "4", "--timeout", "600s",
                    "--lease", "1s")
    worker.wait_log("event=ready")
    end = time.monotonic() + PATIENCE
    while number(store, "SELECT count(*) FROM results") < 20:
        assert time.monotonic() < end, worker.log()
        time.sleep(0.01)
    first.signal(signal.SIGSTOP)
    fill(store, texts(20), 20)
    while number(store, "SELECT count(*) FROM queue WHERE worker != ''") == 0:
        assert time.monotonic() < end, worker.log()
        time.sleep(0.01)
    time.sleep(0.2)  # the request is under way
    worker.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert worker.process.poll() is None
    worker.process.send_signal(signal.SIGTERM)
    worker.wait(expected=-signal.SIGTERM)
    first.signal(signal.SIGCONT)
    run(tmp_path, store, first.port, "--once")
    check_once_each(store, 40)
    first.stop()


def test_a_label_that_is_not_there(tmp_path, server):
    for label, words in (("Nonsense", "has no label"), ("Not_AE", "is label 0")):
        _, log = run(tmp_path, tmp_path / "s.db", server.port, "--positive-label", label,
                     expected=1)
        assert words in log
    _, log = run(tmp_path, tmp_path / "s.db", server.port, "--model", "0" * 64, expected=1)
    assert "the server has model" in log


@pytest.mark.parametrize("url, says", [
    ("nonsense", "expected http://host:port"), ("http://", "expected http://host:port"),
    ("http://127.0.0.1:1?x=1", "expected http://host:port"), ("ftp://127.0.0.1", "expected http:// or https://"),
    ("http://someone:qzpassword@127.0.0.1:1", "no user name"),
    ("http://192.0.2.1", "only https:// is allowed")])
def test_a_server_that_cannot_be_is_not_waited_for(tmp_path, url, says):
    """And what is secret in its URL is not shown."""
    key = tmp_path / "key"
    key.write_text("key-1-abcdefghijkl\n", "ascii")
    key.chmod(0o600)
    out, log = run(tmp_path, tmp_path / "s.db", 1, "--server", url, "--api-key-file", key, expected=1)
    assert log.startswith("vigil enrich: ") and says in log and "qzpassword" not in log


def test_a_server_of_another_kind(tmp_path, server):
    url = f"http://127.0.0.1:{server.port}/elsewhere"
    _, log = run(tmp_path, tmp_path / "s.db", 1, "--server", url, expected=1)
    assert f"{url} has no /info: expected a vigil serve there" in log


@pytest.mark.parametrize("flags", [
    ("--threshold", "2"), ("--threshold", "nan"), ("--threshold", "0.3"),
    ("--review-band", "0.7"), ("--since", "7d"), ("--model", "current", "--since", "soon"),
    ("--model", "12"), ("--batch", "513"), ("--parallel", "0"), ("--nonsense",), ("argument",)])
def test_usage(tmp_path, flags):
    out, log = run(tmp_path, tmp_path / "s.db", 1, *flags, expected=2)
    assert log.startswith("vigil enrich: ") and not (tmp_path / "s.db").exists()


def test_sigterm_gives_back_what_waits(tmp_path, server):
    store = tmp_path / "store.db"
    fill(store, texts(1500))
    worker = Worker(tmp_path, store, server.port, "--batch", "8")
    end = time.monotonic() + PATIENCE
    while number(store, "SELECT count(*) FROM results") < 50:
        assert time.monotonic() < end, worker.log()
        time.sleep(0.005)
    worker.process.send_signal(signal.SIGTERM)
    worker.wait()
    n = number(store, "SELECT count(*) FROM results")
    assert number(store, "SELECT count(*) FROM queue") == 1500 - n
    assert number(store, "SELECT count(*) FROM queue WHERE worker != '' OR tries != 0") == 0
    run(tmp_path, store, server.port, "--once")
    check_once_each(store, 1500)


def test_a_server_that_is_killed_costs_nobody_anything(tmp_path):
    store = tmp_path / "store.db"
    fill(store, texts(600))
    first = Server(tmp_path)
    worker = Worker(tmp_path, store, first.port, "--once", "--json", "--batch", "8",
                    "--parallel", "2")
    end = time.monotonic() + PATIENCE
    while number(store, "SELECT count(*) FROM results") < 50:
        assert time.monotonic() < end, worker.log()
        time.sleep(0.005)
    first.process.kill()
    first.process.wait()
    second = Server(tmp_path, "--port", str(first.port))
    summary = json.loads(worker.wait())
    assert summary["posts"] == 600 and summary["given_up"] == summary["retried"] == 0
    assert summary["retries"] * 10 <= summary["requests"]
    check_once_each(store, 600)
    second.stop()


def test_workers_that_are_killed(tmp_path, server):
    """Two workers on one store, killed at random moments and started anew."""
    store = tmp_path / "store.db"
    chance = random.Random(5)
    fill(store, texts(1200))
    flags = ("--lease", "1s", "--batch", "8", "--parallel", "2", "--once", "--quiet")
    workers = [Worker(tmp_path, store, server.port, *flags) for _ in range(2)]
    for k in range(10):
        time.sleep(chance.uniform(0.02, 0.25))
        workers[k % 2].kill()
        check_log(workers[k % 2].log())
        workers[k % 2] = Worker(tmp_path, store, server.port, *flags)
    for worker in workers:
        worker.wait()
    assert number(store, "SELECT count(*) FROM dead_letters") == 0
    check_once_each(store, 1200)


def test_a_model_that_changes(tmp_path):
    """From a model without evidence to one with it, by SIGHUP, while a worker runs."""
    store, model = tmp_path / "store.db", tmp_path / "model"
    shutil.copytree(ROOT / "tests/data/models/binary-f32", model)
    shutil.copy(ROOT / "tests/data/models/vocab.txt", model)
    ade = ROOT / "weights/ade"
    config = json.loads((model / "config.json").read_text())
    config["id2label"] = {"0": "Not_AE", "1": "Adverse_Event"}
    (model / "config.json").write_text(json.dumps(config), "utf-8")
    running = Server(tmp_path, model=model)
    fill(store, texts(40))
    worker = Worker(tmp_path, store, running.port, "--batch", "4")
    end = time.monotonic() + PATIENCE
    while number(store, "SELECT count(*) FROM results") < 40:
        assert time.monotonic() < end, worker.log()
        time.sleep(0.01)
    assert number(store, "SELECT count(*) FROM mentions") == 0
    for path in ade.iterdir():
        if path.is_file():
            shutil.copy(path, model)
    running.signal(signal.SIGHUP)
    running.wait_log("event=reloaded")
    fill(store, texts(200), 40)
    while number(store, "SELECT count(*) FROM results") < 240:
        assert time.monotonic() < end, worker.log()
        time.sleep(0.01)
    worker.process.send_signal(signal.SIGTERM)
    worker.wait()
    running.stop()
    check_once_each(store, 240)
    assert rows(store, "SELECT count(*) FROM results GROUP BY model_sha256 ORDER BY 1") == [
        (40,), (200,)]
    assert number(store, "SELECT count(*) FROM mentions") > 0
    assert "event=model_changed" in worker.log()


# --- PostgreSQL ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database():
    with postgres.Server() as running:
        yield running


def test_worker_over_postgres(database):
    """The worker's C tests once more, over a real PostgreSQL."""
    needs(FILLER)
    done = subprocess.run([str(FILLER)], capture_output=True, text=True, timeout=5 * PATIENCE,
                          cwd=ROOT, env={**os.environ, "VIGIL_TEST_POSTGRES": database.url},
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Running") == 2  # SQLite, PostgreSQL
    assert database.password not in done.stdout + done.stderr


def test_workers_share_a_postgres(tmp_path, server, database):
    fill(database.url, texts(300))
    workers = [Worker(tmp_path, database.url, server.port, "--once", "--json", "--batch", "16")
               for _ in range(2)]
    done = [json.loads(worker.wait()) for worker in workers]
    assert sum(one["posts"] for one in done) == 300
    assert sum(one["lost"] for one in done) == 0
    for worker in workers:
        assert database.password not in worker.log()
    assert database.sql("SELECT count(*), count(DISTINCT post_id) FROM results") == ["300|300"]
    assert database.sql("SELECT count(*) FROM queue") == ["0"]


# --- NATS ----------------------------------------------------------------------------------------


def test_posts_from_nats(tmp_path, server):
    needs(PUBLISHER)
    store = tmp_path / "store.db"
    with Cluster(tmp_path, nodes=1) as cluster:
        url = cluster.url("VIGIL")
        for _ in range(2):  # what is published twice is classified once
            subprocess.run([str(PUBLISHER), "publish", url, "0", "300", "50",
                            str(tmp_path / "published")], check=True, timeout=PATIENCE)
        workers = [Worker(tmp_path, store, server.port, "--queue", url, "--once", "--json",
                          "--batch", "16", "--quiet") for _ in range(2)]
        done = [json.loads(worker.wait()) for worker in workers]
        assert sum(one["posts"] for one in done) >= 300
        check_once_each(store, 300)
        again, _ = run(tmp_path, store, server.port, "--queue", url, "--once", "--json")
        assert again["posts"] == 0
        # Another consumer goes over the same posts; the results are there already.
        rerun, _ = run(tmp_path, store, server.port, "--queue", url, "--model", "current",
                       "--json")
        assert rerun["posts"] == 300
        check_once_each(store, 300)


def test_a_counted_post_leaves_the_queue(tmp_path, server):
    """Of aggregate mode nothing that was said is left in NATS once it is counted, whatever the
    stream's age."""
    store = tmp_path / "store.db"
    lines = "".join(json.dumps({"id": str(i), "text": f"my Prozac gave me a terrible rash {MARK}-{i}-"}) + "\n"
                    for i in range(40))
    (tmp_path / "a.jsonl").write_text(lines, "ascii")
    with Cluster(tmp_path / "nats") as cluster:
        url = cluster.url()
        subprocess.run([str(BIN / "vigil-stream"), "--store", str(store), "--queue", url, "--mode", "aggregate",
                        "--no-fold", "--quiet", str(tmp_path / "a.jsonl")], check=True, timeout=PATIENCE)
        end = time.monotonic() + PATIENCE
        while not cluster.bytes_found(f"{MARK}-39-".encode()):
            assert time.monotonic() < end, "the files are not where the test looks"
            time.sleep(0.05)
        done, _ = run(tmp_path, store, server.port, "--queue", url, "--once", "--json")
        assert done["posts"] == 40
        assert number(store, "SELECT sum(n_posts) FROM aggregates") == 40
        assert number(store, "SELECT count(*) FROM posts") == 0
        assert not cluster.bytes_found(MARK.encode())
