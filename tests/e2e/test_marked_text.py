# SPDX-License-Identifier: Apache-2.0
"""No post text in any log, metric or error: posts with marks in every field go through every way
that fails, with all that the programs log; the marks are in data files and nowhere else."""
import json
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from nats_cluster import Cluster
from pipeline import bring_in, environment, post, query, settle, vigil, writing
from serving import BIN, MARK, PATIENCE
from test_enrich import Worker, free_port
from test_stream import Stream, wait_for

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fakes.jetstream import Jetstream, Mischief, posts  # noqa: E402

ESCAPE = "\x1b[31m"
FORGED = f"\nts=2026 level=error event=forged\r\n{ESCAPE}\x9b2J"  # ids are shown, so without the mark


def marked(n, **more):
    """Marks in the text, the author, the handle, a link, the place; a number that is its own."""
    words = " ".join(f"m{n}x{k}" for k in range(9))
    return {"id": f"{n}", "lang": "en", "author": f"{MARK}a", "author_name": f"{MARK}h", "place": f"{MARK}p",
            "url": f"https://example.org/{MARK}", "text": f"zoloft gave me a rash {MARK} @{MARK} https://{MARK}.com "
                                                          f"{MARK}@example.org +1 212 555 0199 {words}", **more}


GOOD = [marked(n) for n in range(40)]
BAD = [  # every kind of line that cannot be used
    f'{{"id": "b1", "text": "zoloft {MARK} \\ud800"}}', f'{{"id": "b2", "text": "zoloft {MARK}',
    f'{{"id": "b3", "text": ["{MARK}"]}}', f'{{"id": {{"{MARK}": 1}}, "text": "{MARK}"}}', f'["{MARK}"]',
    f'{{"text": 7, "{MARK}": "{MARK}"}}', f'{{"id": "{"9" * 600}", "text": "zoloft {MARK}"}}',
    f'{{"id": "b8", "text": "zoloft {MARK}", "time": "{MARK}", "version": "{MARK}"}}',
    f'{{"id": "b9", "text": "zoloft {MARK * 9000}"}}', f'{{"id": "b10", "text": "zoloft {MARK}", "text": "{MARK}"}}',
    f'{{"id": "b11", "text": "zoloft {MARK}", "repost_of": ["{MARK}"]}}', "[" * 5000 + MARK, f"{MARK}",
    f'{{"id": "b13", "text": "zoloft \x01{MARK}"}}', f'{{"id": "b14", "deleted": "{MARK}"}}',
    f'{{"id": "b15", "text": "zoloft {MARK}", "original": "{MARK}", "quote_of": "1"}}',
    f'{{"id": "b16", "text": "zoloft {MARK}", "author": "{MARK * 60}"}}',
    f'{{"id": "b17", "text": "zoloft {MARK}", "place": "{MARK * 60}"}}',
    f'{{"id": "b18", "text": "nothing that is watched {MARK}"}}',
    f'{{"id": "b19", "text": "zoloft {MARK} und das war gar nicht gut", "lang": "de"}}']
HOSTILE = [  # names that would like to be a log line of their own
    {"id": f"x{FORGED}", "lang": "en", "text": f"prozac {FORGED} {MARK} " + "long " * 400,
     "author": FORGED + MARK, "place": FORGED + MARK, "url": FORGED + MARK}]


def lines_of(*records):
    return "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records)


def check(*outputs):
    """0 marks, no control character, and no line that the posts began."""
    for text in outputs:
        assert MARK not in text, [line for line in text.splitlines() if MARK in line][:3]
        for line in re.split(r"[\n]", text.replace("\r\n", "\n")):
            assert line.isprintable(), repr(line)
            assert not line.startswith("ts=2026 level=error event=forged")


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def run_stream(folder, *arguments, code=0, **more):
    got, out, err = Stream(folder, "--json", "--log-level", "debug", *arguments, env=environment(), **more).end()
    assert got == code, err
    check(out, err)
    return json.loads(out) if out else err


@pytest.mark.parametrize("mode", ["full", "pseudonymous", "aggregate"])
@pytest.mark.parametrize("is_pipe", [False, True])
def test_lines_that_cannot_be_used(tmp_path, mode, is_pipe):
    (tmp_path / "a.jsonl").write_text(lines_of(*GOOD, *BAD, *HOSTILE))
    with open(tmp_path / "a.jsonl", "rb") as stdin:
        counts = run_stream(tmp_path, "--mode", mode, "--name", "s", "--format", "jsonl",
                            "-" if is_pipe else "a.jsonl", stdin=stdin)
    assert counts["dead"] >= 9 and counts["dropped"]["no_drug"] >= 1 and counts["dropped"]["language"] >= 1
    assert counts["stored"] >= 40
    reasons = [row["reason"] for row in query(tmp_path, "SELECT reason FROM dead_letters")]
    assert len(set(reasons)) >= 5
    check(*reasons, *vigil(tmp_path, "dlq", "list"))


