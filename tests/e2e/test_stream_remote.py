# SPDX-License-Identifier: Apache-2.0
"""vigil stream and what lies on other machines: PostgreSQL and NATS that go away while it runs,
and posts that are pushed."""
import json
import shutil
import signal
import urllib.request

import pytest

import postgres
from nats_cluster import Cluster
from test_stream import HANG_SECONDS, Stream, jsonl, port_of, post, rows, wait_for

N = 6000


def test_postgres_goes_away(tmp_path):
    """Twice in the middle: each post is there once."""
    with postgres.Server() as server:
        running = Stream(tmp_path, "--no-fold", "--json", "--store", server.url, "--key-file",
                         tmp_path / "key", "--follow", "--name", "p", "a.jsonl")
        for n in range(3):
            with open(tmp_path / "a.jsonl", "a") as file:
                file.write(jsonl(post(k) for k in range(n * N, n * N + N)))

            def has_begun(least=n * N):
                try:
                    return int(server.sql("SELECT count(*) FROM posts")[0]) > least
                except RuntimeError:  # no table yet
                    return False
            wait_for(has_begun)
            if n < 2:
                server.stop()
                server.start()
        wait_for(lambda: server.sql("SELECT count(*) FROM posts") == [str(3 * N)])
        code, _, err = running.end(signal.SIGTERM)
        assert code == 0, err
        assert server.password not in err
        assert server.sql("SELECT count(DISTINCT key) FROM posts") == [str(3 * N)]
        assert server.sql("SELECT count(*) FROM queue") == [str(3 * N)]


@pytest.mark.skipif(not shutil.which("nats-server", path="/usr/bin:/usr/sbin:/usr/local/bin"),
                    reason="no nats-server")
@pytest.mark.parametrize("is_pipe", [False, True])
def test_a_queue_that_goes_away(tmp_path, is_pipe):
    """Posts go to the queue, the store keeps cursor and spool alone."""
    (tmp_path / "a.jsonl").write_text(jsonl(post(k) for k in range(N)))
    with Cluster(tmp_path / "nats") as cluster, open(tmp_path / "a.jsonl") as stdin:
        node, = cluster.nodes

        def n_messages():
            streams = node.get("/jsz?streams=true")["account_details"][0]["stream_detail"]
            return next(s["state"]["messages"] for s in streams if s["name"] == "VIGIL")

        running = Stream(tmp_path, "--no-fold", "--json", "--queue", cluster.url(), "--name", "q",
                         "-" if is_pipe else "a.jsonl", stdin=stdin)
        wait_for(lambda: (tmp_path / "vigil.db").exists())
        node.kill()
        node.start()
        cluster.wait_healthy()
        code, out, err = running.end()
        assert code == 0, err
        assert json.loads(out)["lines"] == N
        assert n_messages() == N
    assert rows(tmp_path, "SELECT count(*) FROM posts") == [(0,)]
    assert rows(tmp_path, "SELECT count(*) FROM raw") == [(0,)]
    assert rows(tmp_path, "SELECT count(*) FROM cursors") == [(1,)]


def test_what_was_pushed_is_there(tmp_path):
    """200 means durable: kill -9 behind it loses nothing."""
    running = Stream(tmp_path, "push:127.0.0.1:0")
    url = port_of(running) + "/v1/posts"
    body = jsonl([post(1), post(2)]).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/x-ndjson"})
    with urllib.request.urlopen(request, timeout=HANG_SECONDS) as answer:
        assert json.load(answer)["accepted"] == 2
    running.process.kill()
    running.process.wait()
    running = Stream(tmp_path, "push:127.0.0.1:0")
    port_of(running)
    wait_for(lambda: rows(tmp_path, "SELECT count(*) FROM posts") == [(2,)])
    assert running.end(signal.SIGTERM)[0] == 0
    assert rows(tmp_path, "SELECT key FROM posts ORDER BY key") == [("push:1",), ("push:2",)]
