# SPDX-License-Identifier: Apache-2.0
"""vigil query on SQLite and PostgreSQL: what it prints, what it refuses, and how it says so."""
import contextlib
import csv
import io
import json
import os
import pathlib
import pty
import sqlite3
import subprocess


import pytest

import postgres
from pipeline import SETTLE, bring_in, environment, post, settle, vigil
from serving import BIN, MARK, PATIENCE

ESCAPES = "zoloft \x1b[31mred \x07 \x9b32m \u2028line\nnext\r\x7f"
POSTS = [post(n, author=f"u{n % 3}") for n in range(30)] + [
    {"id": "esc", "text": ESCAPES, "lang": "en"}, post(99, text=f"zoloft gave me {MARK}")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("query")
    bring_in(where, POSTS)
    settle(where)
    return where


@pytest.fixture(scope="module")
def on_postgres(tmp_path_factory):
    """The URL of a store with the same posts."""
    where = tmp_path_factory.mktemp("pg")
    with postgres.Server() as server:
        bring_in(where, POSTS, "--key-file", where / "key", store=server.url)
        for statement in SETTLE:
            server.sql(statement)
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, folder):
    if request.param == "sqlite":
        return "vigil.db"
    return request.getfixturevalue("on_postgres").url


def ask(folder, url, sql, *flags, code=0):
    return vigil(folder, "query", "--store", url, *flags, sql, code=code)


# --- What it prints ------------------------------------------------------------------------------


def test_the_same_on_both(folder, url):
    out, _ = ask(folder, url, "SELECT drug, label, n FROM drug_labels ORDER BY n DESC")
    assert out == ("drug        label           n\n"
                   "----------  -------------  --\n"
                   "sertraline  Adverse_Event  22\n"
                   "sertraline  Not_AE         10\n")
    out, _ = ask(folder, url, "--tables")
    for name in ("view   cases ", "view   drug_labels ", "table  posts ", "table  audit "):
        assert name in out
    assert "drug, label, n, n_folded" in out


FORMATS = "SELECT 7 AS a, 0.1 AS b, 'x,\"y\n' AS c, NULL AS d, '' AS e"


def test_formats(folder, url):
    out, _ = ask(folder, url, FORMATS, "-f", "csv")
    assert out == 'a,b,c,d,e\n7,0.1,"x,""y\n",,""\n'
    assert list(csv.reader(io.StringIO(out)))[1] == ["7", "0.1", 'x,"y\n', "", ""]
    row = {"a": 7, "b": 0.1, "c": 'x,"y\n', "d": None, "e": ""}
    assert json.loads(ask(folder, url, FORMATS, "-f", "json")[0]) == [row]
    assert json.loads(ask(folder, url, FORMATS, "-f", "jsonl")[0]) == row
    assert ask(folder, url, "SELECT 1 AS a WHERE 1 = 2", "-f", "json")[0] == "[]\n"
    assert ask(folder, url, "SELECT 1 AS a WHERE 1 = 2", "-f", "csv")[0] == "a\n"
    assert ask(folder, url, "SELECT 1 AS a", "--no-header")[0] == "1\n"


def test_statement_from_standard_input(folder):
    assert vigil(folder, "query", "-f", "csv", "-", input=b"SELECT 3 AS n\n")[0] == "n\n3\n"
    assert "holds no statement" in vigil(folder, "query", "-", code=1)[1]


@pytest.mark.parametrize("form", ["table", "csv", "json", "jsonl"])
def test_a_terminal_gets_no_commands(folder, form):
    """Escape sequences of a post, or of a column's name, do not reach the terminal."""
    sql = "SELECT text AS \"a\x1b[1m\" FROM posts WHERE key = 'a:esc'"
    ours, theirs = pty.openpty()
    subprocess.run([str(BIN / "vigil-query"), "-f", form, sql], cwd=folder, stdout=theirs,
                   stderr=theirs, env=environment(), check=True, timeout=PATIENCE)
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):
        while some := os.read(ours, 65536):
            seen += some
    os.close(ours)
    assert b"red" in seen
    text = seen.decode().replace("\r\n", "\n")  # the terminal's own line ends
    assert not [c for c in text if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160], seen


# --- What it refuses -----------------------------------------------------------------------------

