"""Checkers of chapter 6's exercises.

Looking in here spoils the exercises.
"""

import math

import numpy as np
import torch
from torch import nn

from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch06.baselines import wilson_interval
from ch06.splits import words_of
from support.exercises.checking import (
    as_number,
    as_whole_number,
    as_whole_numbers,
    exercise,
    is_count,
    is_near,
    require,
    require_function,
    require_kind,
)


@exercise(
    "6.2.1",
    "number, 4 minutes, •",
    "The first batch is 20 places wide and the second 19.",
)
def padding_of_two_batches(answer):
    """The share of padding in two batches of three."""
    share = as_number(answer)
    require(not 1 < share <= 100, f"{share:g} should be a share, from 0 to 1")
    for value, reason in (
        (72 / 117, "that is the share of the tokens"),
        (48 / 120, "that pads all six alike; the second batch is 19 wide"),
        (6 / 78, "that is for messages sorted by length; here they are not"),
        (45 / 72, "that divides by the tokens; divide by all places"),
    ):
        require(not math.isclose(share, value, abs_tol=0.002), reason)
    is_right = math.isclose(share, 45 / 117, abs_tol=0.002)
    require(is_right, f"{share:.3f} is not the padding divided by all places")


@exercise(
    "6.2.2",
    "write, 8 minutes, ••",
    "Begin with ten different words and exchange one at a time.",
)
def chain_of_near_copies(answer):
    """Three messages, near-copies only from neighbour to neighbour."""
    require(not isinstance(answer, str), "it should be a list of three messages")
    texts = list(answer)
    for text in texts:
        require_kind(text, "str")
    require(len(texts) == 3, f"it should be three messages, not {len(texts)}")
    sets = [words_of(text) for text in texts]
    require(all(sets), "one of the messages is empty")
    for i, j, should_be_near in ((0, 1, True), (1, 2, True), (0, 2, False)):
        both, either = len(sets[i] & sets[j]), len(sets[i] | sets[j])
        bound = "below" if should_be_near else "at or above"
        require(
            (both >= 0.8 * either) == should_be_near,
            f"messages {i + 1} and {j + 1} share {both} of {either} words, which is "
            f"{bound} 0.8",
        )


@exercise(
    "6.2.3",
    "write, 12 minutes, •••",
    "Sort the indices, longest first: how many fit beside the longest?",
)
def batches_of_bounded_size(answer):
    """A function that makes few batches of at most max_places places."""
    require_function(answer)
    many = torch.randint(1, 60, (300,)).tolist()
    for lengths, max_places in (([5], 5), ([2, 9, 2, 9], 18), (many, 240), (many, 60)):
        what = f"of {lengths}" if len(lengths) < 9 else f"of {len(lengths)} messages"
        what = f"{what} and max_places {max_places}"
        found = answer([*lengths], max_places)
        require(found is not None, "it returns None; did you forget `return`?")
        batches = [as_whole_numbers(batch) for batch in found]
        indices = sorted(i for batch in batches for i in batch)
        expected = list(range(len(lengths)))
        require(indices == expected, f"the batches {what} lack an index or repeat one")
        batches = [batch for batch in batches if batch]
        places = max(len(batch) * max(lengths[i] for i in batch) for batch in batches)
        require(places <= max_places, f"a batch {what} has {places} places")
        few = few_batches(lengths, max_places)
        require(
            len(batches) <= few,
            f"it makes {len(batches)} batches {what}, and {few} would do",
        )


def few_batches(lengths, max_places):
    """How many batches one makes who fills them in order of length, either way."""
    counts = []
    for reverse in (False, True):
        batch, count = [], 1
        for length in sorted(lengths, reverse=reverse):
            if max([*batch, length]) * (len(batch) + 1) > max_places:
                batch, count = [], count + 1
            batch.append(length)
        counts.append(count)
    return max(counts)


