# SPDX-License-Identifier: Apache-2.0
"""Servers for the tests: one for all that only ask, one of its own for who breaks things."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from serving import BIN, Server  # noqa: E402


def pytest_collection_modifyitems(items):
    """Without the programs every test would fail for the same reason: say it once."""
    if items and not (BIN / "vigil-serve").exists():
        pytest.exit(f"{BIN}/vigil-serve is not built; run make", returncode=1)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server that no test may stop, overload or reload."""
    running = Server(tmp_path_factory.mktemp("serve"), "--max-per-address", "1000",
                     "--max-wait", "0", "--timeout", "300s")
    yield running
    running.stop()


@pytest.fixture
def start(tmp_path):
    """start(*flags, **options): a server of the test's own, stopped and checked behind it."""
    running = []

    def one(*flags, **options):
        running.append(Server(tmp_path, *flags, **options))
        return running[-1]

    yield one
    problems = []
    for each in running:
        try:
            each.stop(expected=getattr(each, "expected_exit", 0))
        except AssertionError as problem:
            problems.append(problem)
    if problems:
        raise problems[0]
