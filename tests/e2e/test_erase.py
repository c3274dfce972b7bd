# SPDX-License-Identifier: Apache-2.0
"""vigil erase: afterwards no byte is left in the database, its log, lake files, the queue or any
program's log; the receipt is right, the audit holds, and what is erased does not come back."""
import contextlib
import json
import pathlib
import sqlite3
import subprocess
import time

import pytest

import postgres
from nats_cluster import Cluster
from pipeline import (SETTLE, SHA256, bring_in, environment, files_with, lake_rows, post, query,
                      settle, vigil, writing)
from serving import AE, BIN, MARK, PATIENCE
from test_stream import wait_for

AUTHOR, HANDLE, PLACE, ID = (f"{MARK}{what}" for what in ("author", "handle", "place", "id"))
MODES = {"ag": "aggregate", "fu": "full", "ps": "pseudonymous"}  # in this order: see fill
DAY_NS = 86400 * 10**9


def marked(n, **more):
    """A post of the author who is to be forgotten."""
    words = " ".join(f"m{n}x{k}" for k in range(9))
    return {"id": f"{ID}{n}", "lang": "en", "author": AUTHOR, "author_name": HANDLE, "place": PLACE,
            "text": f"zoloft gave me {MARK}text, says @{HANDLE} at https://{MARK}.example/{n} {words}", **more}


def others(n):
    return [post(k, author=f"other{k % 3}") for k in range(n)]


MARKED = [marked(1), marked(2), marked(1, version=2),
          {"id": f"{ID}r", "author": AUTHOR, "author_name": HANDLE, "repost_of": "3", "text": "",
           "original": {"text": post(3)["text"], "author": "other0"}},
          marked("q", quote_of="4")]
BROKEN = [json.dumps(marked("b"))[:-20] + "\n",
          json.dumps(marked("c")).replace("gave", "\\ud800") + "\n"]


def fill(folder, name, server):
    """Everything that there can be of the author, and posts of others."""
    flags = ("--mode", MODES[name], "--no-fold")
    bring_in(folder, others(40) + MARKED + BROKEN, *flags, name=name)
    if name == "ag":  # counted, and gone: that is more than settle does
        vigil(folder, "enrich", "--once", "--quiet", "--server", f"http://127.0.0.1:{server.port}")
    else:
        settle(folder, name)
    bring_in(folder, [marked("w")], *flags, name=name)  # waits for its result
    with writing(folder) as db:
        db.execute("INSERT INTO raw (source, received_ns, line) VALUES (?, ?, ?)",
                   (name, time.time_ns(), json.dumps(marked("raw")).encode()))
        mine = (f"SELECT p.id, p.version FROM posts p JOIN results r ON r.post_id = p.id "
                f"WHERE p.source = '{name}' AND p.text LIKE '%{MARK}%'")
        for post_id, version in db.execute(mine).fetchall():
            db.execute("INSERT INTO mentions VALUES (?, ?, ?, 7, 'ADE', ?, '', 0, 9, 0.9)",
                       (post_id, version, SHA256, f"{MARK}text"))
            db.execute("INSERT INTO reviews VALUES (?, ?, ?, 1, 'ann', 'confirmed', '', ?)",
                       (post_id, version, SHA256, f"says {MARK}text"))


def erase(folder, *arguments, code=0, **more):
    out, err = vigil(folder, "erase", "--json", *arguments, code=code, **more)
    return json.loads(out) if out else err


def counted(receipt):
    return {name: n for name, n in receipt.items() if n and isinstance(n, int) and not isinstance(n, bool)
            and name != "audit_seq"}


def check_nothing_left(folder, *needles):
    assert not files_with(folder, *(needles or (MARK,)))


def bytes_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and not path.name.endswith("-shm")}


# --- Every way to say what -----------------------------------------------------------------------


@pytest.fixture
def full(tmp_path, server):
    for name in MODES:
        fill(tmp_path, name, server)
    vigil(tmp_path, "export", "--quiet", "--max-rows", "25", "lake")
    assert {path.suffix or path.name for path, _ in files_with(tmp_path, MARK)} >= {".gz"}
    return tmp_path


