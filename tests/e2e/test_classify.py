# SPDX-License-Identifier: Apache-2.0
"""vigil classify as people use it: files, pipes, errors, signals, memory, answers."""
import csv
import gzip
import io
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
BIN = pathlib.Path(os.environ.get("VIGIL_BIN", ROOT / "build/bin"))
TINY = ROOT / "tests/data/models/binary-f32"
ADE = ROOT / "weights/ade"
IS_SANITIZED = "san" in os.environ.get("VIGIL_BUILD", "")
HANG_SECONDS = 300  # a bound on hangs, not a measurement

TEXTS = ["this drug gave me a rash", "Zoloft, again: \"so tired\"", "nothing to report",
         "line one\nline two", "caf\u00e9 \U0001f62d"]


def classify(*arguments, stdin=b"", model=TINY, **more):
    command = [str(BIN / "vigil-classify")]
    if model:
        command += ["--model", str(model)]
    return subprocess.run(command + [str(a) for a in arguments], input=stdin,
                          capture_output=True, timeout=HANG_SECONDS, cwd=ROOT, **more)


def answers(result):
    assert result.stdout == b"" or result.stdout.endswith(b"\n")
    return [json.loads(line) for line in result.stdout.splitlines()]


def as_jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_csv(rows, **more):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), **more)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


# ---- what comes in and what goes out ----

def test_every_format_gives_the_same(tmp_path):
    rows = [{"id": f"t{i}", "text": text} for i, text in enumerate(TEXTS)]
    files = {"a.jsonl": as_jsonl(rows), "a.csv": as_csv(rows),
             "a.tsv": as_csv(rows, delimiter="\t", lineterminator="\n")}
    expected = None
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        results = [classify(tmp_path / name)]
        if name != "a.tsv":  # a pipe has no name that says so
            results += [classify(stdin=data), classify("-", stdin=data),
                        classify("--format", name[2:], stdin=data)]
        for result in results:
            assert result.returncode == 0, result.stderr
            expected = expected or result.stdout
            assert result.stdout == expected, name
    found = [json.loads(line) for line in expected.splitlines()]
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    for row in found:
        assert set(row) == {"id", "label", "score", "probs"}
        assert set(row["probs"]) == {"LABEL_0", "LABEL_1"}
        assert row["score"] == row["probs"][row["label"]] == max(row["probs"].values())
        assert abs(sum(row["probs"].values()) - 1) < 1e-6


def test_lines_have_their_numbers_as_ids():
    result = classify(stdin=b"one\n\n two\r\nthree")
    assert [row["id"] for row in answers(result)] == [1, 3, 4]
    assert result.returncode == 0


def test_fields_by_other_names():
    rows = [{"key": 5, "body": "a rash"}, {"key": 6, "body": "nothing"}]
    for data in (as_jsonl(rows), as_csv(rows)):
        result = classify("--text-field", "body", "--id-field", "key", stdin=data)
        assert [str(row["id"]) for row in answers(result)] == ["5", "6"]
        assert result.returncode == 0


def test_answers_are_those_of_the_golden_file():
    for name in ("binary-f32", "three-classes-f16", "multi-label-bf16", "odd-shape-f32"):
        folder = TINY.parent / name
        rows = [json.loads(line) for line in open(folder / "golden.jsonl")]
        rows = [row for row in rows if "text" in row]
        result = classify("--truncate", stdin=as_jsonl({"text": r["text"]} for r in rows),
                          model=folder)
        assert result.returncode == 0, result.stderr
        for row, answer in zip(rows, answers(result), strict=True):
            best = max(range(len(row["logits"])), key=row["logits"].__getitem__)
            assert list(answer["probs"]).index(answer["label"]) == best
            if name == "odd-shape-f32":
                assert abs(answer["score"] - row["logits"][0]) < 1e-4


def test_same_bytes_for_any_threads_and_batches():
    data = as_jsonl({"id": i, "text": " ".join(TEXTS * (1 + i % 40))} for i in range(200))
    results = [classify("--threads", threads, "--batch-tokens", tokens, stdin=data)
               for threads, tokens in ((1, 1024), (2, 128), (3, 333))]
    assert results[0].returncode == 0 and results[0].stdout.count(b"\n") == 200
    assert results[0].stdout == results[1].stdout == results[2].stdout


def test_long_texts():
    text = "rash and headache " * 200
    row, = answers(classify(stdin=text.encode()))
    assert row["windows"] > 1 and "truncated" not in row
    result = classify("--truncate", stdin=text.encode())
    row, = answers(result)
    assert row["truncated"] is True and "windows" not in row
    assert b"1 truncated" in result.stderr


