"""What the pretrained weights contribute to 6.7's classifier.

The classifier, the same one with random weights, and logistic regression on characters
are trained on few messages and on many.
"""

import numpy as np
import pandas as pd
import torch
from scipy.stats import bootstrap
from torch import nn
from torch.utils.data import DataLoader

from ch05.training import training_steps
from ch06.baselines import create_baselines, predict
from ch06.bucketing import create_bucket_loader
from support.apps import spam_filter
from support.weights.pretrained import load_pretrained
from support.weights.smollm2 import chat_ids, has_chat_template

BASELINE = "logistic regression on characters"
MIN_STEPS = 100  # because ten messages are only two batches per epoch


@torch.no_grad()
def says_spam(model, tokenizer, message):
    """Ask a language model if a message is spam: is "Yes" more probable than "No"?

    The question has the model's own chat template, if the model has one.
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
def randomize_weights(module, seed):
    """Replace all parameters by random numbers, as if nothing had been learned.

    Each matrix keeps its standard deviation. Scales become 1, all other vectors 0.
    """
    torch.manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter.std().item())
        else:
            parameter.fill_(1.0 if name.endswith("scale") else 0.0)


def sample_messages(labels, size, seed):
    """Indices of `size` random messages, half of them spam; all if there are fewer.

    A larger sample with the same seed contains the smaller one.
    """
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(np.flatnonzero(labels == label)) for label in (0, 1)]
    return np.concatenate([order[: size // 2] for order in orders])


def train_head_from(head, start, examples, seed, device):
    """Reset a head to the weights `start` and train it on (features, label) pairs.

    It trains for NUM_EPOCHS epochs, or for more until there are MIN_STEPS steps.
    """
    head.load_state_dict(start)
    torch.manual_seed(seed)
    head.out_head.reset_parameters()
    lengths = [len(features) for features, _ in examples]
    loader = create_bucket_loader(examples, lengths, spam_filter.BATCH_SIZE, 0.0, seed)
    num_epochs = max(spam_filter.NUM_EPOCHS, -(-MIN_STEPS // len(loader)))
    optimizer = torch.optim.AdamW(head.parameters(), **spam_filter.ADAMW, fused=True)
    for _ in training_steps(head, loader, optimizer, device, num_epochs):
        pass


def find_right_answers(head, examples, device):
    """For each (features, label) pair, whether the head predicts the label."""
    labels, probabilities = predict(DataLoader(examples), head, device)
    return (probabilities > 0.5) == labels


def compare_classifiers(train, test, sizes, seeds, device, name="auto"):
    """Which test messages each classifier gets right, trained on so many messages.

    Returns {(size, classifier): booleans (num_seeds, num_test)}.
    """
    pretrained = load_pretrained(name, device=device)
    classifier = spam_filter.create_classifier(pretrained)
    head, labels, right = classifier.head, train["Label"].to_numpy(), {}

    def try_classifier(title, seeds):
        parts = spam_filter.create_loaders(
            classifier, pretrained.tokenizer, (train, test), device
        )
        known, asked = (loader.dataset for loader in parts)
        start = {key: weight.clone() for key, weight in head.state_dict().items()}
        for seed in seeds:
            for size in sizes:
                examples = [known[i] for i in sample_messages(labels, size, seed)]
                train_head_from(head, start, examples, seed, device)
                found = find_right_answers(head, asked, device)
                right.setdefault((size, title), []).append(found)

    try_classifier(pretrained.name, seeds)
    for seed in seeds:
        randomize_weights(classifier, seed)
        try_classifier("random weights", [seed])
        for size in sizes:
            chosen = train.iloc[sample_messages(labels, size, seed)]
            baseline = create_baselines()[BASELINE].fit(chosen["Text"], chosen["Label"])
            found = baseline.predict(test["Text"]) == test["Label"].to_numpy()
            right.setdefault((size, BASELINE), []).append(found)
    return {key: np.array(rows) for key, rows in right.items()}


def summarize_answers(right, groups):
    """A table of accuracies and of differences from logistic regression, as text.

    The differences are means over the seeds, with 95% bootstrap intervals that draw
    whole groups of near-copies.
    """
    rows, how = {}, {"n_resamples": 2000, "paired": True, "method": "percentile"}
    for (size, title), found in sorted(right.items()):
        each = found.mean(axis=1)
        cells = {"right": f"{each.mean():.1%} ({each.min():.1%} to {each.max():.1%})"}
        if title != BASELINE:
            ahead = 100 * (found.mean(axis=0) - right[size, BASELINE].mean(axis=0))
            by_group = pd.Series(ahead).groupby(np.asarray(groups))
            low, high = bootstrap(
                (by_group.sum(), by_group.count()),
                lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
                rng=np.random.default_rng(123),
                **how,
            ).confidence_interval
            cells["points ahead"] = f"{ahead.mean():+.1f} ({low:+.1f} to {high:+.1f})"
        rows[size, title] = cells
    return pd.DataFrame(rows).T.fillna("")
