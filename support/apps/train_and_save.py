"""What training the spam filter and training the assistant have in common."""

import hashlib
import sys
import time

import torch

from support.commands import clean_exit, positive
from support.device.device import fast_math, pick_device
from support.download.fetch import FetchError
from support.messages import one_line, say
from support.weights.pretrained import load_pretrained
from support.weights.saving import (
    check_can_save,
    save_or_fall_back,
    size_in_bytes,
)


def train_and_save(path, name, adapt, train, save):
    """Fine-tune a pretrained model and save it: (model, seconds, is_saved).

    adapt(pretrained) returns the model to train, train(model, tokenizer, device) trains
    it, and save(path, model, name) writes it. Raises OSError before the training if
    `path` cannot be written. If that fails after the training, is_saved is False: the
    model is saved in another folder if possible, and a message says where.
    """
    check_can_save(path)
    device = pick_device()
    fast_math(device)
    pretrained = load_pretrained(name, device=device)
    model = adapt(pretrained)
    trainable = [p for p in model.parameters() if p.requires_grad]
    check_can_save(path, size_in_bytes(trainable))
    start = time.perf_counter()
    train(model, pretrained.tokenizer, device)
    seconds = time.perf_counter() - start
    is_saved = save_or_fall_back(path, lambda path: save(path, model, pretrained.name))
    return model, seconds, is_saved


def run_training_command(parser, path, train):
    """Read the command line, call train(path, name of a model, seed), and report.

    train returns what `train_and_save` returns.
    """
    names = "pretrained model, as in `python -m support.weights list` (default auto)"
    parser.add_argument("--model", default="auto", help=names)
    draws = "random seed of the new weights and the order of the batches (default 123)"
    parser.add_argument("--seed", type=positive, default=123, help=draws)
    with clean_exit(ValueError, FetchError, FloatingPointError, OSError):
        args = parser.parse_args()
        _, seconds, is_saved = train(path, args.model, args.seed)
        say(f"{seconds:.0f} s of training")
        if not is_saved:
            sys.exit(
                "error: the model was not saved to its usual file; the messages above "
                "say why"
            )
        say(f"wrote {one_line(path)}")


def fingerprint(model):
    """A hash that tells pretrained models apart, with or without LoRA layers.

    It covers the first numbers of each parameter, rounded to bfloat16, because the
    frozen parameters of an assistant may be stored in that dtype.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if ".lora." not in name:
            few = parameter.detach().flatten()[:64].to("cpu", torch.bfloat16)
            digest.update(few.float().numpy().tobytes())
    return digest.hexdigest()


def check_fingerprint(file, model, name, command):
    """Raise ValueError unless a saved file was trained on this pretrained model."""
    if file.metadata().get("fingerprint") != fingerprint(model):
        raise ValueError(
            f"{one_line(file.path)} was trained on another version of {name} than the "
            f"one that is here: run `{command}` to train again"
        )
