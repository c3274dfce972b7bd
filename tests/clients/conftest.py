# SPDX-License-Identifier: Apache-2.0
"""The servers of tests/e2e, for the clients here."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))

from serving import Server  # noqa: E402

KEY = "a-key-of-the-client-tests"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("serve"), "--max-wait", "0", "--timeout", "300s")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def locked(tmp_path_factory):
    """A server that wants KEY."""
    folder = tmp_path_factory.mktemp("locked")
    keys = folder / "keys"
    keys.touch(0o600)
    keys.write_text(KEY + "\n", "ascii")
    running = Server(folder, "--max-wait", "0", "--timeout", "300s", "--api-keys", keys)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def url(server):
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="session")
def locked_url(locked):
    return f"http://127.0.0.1:{locked.port}"