def test_by_author(full):
    before = bytes_of(full)
    dry = erase(full, "--author", f"fu:{AUTHOR}", "--dry-run")
    assert dry["dry_run"] is True and dry["audit_hash"] == ""
    assert bytes_of(full) == before
    want = {"posts": 4, "results": 3, "mentions": 6, "reviews": 3, "waiting": 1, "raw_lines": 1,
            "dead_letters": 2, "folds": 1}
    for name in ("fu", "ps"):
        receipt = erase(full, "--author", f"{name}:{AUTHOR}", "--actor", "dpo")
        assert counted(receipt) == {**want, "lake_files_rewritten": receipt["lake_files_rewritten"]}
        if name == "fu":
            assert counted(dry) == want
        assert receipt["lake_files_rewritten"] in (1, 2)
        entry, = query(full, f"SELECT * FROM audit WHERE seq = {receipt['audit_seq']}")
        assert (entry["hash"], entry["actor"], entry["action"]) == (receipt["audit_hash"], "dpo", "erase")
        assert json.loads(entry["details"])["posts"] == 4
    # Of an aggregate source no author is kept: its waiting post goes by its id.
    assert counted(erase(full, "--author", f"ag:{AUTHOR}")) == {"raw_lines": 1}
    erase(full, "--post", f"ag:{ID}w")
    check_nothing_left(full)
    keys = {row["key"] for _, row in lake_rows(full / "lake")}
    assert keys == {f"{name}:{n}" for name in ("fu", "ps") for n in range(40)}
    assert query(full, "SELECT n_quotes + n_reposts AS n FROM posts WHERE key IN ('fu:3', 'fu:4')") == [
        {"n": 1}, {"n": 0}]


def test_by_post(full):
    for name in MODES:
        for n in ("1", "2", "q", "r", "w", "b", "c", "raw"):
            receipt = erase(full, "--post", f"{name}:{ID}{n}")
            if name == "fu":
                assert counted({**receipt, "lake_files_rewritten": 0}) == {
                    "1": {"posts": 1, "results": 1, "mentions": 2, "reviews": 1},
                    "2": {"posts": 1, "results": 1, "mentions": 2, "reviews": 1},
                    "q": {"posts": 1, "results": 1, "mentions": 2, "reviews": 1, "folds": 1},
                    "r": {"folds": 1}, "w": {"posts": 1, "waiting": 1}, "b": {"dead_letters": 1},
                    "c": {"dead_letters": 1}, "raw": {"raw_lines": 1}}[n], n
    check_nothing_left(full)
    # By the key that the store shows, of a post of another.
    assert erase(full, "--post", "ps:5")["posts"] == 1


def test_by_source(full):
    receipt = erase(full, "--source", "fu")
    assert counted(receipt) == {"posts": 44, "results": 43, "mentions": 46, "reviews": 3, "waiting": 1,
                                "raw_lines": 1, "dead_letters": 2, "folds": receipt["folds"],
                                "lake_files_removed": 2}
    erase(full, "--source", "ps")
    assert erase(full, "--source", "ag")["posts"] == 1
    check_nothing_left(full, MARK, "zoloft", "other0")
    assert not list(lake_rows(full / "lake"))


def test_by_age(full):
    with writing(full) as db:
        for table, text in (("posts", "text"), ("raw", "line"), ("dead_letters", "body")):
            db.execute(f"UPDATE {table} SET received_ns = received_ns - ? WHERE "
                       f"instr(CAST({text} AS TEXT), ?)", (400 * DAY_NS, MARK))
    assert counted(erase(full, "--older-than", "365", "--source", "fu"))["posts"] == 4
    receipt = erase(full, "--older-than", "365")
    assert receipt["posts"] == 5 and receipt["raw_lines"] == 2 and receipt["dead_letters"] == 2
    check_nothing_left(full)
    assert query(full, "SELECT count(*) AS n FROM posts") == [{"n": 80}]
    assert counted(erase(full, "--older-than", "365")) == {}


def test_it_does_not_come_back(full):
    for name in MODES:
        erase(full, "--author", f"{name}:{AUTHOR}")
        erase(full, "--post", f"{name}:{ID}w")
    for name in MODES:
        for _ in range(2):
            again = bring_in(full, [marked(1, version=9), marked(2), marked("w")], "--mode", MODES[name],
                             "--no-fold", name=name)
            erased = 3 if name != "ag" else 1  # of "ag" the others were counted and gone already
            assert (again["stored"], again["refused"] + again["again"]) == (0, 3), name
            assert again["refused"] >= erased
    check_nothing_left(full)
    assert query(full, f"SELECT count(*) AS n FROM posts WHERE text LIKE '%{MARK}%'") == [{"n": 0}]
    # Nobody is banned: what the author posts from now on is a post.
    assert bring_in(full, [marked("new")], "--mode", "full", name="fu")["stored"] == 1


