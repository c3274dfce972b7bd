#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes what README.md says beside this file, with Hugging Face tokenizers 0.23.

usage: tests/data/tokenizer/make_golden.py
"""
import json
import os
import random

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HERE = os.path.dirname(os.path.abspath(__file__))
VOCAB = os.path.join(HERE, "../models/vocab.txt")
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

TEXTS = [
    "", " ", "\n", "\t \r\n", "a", "A", "#", "##", "##s", "0", "\u0000", "\ufffd", "\u00ad",
    "Started the new tablets on Monday and my HANDS won't stop shaking!!",
    "day 3 of 20mg... dizzy, nauseous & can't sleep :( #sideeffects @doc_who",
    "no problems so far \U0001f64f\U0001f3fd\U0001f44d\u200d\u2764\ufe0f",
    "cafe\u0301 caf\u00e9 CAFE\u0301 \u00fcber \u00dcBER stra\u00dfe STRASSE",
    "na\u00efve co\u00f6perate \u00c5ngstr\u00f6m \u212bngstr\u00f6m \u01c4 \ufb01ne",
    "\u0130stanbul I\u0307 \u0131\u0130i",
    "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u03a3\u0391\u03a3 \u0390 \u1fb7",
    "\u4e2d\u6587 text \u6df7\u5408ab\u4e2dc \uff21\uff22\uff23 \u3042\u3044\u30ab\u30ac",
    "\ud55c\uad6d\uc5b4 \uac00\uac01 \u1100\u1161\u11a8",
    "\u0915\u094d\u0937\u093f \u0958 \u09cb \u0b95\u0bca \u0e01\u0e33",
    "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd \u0645\u064e\u0631\u0652\u062d\u0628\u064b\u0627",
    "\U0001d15e \U0001d157\U0001d165\U0001d16e \U0001d165\u0301\U0001d16d\u0316",
    "\u304b\u302e\u3099\u302f\u0301 \u1100\u302e\u302f",
    "q\u0307\u0323 q\u0323\u0307 \u1e0b\u0323 \u0344\u0f73\u0f75",
    "\u20000 \U00020000\U0002b820\U0002b920\u3400\uf900\U0002f800\u3007",
    "a\u00a0b\u2003c\u3000d\u2028e\u2029f\u1680g\u180eh\u200bi\ufeffj\u0085k",
    "a\u0001b\u007fc\ue000d\U000f0000e\U0010fffff",
    "[MASK] [mask] [CLS][SEP] x[UNK]y [PAD ] [[MASK]] [MAS\u0301K]",
    "e\u0301[MASK]\u0301e", "x\u0000[MA\u0000SK]",
    "don't can't won't o'clock 'tis \u2019tis \u2018q\u2019 \u201cq\u201d \u2014 \u2026 \u20ac5 \u00a33 5\u00b0 \u00bd",
    "http://example.org/a?b=c&d=e~f#g_h user@example.org $5.00 50% a+b=c <b> {x} ^ ` | \\",
    "unaffable unwanted antidisestablishmentarianism electroencephalographically",
    "a" * 99, "a" * 100, "a" * 101, "\u00e9" * 100, "\u00e9" * 101, "e\u0301" * 100,
    "e\u0301" * 101, "\u4e2d" * 101, "!" * 101, "abc " * 30, "x" * 15 + " " + "x" * 16,
    "abcdefghijklmno abcdefghijklmnop \u00e9 abcdefghijklmno\u0301",
    "word\u0301. word\u302e. word\u4e2d. word\u200b. word\u3002 word\u0001",
]
VARIANTS = [(True, None, True), (True, False, True), (False, None, True), (False, True, True),
            (True, None, False), (False, False, False)]
ALPHABET = [range(0x20, 0x7F), range(0xA0, 0x250), range(0x300, 0x370), range(0x370, 0x590),
            range(0x590, 0x700), range(0x900, 0x980), range(0xE00, 0x1200), range(0x1E00, 0x2070),
            range(0x3000, 0x3100), range(0x4E00, 0x4E40), range(0xAC00, 0xAC40),
            range(0x1D150, 0x1D1C0), range(0x1F600, 0x1F640), range(0, 0xD800),
            range(0xE000, 0x110000)]


def make(tokens, lower, strip, cjk, max_chars=100):
    t = Tokenizer(models.WordPiece({x: i for i, x in enumerate(tokens)}, unk_token="[UNK]",
                                   max_input_chars_per_word=max_chars))
    t.add_special_tokens(SPECIALS)
    t.normalizer = normalizers.BertNormalizer(True, cjk, strip, lower)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(x, t.token_to_id(x)) for x in ("[CLS]", "[SEP]")])
    return t


def random_text(generator):
    text = []
    for _ in range(generator.randrange(1, 16)):
        block = generator.choice(ALPHABET)
        text += [chr(generator.choice(block)) for _ in range(generator.randrange(1, 4))]
        if generator.random() < 0.3:
            text.append(" ")
    return "".join(text)


def main():
    with open(VOCAB, encoding="utf-8") as file:
        tokens = file.read().split("\n")[:-1]
    generator = random.Random(1)
    texts = TEXTS + [random_text(generator) for _ in range(60)]
    with open(os.path.join(HERE, "golden.jsonl"), "w") as out:
        for lower, strip, cjk in VARIANTS:
            t = make(tokens, lower, strip, cjk)
            for text in texts:
                e = t.encode(text)
                row = {"lower": lower, "strip": strip, "cjk": cjk, "text": text, "ids": e.ids,
                       "offsets": e.offsets}
                print(json.dumps(row, separators=(",", ":")), file=out)
    os.makedirs(os.path.join(HERE, "small"), exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    small = (SPECIALS + list(letters) + ["##" + c for c in letters] + list(".,!?'#@-") +
             ["the", "rash", "##ing", "head", "##ache", "\u00e9", "##\u00e9", "\u4e2d", "A", "Rash"])
    with open(os.path.join(HERE, "small/vocab.txt"), "w") as out:
        print(*small, sep="\n", file=out)
    make(small, False, False, True, 50).save(os.path.join(HERE, "small/tokenizer.json"), pretty=False)
    with open(os.path.join(HERE, "small/tokenizer_config.json"), "w") as out:
        json.dump({"do_lower_case": False, "strip_accents": False, "tokenize_chinese_chars": True,
                   "max_input_chars_per_word": 50, "tokenizer_class": "BertTokenizer"}, out)


if __name__ == "__main__":
    main()
