"""Train, keep and use a spam filter from the shell (support: used, not taught).

`python -m ch06.spam_filter` trains as notebook 6.7 does and keeps the result;
`python -m ch06.classifier "a message"` asks it.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from ch02.fetch import FetchError
from ch02.files import parse_json
from ch05.checkpoint import load_parameters, open_saved, save_model
from ch05.device import fast_autocast, fast_math, pick_device
from ch05.precision import undisturbed
from ch05.pretrained import load_pretrained
from ch05.training import evaluating
from ch06.classifier import (
    Classifier,
    calc_accuracy_loader,
    create_feature_loader,
    spam_probability,
    train_classifier_simple,
)
from ch06.spam import SpamDataset, load_messages, split_messages

SAVED = Path(__file__).parent / "checkpoints" / "spam.safetensors"
SETTINGS = {"lr": 4e-4, "weight_decay": 0.1}  # of AdamW
NUM_EPOCHS = 5
BATCH_SIZE = 8
# between machines, float32 puts logits off by a few millionths; in bfloat16 it is 0.03
MOST_OFF = 1e-3
PROBE_MESSAGE = (
    "You have been picked! Text YES to 80123 for a free weekend, 150p a message."
)


def create_classifier(name="auto", num_trained=1, seed=123, device="cpu"):
    """A Classifier with an untrained output layer, its tokenizer, its model's name."""
    pretrained = load_pretrained(name, device=device)
    pad_token_id = pretrained.tokenizer.eot_token
    torch.manual_seed(seed)
    classifier = Classifier(pretrained.model, pad_token_id, num_trained=num_trained)
    return classifier.to(device), pretrained.tokenizer, pretrained.name


def create_loaders(classifier, tokenizer, parts, device, seed=123):
    """A loader of features for each table of messages, trunk and all."""
    loaders = []
    for part in parts:
        dataset = SpamDataset(part, tokenizer, pad_token_id=None)
        with fast_autocast(device):
            settings = BATCH_SIZE, device, seed
            loaders.append(create_feature_loader(classifier, dataset, *settings))
    return loaders


def train_head(head, train_loader, val_loader, device, num_epochs=NUM_EPOCHS):
    """Train a head by AdamW; returns what `train_classifier_simple` returns."""
    optimizer = torch.optim.AdamW(head.parameters(), **SETTINGS, fused=True)
    return train_classifier_simple(
        head,
        train_loader,
        val_loader,
        optimizer,
        device,
        num_epochs,
        eval_freq=50,
        eval_iter=5,
    )


def save_classifier(path, classifier, tokenizer, name):
    """Write what was trained, and which pretrained model it stands on.

    Beside it go the logits of a message, which both together must give again.
    """
    logits = json.dumps(probe_logits(classifier, tokenizer))
    cfg = {"pretrained": name, "num_trained": len(classifier.head.trf_blocks)}
    save_model(path, classifier.head, cfg, logits=logits)


@torch.no_grad()
def probe_logits(classifier, tokenizer):
    """The logits of ham and of spam for a message that is always the same.

    In float32, whatever the rest is computed in.
    """
    device = classifier.head.out_head.weight.device
    token_ids = tokenizer.encode_ordinary(PROBE_MESSAGE)
    with undisturbed(device.type), evaluating(classifier):
        return classifier(torch.tensor([token_ids], device=device)).flatten().tolist()


def load_classifier(path=SAVED, device="cpu"):
    """Read what `save_classifier` wrote: (classifier, tokenizer).

    Raises FileNotFoundError if nothing was saved there; ValueError for a damaged file,
    and when the pretrained model is another than the one it was trained on.
    """
    file = open_saved(path)
    config, metadata = file.config(pretrained=str, num_trained=int), file.metadata()
    name, num_trained = config["pretrained"], config["num_trained"]
    classifier, tokenizer, _ = create_classifier(name, num_trained, device=device)
    load_parameters(file, dict(classifier.head.named_parameters()))
    found = probe_logits(classifier, tokenizer)
    if not are_close(found, parse_json(metadata.get("logits", "0"), path)):
        raise ValueError(
            f"{path} was trained on another {name} than the one that is here: "
            "train again, `python -m ch06.spam_filter`"
        )
    return classifier, tokenizer


def are_close(found, saved):
    """True if two lists of logits are the same, but for rounding."""
    match saved:
        case [float(ham), float(spam)]:
            return max(abs(found[0] - ham), abs(found[1] - spam)) <= MOST_OFF
    return False


def train_filter(name, seed):
    """Train a filter as 6.7 does, print its figures and its seconds, save it.

    The seed draws the new output layer and the order of the batches. The split of the
    messages stays, so that filters of different seeds are tested on the same ones.
    """
    device = pick_device()
    fast_math(device)
    parts = split_messages(load_messages())
    classifier, tokenizer, name = create_classifier(name, seed=seed, device=device)
    start = time.perf_counter()
    loaders = create_loaders(classifier, tokenizer, parts[:3], device, seed)
    print(f"trunk: {time.perf_counter() - start:.0f} s, once for all epochs")
    train_head(classifier.head, *loaders[:2], device)
    accuracy = calc_accuracy_loader(loaders[2], classifier.head, device)
    seconds = time.perf_counter() - start
    print(f"test accuracy {accuracy:.1%}; {seconds:.0f} s with trunk and training")
    save_classifier(SAVED, classifier, tokenizer, name)
    print(f"wrote {SAVED}")


def classify_texts(texts):
    """Print the probability of spam of each text, with the filter that was saved."""
    device = pick_device()
    classifier, tokenizer = load_classifier(device=device)
    for text in texts:
        probability = spam_probability(text, classifier, tokenizer, device)
        answer = "spam" if probability > 0.5 else "not spam"
        print(f"{answer:8} {probability:6.1%}  {text}")


def asked_texts(arguments):
    """The messages to judge: the arguments, or lines of a file or of standard input."""
    if arguments.texts:
        return arguments.texts
    source = arguments.file or sys.stdin
    return [line.rstrip("\n") for line in source if line.strip()]


def classify_main():
    """`python -m ch06.classifier`."""
    parser = argparse.ArgumentParser(
        prog="python -m ch06.classifier",
        description="Say whether messages are spam; without any, read lines of them.",
    )
    parser.add_argument("texts", nargs="*", metavar="MESSAGE")
    parser.add_argument(
        "--file", type=argparse.FileType(encoding="utf-8"), help="a message a line"
    )
    try:
        classify_texts(asked_texts(parser.parse_args()))
    except FileNotFoundError:
        sys.exit("no filter is trained yet: `python -m ch06.spam_filter` trains one")
    except (ValueError, FetchError) as error:
        sys.exit(f"error: {error}")


def main():
    """`python -m ch06.spam_filter`."""
    parser = argparse.ArgumentParser(description="Train a spam filter and keep it.")
    parser.add_argument("--model", default="auto", help="a name of load_pretrained")
    parser.add_argument(
        "--seed",
        type=int,
        default=123,
        help="draws the new output layer and the order of the batches",
    )
    arguments = parser.parse_args()
    try:
        train_filter(arguments.model, arguments.seed)
    except (ValueError, FetchError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
