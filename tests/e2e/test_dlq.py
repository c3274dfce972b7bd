# SPDX-License-Identifier: Apache-2.0
"""vigil dlq: what failed, where and why; one looked at, sent round again, or dropped."""
import contextlib
import csv
import io
import json
import os
import pty
import subprocess

import pytest

import postgres
from pipeline import bring_in, environment, post, query, vigil
from serving import BIN, MARK, PATIENCE

LINES = [f'{{"id": "1", "text": "{MARK}\n', f'{{"id": 2, "text": ["{MARK}"]}}\n',
         f'{{"id": "3", "text": "{MARK} \\ud800"}}\n', f'["{MARK}"]\n']


@pytest.fixture
def folder(tmp_path):
    assert bring_in(tmp_path, [post(1), *LINES, post(2)])["dead"] == 4
    return tmp_path


def letters(folder, *flags):
    return json.loads(vigil(folder, "dlq", "list", "--format", "json", *flags)[0])


def test_list_show_drop(folder):
    listed = letters(folder)
    assert [one["id"] for one in listed] == [4, 3, 2, 1]
    assert {(one["stage"], one["source"], one["tries"]) for one in listed} == {("parse", "a", 1)}
    for one in listed:
        assert one["reason"] and one["bytes"] > 10 and one["at"].startswith("20")
    out, err = vigil(folder, "dlq", "list")
    assert MARK not in out and err == "" and out.splitlines()[0].split() == [
        "id", "at", "stage", "source", "key", "tries", "bytes", "reason"]
    assert MARK not in vigil(folder, "dlq", "list", "--format", "csv")[0]
    assert [one["id"] for one in letters(folder, "--limit", "2")] == [4, 3]
    out, err = vigil(folder, "dlq", "show", "1")
    assert out == LINES[0] and f"reason  {listed[3]['reason']}\n" in err and MARK not in err
    assert "stage   parse\n" in err and "source  a\n" in err
    assert vigil(folder, "dlq", "drop", "2", "--actor", "ann")[1] == "vigil dlq: 1 dropped\n"
    assert [one["id"] for one in letters(folder)] == [4, 3, 1]
    assert vigil(folder, "dlq", "drop", "all")[1] == "vigil dlq: 3 dropped\n"
    assert letters(folder) == []
    assert vigil(folder, "dlq", "drop", "all")[1] == "vigil dlq: 0 dropped\n"
    audit = query(folder, "SELECT actor, action, subject, details FROM audit ORDER BY seq")
    assert audit[0] == {"actor": "ann", "action": "dead_drop", "subject": "letter:2", "details": '{"letters":1}'}
    assert audit[1]["details"] == '{"letters":3}' and len(audit) == 2
    assert "2 audit entries" in vigil(folder, "erase", "--check-audit")[0]


def test_retried_lines_are_read_again(folder):
    """Still unreadable, they come back with one try more; readable by then, they are posts."""
    assert vigil(folder, "dlq", "retry", "1")[1] == "vigil dlq: 1 sent round again\n"
    assert [one["id"] for one in letters(folder)] == [4, 3, 2]
    bring_in(folder, [])
    assert [(one["tries"]) for one in letters(folder)] == [2, 1, 1, 1]
    vigil(folder, "dlq", "retry", "all")
    assert query(folder, "SELECT count(*) AS n FROM raw") == [{"n": 4}]
    bring_in(folder, [])
    assert sorted(one["tries"] for one in letters(folder)) == [2, 2, 2, 3]


def test_a_post_that_the_server_refuses(tmp_path, start):
    small = start("--max-text", "1K")
    again = start()
    long = post(1, text="zoloft gave me a rash " + f"{MARK} " * 200)
    bring_in(tmp_path, [long, post(2)])
    enrich = ("enrich", "--once", "--quiet", "--server")
    vigil(tmp_path, *enrich, f"http://127.0.0.1:{small.port}")
    one, = letters(tmp_path)
    assert (one["stage"], one["key"], one["bytes"]) == ("classify", "a:1", 0)
    assert "server" in one["reason"] and MARK not in one["reason"]
    out, err = vigil(tmp_path, "dlq", "show", str(one["id"]))
    assert out == "" and "key     a:1\n" in err
    vigil(tmp_path, "dlq", "retry", str(one["id"]))
    assert query(tmp_path, "SELECT count(*) AS n FROM queue") == [{"n": 1}] and letters(tmp_path) == []
    vigil(tmp_path, *enrich, f"http://127.0.0.1:{again.port}")
    assert query(tmp_path, "SELECT count(*) AS n FROM results") == [{"n": 2}] and letters(tmp_path) == []


