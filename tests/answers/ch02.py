"""Answers to chapter 2's exercises, right ones and such as a reader gets wrong."""

import re
from collections import Counter
from fractions import Fraction

import numpy as np
import torch
from sklearn.metrics.pairwise import cosine_similarity
from torch import nn
from torch.utils.data import DataLoader

from ch02.dataset import GPTDatasetV1, create_dataloader_v1, load_text
from ch02.tokenizer import get_tokenizer, split_words
from support.exercises.ch02 import DEPTHS, HOURS


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


def cut_at(token_ids, end_id):
    """Keeps empty texts, each an array."""
    row = np.array(token_ids)
    return [part[part != end_id] for part in np.split(row, np.where(row == end_id)[0])]


def unknown_in_lower_case():
    """The share of unknown tokens that 2.4.3 asks for."""
    tokens = split_words(STORY.lower())
    cut = int(0.9 * len(tokens))
    return np.mean([token not in set(tokens[:cut]) for token in tokens[cut:]])


def farthest(vectors):
    """The row that lies farthest from the mean direction."""
    directions = vectors / vectors.norm(dim=1, keepdim=True)
    return (directions @ directions.mean(dim=0)).argmin()


def sinusoids(dtype):
    """The 200 sinusoids of 2.8.4."""
    angles = torch.arange(200)[:, None] * FREQUENCIES.to(dtype)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def least_squares(dtype):
    """The matrix that fits a step from one sinusoid to the next."""
    table = sinusoids(dtype)
    return torch.linalg.lstsq(table[:-1], table[1:]).solution


def center_in_place(x):
    """Changes its argument and returns it."""
    for row in x:
        row -= row.mean()
    return x


def multiply_in_loops(a, b):
    """Lists of sums of products."""
    columns = list(zip(*b.tolist()))
    return [[sum(x * y for x, y in zip(row, c)) for c in columns] for row in a.tolist()]


def step_with(factor=1.0, forget=True, decay=None):
    """A training step for 2.0's line, with faults if asked for."""

    def training_step(w, b, learning_rate):
        loss = ((w * HOURS + b - DEPTHS) ** 2).mean()
        before = loss.item()
        loss.backward()
        with torch.no_grad():
            for p in (w, b):
                p.sub_(factor * learning_rate * p.grad)
                p.grad = None if forget else p.grad
        return before if decay is None else decay * before

    return training_step


def step_by_formula(w, b, learning_rate):
    """No autograd: the gradients as the formula has them."""
    errors = (w * HOURS + b - DEPTHS).detach()
    w.data -= learning_rate * (2 * errors * HOURS).mean()
    b.data -= learning_rate * (2 * errors).mean()
    return errors.square().mean()


class Line(nn.Module):
    """2.0's line."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x):
        return self.linear(x)


class LineByHand(nn.Module):
    """Two parameters instead of a layer."""

    def __init__(self):
        super().__init__()
        self.w, self.b = (nn.Parameter(torch.randn(1)) for _ in range(2))

    def forward(self, x):
        return x * self.w + self.b


class Unfinished(Line):
    """Has a forward that returns nothing."""

    def forward(self, x):
        self.linear(x)


class Plane(Line):
    """Too many parameters."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 2)


