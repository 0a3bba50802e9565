"""Is there a better spam classifier than 6.7's? `python -m benchmarks.variants`.

Each variant is cross-validated like the classifiers of notebook 6.8: five folds of the
balanced messages, near-copies together; and compared, message by message, with the best
of the simple ones, logistic regression on characters. About 40 minutes on two cores.
With eight intervals of 95%, one may miss the truth by chance.
"""

import copy

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedGroupKFold

from ch05.training import training_steps
from ch06.baselines import create_baselines, predict
from ch06.bucketing import create_bucket_loader
from ch06.classifier import ClassificationHead
from ch06.spam import load_messages, split_messages
from ch07.lora import replace_linear_with_lora
from support.apps.spam_filter import (
    ADAMW,
    BATCH_SIZE,
    NUM_EPOCHS,
    create_classifier,
    create_loaders,
)
from support.device.device import fast_math
from support.weights.pretrained import load_pretrained

NAME = "smollm2-135M"
OPPONENT = "logistic regression on characters"


class MeanHead(ClassificationHead):
    """Reads the answer from the mean over all tokens instead of at the last."""

    def forward(self, features):
        is_token = features.any(dim=-1, keepdim=True)  # (b, num_tokens, 1)
        x = self.final_norm(self.trf_blocks(features)) * is_token
        mean = x.sum(dim=1, keepdim=True) / is_token.sum(dim=1, keepdim=True)
        return self.out_head(mean)


def with_mean(head):
    """The head, reading the mean over the tokens."""
    head.__class__ = MeanHead
    return head


def with_lora(head):
    """The head, its blocks frozen, with LoRA beside their linear layers."""
    head.trf_blocks.requires_grad_(False)
    replace_linear_with_lora(head.trf_blocks, rank=16, alpha=32)
    return head


def unchanged(head):
    """The head as 6.7 has it."""
    return head


VARIANTS = (  # title, blocks trained, learning rate, change
    ("1 block (6.7)", 1, ADAMW["lr"], unchanged),
    ("1 block, learning rate 1e-4", 1, 1e-4, unchanged),
    ("1 block, learning rate 2e-4", 1, 2e-4, unchanged),
    ("1 block, learning rate 8e-4", 1, 8e-4, unchanged),
    ("1 block, mean over tokens", 1, ADAMW["lr"], with_mean),
    ("2 blocks", 2, 2e-4, unchanged),
    ("LoRA in the last 2 blocks", 2, 1e-3, with_lora),
)


def cut_folds(pool):
    """Five pairs of row numbers, (to learn, to answer), as in 6.8."""
    folds = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=123)
    return list(folds.split(pool, pool["Label"], pool["Group"]))


def create_loader(examples):
    """A loader over features and labels, padded with zeros."""
    lengths = [len(features) for features, _ in examples]
    return create_bucket_loader(examples, lengths, BATCH_SIZE, padding_value=0.0)


def answer_fold(head, examples, fold, lr, seed):
    """Train a head on a fold; probabilities of spam, in order, of what it left out."""
    learned, asked = ([examples[i] for i in part] for part in fold)
    settings = ADAMW | {"lr": lr}
    trained = [p for p in head.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, **settings, fused=True)
    loader = create_loader(learned)
    loader.batch_sampler.generator.manual_seed(seed)
    for _ in training_steps(head, loader, optimizer, "cpu", NUM_EPOCHS):
        pass
    one_by_one = [(features[None], torch.tensor([label])) for features, label in asked]
    return predict(one_by_one, head, "cpu")[1]


def answer_all(pool, parts, num_trained, variants):
    """Probabilities of spam of all messages, by variant; the trunk runs once."""
    pretrained = load_pretrained(NAME)
    classifier = create_classifier(pretrained, num_trained)
    loaders = create_loaders(classifier, pretrained.tokenizer, parts, "cpu")
    examples = [example for loader in loaders for example in loader.dataset]
    found = {}
    for title, _, lr, change in variants:
        found[title] = np.zeros(len(pool))
        for seed, fold in enumerate(cut_folds(pool)):
            torch.manual_seed(seed)
            head = copy.deepcopy(classifier.head)
            head.out_head.reset_parameters()
            probabilities = answer_fold(change(head), examples, fold, lr, seed)
            found[title][fold[1]] = probabilities
    return found


def answer_simply(pool):
    """Probabilities of spam of all messages by the best of the simple classifiers."""
    found = np.zeros(len(pool))
    for learned, asked in cut_folds(pool):
        opponent = create_baselines()[OPPONENT]
        opponent.fit(pool["Text"][learned], pool["Label"][learned])
        found[asked] = opponent.predict_proba(pool["Text"][asked])[:, 1]
    return found


def bootstrap(differences, groups, num_draws=10_000, seed=123):
    """The interval of a mean difference when whole groups of near-copies are drawn."""
    _, groups = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(groups, differences), np.bincount(groups)
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(sums), size=(num_draws, len(sums)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    return np.quantile(means, [0.025, 0.975])


def report(title, probabilities, opponent, pool):
    """Print a classifier's accuracy, and by how much it beats the opponent."""
    is_right = (probabilities > 0.5) == pool["Label"]
    differences = is_right.astype(int) - ((opponent > 0.5) == pool["Label"])
    low, high = bootstrap(differences, pool["Group"])
    print(
        f"{title:34} {is_right.mean():6.1%} right, better by "
        f"{differences.mean():+.1%} [{low:+.1%}, {high:+.1%}]",
        flush=True,
    )


def main():
    """Cross-validate all variants and print them beside the simple classifier."""
    fast_math("cpu")
    parts = split_messages(load_messages())[:3]
    pool = pd.concat(parts).reset_index(drop=True)
    opponent = answer_simply(pool)
    is_right = (opponent > 0.5) == pool["Label"]
    print(f"{OPPONENT:34} {is_right.mean():6.1%} of {len(pool):,} messages right")
    for num_trained in sorted({variant[1] for variant in VARIANTS}):
        variants = [variant for variant in VARIANTS if variant[1] == num_trained]
        found = answer_all(pool, parts, num_trained, variants)
        if num_trained == 1:
            title = VARIANTS[0][0]
            found[f"{title} and {OPPONENT[:19]}: mean"] = (found[title] + opponent) / 2
        for title, probabilities in found.items():
            report(title, probabilities, opponent, pool)


if __name__ == "__main__":
    main()
