# SPDX-License-Identifier: Apache-2.0
"""vigil stream as people use it: sources, formats, poison, kills, rotation, a store that takes
nothing, signals, figures."""
import csv
import fcntl
import io
import json
import os
import pathlib
import random
import re
import resource
import signal
import socket
import sqlite3
import struct
import subprocess
import time
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("VIGIL_BIN", ROOT / "build/bin"))
KILLS = int(os.environ.get("VIGIL_STREAM_KILLS", "8"))  # a seed; nightly more
HANG_SECONDS = 120  # a bound on hangs, not a measurement
F_OFD_SETLK = 37  # Python 3.11's fcntl does not name it


def post(n, text="zoloft gave me a rash number", **more):
    """A post that is kept; no two have nearly the same words."""
    words = f"{text} {n} " + " ".join(f"w{n * 31 + k}x{n}" for k in range(8))
    return {"id": str(n), "text": words, "lang": "en", **more}


def jsonl(posts):
    return "".join(json.dumps(p) + "\n" for p in posts)


class Stream:
    """A vigil-stream that runs."""

    def __init__(self, cwd, *arguments, stdin=subprocess.DEVNULL, **more):
        command = [str(BIN / "vigil-stream"), *[str(a) for a in arguments]]
        self.process = subprocess.Popen(command, cwd=cwd, stdin=stdin, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)

    def end(self, number=None):
        """Sends a signal, waits: (exit code, standard output, standard error)."""
        if number:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=HANG_SECONDS)
        return self.process.returncode, out, err


def stream(cwd, *arguments, code=0, **more):
    """Runs to its end; what it counted."""
    got, out, err = Stream(cwd, "--json", *arguments, **more).end()
    assert got == code, err
    return json.loads(out) if out else err


def rows(cwd, sql, *values):
    with sqlite3.connect(f"file:{cwd}/vigil.db?mode=ro", uri=True) as db:
        return db.execute(sql, values).fetchall()


def keys(cwd):
    return sorted(key for key, in rows(cwd, "SELECT key FROM posts"))


def wait_for(what, why="it did not come"):
    end = time.monotonic() + HANG_SECONDS
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(why)


def has_posts(cwd, n):
    def look():
        try:
            return len(keys(cwd)) == n
        except sqlite3.OperationalError:  # not there yet
            return False
    return look


# ---- sources and formats ----

def test_a_file_and_again(tmp_path):
    (tmp_path / "a.jsonl").write_text(jsonl([post(1), post(2), {"id": "3", "text": "no name"}]))
    counts = stream(tmp_path, "a.jsonl")
    assert (counts["lines"], counts["kept"], counts["stored"]) == (3, 2, 2)
    assert counts["dropped"]["no_drug"] == 1
    assert keys(tmp_path) == ["file:1", "file:2"]
    assert stream(tmp_path, "a.jsonl")["lines"] == 0
    with open(tmp_path / "a.jsonl", "a") as file:
        file.write(jsonl([post(4)]))
    assert stream(tmp_path, "a.jsonl")["lines"] == 1
    again = stream(tmp_path, "--from-start", "a.jsonl")
    assert (again["lines"], again["stored"], again["again"]) == (4, 0, 3)
    assert keys(tmp_path) == ["file:1", "file:2", "file:4"]


def test_every_format_gives_the_same(tmp_path):
    posts = [post(n, author=f"u{n}") for n in range(5)]
    posts[1]["text"] += ' said "stop",\nthen slept'
    out = io.StringIO()
    writer = csv.DictWriter(out, list(posts[0]))
    writer.writeheader()
    writer.writerows(posts)
    (tmp_path / "a.jsonl").write_text(jsonl(posts))
    (tmp_path / "a.csv").write_text(out.getvalue())
    found = []
    for name, arguments in [("a.jsonl", ["a.jsonl"]), ("a.csv", ["a.csv"]), ("pipe", ["-"])]:
        cwd = tmp_path / f"in-{name}"
        cwd.mkdir()
        for file in ("a.jsonl", "a.csv"):
            (cwd / file).write_text((tmp_path / file).read_text())
        with open(tmp_path / "a.csv") as stdin:
            stream(cwd, "--name", "s", "--key-file", tmp_path / "key", *arguments, stdin=stdin)
        found.append(rows(cwd, "SELECT key, text, author, lang FROM posts ORDER BY key"))
    assert len(found[0]) == 5 and "said \"stop\",\nthen slept" in found[0][1][1]
    assert found[0] == found[1] == found[2]


