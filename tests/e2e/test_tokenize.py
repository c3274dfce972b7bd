# SPDX-License-Identifier: Apache-2.0
"""vigil tokenize: lines in, ids out; what is wrong with a line; readers that go away."""
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = os.path.join(os.environ.get("VIGIL_BIN", ROOT / "build/bin"), "vigil-tokenize")


def tokenize(text, *options):
    return subprocess.run([PROGRAM, "--model", ROOT / "weights/ade", *options], input=text,
                          capture_output=True, timeout=60)


def test_lines():
    run = tokenize(b"this drug gave me a rash\n\nHello [MASK]\r\nx")
    assert run.returncode == 0 and run.stderr == b""
    assert run.stdout == (b"101 2023 4319 2435 2033 1037 23438 102\n101 102\n"
                          b"101 7592 103 102\n101 1060 102\n")


def test_no_input():
    run = tokenize(b"")
    assert (run.returncode, run.stdout) == (0, b"")


def test_objects():
    run = tokenize(b'{"text":"h\\u00e9llo \\u0000 zz"}\n{"x":1}\n[\n{"text":"\\ud800"}\n{"text":""}\n',
                   "--jsonl")
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 1
    assert lines[0] == {"ids": [101, 7592, 1062, 2480, 102],
                        "tokens": ["[CLS]", "hello", "z", "##z", "[SEP]"],
                        "offsets": [[0, 0], [0, 5], [8, 9], [9, 10], [0, 0]]}
    assert [line["error"].split(":")[0] for line in lines[1:4]] == ["line 2", "line 3", "line 4"]
    assert lines[4]["ids"] == [101, 102]


def test_long_lines():
    run = tokenize(b"abc\nabcdef\nabc\n", "--max-line", "5")
    assert run.returncode == 1 and run.stdout.count(b"\n") == 1
    assert b"line 2: over the limit of 5 bytes" in run.stderr
    long = b'{"text":"' + b"a " * 200000 + b'"}\n'
    run = tokenize(long + b'{"text":"a"}\n' + long, "--jsonl", "--max-line", "1000")
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 1 and len(lines) == 3
    assert lines[0]["error"].startswith("line 1: ") and lines[2]["error"].startswith("line 3: ")
    assert lines[1]["ids"] == [101, 1037, 102]
    run = tokenize(b"a " * 3000000 + b"\nb\n")
    assert run.returncode == 0 and [len(line.split()) for line in run.stdout.splitlines()] == [3000002, 3]


def test_max_tokens():
    assert tokenize(b"a b c d\n", "--max-tokens", "4").stdout == b"101 1037 1038 102\n"
    assert tokenize(b"a\n", "--max-tokens", "1").returncode == 2


def test_answers_before_it_waits():
    with subprocess.Popen([PROGRAM, "--model", ROOT / "weights/ade"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        for text, ids in ((b"a\n", b"101 1037 102\n"), (b"b\n", b"101 1038 102\n")):
            process.stdin.write(text)
            process.stdin.flush()
            assert process.stdout.readline() == ids
        process.stdin.close()
        assert process.wait(60) == 0


def test_a_reader_that_goes_away(tmp_path):
    (tmp_path / "texts").write_bytes(b"hello\n" * 500000)
    with subprocess.Popen([PROGRAM, "--model", ROOT / "weights/ade", tmp_path / "texts"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(60) == 0


def test_what_is_missing(tmp_path):
    run = tokenize(b"", "/nonexistent-file")
    assert run.returncode == 1 and b"/nonexistent-file" in run.stderr
    run = tokenize(b"", "--model", tmp_path)
    assert run.returncode == 1 and b"neither vocab.txt nor tokenizer.json" in run.stderr
