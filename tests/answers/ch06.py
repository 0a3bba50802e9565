"""Answers to chapter 6's exercises, right ones and such as a reader gets wrong."""

from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import torch
from torch import nn

from ch06.classifier import Classifier


def in_the_given_order(lengths, max_places):
    """Batches filled without sorting."""
    batches = [[]]
    for i, length in enumerate(lengths):
        longest = max([length, *(lengths[k] for k in batches[-1])])
        if longest * (len(batches[-1]) + 1) > max_places:
            batches.append([])
        batches[-1].append(i)
    return batches


def by_tokens(lengths, max_places):
    """Batches that count tokens, and no padding."""
    batches, num_tokens = [[]], 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if num_tokens + lengths[i] > max_places:
            batches.append([])
            num_tokens = 0
        batches[-1].append(i)
        num_tokens += lengths[i]
    return batches


def longest_first(lengths, max_places):
    """Batches that begin with the longest message left, as rows of a tensor."""
    order = torch.tensor(lengths).argsort(descending=True)
    while len(order):
        size = max_places // lengths[order[0]]
        yield order[:size]
        order = order[size:]


def longest_first_in_a_loop(lengths, max_places):
    """The same, a message at a time."""
    batches = []
    for i in np.argsort(lengths)[::-1]:
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > max_places:
            batches.append([])
        batches[-1].append(i)
    return batches


def commonest_of_groups(rows, labels, key):
    """The best accuracy when rows of the same key get the same answer."""
    groups = defaultdict(Counter)
    for row, label in zip(rows, labels):
        groups[key(row)][label] += 1
    return sum(max(counts.values()) for counts in groups.values()) / len(rows)


class ThawedTrunk(Classifier):
    """Parameters that may learn, behind features that are cut off from them."""

    def __init__(self, model, pad_token_id):
        super().__init__(model, pad_token_id)
        self.trunk.requires_grad_(True)


class FrozenEmbeddings(Classifier):
    """All blocks, and not what stands before them."""

    def __init__(self, model, pad_token_id):
        super().__init__(model, pad_token_id, num_trained=len(model.trf_blocks))


class AllThawed(Classifier):
    """Everything learns: the embeddings behind a mask, the blocks in the head."""

    def __init__(self, model, pad_token_id):
        super().__init__(model, pad_token_id, num_trained=len(model.trf_blocks))
        self.requires_grad_(True)

    def features(self, idx):
        return self.trunk(idx) * (idx != self.pad_token_id).unsqueeze(-1)


class GPTWithHead(nn.Module):
    """The model itself with a new output layer, read at the last token."""

    def __init__(self, model, pad_token_id):
        super().__init__()
        self.gpt, self.pad_token_id = model, pad_token_id
        self.gpt.out_head = nn.Linear(model.tok_emb.embedding_dim, 2, bias=False)

    def forward(self, idx):
        last = (idx != self.pad_token_id).sum(dim=1) - 1
        return self.gpt(idx)[torch.arange(len(idx)), last].unsqueeze(1)


class MeanOfTokens(GPTWithHead):
    """Read at all real tokens, where the last was asked for."""

    def forward(self, idx):
        is_real = (idx != self.pad_token_id).unsqueeze(-1)  # (b, num_tokens, 1)
        logits = self.gpt(idx) * is_real
        return logits.sum(dim=1, keepdim=True) / is_real.sum(dim=1, keepdim=True)


class PadsSeen(ThawedTrunk):
    """Everything learns, and the answer is read at the end of the row."""

    def features(self, idx):
        return self.trunk(idx)


def ceiling_by_pairs(rows, labels, place):
    """The best accuracy, from the labels of each beginning."""
    beginnings = [tuple(row[: place + 1]) for row in rows]
    num_right = 0
    for beginning in set(beginnings):
        group = [y for b, y in zip(beginnings, labels) if b == beginning]
        num_right += max(sum(group), len(group) - sum(group))
    return torch.tensor(num_right / len(rows))


def threshold_of_sorted_ham(labels, probabilities, most):
    """The highest ham that must not lie above the line."""
    ham = torch.tensor(probabilities[labels == 0]).float().sort(descending=True).values
    return ham[int(most * len(ham))]


def threshold_by_trying(labels, probabilities, most):
    """Every probability as a line, the lowest that does."""
    ham = probabilities[labels == 0]
    lines = [0, *np.unique(probabilities)]
    return next(line for line in lines if np.mean(ham > line) <= most)


