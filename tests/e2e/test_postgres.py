# SPDX-License-Identifier: Apache-2.0
"""The store's C tests once more, over a real PostgreSQL."""
import os
import pathlib
import subprocess

import pytest

import postgres

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TESTS = pathlib.Path(os.environ["VIGIL_BIN"]).parent / "tests"
SECONDS = 300  # a bound on hangs
NAMES = ["test_database", "test_lake", *sorted(path.stem for path in (ROOT / "tests/unit").glob("test_store*.c"))]


@pytest.fixture(scope="module")
def server():
    with postgres.Server() as running:
        yield running


@pytest.mark.parametrize("name", NAMES)
def test_over_postgres(server, name):
    assert (TESTS / name).exists(), f"make {TESTS / name}"
    done = subprocess.run([TESTS / name], capture_output=True, text=True, timeout=SECONDS,
                          env={**os.environ, "VIGIL_TEST_POSTGRES": server.url})
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.password not in done.stdout + done.stderr


def test_statements_reach_the_server(server):
    """The C tests ran there: they leave tables behind."""
    assert server.sql("SELECT value FROM meta WHERE name = 'schema_version'") == ["1"]


def test_survives_a_crash(server):
    """The helper can stop and start it again: what was committed is there."""
    server.sql("CREATE TABLE IF NOT EXISTS kept (i integer); INSERT INTO kept VALUES (7)")
    server.stop()
    server.start()
    assert server.sql("SELECT i FROM kept") == ["7"]