def test_threshold():
    data = as_jsonl({"text": text} for text in TEXTS)
    positive = [row["probs"]["LABEL_1"] for row in answers(classify(stdin=data))]
    limit = sorted(positive)[2]
    found = answers(classify("--threshold", limit, stdin=data))
    assert [row["label"] == "LABEL_1" for row in found] == [p >= limit for p in positive]
    assert all(row["score"] == row["probs"][row["label"]] for row in found)


def test_entities_are_code_points_of_the_text():
    texts = ["\U0001f62d\U0001f62d caf\u00e9 e\u0301 Zoloft gave me a terrible headache",
             "lisinopril and a dry cough \U0001f621"]
    rows = answers(classify("--entities", stdin=as_jsonl({"text": t} for t in texts),
                            model=ADE))
    for text, row in zip(texts, rows, strict=True):
        assert row["entities"]
        for entity in row["entities"]:
            assert set(entity) == {"type", "text", "begin", "end", "score"}
            assert text[entity["begin"]:entity["end"]] == entity["text"]
    assert "headache" in " ".join(e["text"] for e in rows[0]["entities"])
    assert answers(classify("--entities", stdin=b"a\n"))[0]["entities"] == []


def test_output_file(tmp_path):
    out, source = tmp_path / "out.jsonl", tmp_path / "in.jsonl"
    source.write_bytes(as_jsonl([{"text": "a"}]))
    assert classify(source, "-o", out).stdout == b""
    assert json.loads(out.read_text())["id"] == 1
    result = classify(source, "-o", source)
    assert result.returncode == 1 and b"the input as well as the output" in result.stderr
    assert source.read_bytes() == as_jsonl([{"text": "a"}])


def test_empty_input(tmp_path):
    for name, data in (("a.jsonl", b""), ("a.csv", b""), ("b.csv", b"id,text\r\n"),
                       ("a.txt", b"\n\n"), ("b.txt", b"\xef\xbb\xbf")):
        (tmp_path / name).write_bytes(data)
        result = classify(tmp_path / name)
        assert (result.returncode, result.stdout) == (0, b""), name
        assert result.stderr.startswith(b"0 records, 0 errors")


# ---- what goes wrong ----

def test_bad_records_do_not_stop_the_others():
    data = (b'{"id":"a","text":"one"}\n{"id":"b"}\n{"id":"c","text":"CANARY\n'
            b'{"id":"d","text":"CANARY\\ud83d"}\n"' + b"CANARY" * 300_000 + b'"\n'
            b'{"id":"e","text":"two"}')
    result = classify(stdin=data)
    rows = answers(result)
    assert result.returncode == 1
    assert [row["id"] for row in rows] == ["a", "b", 3, 4, 5, "e"]
    assert ["error" in row for row in rows] == [False, True, True, True, True, False]
    assert [row["line"] for row in rows[1:5]] == [2, 3, 4, 5]
    assert [row["error_type"] for row in rows[1:5]] == ["invalid", "invalid",
                                                       "unsupported", "limit"]
    assert rows[1]["error"] == 'has no field "text"'
    assert b"CANARY" not in result.stdout + result.stderr
    assert b'4 of 6 records failed, the first: line 2: has no field "text"' in result.stderr


def test_bad_rows_name_their_row():
    rows = answers(classify("--format", "csv", stdin=b'id,text\n"x\ny",ok\nz\n'))
    assert rows[0]["id"] == "x\ny" and rows[1]["row"] == 2 and "line" not in rows[1]


@pytest.mark.parametrize("arguments, words", [
    (["--threshold", "1.5"], "from 0 to 1"), (["--format", "xml"], "jsonl"),
    (["--treshold", "0.5"], "--threshold"), (["a", "b"], ""), (["--threads", "-1"], ""),
    (["--max-text", "0"], "")])