@exercise(
    "6.7.1",
    "write, 10 minutes, •••",
    "tuple(row[: place + 1]) is all that is known; count labels by it.",
)
def best_accuracy_at_a_place(answer):
    """A function that finds the best accuracy of a classifier that reads at a place."""
    require_function(answer)
    rows = [[1, 2, 3], [1, 2, 4], [1, 5], [6, 2, 3], [6, 2], [1, 2, 3]]
    for labels, place, expected in (
        ([1, 0, 0, 1, 1, 1], 0, 4 / 6),
        ([1, 0, 0, 1, 1, 1], 1, 5 / 6),
        ([1, 0, 0, 1, 1, 1], 2, 1),
        ([1, 1, 1, 0, 0, 1], 1, 1),
        ([1, 1, 1, 0, 1, 0], 2, 5 / 6),
        ([1, 1, 1, 0, 1, 0], 9, 5 / 6),
        ([0, 0, 0, 0, 0, 0], 0, 1),
    ):
        found = as_number(answer([list(row) for row in rows], list(labels), place))
        require(
            is_near(found, expected),
            f"for rows {rows} with labels {labels} at place {place} the best accuracy "
            f"is {expected:.3f}, not {found:.3f}",
        )


@exercise(
    "6.7.2",
    "number, 5 minutes, ••",
    'A Classifier of a GPTModel; `with torch.device("meta"):` is free.',
)
def parameters_of_two_blocks(answer):
    """The parameters that learn with num_trained=2 on GPT-2's smallest model."""
    found, width = as_number(answer), 768
    block, norm, out_head = (12 * width + 13) * width, 2 * width, 2 * width + 2
    exact = 2 * block + norm + out_head
    for value, reason in (
        (block + norm + out_head, "that is with one block, and there are two"),
        (2 * block, "that is the blocks alone; the norm and the new layer learn too"),
        (exact - norm, "the last norm learns, too"),
        (exact - out_head, "the new output layer learns, too"),
        (exact - 2, "the new output layer has a bias"),
        (exact - 6 * width, "GPT-2 has biases in its queries, keys and values"),
    ):
        require(found != value, reason)
    reason = f"{found:,.0f} is not the number of parameters that learn"
    require(is_count(found, exact), reason)


@exercise(
    "6.7.3",
    "write, 12 minutes, •••",
    "num_trained may be all blocks. What does `features` keep from them?",
)
def whole_model_learns(answer):
    """A function from a model to a classifier in which everything learns."""
    require_function(answer)
    tiny = {"vocab_size": 50, "context_length": 12, "emb_dim": 8, "n_heads": 2}
    tiny |= {"n_layers": 3, "drop_rate": 0.0, "qkv_bias": True}
    model = GPTModel(GPT_CONFIG_124M | tiny)
    kept = sum(p.numel() for p in model.parameters()) - model.out_head.weight.numel()
    classifier = answer(model, 0)
    require(isinstance(classifier, nn.Module), "it should return a module")
    idx = torch.tensor([[5, 6, 7, 0, 0], [8, 9, 10, 11, 12]])
    logits = classifier(idx)
    shape = tuple(logits.shape)
    require(shape == (2, 1, 2), f"two messages give shape {shape}, not (2, 1, 2)")
    padded = classifier(nn.functional.pad(idx, (0, 4)))
    same = torch.allclose(padded, logits, atol=1e-4)
    require(same, "more padding behind the messages changes its answers")
    for row, place in ((0, 0), (0, 2), (1, 4)):
        changed = idx.clone()
        changed[row, place] = 20
        same = torch.allclose(classifier(changed)[row], logits[row], atol=1e-6)
        token = f"token {place} of a message of {(3, 5)[row]}"
        require(not same, f"{token} has no influence on the answer")
    model = GPTModel(GPT_CONFIG_124M | tiny)
    for block in model.trf_blocks:  # no token hears of another one
        nn.init.zeros_(block.att.out_proj.weight)
    deaf = answer(model, 0)
    same = torch.allclose(
        deaf(idx)[1], deaf(torch.tensor([[8, 3, 4, 5, 12]])), atol=1e-6
    )
    require(same, "it reads other places than that of the last real token")
    logits.sum().backward()
    parameters = dict(classifier.named_parameters())
    frozen = [name for name, p in parameters.items() if p.grad is None]
    require(not frozen, f"no gradient reaches {', '.join(frozen[:3])}")
    found = sum(p.numel() for p in parameters.values())
    require(  # the new layer may have a bias or not
        found - kept in (16, 18),
        f"{found:,} parameters learn, where the model has {kept:,} without its output "
        "layer and a new layer 18",
    )


