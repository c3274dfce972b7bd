#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tokenizer/unicode.c: what the WordPiece tokenizer needs to know of every code point.

usage: tokenizer/gen_unicode.py [--unicode DIR] > tokenizer/unicode.c

DIR is Debian's /usr/share/unicode (package unicode-data 15.0.0): UnicodeData.txt and
DerivedAge.txt.

The table must agree with Hugging Face `tokenizers` 0.23, which mixes four versions of Unicode:

  categories (controls, punctuation, marks)   crate unicode_categories             8.0
  decompositions, combining classes           crate unicode-normalization-alignments 9.0
  white space, lower case                     the Rust standard library           17.0
  CJK ideographs                              a list of ranges in BertNormalizer

A code point that is younger than a version is unassigned in it. The few that changed in a
later version, or that are younger than the data read here, are listed below.
"""
import argparse
import os

CATEGORY_VERSION = (8, 0)
NORMALIZATION_VERSION = (9, 0)

# Whose category changed after 8.0: code point, then.
CATEGORY_OVERRIDES = {
    0x166D: "Po",  # So since 12.0
    0x1734: "Mn",  # Mc since 14.0
    0x1885: "Lo", 0x1886: "Lo",  # Mn since 9.0
    0xA9BD: "Mc",  # Mn since 11.0
    0x111C9: "Po",  # Mn since 11.0
}

# Lower case that is younger than the data: first, last, what to add.
YOUNGER_LOWER = [
    (0x1C89, 0x1C89, 1),  # 16.0, Cyrillic
    (0xA7CB, 0xA7CB, 0x264 - 0xA7CB), (0xA7CC, 0xA7CC, 1),  # 16.0, Latin
    (0xA7DA, 0xA7DA, 1), (0xA7DC, 0xA7DC, 0x19B - 0xA7DC),
    (0x10D50, 0x10D65, 0x20),  # 16.0, Garay
    (0xA7CE, 0xA7CE, 1), (0xA7D2, 0xA7D2, 1), (0xA7D4, 0xA7D4, 1),  # 17.0, Latin
    (0x16EA0, 0x16EB8, 0x1B),  # 17.0, Beria Erfe
]

# BertNormalizer's own list. U+2B820 to U+2B91F are missing there (its range starts a digit
# off), and so they are here.
CJK = [(0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
       (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)]

CONTROL, SPACE, PUNCTUATION, CJK_FLAG, MARK, HANGUL, DOTTED = (1 << i for i in range(7))
SHIFT = 7


def read_data(folder):
    chars, ages, first = {}, {}, None
    with open(os.path.join(folder, "UnicodeData.txt")) as file:
        for line in file:
            f = line.rstrip("\n").split(";")
            last = int(f[0], 16)
            if f[1].endswith("First>"):
                first = last
                continue
            for c in range(first if f[1].endswith("Last>") else last, last + 1):
                chars[c] = f
    with open(os.path.join(folder, "DerivedAge.txt")) as file:
        for line in file:
            line = line.split("#")[0].strip()
            if line:
                span, age = line.split(";")
                ends = [int(x, 16) for x in span.strip().split("..")]
                for c in range(ends[0], ends[-1] + 1):
                    ages[c] = tuple(int(x) for x in age.strip().split("."))
    return chars, ages


class Table:
    def __init__(self, folder):
        self.chars, self.ages = read_data(folder)

    def is_in(self, c, version):
        return c in self.chars and self.ages[c] <= version

    def category(self, c):
        if c in CATEGORY_OVERRIDES:
            return CATEGORY_OVERRIDES[c]
        return self.chars[c][2] if self.is_in(c, CATEGORY_VERSION) else "Cn"

    def combining_class(self, c):
        return int(self.chars[c][3]) if self.is_in(c, NORMALIZATION_VERSION) else 0

    def decomposition(self, c):
        """The full canonical one; empty where there is none and for Hangul syllables."""
        if not self.is_in(c, NORMALIZATION_VERSION):
            return []
        field = self.chars[c][5]
        if not field or field.startswith("<"):
            return []
        out = []
        for d in (int(x, 16) for x in field.split()):
            out += self.decomposition(d) or [d]
        return out

    def lower_delta(self, c):
        for first, last, delta in YOUNGER_LOWER:
            if first <= c <= last:
                return delta
        field = self.chars[c][13] if c in self.chars else ""
        return int(field, 16) - c if field else 0

    def flags(self, c):
        category = self.category(c)
        flags = 0
        if c in (0x9, 0xA, 0xD) or category in ("Zs", "Zl", "Zp"):
            flags |= SPACE
        elif c in (0, 0xFFFD) or category in ("Cc", "Cf", "Co", "Cs"):
            flags |= CONTROL
        if category[0] == "P" or (33 <= c < 127 and not chr(c).isalnum()):
            flags |= PUNCTUATION
        if any(first <= c <= last for first, last in CJK):
            flags |= CJK_FLAG
        if category == "Mn":
            flags |= MARK
        if 0xAC00 <= c <= 0xD7A3:
            flags |= HANGUL
        if c == 0x130:  # the only one whose lower case is two: i and U+0307
            flags |= DOTTED
        return flags

    def check(self):
        """What wordpiece.c takes for granted."""
        for c in range(0x110000):
            d = self.decomposition(c) or [c]
            classes = [self.combining_class(x) for x in d]
            starters = sum(1 for k in classes if k == 0)
            kept = [x for x in d if self.category(x) != "Mn"]
            assert all(classes[starters:]) and not any(classes[:starters]), hex(c)
            assert len(kept) <= len(chr(c).encode("utf-8", "surrogatepass")), hex(c)
            if self.combining_class(c):
                assert not self.flags(c) & ~(MARK | DOTTED), hex(c)
            if starters == 0:
                assert all(self.category(x) == "Mn" for x in d[1:]), hex(c)
            for x in d:
                if self.flags(x) & PUNCTUATION:
                    assert kept == [x] and self.lower_delta(x) == 0, hex(c)
                if self.flags(x) & (CONTROL | SPACE) and not self.flags(c) & SPACE:
                    assert d == [c], hex(c)
                if self.flags(x) & CJK_FLAG:
                    assert self.flags(c) & CJK_FLAG, hex(c)
            lowered = c + self.lower_delta(c)
            if lowered != c:
                for x in (c, lowered):
                    assert not self.flags(x) & ~(DOTTED | MARK), hex(c)
                assert len(chr(lowered).encode()) <= len(chr(c).encode()) + 1, hex(c)


def c_array(name, c_type, values):
    text = f"const {c_type} {name}[{len(values)}] = {{\n"
    line = "   "
    for v in values:
        item = f" {v},"
        if len(line) + len(item) > 88:
            text += line + "\n"
            line = "   "
        line += item
    return text + line + "\n};\n"


HEADER = """/* SPDX-License-Identifier: Apache-2.0
 *
 * unicode.c - the tables of unicode.h. Written by tokenizer/gen_unicode.py; do not edit.
 *
 * Data: Unicode 15.0.0 as of {category} (categories), {normalization} (decompositions,
 * combining classes) and 17.0 (white space, lower case), as Hugging Face tokenizers 0.23 has
 * them.
 */
