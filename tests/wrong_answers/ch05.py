"""Answers to chapter 5's exercises, each wrong as a reader's might be."""

import torch

WRONG = {
    "5.1.1": [14 / 3, 1.386, 64],
    "5.1.2": [
        lambda logits, targets: -logits.softmax(-1)[0, targets[0]].log(),
        lambda logits, targets: (
            logits.exp().sum(-1).log() - logits[torch.arange(5), targets]
        ).mean(),
    ],
    "5.1.3": [
        lambda loss, num_tokens, num_characters: loss * num_tokens / num_characters,
        lambda loss, num_tokens, num_characters: loss / 0.693147,
    ],
    "5.2.1": [
        lambda num_tokens, length, batch, epochs: (
            epochs * (num_tokens // length // batch)
        ),
        lambda num_tokens, length, batch, epochs: (num_tokens - 1) // length * epochs,
    ],
    "5.2.2": [
        lambda losses, patience: losses.index(min(losses)),
        lambda losses, patience: len(losses) - 1,
    ],
    "5.2.3": [
        lambda sample, text: sample if sample in text else "",
        lambda sample, text: sample,
    ],
}