def test_wrong_command_lines(arguments, words):
    result = classify(*arguments)
    assert result.returncode == 2 and result.stdout == b""
    assert result.stderr.startswith(b"vigil classify: ") and words in result.stderr.decode()


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\x1f\x8b\x08\x00CANARY")
    (tmp_path / "a.csv").write_bytes(b"id,CANARY\n1,b\n")
    for arguments, words in (
            ([tmp_path / "missing"], "No such file"), ([tmp_path], "Is a directory"),
            ([tmp_path / "a.jsonl"], "zcat"), ([tmp_path / "a.csv"], 'named "text"'),
            (["--output", tmp_path / "no/such"], "No such file"),
            (["--isa", "neon"], "this machine cannot run"),
            (["--dtype", "int8", "--device", "reference"], "")):
        result = classify(*arguments)
        if words:
            assert result.returncode == 1 and words in result.stderr.decode(), arguments
            assert result.stderr.startswith(b"vigil classify: ")
        assert b"CANARY" not in result.stderr and result.stdout == b""
    result = classify(model=tmp_path)
    assert result.returncode == 1 and str(tmp_path).encode() in result.stderr


def test_a_full_disk_is_said():
    result = classify("-o", "/dev/full", stdin=b"one\n")
    assert result.returncode == 1 and b"No space left" in result.stderr


# ---- pipes and signals ----

def start(*arguments, model=TINY, **more):
    return subprocess.Popen([str(BIN / "vigil-classify"), "--model", str(model)] +
                            [str(a) for a in arguments], cwd=ROOT, **more)