def test_fields_and_lines(tmp_path):
    (tmp_path / "a.tsv").write_text("key\tbody\n7\tzoloft, again\n")
    stream(tmp_path, "--text-field", "body", "--id-field", "key", "a.tsv")
    (tmp_path / "b.txt").write_text("prozac made me ill\nnothing here\n")
    stream(tmp_path, "--name", "lines", "--languages", "any", "b.txt")
    found = keys(tmp_path)
    assert found[0] == "file:7" and re.fullmatch(r"lines:sha256:[0-9a-f]{32}", found[1])


def test_a_directory_that_is_followed(tmp_path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "b.jsonl").write_text(jsonl([post(1), post(2)]))
    (inbox / "a.csv").write_text("id,text\n3,\"" + post(3)["text"] + "\nmore\"\n")
    running = Stream(tmp_path, "--follow", "inbox/")
    wait_for(has_posts(tmp_path, 3))
    (tmp_path / "c").write_text(jsonl([post(4)]))
    os.rename(tmp_path / "c", inbox / "c.jsonl")
    wait_for(has_posts(tmp_path, 4))
    code, _, err = running.end(signal.SIGTERM)
    assert code == 0 and "4 lines" in err
    assert stream(tmp_path, "inbox")["lines"] == 0


def test_tail_with_rotation_and_truncation(tmp_path):
    log = tmp_path / "log.jsonl"
    running = Stream(tmp_path, "--follow", "log.jsonl")
    log.write_text(jsonl([post(1)]))
    wait_for(has_posts(tmp_path, 1))
    os.rename(log, tmp_path / "log.jsonl.1")
    with open(tmp_path / "log.jsonl.1", "a") as file:
        file.write(jsonl([post(2)]))
    log.write_text(jsonl([post(3)]))
    wait_for(has_posts(tmp_path, 3))
    log.write_text(jsonl([post(4)]))  # cut, and as long as before
    wait_for(has_posts(tmp_path, 4))
    assert running.end(signal.SIGINT)[0] == 0
    # Rotated while nobody looked.
    with open(log, "a") as file:
        file.write(jsonl([post(5)]))
    os.rename(log, tmp_path / "log.jsonl.1")
    log.write_text(jsonl([post(6)]))
    assert stream(tmp_path, "log.jsonl")["lines"] == 2
    assert keys(tmp_path) == [f"file:{n}" for n in range(1, 7)]


# ---- poison ----

SECRET = "xyzzy"
POISON = [b'{"id":"bad1","text":"' + SECRET.encode() + b' \\ud800"}',
          b'{"id":"bad2","text":"' + SECRET.encode() + b' \xff"}',
          b'{"id":"bad3","text":"' + SECRET.encode(),
          b'{"id":"bad4","text":"' + SECRET.encode() * 400000 + b'"}',
          b'{"id":"bad5","text":"' + SECRET.encode() * 20000 + b'"}',
          b'[' * 100000,
          SECRET.encode(),
          b'\0\0\0']


@pytest.mark.parametrize("is_pipe", [False, True])
def test_poison_lines(tmp_path, is_pipe):
    good = [post(n) for n in range(50)]
    nul = {"id": "nul", "text": "zoloft \0 " + SECRET}
    lines = [json.dumps(p).encode() for p in good + [nul]]
    for n, line in enumerate(POISON):
        lines.insert(5 * n, line)
    data = b"\n".join(lines) + b"\n"
    (tmp_path / "a.jsonl").write_bytes(data)
    with open(tmp_path / "a.jsonl", "rb") as stdin:
        code, out, err = Stream(tmp_path, "--json", "--name", "s", "--format", "jsonl",
                                "-" if is_pipe else "a.jsonl", stdin=stdin).end()
    counts = json.loads(out)
    assert code == 0
    assert (counts["lines"], counts["dead"], counts["stored"]) == (59, len(POISON), 51)
    assert rows(tmp_path, "SELECT count(*) FROM dead_letters") == [(len(POISON),)]
    assert rows(tmp_path, "SELECT count(*) FROM raw") == [(0,)]
    reasons = [reason for reason, in rows(tmp_path, "SELECT reason FROM dead_letters")]
    assert all(reason and SECRET not in reason for reason in reasons), reasons
    assert SECRET not in err and SECRET not in out


