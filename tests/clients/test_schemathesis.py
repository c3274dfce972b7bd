# SPDX-License-Identifier: Apache-2.0
"""Schemathesis makes requests out of /openapi.json, good and bad ones, and holds every answer
against it. SCHEMATHESIS_SEED and SCHEMATHESIS_EXAMPLES change what it makes."""
import os
import pathlib
import re
import subprocess
import sys

from conftest import KEY

HERE = pathlib.Path(__file__).resolve().parent


def run(url, folder, *flags):
    program = pathlib.Path(sys.executable).with_name("schemathesis")
    ended = subprocess.run(
        [program, "--config-file", HERE / "schemathesis.toml", "run", f"{url}/openapi.json",
         "--checks", "all", "--continue-on-failure", "--no-color", "--warnings", "off",
         # NUL is legal in a text (tests/e2e has it), and refused in a key.
         "--generation-allow-x00", "false", "--generation-database", "none", "--seed", os.environ.get("SCHEMATHESIS_SEED", "1"),
         "--max-examples", os.environ.get("SCHEMATHESIS_EXAMPLES", "60"), *flags],
        cwd=folder, env=dict(os.environ, SCHEMATHESIS_HOOKS="hooks", PYTHONPATH=str(HERE)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False)
    shown = "\n".join(line[:400] for line in ended.stdout.splitlines())
    assert ended.returncode == 0, shown
    assert re.search(r"Tested: 12\b", ended.stdout), shown
    assert "No issues found" in ended.stdout, shown


def test_description_holds(url, tmp_path):
    run(url, tmp_path)


def test_description_holds_with_keys(locked_url, tmp_path):
    run(locked_url, tmp_path, "-H", f"X-API-Key: {KEY}")
