"""Answers to chapter 2's exercises, each wrong as a reader's might be."""

import re
from collections import Counter

import torch
from torch import nn

from ch02.dataset import create_dataloader_v1, load_text
from ch02.tokenizer import get_tokenizer, split_words


def share(cut_first):
    """The unknown share without lower case, or of another tenth."""
    tokens = split_words(load_text())
    if not cut_first:
        tokens = tokens[::-1]
    cut = len(tokens) * 9 // 10
    known = set(tokens[:cut])
    return sum(token not in known for token in tokens[cut:]) / (len(tokens) - cut)


def split_at(token_ids, end_id):
    """Keeps no empty texts."""
    texts, current = [], []
    for token_id in token_ids:
        if token_id == end_id:
            texts += [current] if current else []
            current = []
        else:
            current.append(token_id)
    return texts + [current]


GPT2 = get_tokenizer("gpt2")
STORY = load_text()
torch.manual_seed(123)
TABLE = nn.Embedding(6, 3)


def linear(weight, bias=False):
    """An nn.Linear with this weight."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def loader(**changes):
    """The loader that 2.6.2 asks for, with changes."""
    right = {"max_length": 64, "stride": 64, "shuffle": False, "drop_last": False}
    return create_dataloader_v1(STORY, **right | changes)


def rotation(frequencies, sign):
    """Turns each pair of columns by its frequency."""
    angles = [sign * frequency for frequency in frequencies]
    turns = [[[a.cos(), -a.sin()], [a.sin(), a.cos()]] for a in angles]
    return torch.block_diag(*torch.tensor(turns))


FREQUENCIES = 10000 ** (-torch.arange(0, 8, 2) / 8)

WRONG = {
    "2.1.1": [
        torch.tensor([3, 0, 3]),
        torch.eye(5)[[3, 0, 3]].T,
        torch.eye(5)[[3, 0, 2]],
        torch.eye(5)[[2, 0, 2]],
        "rows 3, 0, 3",
    ],
    "2.1.2": [
        "the ebb and the flood",
        "ebb flood boat",
        "the ebb came and the flood came and the boat came and",
        "the ebb came and the flood left it by a boat there",
        ["ebb", "flood", "boat"],
    ],
    "2.1.3": [
        lambda vectors: int((vectors @ vectors.T).sum(1).argmin()),
        lambda vectors: int((vectors - vectors.mean(0)).norm(dim=1).argmax()),
        lambda vectors: int(vectors.norm(dim=1).argmin()),
        lambda vectors: 0,
        2,
    ],
    "2.2.1": [14, 15, 17, 9, 18, "16"],
    "2.2.2": [
        split_words,
        lambda text: [
            piece
            for piece in re.split(r'([,.:;?_!"()\']|-|--|\s)', text)
            if piece.strip()
        ],
        lambda text: re.split(r'([,.:;?_!"()\']|--|-|\s)', text),
        lambda text: split_words(text.replace("-", " - ")),
        ["harbour", "-", "master"],
    ],
    "2.2.3": [
        split_words,
        lambda text: re.split(r'([,.:;?_!"()\']|--|\s)', text),
        lambda text: list(text),
        lambda text: [piece for piece in re.split(r"(\s)", text) if piece],
        lambda text: [text] if text else [],
    ],
    "2.3.1": [
        {"to": 0, "err": 1, "or": 2, "not": 3},
        {"err": 1, "not": 2, "or": 3, "to": 4},
        {0: "err", 1: "not", 2: "or", 3: "to"},
        {"err": 0, "not": 1, "or": 2},
        ["err", "not", "or", "to"],
    ],
    "2.3.2": [
        '"No," said Dorcas.',
        "The water, the sea, the tide.",
        'the water," he',
        'the telephone," he said.',
        'the  water was early," said Amos.',
    ],
    "2.3.3": [
        lambda tokens: {t: i for i, t in enumerate(sorted(set(tokens)))},
        lambda tokens: {t: i for i, (t, _) in enumerate(Counter(tokens).most_common())},
        lambda tokens: dict(Counter(tokens)),
        lambda tokens: sorted(set(tokens)),
        lambda tokens: {
            t: i
            for i, t in enumerate(
                sorted(set(tokens), key=lambda t: (-tokens.count(t), t)), start=1
            )
        },
    ],
    "2.4.1": [
        "Dorcas had no telephone.",
        "The <|unk|> had no <|unk|>.",
        "telephone email",
        "Lots of people use email, telephone and internet.",
        6,
    ],
    "2.4.2": [
        split_at,
        lambda token_ids, end_id: [token_ids],
        lambda token_ids, end_id: [[i for i in token_ids if i != end_id]],
        lambda token_ids, end_id: [[i] for i in token_ids if i != end_id],
        [[5, 9], [7]],
    ],
    "2.4.3": [share(True), share(False), 0.0, 9.55, 0.9],
    "2.5.1": [
        GPT2.encode("Akwirw ier"),
        ["Akwirw", " ier"],
        list("Akwirw ier"),
        GPT2.decode(GPT2.encode("Akwirw ier")),
        ["Ak", "w", "ir", "w", "ier"],
    ],
    "2.5.2": ["tide", "tide tide time", "ti de tide", "", b"tide-tide-tin", 3],
    "2.6.1": [5, 7, 743, "6", [6]],
    "2.6.2": [
        create_dataloader_v1(STORY),
        loader(stride=32),
        loader(stride=65),
        loader(shuffle=True),
        loader(drop_last=True),
        loader(batch_size=8),
        loader(max_length=32, stride=32),
        loader().dataset,
    ],
    "2.6.3": [
        lambda dataset: dataset.input_ids.flatten(),
        lambda dataset: torch.cat((dataset.input_ids, dataset.target_ids[:, -1:]), 1),
        lambda dataset: torch.cat(
            (dataset.input_ids, dataset.target_ids[:, -1:]), 1
        ).flatten(),
        lambda dataset: dataset.target_ids.flatten(),
        lambda dataset: dataset.input_ids.flatten().tolist(),
        torch.arange(5),
    ],
    "2.7.1": [50257 * 1600, 50257 * 768 * 4, 50257 * 1600 * 8, "321 MB", 321.6],
    "2.7.2": [
        nn.Embedding(6, 6),
        nn.Embedding.from_pretrained(torch.ones(6, 6)),
        nn.Embedding.from_pretrained(torch.eye(5)),
        torch.eye(6),
        nn.Embedding.from_pretrained(torch.eye(6).flip(0)),
    ],
    "2.7.3": [
        nn.Linear(6, 3),
        nn.Linear(3, 6),
        linear(TABLE.weight),
        linear(TABLE.weight.flip(0).T),
        TABLE,
    ],
    "2.8.1": [
        50257 * 768,
        1024 * 768,
        50257 * 768 * 1024 * 768,
        (50257 + 1024) * 1024,
        "39 million",
    ],
    "2.8.2": [
        lambda ids, tokens, positions: tokens(ids) + positions.weight,
        lambda ids, tokens, positions: tokens(ids) + positions(ids.clamp(max=5)),
        lambda ids, tokens, positions: tokens(ids),
        lambda ids, tokens, positions: (
            tokens(ids) + positions(torch.arange(len(ids)).clamp(max=5))
        ),
        lambda ids, tokens, positions: tokens(ids).tolist(),
        nn.Embedding(6, 3),
    ],
    "2.8.3": [0.5, -1, torch.tensor(0.2), "nothing", float("nan")],
    "2.8.4": [
        torch.eye(8),
        rotation(FREQUENCIES, -1),
        rotation(torch.ones(4), 1),
        torch.eye(8).roll(1, 0),
        torch.ones(4, 4),
        [[1.0] * 8] * 8,
    ],
}