BOTH = [
    ("DELETE FROM posts", "only reading is possible"),
    ("INSERT INTO tombstones VALUES (x'00', 1)", "only reading is possible"),
    ("UPDATE posts SET text = ''", "only reading is possible"),
    ("DROP TABLE posts", "only reading is possible"),
    ("CREATE TABLE x (a integer)", "only reading is possible"),
    ("SELECT 1; SELECT 2", ""),
    ("SELECT 1; DELETE FROM posts", ""),
    ("SELEC 1", ""),
    ("SELECT nope FROM posts", "nope"),
    ("SELECT * FROM nope", "nope"),
    ("COMMIT", ""),
    ("", ""),
    ("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c",
     "took"),
]
SQLITE = [
    ("ATTACH 'other.db' AS o", "only reading is possible"),
    ("PRAGMA journal_mode = DELETE", "only reading is possible"),
    ("PRAGMA writable_schema = 1", "only reading is possible"),
    ("UPDATE sqlite_master SET sql = ''", "may not be modified"),
    ("VACUUM INTO 'copy.db'", "VACUUM"),
    ("SELECT load_extension('x')", "load_extension"),
    ("SELECT fts3_tokenizer('simple')", "fts3_tokenizer"),
    ("SELECT writefile('x', 'y')", "no such function"),
    ("SELECT zeroblob(1000000000)", "too long"),
    ("BEGIN", "transaction"),
]
POSTGRES = [
    ("WITH x AS (DELETE FROM posts RETURNING 1) SELECT * FROM x", "only reading is possible"),
    ("EXPLAIN ANALYZE DELETE FROM posts", "only reading is possible"),
    ("COPY (SELECT 1) TO PROGRAM 'id'", "only reading is possible"),
    ("SET default_transaction_read_only = off", "only reading is possible"),
    ("DO $$ BEGIN NULL; END $$", "only reading is possible"),
    ("SELECT nextval('posts_id_seq')", "only reading is possible"),
    ("SELECT pg_sleep(30)", "took"),
]


def check_refused(folder, url, sql, says):
    limit = ("--timeout", "300ms") if says == "took" else ()
    _, err = ask(folder, url, sql, "-f", "csv", *limit, code=1)
    assert err.startswith("vigil query: ") and says in err, err


@pytest.mark.parametrize("sql, says", BOTH)
def test_refused(folder, url, sql, says):
    check_refused(folder, url, sql, says)
    assert ask(folder, url, "SELECT count(*) AS n FROM posts", "-f", "csv")[0] == "n\n32\n"


@pytest.mark.parametrize("sql, says", SQLITE)
def test_refused_by_sqlite(folder, sql, says):
    before = sorted(os.listdir(folder))
    check_refused(folder, "vigil.db", sql, says)
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("sql, says", POSTGRES)
def test_refused_by_postgres(folder, on_postgres, sql, says):
    check_refused(folder, on_postgres.url, sql, says)
    assert on_postgres.sql("SELECT count(*) FROM posts") == ["32"]


def test_functions_that_write_leave_nothing(folder, on_postgres):
    ask(folder, on_postgres.url, "SELECT lo_from_bytea(0, 'abc')")
    assert on_postgres.sql("SELECT count(*) FROM pg_largeobject") == ["0"]


def test_reading_functions_are_there(folder):
    out, _ = ask(folder, "vigil.db", "SELECT d.value ->> 'drug' AS drug, count(*) AS n FROM posts p, "
                                     "json_each(p.drugs) d GROUP BY 1", "-f", "csv")
    assert out == "drug,n\nsertraline,32\n"
    assert "key" in ask(folder, "vigil.db", "SELECT name FROM pragma_table_info('posts')")[0]


def test_a_comment_in_front(folder, url):
    sql = "/* report */ -- of today\nSELECT 1 AS a"
    assert ask(folder, url, sql, "-f", "csv")[0] == "a\n1\n"


MARKED = f"FROM posts WHERE text LIKE '%{MARK[:6]}%'"


@pytest.mark.parametrize("value", ["json_extract('{}', text)", "json(text)", "text -> '$['"])
def test_errors_of_sqlite_show_no_text(folder, value):
    assert ask(folder, "vigil.db", f"SELECT text {MARKED}")[0].count(MARK) == 1
    out, err = ask(folder, "vigil.db", f"SELECT {value} AS v {MARKED}", code=1)
    assert MARK not in out + err and "zoloft" not in err


@pytest.mark.parametrize("value", ["text::int", "text::regtype", "text::date", "text::jsonpath",
                                   "(text || '(')::regprocedure", "text::json", "to_tsquery(text)",
                                   "('{' || text)::int[]", "text::regclass", "text::regoper",
                                   "decode(text || '!', 'base64')", "text::timestamp AT TIME ZONE text"])
def test_errors_of_postgres_show_no_text(folder, on_postgres, value):
    out, err = ask(folder, on_postgres.url, f"SELECT {value} AS v {MARKED}", code=1)
    assert MARK not in out + err and "zoloft" not in err


# --- Limits, and what is on the other end --------------------------------------------------------


def test_row_cap(folder, url):
    out, err = ask(folder, url, "SELECT id FROM posts ORDER BY id", "-n", "5", "-f", "json", code=1)
    assert [row["id"] for row in json.loads(out)] == [1, 2, 3, 4, 5]
    assert "more than 5 rows" in err and "--max-rows" in err
    assert len(json.loads(ask(folder, url, "SELECT id FROM posts", "-n", "32", "-f", "json")[0])) == 32
    assert len(json.loads(ask(folder, url, "SELECT id FROM posts", "-n", "0", "-f", "json")[0])) == 32


ENDLESS = {"sqlite": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c",
           "postgres": "SELECT generate_series(1, 1000000000000) AS x"}