def test_large_stores_are_rewritten_whole(tmp_path):
    """Pages that split and moved, a log that was long: nothing stays in what they do not use."""
    posts = [marked(n, text=f"zoloft {MARK}text {'x' * (n * 37 % 900)} {n * n}") if n % 3 == 0
             else post(n, text=f"prozac {'y' * (n * 53 % 700)} {n * n}") for n in range(3000)]
    bring_in(tmp_path, posts, "--no-fold", "--mode", "full")
    settle(tmp_path)
    bring_in(tmp_path, [{**p, "version": 2, "text": p["text"] + " edited"} for p in posts[::2]],
             "--no-fold", "--mode", "full")
    vigil(tmp_path, "export", "--quiet", "lake")
    assert erase(tmp_path, "--author", f"a:{AUTHOR}")["posts"] == 1000
    check_nothing_left(tmp_path)
    assert query(tmp_path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def test_on_postgres(tmp_path):
    """What SQL can see; how it keeps its pages is the server's."""
    with postgres.Server() as pg:
        flags = ("--key-file", tmp_path / "key")
        bring_in(tmp_path, others(40) + MARKED + BROKEN, *flags, store=pg.url)
        for statement in SETTLE:
            pg.sql(statement)
        where = ("--store", pg.url)
        vigil(tmp_path, "export", *where, "--quiet", "lake")
        receipt = erase(tmp_path, *where, *flags, "--author", f"a:{AUTHOR}")
        assert counted(receipt) == {"posts": 3, "results": 3, "mentions": 3, "dead_letters": 2, "folds": 1,
                                    "lake_files_rewritten": 1}
        assert not files_with(tmp_path, MARK)
        for table in pg.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
            assert pg.sql(f"SELECT count(*) FROM {table} t WHERE t::text LIKE '%{MARK}%'") == ["0"]
            assert pg.sql(f"SELECT count(*) FROM {table} t WHERE t::text LIKE '%{MARK.encode().hex()}%'") == ["0"]
        assert "1 audit entries" in vigil(tmp_path, "erase", *where, "--check-audit")[0]


# --- The queue -----------------------------------------------------------------------------------


def test_the_queue(tmp_path, start):
    """Published, classified, waiting, given up: gone from NATS' files as well."""
    small = start("--max-text", "16K")
    with Cluster(tmp_path / "nats") as cluster:
        url = cluster.url()
        bring_in(tmp_path, others(30) + MARKED, "--queue", url)
        bring_in(tmp_path, [marked("long", text=f"zoloft {AE} " + "long " * 5000)], "--queue", url)
        enrich = ("enrich", "--once", "--quiet", "--server", f"http://127.0.0.1:{small.port}", "--queue", url)
        vigil(tmp_path, *enrich)
        assert query(tmp_path, "SELECT count(*) AS n FROM results")[0]["n"] >= 33
        bring_in(tmp_path, [marked("w"), post(77)], "--queue", url)
        vigil(tmp_path, "export", "--quiet", "lake")
        author, = {row["author"] for row in query(tmp_path, f"SELECT author FROM posts WHERE text LIKE '%{MARK}%'")}
        assert cluster.bytes_found(MARK.encode()) and cluster.bytes_found(author.encode())
        dry = erase(tmp_path, "--queue", url, "--author", f"a:{AUTHOR}", "--dry-run")
        assert dry["posts"] >= 3 and cluster.bytes_found(MARK.encode())
        receipt = erase(tmp_path, "--queue", url, "--author", f"a:{AUTHOR}")
        assert receipt["queue_messages"] >= 6 and receipt["posts"] >= 3
        for needle in (f"{MARK}text", AUTHOR, HANDLE, PLACE, author):
            assert cluster.bytes_found(needle.encode()) == []
        for path in [node.folder / "log" for node in cluster.nodes]:
            assert MARK not in path.read_text()
        check_nothing_left(tmp_path / "lake", MARK)
        assert not [found for found in files_with(tmp_path, f"{MARK}text", AUTHOR, HANDLE, PLACE, author)
                    if "nats" not in str(found[0])]
        assert erase(tmp_path, "--queue", url, "--author", f"a:{AUTHOR}")["queue_messages"] == 0
        # Ids of posts, where nothing says whose they are: of what he reposted of others, and of
        # one that was given up before any store had it.
        assert cluster.bytes_found(ID.encode())
        for n in ("r", "q", "long"):
            receipt = erase(tmp_path, "--queue", url, "--post", f"a:{ID}{n}")
            assert receipt["queue_messages"] == (n != "long") and receipt["dead_letters"] == (n == "long")
        assert not files_with(tmp_path, MARK)
        # Posts of others are there, and the one that waited gets its result.
        vigil(tmp_path, *enrich)
        assert query(tmp_path, "SELECT count(*) AS n FROM results WHERE post_id IN (SELECT id FROM posts "
                               "WHERE key = 'a:77')") == [{"n": 1}]
        # What comes again from the source is refused before it is in the queue.
        bring_in(tmp_path, [marked(1, version=9), marked("q", quote_of="4"), marked("w"), post(78)],
                 "--queue", url)
        assert not cluster.bytes_found(MARK.encode())
        vigil(tmp_path, *enrich)
        assert query(tmp_path, "SELECT count(*) AS n FROM posts WHERE key = 'a:78'") == [{"n": 1}]
        assert query(tmp_path, f"SELECT count(*) AS n FROM posts WHERE text LIKE '%{MARK}%'") == [{"n": 0}]
        assert erase(tmp_path, "--queue", url, "--source", "a")["queue_messages"] >= 31
        assert cluster.bytes_found(b"zoloft") == []


# --- Readers, receipts, errors -------------------------------------------------------------------


@contextlib.contextmanager
def reading(folder):
    """A snapshot of the store, held open."""
    with contextlib.closing(sqlite3.connect(f"file:{folder}/vigil.db?mode=ro", uri=True,
                                            isolation_level=None, check_same_thread=False)) as db:
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM posts").fetchone()
        yield db


@pytest.fixture(scope="module", autouse=True)
def held(tmp_path_factory):
    """An erasing that a reader holds up until it gives up; it takes half a minute, of a clock
    that runs fast, beside the other tests."""
    folder = tmp_path_factory.mktemp("held")
    bring_in(folder, others(20) + MARKED, "--mode", "full")
    settle(folder)
    vigil(folder, "export", "--quiet", "lake")
    with contextlib.ExitStack() as reader:
        reader.enter_context(reading(folder))
        libraries = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        faster = {"LD_PRELOAD": str(libraries[0]), "FAKETIME": "+0 x10",
                  "ASAN_OPTIONS": "verify_asan_link_order=0"} if libraries else {}
        running = subprocess.Popen([str(BIN / "vigil-erase"), "--json", "--author", f"a:{AUTHOR}"], cwd=folder,
                                   env=environment(**faster), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        yield folder, running, reader
        if running.poll() is None:
            running.kill()
            running.communicate()


def test_a_reader_that_leaves(tmp_path):
    bring_in(tmp_path, others(20) + MARKED, "--mode", "full")
    settle(tmp_path)
    with reading(tmp_path):
        running = subprocess.Popen([str(BIN / "vigil-erase"), "--json", "--author", f"a:{AUTHOR}"], cwd=tmp_path,
                                   env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(lambda: query(tmp_path, "SELECT count(*) AS n FROM audit") == [{"n": 1}])
        assert running.poll() is None
    out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, err
    assert json.loads(out)["posts"] == 3
    check_nothing_left(tmp_path)


@pytest.mark.parametrize("harm, says", [
    ("UPDATE audit SET details = '{}' WHERE seq = 2", "entry 2 was changed"),
    ("DELETE FROM audit WHERE seq = 2", "entry 2 is missing"),
    ("UPDATE audit SET previous = 'x' WHERE seq = 3", "entry 3 does not follow"),
    ("UPDATE audit SET at_ns = at_ns + 1 WHERE seq = 1", "entry 1 was changed")])
def test_the_audit(tmp_path, harm, says):
    bring_in(tmp_path, others(3))
    for n in range(3):
        erase(tmp_path, "--post", f"a:{n}")
    assert vigil(tmp_path, "erase", "--check-audit")[0] == "3 audit entries; each follows from the one before\n"
    assert erase(tmp_path, "--check-audit") == {"audit_entries": 3, "chain_holds": True}
    with writing(tmp_path) as db:
        db.execute(harm)
    _, err = vigil(tmp_path, "erase", "--check-audit", code=1)
    assert err.startswith("vigil erase: ") and says in err


def test_receipt_for_people(tmp_path):
    bring_in(tmp_path, others(3))
    settle(tmp_path)
    out, err = vigil(tmp_path, "erase", "--author", "a:other0", "-n")
    assert out.startswith("would erase at 2") and "         1  posts\n" in out and "audit" not in out
    out, err = vigil(tmp_path, "erase", "--author", "a:other0")
    assert out.startswith("erased at 2") and "         1  results\n" in out and "audit entry 1, " in out
    assert err == ""
    out, err = vigil(tmp_path, "erase", "--author", "a:other0")
    assert "         0  posts\n" in out and "nothing was found" in err and "--key-file" in err
    with open("/dev/full", "wb") as full:
        _, err = vigil(tmp_path, "erase", "--post", "a:1", code=1, stdout=full)
    assert "cannot write the receipt: No space left" in err


@pytest.mark.parametrize("arguments, code, says", [
    ((), 2, "--author, --post, --source or --older-than"),
    (("--post", "a:1", "--author", "a:u"), 2, "only one of"),
    (("--post", "a:1", "--older-than", "3"), 2, "only one of"),
    (("--post", "a:1", "--check-audit"), 2, "only one of"),
    (("--post", "nocolon"), 2, "SOURCE:ID"),
    (("--author", ":7"), 2, "SOURCE:ID"),
    (("--author", "a:"), 2, "SOURCE:ID"),
    (("--post", "a:" + "9" * 700), 2, "longer than"),
    (("--older-than", "-1"), 2, "--older-than"),
    (("--older-than", "30", "--source", "a", "--queue", "nats://127.0.0.1:1"), 2, "--queue"),
    (("--post", "a:1", "--key-file", "no.key"), 1, "no.key"),
    (("--post", "a:1", "--key-file", "bad.key"), 1, "64 hex digits"),
    (("--post", "a:1", "--key-file", "open.key"), 1, "chmod 600"),
    (("--post", "a:1", "--queue", "nats://u:s3cretpw@"), 1, "nats://"),
])
def test_errors(tmp_path, arguments, code, says):
    bring_in(tmp_path, [post(1)])
    for name, text, mode in (("bad.key", "no key\n", 0o600), ("open.key", "00" * 32 + "\n", 0o644)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    _, err = vigil(tmp_path, "erase", *arguments, code=code)
    assert err.startswith("vigil erase: ") and says in err, err
    assert "s3cretpw" not in err
    assert query(tmp_path, "SELECT count(*) AS n FROM posts") == [{"n": 1}]


def test_another_key_finds_nothing(tmp_path):
    bring_in(tmp_path, MARKED)
    (tmp_path / "other.key").write_text("11" * 32 + "\n")
    (tmp_path / "other.key").chmod(0o600)
    out, err = vigil(tmp_path, "erase", "--author", f"a:{AUTHOR}", "--key-file", "other.key")
    assert "         0  posts" in out and "must be the key that vigil stream hashed them with" in err


def test_a_lake_that_is_away(tmp_path):
    """The store is erased; the files are named, and follow where they are."""
    bring_in(tmp_path, MARKED)
    settle(tmp_path)
    vigil(tmp_path, "export", "--quiet", "lake")
    (tmp_path / "lake").rename(tmp_path / "away")
    receipt, err = vigil(tmp_path, "erase", "--json", "--author", f"a:{AUTHOR}", code=1)
    assert json.loads(receipt)["posts"] == 3 and f"{tmp_path}/lake" in err and "run this where it is" in err
    (tmp_path / "away").rename(tmp_path / "lake")
    assert erase(tmp_path, "--author", f"a:{AUTHOR}")["lake_files_rewritten"] == 1
    check_nothing_left(tmp_path)


def test_a_reader_that_stays(held):
    """Last, for what it waits for: it says that bytes may be left and what to do, the lake is
    erased all the same, and afterwards the same command comes to the end."""
    folder, running, reader = held
    out, err = running.communicate(timeout=PATIENCE)
    said = err.decode()
    assert running.returncode == 1
    assert "bytes may be left" in said and "reader" in said and "run this again" in said
    receipt = json.loads(out)
    assert receipt["posts"] == 3 and receipt["lake_files_rewritten"] == 1
    assert not files_with(folder / "lake", MARK)
    reader.close()
    assert erase(folder, "--author", f"a:{AUTHOR}")["posts"] == 0
    check_nothing_left(folder)
