#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every curl example of docs/API.md and README.md, run as it is printed: the answer has to have
the shape of the one that is printed below it, and its labels.

An example is a ```sh block with curl in it; the block that follows it, json, jsonl or text, is
its answer. A ```console block holds both: `$ ` before a command, its answer behind it.

    tests/e2e/test_examples.py --write    runs them and writes the answers into the files
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import pytest

from serving import PATIENCE, ROOT, Server

FILES = ["docs/API.md", "README.md"]
PORT = "127.0.0.1:8080"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
# Words that are the same for everyone; other strings and all numbers may differ.
FIXED = {"label", "type", "error", "error_type", "status", "service", "id", "text", "name"}


class Example:
    def __init__(self, path, line, command, kind, printed, where):
        self.path, self.line, self.command, self.kind = path, line, command, kind
        self.printed = printed
        self.where = where  # of the answer in its file, for --write

    def run(self, server):
        for local in (PORT, "localhost:8080"):
            command = self.command.replace(local, f"127.0.0.1:{server.port}")
            if command != self.command:
                break
        assert command != self.command, f"{self.path}:{self.line}: no address in the example"
        ended = subprocess.run(["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True,
                               timeout=PATIENCE, check=False, cwd=ROOT)
        assert ended.returncode == 0, ended
        return ended.stdout.replace(f"127.0.0.1:{server.port}", PORT)


def examples():
    for name in FILES:
        path = ROOT / name
        if not path.exists():
            continue
        text = path.read_text("utf-8")
        blocks = list(BLOCK.finditer(text))
        for block, following in zip(blocks, blocks[1:] + [None]):
            language, content = block[1], block[2]
            line = text.count("\n", 0, block.start()) + 1
            if language == "console" and "curl" in content:
                for part in re.finditer(r"^\$ (.*?(?:\\\n.*?)*)\n((?:(?!\$ ).*\n)*)", content, re.M):
                    if "curl" not in part[1]:
                        continue
                    at = block.start(2)
                    kind = "json" if part[2].lstrip()[:1] in ("{", "[") else "text"
                    yield Example(name, line, part[1], kind, part[2], (at + part.start(2), at + part.end(2)))
            elif language in ("sh", "bash") and "curl" in content:
                if following and following[1] in ("json", "jsonl", "text") and \
                        not text[block.end():following.start()].strip():
                    yield Example(name, line, content, following[1], following[2], following.span(2))
                else:
                    yield Example(name, line, content, "none", "", None)


def compare(printed, real, at="answer"):
    """The same shape: keys, types, nesting, lengths, and the words that are FIXED."""
    number = (int, float)
    if isinstance(printed, dict):
        assert isinstance(real, dict) and list(printed) == list(real), f"{at}: {printed} {real}"
        for key, value in printed.items():
            if key in FIXED and isinstance(value, str):
                assert real[key] == value, f"{at}.{key}: {value!r} {real[key]!r}"
            compare(value, real[key], f"{at}.{key}")
    elif isinstance(printed, list):
        assert isinstance(real, list) and len(printed) == len(real), f"{at}: {printed} {real}"
        for n, (one, other) in enumerate(zip(printed, real)):
            compare(one, other, f"{at}[{n}]")
    elif isinstance(printed, number) and not isinstance(printed, bool):
        assert isinstance(real, number) and not isinstance(real, bool), f"{at}: {printed} {real}"
        # An offset as printed, a probability nearly so: machines round in their own ways.
        if at.rsplit(".", 1)[-1] in ("begin", "end", "tokens", "windows"):
            assert printed == real, f"{at}: {printed} {real}"
        if at.rsplit(".", 1)[-1].startswith(("score", "Adverse_Event", "Not_AE")):
            assert abs(printed - real) <= max(0.05, 0.05 * abs(printed)), f"{at}: {printed} {real}"
    else:
        assert type(printed) is type(real), f"{at}: {printed!r} {real!r}"


ALL = list(examples())


@pytest.mark.parametrize("example", ALL, ids=lambda each: f"{each.path}:{each.line}")
def test_example(server, example):
    real = example.run(server)
    if example.kind == "json":
        compare(json.loads(example.printed), json.loads(real))
    elif example.kind == "jsonl":
        printed, real = ([json.loads(line) for line in text.strip().splitlines()]
                         for text in (example.printed, real))
        compare(printed, real)
    elif example.kind == "text":
        printed, real = (re.sub(r"\d+(\.\d+)?", "N", text.strip()).splitlines()
                         for text in (example.printed, real))
        assert printed == real


def test_there_are_examples():
    assert len([each for each in ALL if each.path == "docs/API.md"]) >= 10
    if (ROOT / "README.md").exists():
        assert any(each.path == "README.md" for each in ALL)


# --- Writing the answers ----------------------------------------------------------------------------


def wrapped(value, indent=0, width=98):
    """JSON as one would write it by hand: on one line what fits."""
    one = json.dumps(value, ensure_ascii=False)
    if len(one) + indent <= width or not isinstance(value, (dict, list)) or not value:
        return one
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        parts = [pad + json.dumps(key, ensure_ascii=False) + ": " + wrapped(each, indent + 2)
                 for key, each in value.items()]
        return "{\n" + ",\n".join(parts) + "\n" + " " * indent + "}"
    if all(not isinstance(each, (dict, list)) for each in value):
        return "[" + (",\n " + " " * indent).join(json.dumps(each, ensure_ascii=False) for each in value) + "]"
    return "[\n" + ",\n".join(pad + wrapped(each, indent + 2) for each in value) + "\n" + " " * indent + "]"


def write_answers():
    with tempfile.TemporaryDirectory() as folder:
        server = Server(pathlib.Path(folder))
        for name in FILES:
            path = ROOT / name
            text = path.read_text("utf-8") if path.exists() else ""
            for example in reversed([each for each in ALL if each.path == name and each.where]):
                answer = example.run(server)
                if example.kind == "json":
                    answer = wrapped(json.loads(answer))
                begin, end = example.where
                text = text[:begin] + answer.rstrip("\n") + "\n" + text[end:]
            if text:
                path.write_text(text, "utf-8")
        server.stop()


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {os.path.basename(sys.argv[0])} --write")
    write_answers()