def test_rows_go_out_as_they_come(folder, url):
    """The first rows of an endless answer, in little memory; a reader that has enough ends it."""
    sql = ENDLESS["sqlite" if url == "vigil.db" else "postgres"]
    with subprocess.Popen([str(BIN / "vigil-query"), "-s", url, "-n", "0", "-t", "0", "-f", "csv", sql],
                          cwd=folder, env=environment(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as running:
        assert [running.stdout.readline() for _ in range(3)] == [b"x\n", b"1\n", b"2\n"]
        for _ in range(100000):
            running.stdout.readline()
        with open(f"/proc/{running.pid}/statm", encoding="ascii") as file:
            assert int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") < 200 << 20
        running.stdout.close()
        assert running.wait(PATIENCE) < 0
        assert running.stderr.read() == b""


@pytest.mark.parametrize("form", ["table", "csv", "json", "jsonl"])
def test_a_full_disk(folder, form):
    with open("/dev/full", "wb") as full:
        _, err = vigil(folder, "query", "-f", form, "SELECT * FROM posts", code=1, stdout=full)
    assert "No space left" in err


def test_columns_without_end(folder, url):
    sql = "SELECT " + ", ".join(f"{n} AS c{n}" for n in range(300))
    assert "300 columns, at most 256" in ask(folder, url, sql, code=1)[1]


def test_writers_are_not_held_up(folder, tmp_path):
    """A statement that takes long, and posts that come in meanwhile."""
    bring_in(tmp_path, POSTS[:5])
    with subprocess.Popen([str(BIN / "vigil-query"), "-t", "0", ENDLESS["sqlite"], "-n", "0", "-f", "csv"],
                          cwd=tmp_path, env=environment(), stdout=subprocess.PIPE) as reader:
        reader.stdout.readline()
        assert bring_in(tmp_path, POSTS[5:])["stored"] == 27
        reader.kill()


# --- The store -----------------------------------------------------------------------------------


def not_a_store(folder):
    (folder / "text.db").write_text("this is no database " * 100)
    (folder / "empty.db").touch()
    with contextlib.closing(sqlite3.connect(folder / "other.db")) as db:
        db.execute("CREATE TABLE t (a)")


STORES = [
    ("no-such.db", "there is no store no-such.db"),
    ("text.db", "not a database"),
    ("empty.db", "not a store of vigil"),
    ("other.db", "not a store of vigil"),
    (".", "not a regular file"),
    ("no/such/folder.db", "there is no store"),
    ("postgres://u:s3cretpw@127.0.0.1:1/x", "cannot connect to postgres://127.0.0.1:1/x"),
    ("postgres://u:s3cretpw@[/x", "expected postgres://"),
    ("sqlite:vigil.db?nonsense=1", "option"),
]
PROGRAMS = [("query", "SELECT 1"), ("dlq", "list"), ("dlq", "retry", "all"), ("export", "lake"),
            ("erase", "--source", "a"), ("erase", "--check-audit")]


@pytest.mark.parametrize("store, says", STORES)
def test_no_store(tmp_path, store, says):
    """Every program over the store: what is wrong, where; nothing is made."""
    not_a_store(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for program, *arguments in PROGRAMS:
        _, err = vigil(tmp_path, program, "--store", store, *arguments, code=1)
        assert err.startswith(f"vigil {program}: ") and says in err, err
        assert "s3cretpw" not in err and err.count("\n") == 1
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()
             if path.is_file() and not path.name.endswith("-lock")}
    assert after == before


@pytest.mark.parametrize("arguments, says", [
    ((), "no statement"), (("--tables", "SELECT 1"), "takes no statement"), (("a", "b"), "unexpected"),
    (("-f", "xml", "SELECT 1"), "table, csv, json, jsonl"), (("-n", "-1", "SELECT 1"), "--max-rows"),
    (("-t", "soon", "SELECT 1"), "--timeout"), (("--nonsense",), "nonsense")])
def test_usage(tmp_path, arguments, says):
    _, err = vigil(tmp_path, "query", *arguments, code=2)
    assert says in err and "Try 'vigil query --help'" in err
    assert not list(tmp_path.iterdir())


def test_every_example_of_every_help(folder, tmp_path):
    """They run as they stand there: those that need nothing else."""
    for name in os.listdir(folder):
        if name.startswith("vigil.db"):
            (tmp_path / name).write_bytes(pathlib.Path(folder, name).read_bytes())
            os.chmod(tmp_path / name, 0o600)
    n = 0
    for program in ("query", "export", "erase", "dlq"):
        out, _ = vigil(tmp_path, program, "--help")
        examples = [line.strip() for line in out.split("Examples:")[1].splitlines() if line.startswith("  vigil ")]
        assert len(examples) >= 3
        for line in examples:
            if "postgres:" in line or "| duckdb" in line:
                continue
            done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False,
                                  env=environment(PATH=f"{BIN}:{os.environ['PATH']}"), timeout=PATIENCE)
            wants_letter = "dlq show" in line or "dlq drop" in line
            assert done.returncode == (1 if wants_letter else 0), f"{line}: {done.stderr}"
            n += 1
    assert n >= 12
