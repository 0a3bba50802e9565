"""Train, save and use a spam filter.

`python -m support.apps.spam_filter` trains it as notebook 6.7 does, and
`python -m support.apps.spam_filter ask "a message"` uses it.
"""

if __name__ == "__main__":
    from support.commands import exit_on_interrupt

    exit_on_interrupt()  # before imports that take seconds

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

from ch06.classifier import (
    Classifier,
    calc_accuracy_loader,
    create_feature_loader,
    spam_probability,
    train_classifier_simple,
)
from ch06.spam import SpamDataset, load_messages, split_messages
from support.apps.train_and_save import (
    check_fingerprint,
    fingerprint,
    run_training_command,
    train_and_save,
)
from support.commands import clean_exit
from support.device.device import fast_autocast, pick_device
from support.download.fetch import FetchError
from support.download.files import decode, read_text
from support.messages import one_line, say
from support.paths import MODELS
from support.weights.checkpoint import load_parameters, open_saved, save_model
from support.weights.pretrained import load_pretrained
from support.weights.saving import locate_model

COMMAND = "python -m support.apps.spam_filter"
SPAM_FILTER = MODELS / "spam.safetensors"
ADAMW = {"lr": 4e-4, "weight_decay": 0.1}
NUM_EPOCHS = 5
BATCH_SIZE = 8


def create_classifier(pretrained, num_trained=1, seed=123):
    """A Classifier of a pretrained model, with an untrained output layer."""
    model, pad_token_id = pretrained.model, pretrained.tokenizer.eot_token
    torch.manual_seed(seed)
    classifier = Classifier(model, pad_token_id, num_trained=num_trained)
    return classifier.to(model.tok_emb.weight.device)


def create_loaders(classifier, tokenizer, parts, device, seed=123):
    """A loader of the trunk's features for each table of messages."""
    datasets = [SpamDataset(part, tokenizer, pad_token_id=None) for part in parts]
    settings = BATCH_SIZE, device, seed
    with fast_autocast(device):
        return [create_feature_loader(classifier, d, *settings) for d in datasets]


def train_head(head, train_loader, val_loader, device, num_epochs=NUM_EPOCHS):
    """Train a head with AdamW; returns what `train_classifier_simple` returns."""
    optimizer = torch.optim.AdamW(head.parameters(), **ADAMW, fused=True)
    run = head, train_loader, val_loader, optimizer, device, num_epochs
    return train_classifier_simple(*run, eval_freq=50, eval_iter=5)


def save_classifier(path, classifier, name):
    """Write a classifier's head, and the name and hash of its pretrained model."""
    cfg = {"pretrained": name, "num_trained": len(classifier.head.trf_blocks)}
    save_model(path, classifier.head, cfg, fingerprint=fingerprint(classifier.trunk))


def load_classifier(path=SPAM_FILTER, device="cpu"):
    """Read what `save_classifier` wrote: (classifier, tokenizer).

    Raises FileNotFoundError if the file does not exist, and ValueError if it is damaged
    or was trained on another pretrained model.
    """
    file = open_saved(locate_model(Path(path)))
    config = file.config(pretrained=str, num_trained=int)
    pretrained = load_pretrained(config["pretrained"], device=device)
    classifier = create_classifier(pretrained, config["num_trained"])
    if "logits" in file.metadata():  # the course's first versions wrote no fingerprint
        say(
            f"{one_line(file.path)} comes from an earlier version of this course, so "
            f"it may not belong to the {pretrained.name} that is here. If it answers "
            f"badly, run `{COMMAND}` to train again"
        )
    else:
        check_fingerprint(file, classifier.trunk, pretrained.name, COMMAND)
    load_parameters(file, dict(classifier.head.named_parameters()))
    return classifier, pretrained.tokenizer


def train_filter(path, name="auto", seed=123):
    """Train a filter as notebook 6.7 does, and print its test accuracy.

    All seeds split the messages in the same way, so that their filters are tested on
    the same messages. Returns and raises what `train_and_save` does.
    """

    def train(classifier, tokenizer, device):
        parts = split_messages(load_messages())[:3]
        *loaders, test = create_loaders(classifier, tokenizer, parts, device, seed)
        train_head(classifier.head, *loaders, device)
        accuracy = calc_accuracy_loader(test, classifier.head, device)
        print(f"test accuracy {accuracy:.1%}")

    adapt = partial(create_classifier, seed=seed)
    return train_and_save(path, name, adapt, train, save_classifier)


def classify_texts(texts):
    """Print the probability of spam of each text, with the filter that was saved.

    Raises ValueError at the end if some texts could not be judged.
    """
    device = pick_device()
    classifier, tokenizer = load_classifier(device=device)
    faults = []
    for number, text in enumerate(texts, 1):
        try:
            probability = spam_probability(text, classifier, tokenizer, device)
        except ValueError as error:
            faults.append(f"message {number} was not classified: {error}")
            say(faults[-1])
            continue
        answer = "spam" if probability > 0.5 else "not spam"
        say(f"{answer:8} {probability:6.1%}  {one_line(text, longest=2000)}")
    if faults:
        raise ValueError(
            f"{len(faults)} of {len(texts)} messages were not classified. The first of "
            f"them: {faults[0]}"
        )


def collect_messages(texts, path):
    """The messages of the command line and a file, or else of standard input."""
    if path:
        name, content = one_line(path), read_text(path)
    elif texts:
        return texts
    else:
        name, stream = "standard input", getattr(sys.stdin, "buffer", None)
        content = decode(name, stream.read() if stream else b"")
    lines = [line for line in content.split("\n") if line.strip()]
    if not lines:
        raise ValueError(f"{name} contains no message: write one on each line")
    return texts + lines


def ask():
    """Run the command `ask`: print whether messages are spam."""
    parser = argparse.ArgumentParser(
        prog=f"{COMMAND} ask",
        description="Say whether messages are spam. If none are given, they are read "
        "from standard input, one on each line.",
    )
    parser.add_argument(
        "texts", nargs="*", metavar="MESSAGE", help="a text to classify"
    )
    parser.add_argument(
        "--file", help="a UTF-8 text file with one message on each line"
    )
    with clean_exit(ValueError, FetchError, OSError):
        arguments = parser.parse_intermixed_args(sys.argv[2:])
        texts = collect_messages(arguments.texts, arguments.file)
        try:
            classify_texts(texts)
        except FileNotFoundError:
            sys.exit(f"no filter has been trained yet: run `{COMMAND}` first")


def main():
    """Read the command line; train a filter or use one."""
    if sys.argv[1:2] == ["ask"]:
        ask()
        return
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Train a spam filter and save it.",
        epilog=f'Use it with `{COMMAND} ask "a message"`.',
    )
    run_training_command(parser, SPAM_FILTER, train_filter)


if __name__ == "__main__":
    main()