def test_other_formats(tmp_path):
    head = f"id,text,author,{MARK}\n"
    (tmp_path / "a.csv").write_text(head + f'1,"zoloft {MARK}",{MARK},x\n2,"zoloft {MARK}" {MARK},a\n3\n4,"{MARK}\n')
    (tmp_path / "wrong.csv").write_text(f"{MARK},{MARK}2\nzoloft,{MARK}\n")
    (tmp_path / "a.txt").write_bytes(f"zoloft {MARK}\n".encode() + b"zoloft \xff\xfe " + MARK.encode() + b"\0\n")
    for name in ("a.csv", "a.txt"):
        run_stream(tmp_path, "--languages", "any", name)
    code, out, err = Stream(tmp_path, "--log-level", "debug", "wrong.csv").end()
    assert code in (0, 1) and MARK not in out + err
    check(*vigil(tmp_path, "dlq", "list"))


def test_what_others_send(tmp_path):
    """POST /v1/posts: in no answer, no log, not on the pages of figures."""
    port = free_port()
    running = Stream(tmp_path, "--log-level", "debug", "--metrics", "127.0.0.1:0", "--json", f"push:127.0.0.1:{port}")
    figures = []
    said = []
    for line in running.process.stderr:
        said.append(line)
        found = re.search(r"on port (\d+)", line)
        if found:
            figures.append(found[1])
            break
    url = f"http://127.0.0.1:{port}/v1/posts"

    def send(body, kind="application/json", path=""):
        request = urllib.request.Request(url + path, body.encode("utf-8", "surrogatepass"),
                                         {"Content-Type": kind, "X-Mark": MARK})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def first():
        try:
            return send(json.dumps({"posts": GOOD[:5]}))
        except urllib.error.URLError:
            return None

    codes = [wait_for(first)]
    codes += [send(line) for line in BAD] + [send(lines_of(*BAD[:4]), "application/x-ndjson"),
                                             send(MARK, f"text/{MARK}"), send("{}", path=f"/{MARK}"),
                                             send(f'{{"posts": "{MARK}"}}'), send("", path=f"?{MARK}={MARK}")]
    assert codes[0][0] == 200 and {code for code, _ in codes} >= {200, 400, 404, 415}
    check(*[body for _, body in codes], get(f"http://127.0.0.1:{figures[0]}/metrics"),
          get(f"http://127.0.0.1:{figures[0]}/health"), get(f"http://127.0.0.1:{figures[0]}/{MARK}"))
    code, out, err = running.end(signal.SIGTERM)
    assert code == 0
    check("".join(said) + err, out)


def test_a_network_that_misbehaves(tmp_path):
    events, _, _ = posts(300, seed=3, start_us=time.time_ns() // 1000, step_us=100,
                            text="post {n} about prozac " + MARK, updates=0.1, others=0.1)
    server = Jetstream(mischief=Mischief(seed=3, limit=3))
    try:
        running = Stream(tmp_path, "--log-level", "debug", "--allow-plain", "--no-fold", "--seed", "1",
                         f"jetstream:{server.url}")
        wait_for(lambda: server.requests)
        server.add(*events)
        wait_for(lambda: count_posts(tmp_path) >= 20)
        code, out, err = running.end(signal.SIGTERM)
    finally:
        server.stop()
    assert code == 0, err
    check(out, err)


def count_posts(folder):
    try:
        return query(folder, "SELECT count(*) AS n FROM posts")[0]["n"]
    except AssertionError:
        return 0


def test_a_store_that_takes_nothing(tmp_path):
    """A full disk."""
    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 10, resource.RLIM_INFINITY))

    (tmp_path / "a.jsonl").write_text(lines_of(*[marked(n) for n in range(3000)]))
    running = Stream(tmp_path, "--no-fold", "--log-level", "debug", "--metrics", "127.0.0.1:0", "a.jsonl",
                     preexec_fn=small_files)
    said = []
    for line in running.process.stderr:
        said.append(line)
        if "state=down" in line:
            break
    port = re.search(r"on port (\d+)", "".join(said))[1]
    check("".join(said), get(f"http://127.0.0.1:{port}/metrics"), get(f"http://127.0.0.1:{port}/health"))
    _, out, err = running.end(signal.SIGKILL)
    check(out, err)


