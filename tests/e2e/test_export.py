# SPDX-License-Identifier: Apache-2.0
"""vigil export: the reference pipeline's columns, every result in one file whatever is killed
when, none of what was erased; and the statements that make the files a table."""
import collections
import json
import os
import random
import signal
import sqlite3
import subprocess
import time

import pytest

import postgres
from pipeline import (SETTLE, SHA256, bring_in, environment, files_with, lake_rows, post, query,
                      settle, vigil)
from serving import BIN, MARK, PATIENCE
from test_stream import wait_for

REFERENCE = ["id", "text", "pred_label", "pred_prob", "user_id", "timestamp", "user_city", "user_state",
             "user_location", "drug_mentions", "ae_type", "icd_codes"]
OURS = ["key", "version", "lang", "country", "state", "url", "received_at", "classified_at", "model_name",
        "model_sha256", "dtype", "threshold", "band", "n_reposts", "n_quotes", "n_duplicates", "mentions"]


def export(folder, *arguments, lake="lake"):
    """The files it says it wrote, and what it counted."""
    out, err = vigil(folder, "export", *arguments, lake)
    return out.splitlines(), err.removeprefix("vigil export: ").strip()


# --- What is in a file ---------------------------------------------------------------------------


def test_columns_and_partitions(tmp_path, server):
    """With real results: the columns by name, order and type, and what zcat makes of the file."""
    bring_in(tmp_path, [
        {"id": "1", "text": "Zoloft gave me a terrible rash \u00e9", "author": "ann", "lang": "en",
         "time": "2026-11-02T06:04:23Z", "place": "Austin, TX"},
        {"id": "2", "text": "picked up my zoloft and prozac today", "author": "bob", "lang": "en",
         "time": "2026-11-02T23:59:59.5Z", "place": "somewhere nice"},
        {"id": "3", "text": "no time at all with my zoloft", "lang": "en"}], "--mode", "full")
    bring_in(tmp_path, [{"id": "1", "text": "prozac made me ill, terrible", "lang": "en", "author": "cy",
                         "time": "2026-11-03T00:00:00Z"}], name="b.c-d_e")
    vigil(tmp_path, "enrich", "--once", "--quiet", "--server", f"http://127.0.0.1:{server.port}")
    files, counted = export(tmp_path)
    assert counted.startswith("4 results in 3 files, ")
    today = query(tmp_path, "SELECT date(received_ns / 1000000000, 'unixepoch') AS d FROM posts WHERE key = 'a:3'")
    found = {(path.parent.parent.name, path.parent.name) for path, _ in lake_rows(tmp_path / "lake")}
    assert found == {("dt=2026-11-02", "source=a"), ("dt=2026-11-03", "source=b.c-d_e"),
                     (f"dt={today[0]['d']}", "source=a")}
    lines = []
    for path in files:
        assert path.startswith(str(tmp_path / "lake/dt="))
        shown = subprocess.run(["zcat", path], capture_output=True, check=True).stdout
        assert shown.endswith(b"\n")
        lines += shown.decode().splitlines()
    assert len(lines) == 4
    for line in lines:
        assert [name for name, _ in json.loads(line, object_pairs_hook=list)] == REFERENCE + OURS
    one, two, three = [json.loads(line) for line in sorted(lines) if '"key":"a:' in line]
    assert {name: one[name] for name in REFERENCE if name not in ("pred_prob", "ae_type")} == {
        "id": "1", "text": "Zoloft gave me a terrible rash \u00e9", "pred_label": "Adverse_Event",
        "user_id": "ann", "timestamp": "2026-11-02 06:04:23", "user_city": "Austin", "user_state": "Texas",
        "user_location": "", "drug_mentions": "sertraline", "icd_codes": []}
    assert 0.6 < one["pred_prob"] <= 1 and "rash" in one["ae_type"]
    assert (one["country"], one["state"], one["band"]) == ("US", "US-TX", "positive")
    for mention in one["mentions"]:
        words = one["text"][mention["begin_cp"]:mention["end_cp"]]
        assert words.lower() == mention["text"].lower()
    assert two["pred_label"] == "Not_AE" and two["ae_type"] == "UNDOCUMENTED"
    assert (two["user_city"], two["user_state"], two["user_location"]) == ("", "", "somewhere nice")
    assert two["drug_mentions"] in ("sertraline, fluoxetine", "fluoxetine, sertraline")
    assert two["timestamp"].startswith("2026-11-02 23:59:59")
    assert three["timestamp"] == three["received_at"] and three["user_id"] == ""