# ---- kills ----

@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere_in_a_file(tmp_path, seed):
    """kill -9 again and again, the file growing meanwhile: all posts once."""
    chance = random.Random(seed)
    n_posts = 0
    with open(tmp_path / "a.jsonl", "a") as file:
        for _ in range(KILLS):
            n = chance.randrange(2000, 6000)
            file.write(jsonl(post(k) for k in range(n_posts, n_posts + n)))
            file.flush()
            n_posts += n
            running = Stream(tmp_path, "--no-fold", "--follow", "a.jsonl")
            time.sleep(chance.random() * 0.12)
            running.end(signal.SIGKILL)
    assert stream(tmp_path, "--no-fold", "a.jsonl")["again"] == 0
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT key) FROM posts") == [(n_posts,) * 2]
    assert rows(tmp_path, "SELECT count(*) FROM queue") == [(n_posts,)]


@pytest.mark.parametrize("seed", range(3))
def test_killed_while_reading_a_pipe(tmp_path, seed):
    """What was in the store as a raw line is a post after the next start."""
    chance = random.Random(seed)
    running = Stream(tmp_path, "--no-fold", "--name", "p", "-", stdin=subprocess.PIPE)
    try:
        running.process.stdin.write(jsonl(post(k) for k in range(50)))
        running.process.stdin.flush()
        wait_for(has_posts(tmp_path, 50))
        end = time.monotonic() + chance.random() * 0.3
        n = 50
        while time.monotonic() < end:
            running.process.stdin.write(jsonl(post(k) for k in range(n, n + 50)))
            running.process.stdin.flush()
            n += 50
    finally:
        running.process.kill()
        running.process.stdin.close()
        running.process.wait()
    database = f"file:{tmp_path}/vigil.db"
    with sqlite3.connect(database, uri=True) as db:
        raw = {f"p:{json.loads(line)['id']}" for line, in db.execute("SELECT line FROM raw")}
        stored = {key for key, in db.execute("SELECT key FROM posts")}
        (cursor,), = db.execute("SELECT cursor FROM cursors")
    assert len(raw | stored) == int(cursor.split()[0])
    stream(tmp_path, "--no-fold", "--name", "p", "-")
    assert set(keys(tmp_path)) == raw | stored
    assert rows(tmp_path, "SELECT count(*) FROM raw") == [(0,)]


def test_terminated_reading_a_pipe(tmp_path):
    """SIGTERM: what was read is stored; nothing is left in the spool."""
    running = Stream(tmp_path, "--json", "-", stdin=subprocess.PIPE)
    running.process.stdin.write(jsonl(post(k) for k in range(500)))
    running.process.stdin.flush()
    wait_for(has_posts(tmp_path, 500))
    running.process.send_signal(signal.SIGTERM)
    running.process.stdin.close()
    assert running.process.wait(HANG_SECONDS) == 0
    assert json.loads(running.process.stdout.read())["stored"] == 500
    assert rows(tmp_path, "SELECT count(*) FROM raw") == [(0,)]


# ---- a store that takes nothing ----

