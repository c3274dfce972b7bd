#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/fuzz/slow_unicode.h: properties of code points, asked of tokenizers itself.

usage: tests/fuzz/gen_slow_unicode.py > tests/fuzz/slow_unicode.h   (needs: tokenizers 0.23)

tokenizer/gen_unicode.py computes its table from the Unicode files. This one has no such file:
it gives every code point to the normalizers of Hugging Face tokenizers and writes down what
they do, so that the two tables check each other.
"""
import sys

from tokenizers import normalizers, pre_tokenizers

CLEAN = normalizers.BertNormalizer(True, False, False, False)
IDEOGRAPHS = normalizers.BertNormalizer(False, True, False, False)
STRIP = normalizers.BertNormalizer(False, False, True, False)
LOWER, NFD = normalizers.Lowercase(), normalizers.NFD()
SPLIT = pre_tokenizers.BertPreTokenizer()
HIGHEST = "\u0345"  # combining class 240, alone in it
# One mark of each other combining class, in ascending order.
CLASSES = [(1, "\u0334"), (7, "\u093C"), (8, "\u3099"), (9, "\u094D"), (10, "\u05B0"),
           (11, "\u05B1"), (12, "\u05B2"), (13, "\u05B3"), (14, "\u05B4"), (15, "\u05B5"),
           (16, "\u05B6"), (17, "\u05B7"), (18, "\u05B8"), (19, "\u05B9"), (20, "\u05BB"),
           (21, "\u05BC"), (22, "\u05BD"), (23, "\u05BF"), (24, "\u05C1"), (25, "\u05C2"),
           (26, "\uFB1E"), (27, "\u064B"), (28, "\u064C"), (29, "\u064D"), (30, "\u064E"),
           (31, "\u064F"), (32, "\u0650"), (33, "\u0651"), (34, "\u0652"), (35, "\u0670"),
           (36, "\u0711"), (84, "\u0C55"), (91, "\u0C56"), (103, "\u0E38"), (107, "\u0E48"),
           (118, "\u0EB8"), (122, "\u0EC8"), (129, "\u0F71"), (130, "\u0F72"), (132, "\u0F74"),
           (202, "\u0327"), (214, "\u1DCE"), (216, "\u031B"), (218, "\u302A"), (220, "\u0316"),
           (222, "\u059A"), (224, "\u302E"), (226, "\U0001D16D"), (228, "\u05AE"),
           (230, "\u0301"), (232, "\u0315"), (233, "\u035C"), (234, "\u035D")]


def is_before(a, b):
    """Canonical order puts a before b, which is given first."""
    return a != b and NFD.normalize_str(b + a) == a + b


def combining_class(c):
    if c == HIGHEST:
        return 240
    if not is_before(c, HIGHEST):
        return 0
    low, high = 0, len(CLASSES) - 1
    while low < high:
        middle = (low + high) // 2
        if is_before(CLASSES[middle][1], c):  # class(c) > the middle's
            low = middle + 1
        else:
            high = middle
    k, mark = CLASSES[low]
    assert not is_before(mark, c) and not is_before(c, mark), hex(ord(c))
    return k


def hangul(c):
    index = c - 0xAC00
    parts = [0x1100 + index // 588, 0x1161 + index % 588 // 28]
    return "".join(map(chr, parts + ([0x11A7 + index % 28] if index % 28 else [])))


def look(code_points):
    spans = {name: [] for name in ("CONTROL", "SPACE", "PUNCTUATION", "IDEOGRAPH", "MARK")}
    classes, lower, decomposed = [], [], []

    def add(spans, c, *value):
        if spans and spans[-1][1] == c - 1 and spans[-1][2:] == list(value):
            spans[-1][1] = c
        else:
            spans.append([c, c, *value])

    for i in code_points:
        c = chr(i)
        cleaned = CLEAN.normalize_str("a" + c + "b")
        if cleaned == "ab":
            add(spans["CONTROL"], i)
        elif cleaned == "a b":
            add(spans["SPACE"], i)
        else:
            assert cleaned == "a" + c + "b", hex(i)
        if [w for w, _ in SPLIT.pre_tokenize_str("a" + c + "b")] == ["a", c, "b"]:
            add(spans["PUNCTUATION"], i)
        if IDEOGRAPHS.normalize_str(c) == f" {c} ":
            add(spans["IDEOGRAPH"], i)
        if STRIP.normalize_str(c) == "":
            add(spans["MARK"], i)
        n = NFD.normalize_str(c)
        if 0xAC00 <= i <= 0xD7A3:
            assert n == hangul(i), hex(i)
        elif n != c:
            decomposed.append([i, *map(ord, n)])
        low = LOWER.normalize_str(c)
        if low != c:
            lower.append([i, *map(ord, low)])
        if len(n) == 1 and n == c and (k := combining_class(c)):
            add(classes, i, k)
    return spans, classes, lower, decomposed


def print_rows(name, width, rows):
    print(f"static const uint32_t {name}[][{width}] = {{")
    line = "   "
    for row in rows:
        item = " {" + ",".join(f"{x:#x}" for x in row) + "},"
        if len(line) + len(item) > 96:
            print(line)
            line = "   "
        line += item
    print(line + "\n};")


def main():
    code_points = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    spans, classes, lower, decomposed = look(code_points)
    print("/* SPDX-License-Identifier: Apache-2.0\n *\n"
          " * slow_unicode.h - what Hugging Face tokenizers 0.23 does with every code point, asked of\n"
          " * it by gen_slow_unicode.py; do not edit. Spans are {first, last}, and a value; the other\n"
          " * rows {from, to, ...}, padded with zeros. Hangul syllables are left to arithmetic.\n */\n"
          "/* clang-format off */\n"
          "#ifndef VIGIL_TESTS_SLOW_UNICODE_H\n#define VIGIL_TESTS_SLOW_UNICODE_H\n\n"
          "#include <stdint.h>\n")
    for name, rows in spans.items():
        print_rows(name, 2, rows)
    print_rows("COMBINING_CLASSES", 3, classes)
    print_rows("LOWER", 3, lower)
    print_rows("DECOMPOSITIONS", 5, decomposed)
    print("\n#endif")
    print({k: len(v) for k, v in spans.items()}, len(classes), len(lower), len(decomposed),
          max(map(len, decomposed)), file=sys.stderr)


if __name__ == "__main__":
    main()