def test_again_and_again(tmp_path):
    """Nothing new, no file touched; what comes later is in files of its own."""
    bring_in(tmp_path, [post(n) for n in range(50)])
    settle(tmp_path)
    files, _ = export(tmp_path, "--max-rows", "20")
    assert len(files) == 3
    before = {path: os.stat(path).st_mtime_ns for path in files}
    assert export(tmp_path) == ([], "0 results in 0 files, 0 bytes")
    bring_in(tmp_path, [post(n) for n in range(50, 60)])
    assert export(tmp_path)[0] == []  # they wait for their results
    settle(tmp_path)
    more, counted = export(tmp_path, "--quiet")
    assert more == [] and counted.startswith("10 results in 1 files")
    assert {path: os.stat(path).st_mtime_ns for path in files} == before
    assert sorted(row["key"] for _, row in lake_rows(tmp_path / "lake")) == sorted(f"a:{n}" for n in range(60))


def test_one_source(tmp_path):
    bring_in(tmp_path, [post(1)])
    bring_in(tmp_path, [post(2)], name="b")
    settle(tmp_path)
    assert export(tmp_path, "--source", "none")[0] == []
    assert ["source=b" in path for path in export(tmp_path, "--source", "b")[0]] == [True]
    assert ["source=a" in path for path in export(tmp_path)[0]] == [True]


# --- Kills, deletes, others at work --------------------------------------------------------------


def check_lake(folder):
    """Each result of a present version is in one line, and nothing else is in any."""
    lines = collections.Counter((row["key"], row["version"], row["model_sha256"], row["text"])
                                for _, row in lake_rows(folder / "lake"))
    wanted = {(row["key"], row["version"], row["model_sha256"], row["text"])
              for row in query(folder, "SELECT p.key, p.version, r.model_sha256, p.text FROM posts p JOIN "
                                       "results r ON r.post_id = p.id AND r.version = p.version", "-n", "0")}
    assert not [line for line, n in lines.items() if n > 1]
    assert set(lines) == wanted
    names = [path.name for path in (folder / "lake").rglob("*") if path.is_file()]
    assert not [name for name in names if not name.endswith(".jsonl.gz") and name != ".vigil-lock"], names
    assert query(folder, "SELECT count(*) AS n FROM lake_rows")[0]["n"] == len(wanted)
    assert query(folder, "SELECT count(*) AS n FROM lake_files")[0]["n"] == len(names) - 1
    return len(wanted)


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment(tmp_path, seed):
    chance = random.Random(seed)
    n_posts, n_done, gone = 0, 0, set()
    for _ in range(12):
        n = chance.randrange(200, 500)
        days = ("2026-11-01", "2026-11-02")
        bring_in(tmp_path, [post(k, time=f"{chance.choice(days)}T10:00:00Z", author=f"u{k % 50}")
                            for k in range(n_posts, n_posts + n)], "--mode", "full", "--no-fold")
        n_posts += n
        settle(tmp_path)
        running = subprocess.Popen([str(BIN / "vigil-export"), "--quiet", "--max-rows", "60", "lake"],
                                   cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0, 0.06))
        running.kill()
        n_done += running.wait() == 0
        # One that is withdrawn, one that is edited, at times one that is erased, an author.
        deleted, edited = chance.randrange(n_posts), chance.randrange(n_posts)
        gone.add(deleted)
        bring_in(tmp_path, [{"id": str(deleted), "deleted": True},
                            post(edited, text="zoloft, in other words", version=n_posts, author="u1")],
                 "--mode", "full", "--no-fold")
        if chance.random() < 0.4:
            vigil(tmp_path, "erase", "--author", f"a:u{chance.randrange(50)}")
    assert n_done < 12
    settle(tmp_path)
    export(tmp_path, "--max-rows", "60")
    assert check_lake(tmp_path) > 1000
    assert not {f"a:{k}" for k in gone} & {row["key"] for _, row in lake_rows(tmp_path / "lake")}
    assert export(tmp_path)[1] == "0 results in 0 files, 0 bytes"