/* clang-format off */
#include "tokenizer/unicode.h"

"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--unicode", default="/usr/share/unicode")
    table = Table(parser.parse_args().unicode)
    table.check()
    decompositions, at, records, index = [], {}, [], {}
    entries = []
    for c in range(0x110000):
        d = tuple(table.decomposition(c))
        if d and d not in at:
            at[d] = len(decompositions)
            decompositions += d
        record = (table.lower_delta(c), at[d] if d else 0, len(d), table.combining_class(c),
                  table.flags(c))
        if record not in index:
            index[record] = len(records)
            records.append(record)
        entries.append(index[record])
    size = 1 << SHIFT
    blocks, block_at, data = [], {}, []
    for first in range(0, len(entries), size):
        block = tuple(entries[first:first + size])
        if block not in block_at:
            block_at[block] = len(data) // size
            data += block
        blocks.append(block_at[block])
    assert max(blocks) < 256 and len(records) < 65536 and len(decompositions) < 65536
    version = "{0[0]}.{0[1]}".format
    out = HEADER.format(category=version(CATEGORY_VERSION),
                        normalization=version(NORMALIZATION_VERSION))
    out += c_array("unicode_blocks", "uint8_t", blocks) + "\n"
    out += c_array("unicode_entries", "uint16_t", data) + "\n"
    out += c_array("unicode_records", "struct unicode_record",
                   ["{%d,%d,%d,%d,%d}" % r for r in records]) + "\n"
    out += c_array("unicode_decompositions", "uint32_t", [hex(d) for d in decompositions])
    print(out, end="")


if __name__ == "__main__":
    main()