def train_adding(num_epochs, zero=False, seed=123):
    """The losses of a line whose gradients add up, or not."""
    torch.manual_seed(seed)
    model = nn.Linear(1, 1)
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.05), []
    for _ in range(num_epochs):
        if zero:
            optimizer.zero_grad()
        loss = ((model(HOURS[:, None]) - DEPTHS[:, None]) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def learn_from(scale, shift=0.0, num_steps=200):
    """What 2.0.3 asks for, with inputs that are shifted and scaled."""

    def train(x, y):
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(num_steps):
            optimizer.zero_grad()
            ((model((x - shift) / scale) - y) ** 2).mean().backward()
            optimizer.step()
        return lambda minutes: model((minutes - shift) / scale)

    return train


FREQUENCIES = 10000 ** (-torch.arange(0, 8, 2) / 8)

RIGHT = {
    "2.0.a": [
        lambda x: x - x.mean(dim=-1, keepdim=True),
        lambda x: x.numpy() - x.numpy().mean(axis=1)[:, None],
        center_in_place,
    ],
    "2.0.b": [
        lambda a, b: (a[:, :, None] * b[None]).sum(dim=1),
        multiply_in_loops,
        lambda a, b: np.array([[(x * y).sum() for y in b.T] for x in a]),
    ],
    "2.0.c": [
        lambda f, x, step=0.001: (f(x + step) - f(x - step)) / (2 * step),
        lambda f, x: torch.tensor((f(x + 1e-4) - f(x - 1e-4)) / 2e-4),
    ],
    "2.0.d": [
        lambda w, x, y: 2 * (w * x - y) * x,
        lambda w, x, y: np.float32(2 * x * x * w - 2 * x * y),
    ],
    "2.0.e": [step_with(), step_by_formula],
    "2.0.f": [Line, LineByHand],
    "2.0.1": [[(8, 1024), (8, 1024, 50257)], (torch.Size([8, 1024]), [8, 1024, 50257])],
    "2.0.2": [train_adding, lambda n: torch.tensor(train_adding(n))],
    "2.0.3": [learn_from(60), learn_from(102.5, 150.0)],
    "2.1.1": [
        torch.eye(5)[[3, 0, 3]],
        np.eye(5, dtype=int)[[3, 0, 3]],
        [[0, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, 0]],
        torch.eye(5)[[3, 0, 3]] + 1e-7,
    ],
    "2.1.2": [
        "the ebb came and the flood came and a boat left it",
        "an ebb x an flood x boat",
    ],
    "2.1.3": [
        farthest,
        lambda vectors: np.argmin(
            cosine_similarity(vectors.numpy()).max(
                1, where=~np.eye(5, dtype=bool), initial=-1
            )
        ),
    ],
    "2.2.1": [16, 16.0, np.int64(16), torch.tensor(16)],
    "2.2.2": [
        lambda text: tuple(
            re.findall(r'[,.:;?_!"()\']|--|-|[^\s,.:;?_!"()\'-]+', text)
        ),
        lambda text: [
            part
            for token in split_words(text)
            for part in ([token] if token == "--" else re.split("(-)", token))
            if part
        ],
    ],
    "2.2.3": [
        lambda text: filter(None, re.split(r'([,.:;?_!"()\']|--|\s)', text)),
        lambda text: re.findall(
            r'[,.:;?_!"()\']|--|\s+|(?:(?!--)[^\s,.:;?_!"()\'])+', text
        ),
    ],
    "2.3.1": [
        {"to": 3, "or": 2, "not": 1, "err": 0},
        {
            t: i
            for i, t in enumerate(np.unique(["to", "err", "or", "not", "to", "err"]))
        },
    ],
    "2.3.2": ['the water was early," said Amos.', 'He said, the tide was early"'],
    "2.3.3": [
        lambda tokens: {
            t: i
            for i, t in enumerate(
                sorted(set(tokens), key=lambda t: (-tokens.count(t), t))
            )
        },
        lambda tokens: dict(
            zip(
                [t for t, _ in Counter(sorted(tokens)).most_common()],
                torch.arange(len(tokens)),
            )
        ),
    ],
    "2.4.1": [
        "Dorcas had no telephone and no email.",
        "email, email and the sea",
    ],
    "2.4.2": [
        cut_at,
        lambda token_ids, end_id: [
            [int(i) for i in part.split()]
            for part in " ".join(map(str, token_ids)).split(str(end_id))
        ],
    ],
    "2.4.3": [
        unknown_in_lower_case(),
        round(float(unknown_in_lower_case()), 3),
        torch.tensor(unknown_in_lower_case()).float(),
    ],
    "2.5.1": [
        tuple(GPT2.decode([token_id]) for token_id in GPT2.encode("Akwirw ier")),
        np.array([GPT2.decode([i]) for i in GPT2.encode("Akwirw ier")]),
    ],
    "2.5.2": ["tide-tide-tin", "tide tide-tin"],
    "2.6.1": [
        6,
        6.0,
        np.int64(6),
        torch.tensor(6),
        Fraction(6),
        len(torch.arange(1023).unfold(0, 256, 128)),
    ],
    "2.6.2": [
        loader(),
        DataLoader(GPTDatasetV1(STORY, GPT2, 64, 64), batch_size=4),
        DataLoader(list(GPTDatasetV1(STORY, GPT2, 64, 64)), 4, shuffle=False),
    ],
    "2.6.3": [
        lambda dataset: torch.cat(
            (dataset.input_ids[0, :1], dataset.target_ids.flatten())
        ),
        lambda dataset: [
            *dataset.input_ids.flatten().tolist(),
            dataset.target_ids[-1][-1],
        ],
        lambda dataset: np.append(dataset.input_ids, dataset.target_ids[-1, -1]),
    ],
    "2.7.1": [50257 * 1600 * 4, torch.tensor(321_644_800.0), np.float32(321_644_800)],
    "2.7.2": [
        nn.Embedding.from_pretrained(torch.eye(6), freeze=False),
        nn.Embedding(6, 6, _weight=torch.eye(6, dtype=torch.float64)),
    ],
    "2.7.3": [linear(TABLE.weight.T), linear(TABLE.weight.T).double()],
    "2.8.1": [51_281 * 768, torch.tensor(50257 * 768) + 1024 * 768, 39_383_808.0],
    "2.8.2": [
        lambda ids, tokens, positions: (
            tokens(ids) + positions(torch.arange(ids.size(-1)).expand_as(ids))
        ),
        lambda ids, tokens, positions: (
            tokens.weight[ids] + positions.weight[: ids.shape[-1]]
        ),
    ],
    "2.8.3": [0, 0.0, torch.tensor(1.2e-7), np.float32(-6e-8)],
    "2.8.4": [
        rotation(FREQUENCIES, 1),
        rotation(FREQUENCIES, 1).numpy(),
        rotation(FREQUENCIES, 1).tolist(),
        least_squares(torch.float32),
        least_squares(torch.float64),
    ],
}

WRONG = {
    "2.0.a": [
        lambda x: x - x.mean(dim=0),
        lambda x: x - x.mean(),
        lambda x: x.mean(dim=-1, keepdim=True),
        lambda x: print(x - x.mean(dim=-1, keepdim=True)),
    ],
    "2.0.b": [
        lambda a, b: a @ b,
        lambda a, b: multiply_in_loops(b.T, a.T),
        lambda a, b: torch.zeros(a.shape[0], b.shape[1]),
        lambda a, b: torch.einsum("ij,jk->ik", a, b),
    ],
    "2.0.c": [
        lambda f, x: (f(x + 0.001) - f(x - 0.001)) / 0.001,
        lambda f, x: (f(x - 0.001) - f(x + 0.001)) / 0.002,
        lambda f, x: f(x + 0.001) - f(x - 0.001),
    ],
    "2.0.d": [
        lambda w, x, y: 2 * (w * x - y),
        lambda w, x, y: (w * x - y) ** 2,
        lambda w, x, y: 2 * (w * x - y) * w,
    ],
    "2.0.e": [
        step_with(factor=-1.0),
        step_with(forget=False),
        step_with(factor=2.0),
        step_with(decay=0.5),
    ],
    "2.0.f": [Line(), Unfinished, Plane],
    "2.0.1": [
        [(8, 768), (8, 1024, 50257)],
        [(8, 1024), (8, 1024, 768)],
        [(8, 1024, 768)],
    ],
    "2.0.2": [
        lambda n: train_adding(n, zero=True),
        lambda n: train_adding(n, seed=1),
        lambda n: train_adding(n)[1:],
    ],
    "2.0.3": [
        learn_from(1.0),
        learn_from(60, num_steps=5),
        lambda x, y: learn_from(60)(x, y)(x),
    ],
    "2.1.1": [
        torch.tensor([3, 0, 3]),
        torch.eye(5)[[3, 0, 3]].T,
        torch.eye(5)[[3, 0, 2]],
        torch.eye(5)[[2, 0, 2]],
        [[0, -1, 2, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, 0]],  # right for some tables
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
    "2.6.1": [7, 8, 5, 4, 767, "6", [6, 6]],
    "2.6.2": [
        create_dataloader_v1(STORY),
        loader(stride=32),
        loader(stride=65),
        loader(shuffle=True),
        loader(drop_last=True),
        loader(batch_size=8),
        loader(max_length=32, stride=32),
        loader().dataset,
        DataLoader([(x, x) for x, _ in GPTDatasetV1(STORY, GPT2, 64, 64)], 4),
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
        rotation(FREQUENCIES * torch.tensor([1, 1, 1, 0]), 1),  # the slowest stands
        rotation(FREQUENCIES * torch.tensor([1, 1, 0, 0]), 1),
        rotation(torch.ones(4), 1),
        torch.eye(8).roll(1, 0),
        torch.ones(4, 4),
        [[1.0] * 8] * 8,
    ],
}