@exercise(
    "6.8.1",
    "number, 6 minutes, ••",
    "Call wilson_interval(round(0.98 * n), n) for n = 50, 100, 150, ...",
)
def messages_for_a_claim(answer):
    """The tested messages at which 98 of 100 right excludes 97%."""
    num_messages = as_whole_number(answer)
    require(num_messages > 0, f"{num_messages} is no number of messages")
    require(num_messages % 50 == 0, f"{answer} is not a multiple of 50")
    low, _ = wilson_interval(round(0.98 * num_messages), num_messages)
    found = f"with {num_messages:,} messages the interval begins at {low:.2%}"
    require(low > 0.97, f"{found}, not above 97%")
    fewer = num_messages - 50
    low, _ = wilson_interval(round(0.98 * fewer), fewer) if fewer else (0, 1)
    require(low <= 0.97, f"{fewer:,} messages are enough already")


@exercise(
    "6.8.2",
    "write, 5 minutes, ••",
    "Of 10,000 messages, how many are spam and called so? How many ham?",
)
def precision_where_spam_is_rare(answer):
    """A function from share of spam, recall and false alarms to precision."""
    require_function(answer)
    for share, recall, false_alarms in (
        (0.5, 0.98, 0.02),
        (0.01, 0.98, 0.02),
        (0.134, 0.9, 0.001),
        (0.2, 1.0, 0.0),
        (0.01, 0.3, 0.5),
    ):
        spam, ham = share * recall, (1 - share) * false_alarms
        expected = spam / (spam + ham)
        found = as_number(answer(share, recall, false_alarms))
        case = f"{share:.1%} spam, recall {recall:.0%}, {false_alarms:.1%} false alarms"
        require(
            is_near(found, expected),
            f"{case}: the precision is {expected:.3f}, not {found:.3f}",
        )


def threshold_cases():
    """Yield (labels, probabilities, most), ties and hopeless filters among them.

    The probabilities are such as float32 holds exactly.
    """
    yield np.array([0, 0, 0, 0, 1, 1]), np.array([1, 2, 3, 5, 4, 7]) / 8, 0.25
    yield np.array([0, 0, 1, 1, 1]), np.array([3, 6, 6, 6, 7]) / 8, 0.4
    yield np.array([1, 0, 1, 0]), np.array([2, 8, 8, 1]) / 8, 0.0
    rng = np.random.default_rng(123)
    for most in (0.01, 0.05):
        labels = rng.integers(2, size=1000)
        probabilities = (rng.beta(1 + 3 * labels, 4 - 3 * labels) * 128).round() / 128
        yield labels, probabilities, most


@exercise(
    "6.8.3",
    "write, 10 minutes, •••",
    "Try each probability of a ham as threshold, from the lowest up.",
)
def threshold_for_few_false_alarms(answer):
    """A function that finds the lowest line with few ham messages above it."""
    require_function(answer)
    for labels, probabilities, most in threshold_cases():
        ham, spam = probabilities[labels == 0], probabilities[labels == 1]
        lines = [line for line in [0, *ham] if (ham > line).mean() <= most]
        best = max((spam > line).mean() for line in lines)
        line = as_number(answer(labels.copy(), probabilities.copy(), most))
        false_alarms, recall = (ham > line).mean(), (spam > line).mean()
        case = f"for {len(ham)} ham and {len(spam)} spam messages and most={most}"
        require(
            false_alarms <= most,
            f"{case} {false_alarms:.1%} of the ham lies above {line:.4g}",
        )
        require(
            recall >= best,
            f"{case} {line:.4g} finds {recall:.1%} of the spam, and {best:.1%} can be",
        )
