"""Answers to chapter 6's exercises, each wrong as a reader's might be."""

from collections import Counter, defaultdict

import numpy as np

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


class PadsSeen(ThawedTrunk):
    """Everything learns, and the answer is read at the end of the row."""

    def features(self, idx):
        return self.trunk(idx)


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
        lambda labels, probabilities, most: 0.5,
        lambda labels, probabilities, most: 1.0,
        lambda labels, probabilities, most: np.quantile(probabilities, 1 - most),
        lambda labels, probabilities, most: probabilities[labels == 0].max(),
        lambda labels, probabilities, most: np.sort(probabilities[labels == 1])[0],
    ],
}
