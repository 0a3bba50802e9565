"""What the pretrained weights contribute to 6.7 (a support module: used, not taught).

The classifier of 6.7, the same one with random weights in the place of all that was
learned, and logistic regression on characters learn from few messages and from many.
"""

import numpy as np
import pandas as pd
import torch
from torch import nn

from ch05.training import training_steps
from ch06.baselines import create_baselines, predict
from ch06.bucketing import create_bucket_loader
from support.apps.spam_filter import (
    BATCH_SIZE,
    NUM_EPOCHS,
    SETTINGS,
    create_classifier,
    create_loaders,
)
from support.weights.smollm2 import chat_ids, has_chat_template

OPPONENT = "logistic regression on characters"
LEAST_STEPS = 100  # at least so many, for ten messages make only two batches an epoch


@torch.no_grad()
def says_spam(model, tokenizer, message):
    """Whether a model that is asked about a message finds "Yes" likelier than "No".

    It is asked in its own chat template, if it has one.
    """
    question = f"Is this text message spam?\n\n{message}\n\nAnswer with Yes or No."
    if has_chat_template(tokenizer):
        token_ids, answers = chat_ids(tokenizer, question), ("Yes", "No")
    else:
        token_ids, answers = tokenizer.encode_ordinary(question), (" Yes", " No")
    yes, no = (tokenizer.encode_ordinary(answer)[0] for answer in answers)
    token_ids = token_ids[-model.context_length :]
    idx = torch.tensor([token_ids], device=model.tok_emb.weight.device)
    logits = model(idx)[0, -1]
    return (logits[yes] > logits[no]).item()


@torch.no_grad()
def randomize(module, seed):
    """Put random numbers in the place of all parameters, as if nothing were learned.

    Each matrix keeps its standard deviation; norms get scale 1 and everything else 0.
    """
    torch.manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter.std().item())
        else:
            parameter.fill_(1.0 if name.endswith("scale") else 0.0)


def draw_messages(labels, size, seed):
    """Indices of so many messages, half of them spam; fewer where there are not enough.

    A larger draw of the same seed holds the smaller one.
    """
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(np.flatnonzero(labels == label)) for label in (0, 1)]
    return np.concatenate([order[: size // 2] for order in orders])


def learn(head, start, examples, seed, device):
    """Train a head from its start on (features, label); as 6.7 does, or LEAST_STEPS."""
    head.load_state_dict(start)
    torch.manual_seed(seed)
    head.out_head.reset_parameters()
    lengths = [len(features) for features, _ in examples]
    loader = create_bucket_loader(examples, lengths, BATCH_SIZE, 0.0, seed)
    num_epochs = max(NUM_EPOCHS, -(-LEAST_STEPS // len(loader)))
    optimizer = torch.optim.AdamW(head.parameters(), **SETTINGS, fused=True)
    for _ in training_steps(head, loader, optimizer, device, num_epochs):
        pass


def right_answers(head, examples, device):
    """For each example, in order, whether the head answers its label."""
    one_by_one = [
        (features[None], torch.tensor([label])) for features, label in examples
    ]
    labels, probabilities = predict(one_by_one, head, device)
    return (probabilities > 0.5) == labels


def compare(train, test, sizes, seeds, device, name="auto"):
    """Which test messages are right, by way and number of messages learned from.

    Returns {(number of messages, way): (num_seeds, num_test) of True and False}.
    """
    classifier, tokenizer, name = create_classifier(name, device=device)
    head, right = classifier.head, {}

    def try_sizes(way, seeds):
        known, asked = create_loaders(classifier, tokenizer, (train, test), device)
        start = {key: weight.clone() for key, weight in head.state_dict().items()}
        for seed in seeds:
            for size in sizes:
                chosen = draw_messages(train["Label"].to_numpy(), size, seed)
                examples = [known.dataset[i] for i in chosen]
                learn(head, start, examples, seed, device)
                found = right_answers(head, asked.dataset, device)
                right.setdefault((size, way), []).append(found)

    try_sizes(name, seeds)
    for seed in seeds:
        randomize(classifier, seed)
        try_sizes("random weights", [seed])
        for size in sizes:
            chosen = train.iloc[draw_messages(train["Label"].to_numpy(), size, seed)]
            opponent = create_baselines()[OPPONENT].fit(chosen["Text"], chosen["Label"])
            found = opponent.predict(test["Text"]) == test["Label"].to_numpy()
            right.setdefault((size, OPPONENT), []).append(found)
    return {key: np.array(rows) for key, rows in right.items()}


def summarize_answers(right, groups, num_draws=2000):
    """A table of accuracies and of differences from logistic regression, as text.

    The intervals of the differences hold 95 of 100 draws of whole groups of
    near-copies, the mean over the seeds taken first.
    """
    rows = {}
    for (size, way), found in sorted(right.items()):
        each = found.mean(axis=1)
        cells = {"right": f"{each.mean():.1%} ({each.min():.1%} to {each.max():.1%})"}
        if way != OPPONENT:
            ahead = 100 * (found.mean(axis=0) - right[size, OPPONENT].mean(axis=0))
            sums = pd.DataFrame({"ahead": ahead, "n": 1.0}).groupby(np.asarray(groups))
            sums = sums.sum().to_numpy()
            rng = np.random.default_rng(123)
            draws = sums[rng.integers(len(sums), size=(num_draws, len(sums)))].sum(
                axis=1
            )
            low, high = np.quantile(draws[:, 0] / draws[:, 1], [0.025, 0.975])
            cells["points ahead"] = f"{ahead.mean():+.1f} ({low:+.1f} to {high:+.1f})"
        rows[size, way] = cells
    return pd.DataFrame(rows).T.fillna("")