def lock(path):
    """Holds the store's lock file, as another program that writes would; None: one has it."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(fd, F_OFD_SETLK,
                    struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError:
        os.close(fd)
        return None
    return fd


def port_of(running):
    """Where it listens, from the log."""
    for line in running.process.stderr:
        found = re.search(r"on port (\d+)", line)
        if found:
            return f"http://127.0.0.1:{found.group(1)}"
    raise AssertionError("no port in the log")


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=HANG_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_disk_that_is_full(tmp_path):
    """The reading stops and /health says so; with room again everything is there."""
    posts = [post(n) for n in range(20000)]
    (tmp_path / "a.jsonl").write_text(jsonl(posts))

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, resource.RLIM_INFINITY))

    running = Stream(tmp_path, "--no-fold", "--metrics", "127.0.0.1:0", "--json", "a.jsonl",
                     preexec_fn=small_files)
    url = port_of(running)
    wait_for(lambda: get(url + "/health")[0] == 503)
    status, page = get(url + "/metrics")
    assert status == 200 and "vigil_stream_store_up 0" in page
    assert int(re.search(r"^vigil_stream_store_errors_total (\d+)", page, re.M).group(1)) > 0
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE,
                     (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    code, out, err = running.end()
    assert code == 0, err
    assert err.count("state=down") == 1 and err.count("state=up") == 1
    assert json.loads(out)["lines"] == 20000
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT key) FROM posts") == [(20000, 20000)]


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(tmp_path, first):
    running = Stream(tmp_path, "-", stdin=subprocess.PIPE)
    running.process.stdin.write(jsonl([post(1)]))
    running.process.stdin.flush()
    wait_for(has_posts(tmp_path, 1))
    held = wait_for(lambda: lock(tmp_path / "vigil.db-lock"))
    try:
        running.process.stdin.write(jsonl([post(2)]))
        running.process.stdin.flush()
        time.sleep(0.3)
        running.process.send_signal(first)
        time.sleep(0.3)
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(HANG_SECONDS) == -signal.SIGTERM
    finally:
        os.close(held)
    # Free again, the store is as it was.
    stream(tmp_path, "-")
    assert keys(tmp_path) == ["stdin:1"]


def test_a_signal_while_the_queue_is_looked_for(tmp_path):
    """It ends the program there and then: not when the queue has been given up."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        running = Stream(tmp_path, "--queue", f"nats://127.0.0.1:{closed.getsockname()[1]}", "-")
        wait_for((tmp_path / "vigil.db").exists)
        time.sleep(0.3)
        assert running.end(signal.SIGTERM)[0] == -signal.SIGTERM


# ---- figures, modes, errors ----

SAMPLE = re.compile(r'([a-z_]+)(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? (\S+)')


def test_metrics(tmp_path):
    (tmp_path / "a.jsonl").write_text(jsonl([post(1), {"text": "none"}]) + "bad\n")
    running = Stream(tmp_path, "--follow", "--metrics", "127.0.0.1:0", "a.jsonl")
    url = port_of(running)
    wait_for(has_posts(tmp_path, 1))
    status, page = get(url + "/metrics")
    assert status == 200
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.M))
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", page, re.M))
    samples = {}
    for line in page.splitlines():
        if line.startswith("#"):
            continue
        name, labels, _, value = SAMPLE.fullmatch(line).groups()
        assert (name, labels) not in samples
        samples[name, labels] = float(value)
        base = re.sub("_(bucket|sum|count)$", "", name)
        kind = types.get(name) or types[base]
        assert helps.get(name) or helps[base]
        assert name.endswith("_total") == (kind == "counter")
    assert samples["vigil_stream_lines_total", None] == 3
    assert samples["vigil_stream_posts_stored_total", None] == 1
    assert samples["vigil_stream_dead_letters_total", None] == 1
    assert samples["vigil_stream_posts_dropped_total", '{reason="no_drug"}'] == 1
    assert samples["vigil_stream_source_phase", '{phase="streaming"}'] == 1
    assert ("vigil_stream_last_byte_age_seconds", None) in samples
    assert ("vigil_stream_last_post_age_seconds", None) in samples
    status, health = get(url + "/health")
    assert status == 200 and json.loads(health)["status"] == "ok"
    assert running.end(signal.SIGTERM)[0] == 0


