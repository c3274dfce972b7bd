#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes client/select/normalise_table.c: what normalise.h makes of every code point.

usage: client/select/gen_normalise.py > client/select/normalise_table.c

With the data of Python's own unicodedata (Debian 12: Unicode 14). A code point becomes its
compatibility decomposition, case folded, without the marks of European and Near Eastern
scripts: "É" "e", fullwidth and mathematical letters plain ones, "ß" "ss". Marks that make
another letter in their script (kana, Indic) stay.
"""
import unicodedata

LIMIT = 0x110000
SHIFT = 7
OTHER, WORD, UNSPACED, SPACE, DROPPED = range(5)

# Marks that are stripped; those of other scripts stay.
MARKS = [(0x300, 0x36F), (0x483, 0x489), (0x591, 0x5C7), (0x610, 0x61A), (0x64B, 0x65F), (0x670, 0x670),
         (0x6D6, 0x6ED), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE00, 0xFE0F),
         (0xFE20, 0xFE2F), (0xE0100, 0xE01EF)]
# Scripts whose words stand next to each other without a space.
RUNNING = [(0xE00, 0xEFF), (0xF00, 0xFFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF),
           (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x20000, 0x3FFFF)]
# Letters that Unicode does not take apart, signs that are typed for others.
EXTRA = {"ø": "o", "đ": "d", "ħ": "h", "ł": "l", "ı": "i", "ŧ": "t", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th",
         **dict.fromkeys("\u2018\u2019\u201B\u02BC\u2032\uFF07\u0060\u00B4", "'"),
         **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\uFE58\uFE63\uFF0D", "-")}
# Not letters, whatever they decompose to: a name with such a sign behind it is the name.
SIGNS = "\u2122\u2120\u00AA\u00BA"


def is_in(c, ranges):
    return any(first <= c <= last for first, last in ranges)


def class_of(char):
    c, category = ord(char), unicodedata.category(char)
    if category[0] == "Z" or c in (9, 10, 11, 12, 13, 0x85):
        return SPACE
    if category == "Cf" or is_in(c, MARKS) or c == 0x640:
        return DROPPED
    if category[0] in "LNM":
        return UNSPACED if is_in(c, RUNNING) else WORD
    return OTHER


def fold(char):
    text = char
    for _ in range(4):
        text = unicodedata.normalize("NFKD", text).casefold()
        text = "".join(EXTRA.get(x, x) for x in text if not is_in(ord(x), MARKS))
    return unicodedata.normalize("NFC", text)


def record_of(c):
    """(class, what it becomes: b"" is itself, unless it is dropped)"""
    char = chr(c)
    if 0xD800 <= c < 0xE000:
        return OTHER, b""
    kind = class_of(char)
    if kind in (SPACE, DROPPED):
        return kind, b" " if kind == SPACE else b""
    how = unicodedata.decomposition(char)
    if char in SIGNS or (how.startswith(("<super>", "<sub>")) and kind == WORD and unicodedata.category(char)[0] == "N"):
        return OTHER, b""
    if char in EXTRA:
        text = EXTRA[char]
    else:
        text = fold(char)
    kinds = {class_of(x) for x in text}
    if len(kinds) != 1 or DROPPED in kinds or SPACE in kinds or len(text.encode()) > 3 * len(char.encode()):
        return kind, b""
    return kinds.pop(), b"" if text == char else text.encode()


def rows(values, form="{}", width=88):
    line = "   "
    for value in values:
        word = " " + form.format(value) + ","
        if len(line) + len(word) > width:
            yield line
            line = "   "
        line += word
    yield line


def main():
    records, pool, blocks, index = {}, bytearray(), {}, []
    entries = []
    for start in range(0, LIMIT, 1 << SHIFT):
        block = []
        for c in range(start, start + (1 << SHIFT)):
            block.append(records.setdefault(record_of(c), len(records)))
        block = tuple(block)
        if block not in blocks:
            blocks[block] = len(blocks)
            entries.extend(block)
        index.append(blocks[block])
    assert len(blocks) <= 256 and len(records) < 65536
    table = []
    for kind, text in records:
        at = pool.find(text) if text else 0
        if at < 0:
            at = len(pool)
            pool += text
        assert at < 65536
        table.append(f"{{{at}, {len(text)}, {kind}}}")
    print("/* SPDX-License-Identifier: Apache-2.0\n *\n"
          " * normalise_table.c - made by gen_normalise.py from Unicode "
          f"{unicodedata.unidata_version}: do not edit.\n */")
    print('#include "client/select/normalise.h"\n\n/* clang-format off */')
    print(f"const uint8_t normalise_blocks[{len(index)}] = {{", *rows(index), "};", sep="\n")
    print(f"const uint16_t normalise_entries[{len(entries)}] = {{", *rows(entries), "};", sep="\n")
    print(f"const struct normalise_record normalise_records[{len(table)}] = {{", *rows(table), "};", sep="\n")
    print(f"const uint8_t normalise_bytes[{len(pool)}] = {{", *rows(pool), "};", sep="\n")


if __name__ == "__main__":
    main()