def threshold_of_ties(labels, probabilities, most):
    """Counts the ham at the line as well, and asks for too much."""
    ham = probabilities[labels == 0]
    lines = [0, *np.unique(probabilities), 1.01]
    return next(line for line in lines if np.mean(ham >= line) <= most)


TEN = "one two three four five six seven eight nine ten"

RIGHT = {
    "6.2.1": [45 / 117, 0.385, torch.tensor(45 / 117), Fraction(45, 117)],
    "6.2.2": [
        [
            TEN,
            TEN.replace("ten", "tea"),
            TEN.replace("ten", "tea").replace("nine", "cup"),
        ],
        ("a b c d e f g h", "a b c d e f g h i", "a b c d e f g h i j k"),
        np.array([f"{TEN} a b", f"{TEN}", TEN.removesuffix(" nine ten")]),
    ],
    "6.2.3": [longest_first, longest_first_in_a_loop],
    "6.7.1": [
        ceiling_by_pairs,
        lambda rows, labels, place: commonest_of_groups(
            rows, labels, lambda row: " ".join(map(str, row[: place + 1]))
        ),
    ],
    "6.7.2": [14_178_818, torch.tensor(14_178_818), np.float32(14_178_818)],
    "6.7.3": [AllThawed, lambda model, pad_token_id: GPTWithHead(model, pad_token_id)],
    "6.8.1": [1150, 1150.0, np.int64(1150), torch.tensor(1150)],
    "6.8.2": [
        lambda share, recall, false_alarms: (
            1 / (1 + (1 - share) * false_alarms / (share * recall))
        ),
        lambda share, recall, false_alarms: (
            torch.tensor(share * recall)
            / (share * recall + false_alarms - share * false_alarms)
        ),
    ],
    "6.8.3": [threshold_of_sorted_ham, threshold_by_trying],
}

WRONG = {
    "6.2.1": [45 / 72, 48 / 120, 72 / 117, 38.5, 45, 6 / 78, "a third"],
    "6.2.2": [
        ["Call 80123 now", "Call 80456 now", "Call 80789 now"],
        ["one two three", "one two four", "one five four"],
        ["Are you there?", "", "Are you here?"],
        ["Win a prize", "Win a prize"],
        "call",
    ],
    "6.2.3": [
        lambda lengths, max_places: [[i] for i in range(len(lengths))],
        lambda lengths, max_places: [[*range(len(lengths))]],
        lambda lengths, max_places: [sorted(lengths)],
        in_the_given_order,
        by_tokens,
        lambda lengths, max_places: None,
    ],
    "6.7.1": [
        lambda rows, labels, place: max(Counter(labels).values()) / len(labels),
        lambda rows, labels, place: commonest_of_groups(
            rows, labels, lambda row: row[min(place, len(row) - 1)]
        ),
        lambda rows, labels, place: commonest_of_groups(
            rows, labels, lambda row: tuple(row[:place])
        ),
        lambda rows, labels, place: (
            len(rows)
            * commonest_of_groups(rows, labels, lambda row: tuple(row[: place + 1]))
        ),
    ],
    "6.7.2": [7_090_946, 14_175_744, 14_177_282, 14_178_816, 14_174_210, 124_441_346],
    "6.7.3": [
        lambda model, pad_token_id: model,
        Classifier,
        ThawedTrunk,
        FrozenEmbeddings,
        PadsSeen,
        MeanOfTokens,
        lambda model, pad_token_id: None,
        "all of it",
    ],
    "6.8.1": [1100, 1200, 1000, 0, 1151, 50, "many"],
    "6.8.2": [
        lambda share, recall, false_alarms: recall,
        lambda share, recall, false_alarms: recall / (recall + false_alarms),
        lambda share, recall, false_alarms: (
            share * recall / (share * recall + share * false_alarms)
        ),
        0.331,
    ],
    "6.8.3": [
        threshold_of_ties,
        lambda labels, probabilities, most: 0.5,
        lambda labels, probabilities, most: 1.0,
        lambda labels, probabilities, most: np.quantile(probabilities, 1 - most),
        lambda labels, probabilities, most: probabilities[labels == 0].max(),
        lambda labels, probabilities, most: np.sort(probabilities[labels == 1])[0],
    ],
}
