"""Train, keep and use a spam filter from the shell (support: used, not taught).

`python -m support.apps.spam_filter` trains as notebook 6.7 does and keeps the result;
`python -m support.apps.spam_filter ask "a message"` asks it.
"""

if __name__ == "__main__":
    from support.commands import exit_on_interrupt

    exit_on_interrupt()  # before imports that take seconds

import argparse
import json
import sys
import time

import torch

from ch05.training import evaluating
from ch06.classifier import (
    Classifier,
    calc_accuracy_loader,
    create_feature_loader,
    spam_probability,
    train_classifier_simple,
)
from ch06.spam import SpamDataset, load_messages, split_messages
from support.commands import clean_exit, positive
from support.device.device import fast_autocast, fast_math, pick_device
from support.device.precision import undisturbed
from support.download.fetch import FetchError
from support.download.files import decode, parse_json, read_text
from support.messages import one_line, say
from support.paths import MODELS
from support.weights.checkpoint import load_parameters, open_saved, save_model
from support.weights.pretrained import load_pretrained
from support.weights.saving import (
    check_can_save,
    locate_model,
    save_or_fall_back,
    size_in_bytes,
)

COMMAND = "python -m support.apps.spam_filter"
SAVED = MODELS / "spam.safetensors"
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
    file = open_saved(locate_model(path))
    config, metadata = file.config(pretrained=str, num_trained=int), file.metadata()
    name, num_trained = config["pretrained"], config["num_trained"]
    classifier, tokenizer, _ = create_classifier(name, num_trained, device=device)
    load_parameters(file, dict(classifier.head.named_parameters()))
    found = probe_logits(classifier, tokenizer)
    if not are_close(found, parse_json(metadata.get("logits", "0"), path)):
        raise ValueError(
            f"{path} was trained on another {name} than the one that is here: "
            f"train again, `{COMMAND}`"
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

    Returns the classifier, and whether it could be saved. Raises OSError before it
    trains if it cannot be.

    The seed draws the new output layer and the order of the batches. The split of the
    messages stays, so that filters of different seeds are tested on the same ones.
    """
    check_can_save(SAVED)
    device = pick_device()
    fast_math(device)
    classifier, tokenizer, name = create_classifier(name, seed=seed, device=device)
    check_can_save(SAVED, size_in_bytes(classifier.head.parameters()))
    parts = split_messages(load_messages())
    start = time.perf_counter()
    loaders = create_loaders(classifier, tokenizer, parts[:3], device, seed)
    print(f"trunk: {time.perf_counter() - start:.0f} s, once for all epochs")
    train_head(classifier.head, *loaders[:2], device)
    accuracy = calc_accuracy_loader(loaders[2], classifier.head, device)
    seconds = time.perf_counter() - start
    print(f"test accuracy {accuracy:.1%}; {seconds:.0f} s with trunk and training")
    trained = classifier, tokenizer, name
    is_kept = save_or_fall_back(SAVED, lambda path: save_classifier(path, *trained))
    if is_kept:
        say(f"wrote {one_line(SAVED)}")
    return classifier, is_kept


def classify_texts(texts):
    """Print the probability of spam of each text, with the filter that was saved.

    Raises ValueError in the end if some could not be judged.
    """
    device = pick_device()
    classifier, tokenizer = load_classifier(device=device)
    faults = []
    for number, text in enumerate(texts, 1):
        try:
            probability = spam_probability(text, classifier, tokenizer, device)
        except ValueError as error:
            faults.append(f"message {number} was not judged: {error}")
            say(faults[-1])
            continue
        answer = "spam" if probability > 0.5 else "not spam"
        say(f"{answer:8} {probability:6.1%}  {one_line(text, longest=2000)}")
    if faults:
        raise ValueError(
            f"{len(faults)} of {len(texts)} messages could not be judged: {faults[0]}"
        )


def asked_texts(arguments):
    """The messages to judge: arguments and lines of a file, else standard input's."""
    texts = list(arguments.texts)
    if arguments.file:
        texts += lines_of(one_line(arguments.file), read_text(arguments.file))
    return texts or lines_of("standard input", read_standard_input())


def lines_of(name, text):
    """The lines of a text that are not blank; ValueError, with its name, for none."""
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        raise ValueError(f"{name} holds no message: one is expected on each line")
    return lines


def read_standard_input():
    """The text that comes in, UTF-8 as in files; none if nothing is connected."""
    stream = getattr(sys.stdin, "buffer", sys.stdin)
    content = stream.read() if stream else ""
    return decode("standard input", content) if isinstance(content, bytes) else content


def ask_main(words):
    """`python -m support.apps.spam_filter ask`, with these words behind it."""
    parser = argparse.ArgumentParser(
        prog=f"{COMMAND} ask",
        description="Say whether messages are spam; without any, read lines of them.",
    )
    parser.add_argument("texts", nargs="*", metavar="MESSAGE")
    parser.add_argument("--file", help="UTF-8 text, a message a line")
    with clean_exit(ValueError, FetchError, OSError):
        texts = asked_texts(parser.parse_intermixed_args(words))
        try:
            classify_texts(texts)
        except FileNotFoundError:
            sys.exit(f"no filter is trained yet: `{COMMAND}` trains one")


def train_main(words):
    """`python -m support.apps.spam_filter`, with these words behind it."""
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Train a spam filter and save it.",
        epilog=f'`{COMMAND} ask "a message"` asks it.',
    )
    parser.add_argument("--model", default="auto", help="a name of load_pretrained")
    parser.add_argument(
        "--seed",
        type=positive,
        default=123,
        help="draws the new output layer and the order of the batches",
    )
    with clean_exit(ValueError, FetchError, FloatingPointError, OSError):
        arguments = parser.parse_args(words)
        if not train_filter(arguments.model, arguments.seed)[1]:
            sys.exit("error: the filter is not where it belongs, as said above")


def main():
    """Do what the command line says: train, or ask."""
    words = sys.argv[1:]
    if words[:1] == ["ask"]:
        ask_main(words[1:])
    else:
        train_main(words)


if __name__ == "__main__":
    main()
