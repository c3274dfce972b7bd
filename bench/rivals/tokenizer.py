#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times Vigil's tokenizer beside Hugging Face tokenizers and BlingFire, one thread each.

usage: bench/rivals/tokenizer.py [--rounds N] [--model DIR] [--vigil PROGRAM] [FILE...]

FILE holds a text a line (.gz or not); without one, all of ../shared/data/tweets-tweeteval.
Rounds are interleaved, in another order each. A figure is the median over rounds of
processor time, so that what else the machine does counts against nobody. tokenizers runs
encode_batch_fast (no offsets) over all texts in one call with one thread; BlingFire is called
from C. Vigil's ids are compared with those of tokenizers first. Run it with the Python of the
scratch environment that bench/rivals/setup makes.
"""
import argparse
import gzip
import importlib.util
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PASSES = 3  # a turn of a quick one has so many passes; its median counts


def read_lines(paths):
    lines = []
    for path in paths:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            lines += file.read().removesuffix(b"\n").split(b"\n")
    return lines


class HuggingFace:
    name = "tokenizers encode_batch_fast"

    def __init__(self, vocab, texts):
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

        t = Tokenizer(models.WordPiece.from_file(str(vocab), unk_token="[UNK]"))
        t.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
        t.normalizer = normalizers.BertNormalizer(lowercase=True)
        t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        t.post_processor = processors.BertProcessing(
            ("[SEP]", t.token_to_id("[SEP]")), ("[CLS]", t.token_to_id("[CLS]")))
        self.tokenizer = t
        self.texts = [text.decode("utf-8") for text in texts]

    def turn(self):
        start = time.process_time()
        encodings = self.tokenizer.encode_batch_fast(self.texts)
        spent = (time.process_time() - start) * 1e3
        del encodings
        return spent

    def ids(self):
        return [e.ids for e in self.tokenizer.encode_batch_fast(self.texts)]


class Program:
    """A command that prints a line of JSON with its times."""

    def __init__(self, name, command):
        self.name, self.command = name, command

    def answer(self):
        return json.loads(subprocess.run(self.command, check=True, capture_output=True).stdout)

    def turn(self):
        return statistics.median(self.answer()["ids_ms"])


def blingfire(work, path):
    # Found, not imported: nothing of it runs in this process.
    spec = importlib.util.find_spec("blingfire")
    if not spec:
        return None
    folder = pathlib.Path(spec.origin).parent
    program = work / "blingfire"
    subprocess.run(["gcc", "-O2", "-o", program, ROOT / "bench/rivals/blingfire.c", "-ldl"], check=True)
    return Program("BlingFire TextToIds", [program, folder / "libblingfiretokdll.so",
                                           folder / "bert_base_tok.bin", path, str(PASSES)])


def check(vigil, model, path, rival):
    tokenize = pathlib.Path(vigil).with_name("vigil-tokenize")
    out = subprocess.run([tokenize, "--model", model, path], check=True, capture_output=True).stdout
    ours = [[int(i) for i in line.split()] for line in out.splitlines()]
    theirs = rival.ids()
    wrong = sum(a != b for a, b in zip(ours, theirs)) + abs(len(ours) - len(theirs))
    if wrong:
        sys.exit(f"{wrong} of {len(theirs)} texts have other ids: not timed")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "weights/ade")
    parser.add_argument("--vigil", default=ROOT / "build/bin/vigil")
    parser.add_argument("--json", type=pathlib.Path, help="write every single time there")
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    options = parser.parse_args()
    files = options.files or sorted((ROOT / "../shared/data/tweets-tweeteval").glob("*.txt.gz"))
    texts = read_lines(files)
    if not texts:
        sys.exit("no texts")
    with tempfile.TemporaryDirectory() as work:
        path = pathlib.Path(work) / "texts"
        path.write_bytes(b"".join(text + b"\n" for text in texts))
        vigil = Program("vigil", [options.vigil, "bench", "--tokenizer", "--model", options.model,
                                  "--rounds", str(PASSES), path])
        hugging_face = HuggingFace(options.model / "vocab.txt", texts)
        check(options.vigil, options.model, path, hugging_face)
        entrants = [e for e in (vigil, hugging_face, blingfire(pathlib.Path(work), path)) if e]
        facts = vigil.answer()
        times = {e.name: [] for e in entrants}
        for _ in range(options.rounds):
            for entrant in random.sample(entrants, len(entrants)):
                times[entrant.name].append(entrant.turn())
    medians = {name: statistics.median(t) for name, t in times.items()}
    print(f"{facts['texts']} texts, {facts['bytes']} bytes, {facts['tokens']} tokens, one thread, "
          f"median of {options.rounds} rounds; the same ids as tokenizers")
    for name, ms in medians.items():
        print(f"{name:30} {ms:9.1f} ms  {facts['bytes'] / ms / 1e3:7.1f} MB/s  "
              f"{facts['tokens'] / ms / 1e3:6.2f} M tokens/s  {ms / medians['vigil']:6.1f} x")
    if options.json:
        options.json.write_text(json.dumps(
            {"machine": platform.processor() or platform.machine(), **facts, "times_ms": times},
            indent=1) + "\n")


if __name__ == "__main__":
    main()