def test_a_dry_run_writes_nothing(tmp_path):
    (tmp_path / "a.jsonl").write_text(jsonl([post(1), {"text": "none"}]) + "bad\n")
    counts = stream(tmp_path, "--dry-run", "a.jsonl")
    assert (counts["kept"], counts["dropped"]["no_drug"], counts["dead"]) == (1, 1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_watch_lists(tmp_path):
    (tmp_path / "list").write_text("foozepam: foo\n")
    (tmp_path / "a.jsonl").write_text(jsonl([{"text": "foo zoloft"}, {"text": "zoloft"},
                                             {"text": "megafoozepam"}]))
    arguments = ["--dry-run", "--no-fold", "--languages", "any", "a.jsonl"]
    assert stream(tmp_path, "--watch-list", "list", *arguments)["kept"] == 1
    assert stream(tmp_path, "--watch-list", "list", "--substring", *arguments)["kept"] == 2
    assert stream(tmp_path, "--watch-list", "none", *arguments)["kept"] == 3
    assert stream(tmp_path, *arguments)["kept"] == 2
    err = stream(tmp_path, "--watch-list", "no-such-list", *arguments, code=1)
    assert "no-such-list" in err


def test_x_keeps_counts_alone(tmp_path):
    """Without a token it does not come far, but says what it would keep."""
    code, _, err = Stream(tmp_path, "x:").end()
    assert code == 1 and "developer terms" in err and "aggregate" in err
    code, _, err = Stream(tmp_path, "--mode", "full", "x:").end()
    assert code == 1 and "warning" in err and "developer terms" in err


def test_retention(tmp_path):
    (tmp_path / "a.jsonl").write_text(jsonl([post(1, time="2020-01-01T00:00:00Z"), post(2)]))
    stream(tmp_path, "a.jsonl")
    assert len(keys(tmp_path)) == 2
    with sqlite3.connect(tmp_path / "vigil.db") as db:
        day = 24 * 3600 * 10**9
        db.execute("UPDATE posts SET received_ns = received_ns - ? WHERE key = 'file:1'",
                   (400 * day,))
        db.execute("CREATE TABLE room (x)")
        db.execute("INSERT INTO room VALUES (zeroblob(100000))")
        db.execute("DROP TABLE room")
    stream(tmp_path, "--retention", "365", "a.jsonl")
    assert keys(tmp_path) == ["file:2"]
    with sqlite3.connect(tmp_path / "vigil.db") as db:  # not rewritten each time
        assert db.execute("PRAGMA freelist_count").fetchone()[0] > 20
    stream(tmp_path, "--from-start", "a.jsonl")  # what is erased does not come back
    assert keys(tmp_path) == ["file:2"]


@pytest.mark.parametrize("arguments, code, says", [
    ([], 2, "expected 1 argument"),
    (["nope:"], 2, "jetstream, mastodon, push"),
    (["--name", "a b", "-"], 2, "--name"),
    (["--mode", "some", "-"], 2, "pseudonymous"),
    (["no-such-file"], 1, "no-such-file"),
    (["--store", "/dev/null/vigil.db", "-"], 1, "/dev/null"),
    ([""], 2, "neither a file nor a kind"),
    (["x:"], 1, "--token-file"),
    (["mastodon:http://m.example"], 1, "mastodon: address http://m.example: only https://"),
    (["--ca-file", "no-such-ca", "jetstream:"], 1, "cannot open no-such-ca"),
    (["push:0.0.0.0:1"], 1, "push: cannot listen on 0.0.0.0:1"),
    (["--metrics", "nowhere", "-"], 1, "--metrics: cannot listen on \"nowhere\""),
    (["--dry-run", "push:"], 2, "--dry-run"),
    (["--dry-run", "x:"], 2, "--dry-run"),
])
def test_errors(tmp_path, arguments, code, says):
    got, _, err = Stream(tmp_path, *arguments).end()
    assert got == code and says in err
    assert "0 lines" not in err  # it never began
    if "--metrics" not in arguments and "push:0.0.0.0:1" not in arguments:  # known when they are tried
        assert not list(tmp_path.glob("vigil.db*"))


def test_help_has_groups_and_examples(tmp_path):
    code, out, _ = Stream(tmp_path, "--help").end()
    assert code == 0
    for heading in ("Selection:", "Privacy:", "Records:", "Networks:", "Running:", "Examples:"):
        assert heading in out