def test_a_server_that_refuses(tmp_path, start):
    """Too long, a wrong key, a server that dies; the worker's and the server's logs and figures."""
    bring_in(tmp_path, GOOD + HOSTILE + [marked(77, text=f"zoloft {MARK} " * 300)], "--mode", "full", "--no-fold")
    small = start("--max-text", "1K", "--max-body", "4K", "--log-level", "debug")
    running = Worker(tmp_path, "vigil.db", small.port, "--metrics", "127.0.0.1:0", "--log-level", "debug",
                     "--store", str(tmp_path / "vigil.db"))
    port = running.wait_log(r"metrics_port=(\d+)")[1]
    wait_for(lambda: query(tmp_path, "SELECT count(*) AS n FROM queue")[0]["n"] == 0)
    check(get(f"http://127.0.0.1:{port}/metrics"), get(f"http://127.0.0.1:{port}/health"),
          get(f"http://127.0.0.1:{small.port}/metrics"))
    running.process.send_signal(signal.SIGTERM)
    running.wait()
    check(running.log(), small.log())
    assert query(tmp_path, "SELECT count(*) AS n FROM dead_letters WHERE stage = 'classify'")[0]["n"] == 2
    check(*vigil(tmp_path, "dlq", "list"))
    with writing(tmp_path) as db:
        db.execute("DELETE FROM results")
        db.execute("INSERT INTO queue (post_id, version) SELECT id, version FROM posts")
    gone = Worker(tmp_path, tmp_path / "vigil.db", small.port, "--log-level", "debug", "--batch", "2")
    gone.wait_log("event=ready")
    small.process.kill()
    small.expected_exit = -9
    gone.wait_log(r"event=(breaker|waiting|retry|request)|level=(warn|error)")
    gone.process.send_signal(signal.SIGTERM)
    gone.wait()
    check(gone.log())


def test_the_queue(tmp_path, start):
    small = start("--max-text", "1K", "--log-level", "debug")
    with Cluster(tmp_path / "nats") as cluster:
        (tmp_path / "a.jsonl").write_text(lines_of(*GOOD, *BAD, *HOSTILE))
        run_stream(tmp_path, "--queue", cluster.url(), "a.jsonl")
        for _ in range(2):
            worker = Worker(tmp_path, tmp_path / "vigil.db", small.port, "--queue", cluster.url(), "--once",
                            "--log-level", "debug", "--metrics", "127.0.0.1:0")
            worker.wait()
            check(worker.log())
        for node in cluster.nodes:
            assert MARK not in node.log()
        check(*vigil(tmp_path, "dlq", "list"), *vigil(tmp_path, "erase", "--queue", cluster.url(), "--source", "file"))


def test_programs_over_the_store(tmp_path):
    """Export, erase and queries that go wrong while posts are there."""
    bring_in(tmp_path, GOOD + HOSTILE, "--mode", "full")
    settle(tmp_path)
    key = json.dumps(HOSTILE[0]["id"])[1:-1]
    out, err = vigil(tmp_path, "query", "SELECT key, place, author FROM posts WHERE key LIKE 'a:x%'")
    assert len(out.splitlines()) == 3 and f"{ESCAPE}" not in out and key
    for arguments in (["query", "SELECT json_extract('{}', text) FROM posts"], ["query", "SELECT text FROM"],
                      ["query", "SELECT json(place) AS j FROM posts"], ["export", "/proc/lake"],
                      ["erase", "--author", "a:nobody", "--key-file", "none"], ["dlq", "show", "7"]):
        check(*vigil(tmp_path, *arguments, code=1))
    with open("/dev/full", "wb") as full:
        check(vigil(tmp_path, "query", "SELECT * FROM posts", code=1, stdout=full)[1])
    check(*vigil(tmp_path, "export", "lake"), *vigil(tmp_path, "export", "--statements", "duckdb", "lake"))
    check(*vigil(tmp_path, "erase", "--author", f"a:{MARK}a"), *vigil(tmp_path, "erase", "--json", "--source", "a"))


def test_a_program_that_is_told_nonsense(tmp_path):
    """Names from the command line are shown, but as one line that is safe to show."""
    bring_in(tmp_path, [post(1)])
    for arguments in (["query", f"SELECT {ESCAPE}"], ["query", "SELECT 'x' AS \"\n\" FROM \"nope\x1b[2J\""],
                      ["query", "--store", f"no{ESCAPE}.db", "SELECT 1"],
                      ["erase", "--post", f"{ESCAPE}x"], ["dlq", f"{ESCAPE}"],
                      ["export", f"no/such{ESCAPE}"], ["erase", "--source", "a", "--store", f"no{ESCAPE}\n.db"],
                      ["dlq", "--store", f"no{ESCAPE}.db", "list"]):
        done = subprocess.run([str(BIN / f"vigil-{arguments[0]}"), *arguments[1:]], cwd=tmp_path, env=environment(),
                              capture_output=True, check=False, timeout=PATIENCE)
        assert done.returncode in (1, 2)
        for line in done.stderr.decode("utf-8", "replace").splitlines():
            assert line.isprintable(), (arguments, line)
