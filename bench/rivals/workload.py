# SPDX-License-Identifier: Apache-2.0
"""The work that every engine gets: the same token ids, so no tokenizer is in the timing.

Two single sequences (32 and 128 tokens) and a stream of tweets. The tweets are not ours to
publish: their ids come from the shared data next to the checkout where it exists. Elsewhere
the stream is synthetic: lengths with the tweets' distribution, ids drawn at random. An
encoder's time depends on lengths only, so both give the same figures.
"""
import gzip
import os
import random

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TWEETS = os.path.join(os.path.dirname(ROOT), "shared/data/tweets-tweeteval/sentiment-test.ids.gz")
VOCABULARY = os.path.join(os.path.dirname(ROOT), "shared/data/bert-wordpiece/vocab.txt")

CLS, SEP = 101, 102
FIRST_WORD, LAST_WORD = 1996, 29611  # ids of whole words in BERT's vocabulary
SHAPES = {"1x32": 32, "1x128": 128}

# Tokens at every 5 % of the first 512 tweets (mean 24.4).
QUANTILES = [5, 11, 14, 15, 17, 18, 20, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 34, 36, 46]


def random_sequence(n_tokens, generator):
    words = [generator.randint(FIRST_WORD, LAST_WORD) for _ in range(n_tokens - 2)]
    return [CLS, *words, SEP]


def synthetic_stream(n_texts):
    """Lengths by inverse transform over QUANTILES, in random order."""
    generator = random.Random(0)
    sequences = []
    for _ in range(n_texts):
        position = generator.random() * (len(QUANTILES) - 1)
        below = int(position)
        step = QUANTILES[below + 1] - QUANTILES[below]
        sequences.append(random_sequence(round(QUANTILES[below] + step * (position - below)), generator))
    return sequences


def stream(n_texts, use_tweets=True):
    """(sequences, what they are)"""
    if use_tweets and os.path.exists(TWEETS):
        with gzip.open(TWEETS, "rt", encoding="ascii") as lines:
            sequences = [[int(i) for i in line.split()] for line, _ in zip(lines, range(n_texts))]
        return sequences, "tweets"
    return synthetic_stream(n_texts), "synthetic lengths with the distribution of the tweets"


def write_ids(sequences, path):
    """A line a sequence, ids separated by spaces: what `vigil tokenize` prints."""
    with open(path, "w", encoding="ascii") as out:
        for ids in sequences:
            out.write(" ".join(map(str, ids)) + "\n")


def read_ids(path):
    with open(path, encoding="ascii") as lines:
        return [[int(i) for i in line.split()] for line in lines]


def shape_sequence(name):
    return random_sequence(SHAPES[name], random.Random(SHAPES[name]))
