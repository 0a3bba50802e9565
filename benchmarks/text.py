"""Chapter 2 beside its peers: byte-pair encoding, and loaders of token windows.

Texts are tiny Shakespeare, if it lies in downloads, else the course's instructions over
and over; nothing is fetched. Whatever is compared has been found equal first.
"""

import math
from collections import Counter
from unittest.mock import patch

import tiktoken

from benchmarks.measure import (
    IS_QUICK,
    in_fresh_process,
    missing,
    peak_megabytes,
    seconds_of_runs,
    stopwatch,
)
from benchmarks.table import Row
from ch02.bpe import SPLIT_PATTERN, merge_pair
from ch02.dataset import create_dataloader_v1
from ch02.tokenizer import BPETokenizer, get_tokenizer
from ch07.instructions import DATA
from support.download.fetch import downloads_folder
from support.download.vocabulary import gpt2_vocab_files

VOCAB_SIZE = 1000
TRAIN_LENGTH = 20_000 if IS_QUICK else 100_000  # characters
# the part of the work that the naive encoder and the book's densest windows get
PART = 100 if IS_QUICK else 20
NUM_TOKENS = 1_000_000
ROUNDS = 1 if IS_QUICK else 3
END = "<|endoftext|>"


def english():
    """About a megabyte of text."""
    path = downloads_folder() / "tinyshakespeare.txt"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    text = DATA.read_text(encoding="utf-8")
    return text * math.ceil(1e6 / len(text))


def train_naively(text, vocab_size):
    """What `BPETokenizer.train` learns, by counting all pairs at each step: tokens."""
    words = [list(word.encode()) for word in SPLIT_PATTERN.findall(text)]
    tokens = [bytes([value]) for value in range(256)]
    while len(tokens) < vocab_size - 1:  # one is the special token
        counts = Counter(pair for ids in words for pair in zip(ids, ids[1:]))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        words = [merge_pair(ids, best, len(tokens)) for ids in words]
        tokens.append(tokens[best[0]] + tokens[best[1]])
    return tokens


def encode_naively(text, vocab):
    """Text to ids: in each word, again and again, the pair of lowest rank is merged."""
    ids = []
    for word in SPLIT_PATTERN.findall(text):
        parts = [bytes([value]) for value in word.encode()]
        while len(parts) > 1:
            ranks = [vocab.get(a + b, math.inf) for a, b in zip(parts, parts[1:])]
            lowest = ranks.index(min(ranks))
            if ranks[lowest] == math.inf:
                break
            parts[lowest : lowest + 2] = [parts[lowest] + parts[lowest + 1]]
        ids += [vocab[part] for part in parts]
    return ids


def hugging_face_encoder():
    """GPT-2's tokenizer in Hugging Face's library, its cache empty."""
    from tokenizers import ByteLevelBPETokenizer

    return ByteLevelBPETokenizer.from_file(*map(str, gpt2_vocab_files()))


def train_hugging_face(text, vocab_size):
    """Learn a vocabulary with Hugging Face's library."""
    from tokenizers import ByteLevelBPETokenizer

    settings = {"special_tokens": [END], "show_progress": False}
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([text], vocab_size, **settings)
    return tokenizer


def ours_cold():
    """Our tokenizer with GPT-2's vocabulary, its cache empty."""
    return BPETokenizer.from_openai(*gpt2_vocab_files())


def encode_rows(text):
    """Encoding: ours, its cache empty, beside tiktoken, tokenizers, the naive loop."""
    reference, ours = get_tokenizer("gpt2"), ours_cold()
    part = text[: len(text) // PART]
    expected = reference.encode_ordinary(text)
    assert ours.encode(text) == expected == hugging_face_encoder().encode(text).ids
    assert encode_naively(part, ours.vocab) == reference.encode_ordinary(part)
    seconds = seconds_of_runs(ours_cold, lambda fresh: fresh.encode(text))
    naive = seconds_of_runs(lambda: ours.vocab, lambda v: encode_naively(part, v), 1)
    peers = {
        "tiktoken": seconds_of_runs(
            lambda: reference, lambda encoding: encoding.encode_ordinary(text)
        ),
        "tokenizers": seconds_of_runs(
            hugging_face_encoder, lambda fresh: fresh.encode(text)
        ),
        "naive loop": [PART * each for each in naive],
    }
    size = len(text.encode()) / 1e6
    goals = {"tiktoken": {"figure_goal": 3.5}}
    return [
        Row(
            "BPE encoding",
            "ours, cold",
            peer,
            [size / s for s in seconds],
            [size / s for s in each],
            "MB/s",
            **goals.get(peer, {}),
        )
        for peer, each in peers.items()
    ]


def train_rows(text):
    """Learning 1,000 tokens: ours beside tokenizers and the naive loop."""
    text, naive = text[:TRAIN_LENGTH], []
    with stopwatch(naive):
        tokens = train_naively(text, VOCAB_SIZE)
    assert tokens == list(BPETokenizer.train(text, VOCAB_SIZE).vocab)
    ours = seconds_of_runs(lambda: text, lambda t: BPETokenizer.train(t, VOCAB_SIZE))
    theirs = seconds_of_runs(lambda: text, lambda t: train_hugging_face(t, VOCAB_SIZE))
    work = "BPE, learning 1,000 tokens"
    return [
        Row(work, "ours", "naive loop", ours, naive, "s", goal=50),
        Row(work, "ours", "tokenizers", ours, theirs, "s"),
    ]


class Numbers:
    """A tokenizer whose text is already numbers: only the loader is measured."""

    def __init__(self, num_tokens):
        self.ids = list(range(num_tokens))

    def encode(self, text, allowed_special):
        return self.ids


def measure_loader(whose, stride, num_tokens):
    """Seconds and megabytes of a loader over num_tokens, made by "ours" or "book"."""
    numbers, seconds = Numbers(num_tokens), []
    settings = {"max_length": 256, "stride": stride}
    create = create_dataloader_v1
    if whose == "book":
        from llms_from_scratch.ch02 import create_dataloader_v1 as create
    else:
        settings["tokenizer"] = numbers
    before = peak_megabytes()
    with (
        patch.object(tiktoken, "get_encoding", lambda name: numbers),
        stopwatch(seconds),
    ):
        create("", **settings)
    return seconds[0], peak_megabytes() - before


def loader_rows():
    """Loaders over a million tokens: ours beside the book's, at two strides."""
    rows = []
    for stride, part in ((256, 1), (1, PART)):
        ours = [
            in_fresh_process(measure_loader, "ours", stride, NUM_TOKENS)
            for _ in range(ROUNDS)
        ]
        found = in_fresh_process(measure_loader, "book", stride, NUM_TOKENS // part)
        theirs = [part * figure for figure in found]
        work = f"loader, stride {stride}"
        for i, unit, goal in ((0, "s", 0.05), (1, "MB", 10.5)):
            pair = [once[i] for once in ours], [theirs[i]]
            rows.append(Row(work, "ours", "the book's", *pair, unit, figure_goal=goal))
    return rows


def measure_rows():
    """Measure all: rows of the table, and notes."""
    text, notes = english(), []
    rows = encode_rows(text) + train_rows(text)
    try:
        rows += loader_rows()
    except ImportError as error:
        notes.append(missing("llms_from_scratch", error))
    scaled = f"The naive encoder and the book's loader at stride 1 did 1/{PART} of the"
    return rows, [*notes, f"{scaled} work; their figures are scaled up."]