HOSTILE = [f'{{"id": "\x1b[31m\\u001b[32mevil\\nlevel=error msg=forged", "text": "{MARK}\x1b[1m\x07\x9b2J\n']


def test_a_terminal_gets_no_commands(tmp_path):
    """Ids and lines with escape sequences and line ends: neither terminal nor list sees them."""
    bring_in(tmp_path, HOSTILE)
    for arguments in (["show", "1"], ["list"], ["list", "-f", "csv"], ["list", "-f", "jsonl"]):
        ours, theirs = pty.openpty()
        subprocess.run([str(BIN / "vigil-dlq"), *arguments], cwd=tmp_path, stdout=theirs, stderr=theirs,
                       env=environment(), check=True, timeout=PATIENCE)
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):
            while some := os.read(ours, 65536):
                seen += some
        os.close(ours)
        text = seen.decode().replace("\r\n", "\n")
        assert not [c for c in text if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160], seen
        assert (MARK in text) == (arguments[0] == "show")
    # A file gets what was there, byte by byte.
    out, _ = vigil(tmp_path, "dlq", "show", "1")
    assert out == HOSTILE[0]


def test_a_key_of_many_lines_stays_on_one(tmp_path, start):
    small = start("--max-text", "1K")
    bring_in(tmp_path, [{"id": "x\nlevel=error \x1b[31mforged\x9b", "lang": "en",
                         "text": "zoloft gave me a rash " + "long " * 300}])
    vigil(tmp_path, "enrich", "--once", "--quiet", "--log-level", "debug", "--server",
          f"http://127.0.0.1:{small.port}")
    one, = letters(tmp_path)
    assert one["key"] == "a:x\nlevel=error \x1b[31mforged\x9b"
    out, err = vigil(tmp_path, "dlq", "show", str(one["id"]))
    assert len(err.splitlines()) == 7 and err.replace("\n", "").isprintable(), err
    out, _ = vigil(tmp_path, "dlq", "list")
    assert len(out.splitlines()) == 3 and out.replace("\n", "").isprintable()
    out, _ = vigil(tmp_path, "dlq", "list", "-f", "csv")
    assert list(csv.DictReader(io.StringIO(out)))[0]["key"] == one["key"]


def test_on_postgres(tmp_path):
    with postgres.Server() as pg:
        store = ("--store", pg.url)
        bring_in(tmp_path, [post(1), *LINES], "--key-file", tmp_path / "key", store=pg.url)
        assert [one["id"] for one in letters(tmp_path, *store)] == [4, 3, 2, 1]
        assert vigil(tmp_path, "dlq", *store, "show", "3")[0] == LINES[2]
        vigil(tmp_path, "dlq", *store, "retry", "3")
        vigil(tmp_path, "dlq", *store, "drop", "all")
        assert pg.sql("SELECT count(*) FROM raw") == ["1"] and letters(tmp_path, *store) == []


@pytest.mark.parametrize("arguments, code, says", [
    ((), 2, "expected at least 1 argument"), (("lst",), 2, "did you mean list"),
    (("everything",), 2, "list, show, retry, drop"), (("list", "1"), 2, "no ID"),
    (("show",), 2, "the ID of one letter"), (("show", "all"), 2, "the ID of one letter"),
    (("show", "x"), 2, "the ID"), (("retry",), 2, 'or "all"'), (("drop", "0"), 2, 'or "all"'),
    (("drop", "1", "2"), 2, "unexpected"), (("show", "99999999999999999999"), 2, "the ID"),
    (("show", "77"), 1, "no dead letter 77"), (("retry", "77"), 1, "no dead letter 77"),
    (("drop", "77"), 1, "no dead letter 77"), (("list", "-f", "xml"), 2, "table, csv, json, jsonl")])
def test_errors(folder, arguments, code, says):
    _, err = vigil(folder, "dlq", *arguments, code=code)
    assert err.startswith("vigil dlq: ") and says in err
    assert len(letters(folder)) == 4


@pytest.mark.parametrize("arguments", [("list",), ("list", "-f", "csv"), ("show", "1")])
def test_a_full_disk(folder, arguments):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([str(BIN / "vigil-dlq"), *arguments], cwd=folder, stdout=full, env=environment(),
                              stderr=subprocess.PIPE, check=False, timeout=PATIENCE)
    assert done.returncode == 1 and b"No space left" in done.stderr and MARK.encode() not in done.stderr