def test_answers_while_the_input_is_open():
    p = start(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for i in range(1, 4):
        p.stdin.write(b"a rash\n")
        p.stdin.flush()
        assert select.select([p.stdout], [], [], HANG_SECONDS)[0]
        assert json.loads(os.read(p.stdout.fileno(), 4096))["id"] == i
    _, said = p.communicate(timeout=HANG_SECONDS)
    assert p.returncode == 0 and said.startswith(b"3 records")


def test_ends_quietly_when_nobody_reads(tmp_path):
    # Both while it writes and while it waits for input that never comes.
    p = start(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stdin.write(b"one\n")
    p.stdin.flush()
    assert p.stdout.readline()
    p.stdout.close()
    p.stdin.write(b"two\n")
    p.stdin.flush()
    assert p.wait(timeout=HANG_SECONDS) == 0
    said = p.stderr.read()
    assert b"vigil" not in said and b"records" in said
    p.stdin.close()
    p.stderr.close()
    lines = tmp_path / "lines.txt"
    lines.write_bytes(b"one of many lines\n" * 50_000)
    result = subprocess.run(["bash", "-c", f'set -o pipefail; "$0" --model "{TINY}" '
                             f'"{lines}" | head -n 3', str(BIN / "vigil-classify")],
                            capture_output=True, timeout=HANG_SECONDS)
    assert result.returncode == 0 and result.stdout.count(b"\n") == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_reading(tmp_path, number):
    lines = tmp_path / "lines.txt"
    lines.write_bytes(b"one of very many lines\n" * 2_000_000)
    p = start(lines, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    first = p.stdout.readline()
    p.send_signal(number)
    rest, said = p.communicate(timeout=HANG_SECONDS)
    assert p.returncode == 1 and b"interrupted" in said
    rows = [json.loads(line) for line in (first + rest).splitlines()]
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) < 2_000_000
    assert said.startswith(f"{len(rows)} records".encode())


def test_a_second_signal_ends_at_once():
    p = start(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stdin.write(b"one\n")
    p.stdin.flush()
    assert p.stdout.readline()
    # Its own answers fill the pipe that nobody reads: it cannot finish.
    os.set_blocking(p.stdin.fileno(), False)
    while select.select([], [p.stdin], [], 1)[1]:
        try:
            os.write(p.stdin.fileno(), b"one more line\n" * 64)
        except BlockingIOError:
            pass
    p.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        p.wait(timeout=0.5)
    p.send_signal(signal.SIGINT)
    assert p.wait(timeout=HANG_SECONDS) == -signal.SIGINT
    for stream in (p.stdout, p.stderr):
        stream.close()
    try:
        p.stdin.close()
    except BrokenPipeError:
        pass


def test_bar_on_a_terminal_only(tmp_path):
    (tmp_path / "lines.txt").write_bytes(b"one of many lines\n" * 300_000)
    main, terminal = pty.openpty()
    p = start(tmp_path / "lines.txt", stdout=subprocess.DEVNULL, stderr=terminal,
              env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"})
    os.close(terminal)
    said = b""
    try:
        while chunk := os.read(main, 4096):
            said += chunk
    except OSError:  # the other end was closed
        pass
    os.close(main)
    assert p.wait(timeout=HANG_SECONDS) == 0
    assert b"classify [" in said and b"records" in said
    result = classify(tmp_path / "lines.txt")
    assert b"[" not in result.stderr and result.stderr.count(b"\n") == 1
    assert classify("--quiet", tmp_path / "lines.txt").stderr == b""


@pytest.mark.skipif(IS_SANITIZED, reason="sanitizers keep freed memory")
def test_memory_does_not_grow_with_the_input(tmp_path):
    used = []
    for n in (10_000, 100_000):
        path = tmp_path / f"{n}.jsonl"
        with open(path, "wb") as f:
            for i in range(n):
                f.write(b'{"id":%d,"text":"%s"}\n' % (i, b"a rash and more " * (1 + i % 12)))
        p = start(path, "--threads", 1, model=TINY.parent / "odd-shape-f32",
                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
        assert p.returncode == 0
        used.append(usage.ru_maxrss)
    assert used[1] < used[0] + 4096, f"{used} KiB"


# ---- what it says of itself ----

def test_examples_of_the_help(tmp_path):
    text = subprocess.run([str(BIN / "vigil-classify"), "--help"], capture_output=True,
                          text=True, check=True).stdout
    examples = re.findall(r"^  (\S.*\bvigil classify\b.*|vigil classify.*)$",
                          text.split("Examples:")[1], re.M)
    assert len(examples) >= 4
    rows = [{"id": "1", "text": "a rash", "body": "a rash"}]
    (tmp_path / "posts.jsonl").write_bytes(as_jsonl(rows))
    (tmp_path / "posts.jsonl.gz").write_bytes(gzip.compress(as_jsonl(rows)))
    (tmp_path / "posts.csv").write_bytes(as_csv(rows))
    for command in examples:
        result = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=tmp_path,
                                env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
                                stdin=subprocess.DEVNULL, capture_output=True,
                                timeout=HANG_SECONDS)
        assert result.returncode == 0, (command, result.stderr)
        written = tmp_path / "answers.jsonl"
        found = result.stdout or written.read_bytes()
        assert json.loads(found)["label"] == "Adverse_Event", command
        written.unlink(missing_ok=True)


# ---- how good the answers are: only with ../shared ----

def f1(truth, found):
    hits = sum(t and f for t, f in zip(truth, found, strict=True))
    return 2 * hits / (sum(truth) + sum(found))


def needs(path):
    return pytest.mark.skipif(not path.exists(), reason=f"no ../{path.relative_to(ROOT.parent)}")


GOLDEN = SHARED / "models/ade-minilm/golden-ade-dev.jsonl.gz"
CORPUS = SHARED / "data/ade-corpus-v2/derived-classification-dedup.tsv.gz"


@needs(GOLDEN)
@pytest.mark.parametrize("isa", ["avx512", "avx2", "portable"])
def test_int8_answers_as_fp32(isa):
    """At most 0.5 % of the labels differ, and F1 by half a point."""
    with gzip.open(GOLDEN, "rt") as f:
        rows = [json.loads(line) for line in f]
    if IS_SANITIZED or isa == "portable":  # slow
        rows = rows[:20 if IS_SANITIZED and isa == "portable" else 200]
    result = classify("--isa", isa, stdin=as_jsonl({"text": r["text"]} for r in rows),
                      model=ADE)
    if b"this machine cannot run" in result.stderr:
        pytest.skip(f"this machine has no {isa}")
    assert result.returncode == 0, result.stderr
    truth = [row["label"] == 1 for row in rows]
    fp32 = [row["logits"][1] > row["logits"][0] for row in rows]
    int8 = [row["label"] == "Adverse_Event" for row in answers(result)]
    flips = sum(a != b for a, b in zip(fp32, int8, strict=True))
    print(f"{isa}: {flips} of {len(rows)} flip, F1 {f1(truth, int8):.4f}, "
          f"fp32 {f1(truth, fp32):.4f}")
    assert flips <= 0.005 * len(rows)
    assert abs(f1(truth, int8) - f1(truth, fp32)) <= 0.005


@needs(CORPUS)
def test_f1_on_the_corpus_it_learned_from():
    with gzip.open(CORPUS, "rt", encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
    rows = rows[::40 if IS_SANITIZED else 8]
    result = classify("--id-field", "pmid", stdin=as_csv(rows), model=ADE)
    assert result.returncode == 0, result.stderr
    found = answers(result)
    assert [row["id"] for row in found] == [row["pmid"] for row in rows]
    score = f1([row["label"] == "1" for row in rows],
               [row["label"] == "Adverse_Event" for row in found])
    print(f"{len(rows)} sentences, F1 {score:.4f}")
    assert score > 0.97