def test_leftovers_of_a_kill_are_erased(tmp_path):
    """Killed while a file was half written: what is erased then is not in the half either."""
    bring_in(tmp_path, [post(n, text=f"zoloft {MARK} " + " ".join(str((n * 7919 + k) % 9973) for k in range(60)))
                        for n in range(20000)], "--no-fold")
    settle(tmp_path)
    running = subprocess.Popen([str(BIN / "vigil-export"), "lake"], cwd=tmp_path, env=environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: [path for path in (tmp_path / "lake").rglob("*.tmp") if path.stat().st_size])
    running.kill()
    running.wait()
    assert list((tmp_path / "lake").rglob("*.tmp"))
    vigil(tmp_path, "erase", "--source", "a")
    assert not [path for path in (tmp_path / "lake").rglob("*") if path.is_file() and path.name[0] != "."]
    assert not files_with(tmp_path, MARK)


def test_erased_while_it_is_written(tmp_path):
    """On PostgreSQL nobody waits for a reader: an export that read a post before it was erased
    must not put it back."""
    with postgres.Server() as pg:
        bring_in(tmp_path, [post(n, text=f"zoloft {n * n} {MARK if n < 9 else ''}", author=f"u{n // 9}")
                            for n in range(8000)], "--no-fold", "--key-file", tmp_path / "key", store=pg.url)
        for statement in SETTLE:
            pg.sql(statement)
        running = subprocess.Popen([str(BIN / "vigil-export"), "--quiet", "--store", pg.url, "lake"],
                                   cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL)
        wait_for(lambda: [path for path in (tmp_path / "lake").rglob("*.tmp") if path.stat().st_size])
        running.send_signal(signal.SIGSTOP)
        eraser = subprocess.Popen([str(BIN / "vigil-erase"), "--store", pg.url, "--key-file", "key",
                                   "--author", "a:u0", "--json"], cwd=tmp_path, env=environment(),
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(lambda: pg.sql("SELECT count(*) FROM posts") == ["7991"])
        time.sleep(0.3)  # were it not held back, it would be through with the files now
        running.send_signal(signal.SIGCONT)
        assert running.wait(PATIENCE) == 0
        out, err = eraser.communicate(timeout=PATIENCE)
        assert eraser.returncode == 0, err
        assert json.loads(out)["posts"] == 9 and json.loads(out)["lake_files_rewritten"] == 1
        rows = [row["id"] for _, row in lake_rows(tmp_path / "lake")]
        assert len(rows) == len(set(rows)) == 7991
        assert not files_with(tmp_path / "lake", MARK)
        assert pg.sql("SELECT count(*) FROM lake_rows") == ["7991"]
        assert vigil(tmp_path, "export", "--store", pg.url, "lake")[1].startswith(
            "vigil export: 0 results in 0 files")


def test_two_exports_at_once(tmp_path):
    bring_in(tmp_path, [post(n) for n in range(3000)], "--no-fold")
    settle(tmp_path)
    both = [subprocess.Popen([str(BIN / "vigil-export"), "--quiet", "--max-rows", "50", "lake"], cwd=tmp_path,
                             env=environment(), stderr=subprocess.PIPE) for _ in range(2)]
    for each in both:
        err = each.communicate(timeout=PATIENCE)[1]
        assert each.returncode == 0, err
    assert check_lake(tmp_path) == 3000


def test_a_full_disk(tmp_path):
    """What was written is whole; the rest comes with the next run."""
    chance = random.Random(1)
    bring_in(tmp_path, [post(n, text="zoloft " + chance.randbytes(2000).hex()) for n in range(300)],
             "--no-fold")
    settle(tmp_path)
    vigil(tmp_path, "erase", "--post", "a:none")  # the log is empty now
    limited = ["prlimit", "--fsize=300000", str(BIN / "vigil-export"), "--max-rows", "100", "lake"]
    done = subprocess.run(["env", "--ignore-signal=XFSZ", *limited], cwd=tmp_path, env=environment(),
                          capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    bring_in(tmp_path, [post(n, text="zoloft " + chance.randbytes(2000).hex()) for n in range(300, 600)],
             "--no-fold")
    settle(tmp_path)
    vigil(tmp_path, "erase", "--post", "a:none")
    limited[-2] = "300"
    done = subprocess.run(["env", "--ignore-signal=XFSZ", *limited], cwd=tmp_path, env=environment(),
                          capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 1 and "File too large" in done.stderr and "lake" in done.stderr, done.stderr
    assert not list((tmp_path / "lake").rglob("*.tmp"))
    assert len(list(lake_rows(tmp_path / "lake"))) == 300
    export(tmp_path)
    assert check_lake(tmp_path) == 600


# --- Statements, errors --------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["athena", "duckdb", "trino", "clickhouse"])
def test_statements_know_every_column(tmp_path, engine):
    bring_in(tmp_path, [post(1)])
    settle(tmp_path)
    export(tmp_path)
    flags = ("--location", "s3://bucket/lake/") if engine in ("athena", "trino") else ()
    said, err = vigil(tmp_path, "export", "--statements", engine, "--table", "lake.events", *flags, "lake")
    assert err == "" and "lake.events" in said
    at = [said.index(f"{quote}{name}{quote} ") if f"{quote}{name}{quote} " in said else said.index(f"'{name}': ")
          for name in REFERENCE + OURS for quote in ['"' if engine == "trino" else "`"]]
    assert at == sorted(at)
    where = "s3://bucket/lake" if flags else str(tmp_path / "lake")
    assert f"'{where}" in said and "lake//" not in said
    if engine == "athena":
        assert "'projection.source.values' = 'a'" in said


@pytest.mark.parametrize("arguments, code, says", [
    ((), 2, "expected 1 argument"),
    (("--statements", "oracle", "lake"), 2, "athena, duckdb, trino, clickhouse"),
    (("--statements", "athena", "lake"), 2, "--location"),
    (("--statements", "trino", "--location", "/lake", "lake"), 2, "--location"),
    (("--location", "s3://x/y", "lake"), 2, "--statements"),
    (("--statements", "duckdb", "--table", "a b; DROP TABLE x", "lake"), 2, "--table"),
    (("--table", "", "lake"), 2, "--table"),
    (("--max-rows", "0", "lake"), 2, "--max-rows"),
    (("a.file",), 1, "not a directory"),
    (("a.file/lake",), 1, "cannot make a.file/lake"),
    (("no/such/lake",), 1, "cannot make no/such/lake"),
])
def test_errors(tmp_path, arguments, code, says):
    bring_in(tmp_path, [post(1)])
    settle(tmp_path)
    (tmp_path / "a.file").touch()
    _, err = vigil(tmp_path, "export", *arguments, code=code)
    assert err.startswith("vigil export: ") and says in err
    assert not list(tmp_path.rglob("*.gz"))


def test_standard_output_that_is_full(tmp_path):
    bring_in(tmp_path, [post(1)])
    settle(tmp_path)
    for arguments in (("--statements", "duckdb"), ()):
        with open("/dev/full", "wb") as full:
            _, err = vigil(tmp_path, "export", *arguments, "lake", code=1, stdout=full)
        assert "standard output: No space left" in err
    assert check_lake(tmp_path) == 1


def test_models_beside_each_other(tmp_path):
    bring_in(tmp_path, [post(1)])
    settle(tmp_path)
    export(tmp_path)
    with sqlite3.connect(tmp_path / "vigil.db") as db:
        db.execute("INSERT INTO results SELECT post_id, version, 'other', 'n', dtype, label, score, probability, "
                   "threshold, band, n_tokens, n_windows, is_truncated, created_ns + 1 FROM results")
    assert len(export(tmp_path)[0]) == 1
    assert sorted(row["model_sha256"] for _, row in lake_rows(tmp_path / "lake")) == [SHA256, "other"]
