"""Pretrained models from the shell: `python -m support.weights get NAME`.

Likewise `convert NAME`, `verify NAME` and `list`.
"""

if __name__ == "__main__":
    from support.interrupts import stop_in_a_line

    stop_in_a_line()  # before imports that take seconds

import argparse
import json
import os
from itertools import chain

from ch02.dataset import load_text
from ch05.training import create_train_val_loaders, evaluate_model
from support.commands import ending_in_a_line
from support.download.fetch import FetchError
from support.messages import say
from support.weights.checkpoint import save_model
from support.weights.parity import CertificateError, fixed_logits
from support.weights.pretrained import faults, first_success, full_name, places
from support.weights.sources import DESCRIPTIONS, SOURCES, Converted

# The Verdict's losses, training and validation part (the book's exercises 5.5 and 5.6)
VERDICT_LOSSES = {
    "gpt2-small (124M)": (3.7548, 3.5596),
    "gpt2-xl (1558M)": (3.3046, 3.1195),
}


def get(name):
    """Fetch a model's files from the first source that has them whole."""
    place, path = first_success(name, places(name), "get")
    say(f"{name} is here: {path}")
    if unchecked := place.unchecked():
        say(
            f"No sha256 is publicly known of {', '.join(unchecked)}: only sizes were "
            f"compared. `python -m support.weights verify {name.split()[0]}` tests "
            "the model."
        )


def convert(name):
    """Write one of OpenAI's models as `save_model` does: it loads fastest."""
    others = [place for place in places(name) if not isinstance(place, Converted)]
    if len(others) == len(SOURCES[name]):
        raise ValueError(f"{name} is not one of OpenAI's models: nothing to convert")
    target = Converted(name)
    if os.path.lexists(target.path):
        raise FetchError(
            f"{target.path} is there already; move it away to write it anew"
        )
    place, (model, _, config) = first_success(name, others, "load")
    save_model(target.path, model, config, logits=json.dumps(fixed_logits(model)))
    say(f"wrote {target.path} from source: {place.title}")


def verify(name):
    """Say of each file whether it is whole, missing or damaged; test the model.

    No model's file is fetched or changed.
    """
    states = {place: place.states() for place in places(name)}
    for path, state in chain(*states.values()):
        say(f"{state}: {path}")
    is_damaged = any(s.startswith("damaged") for _, s in chain(*states.values()))
    model = None
    for place in states:
        if not faults([place]):
            try:
                model, _, _ = place.read()
                say(f"source {place.title}: the model computes what its file says")
            except FetchError as error:
                say(f"source {place.title}: {error}")
                is_damaged = True
    if model and name in VERDICT_LOSSES:
        verify_losses(name, model)
    command = f"python -m support.weights get {name.split()[0]}"
    get_it = f"`{command}` fetches what is missing"
    if is_damaged:
        raise FetchError(
            f"not all of {name} is sound, as said above; nothing was changed. Move "
            f"what is damaged away; {get_it}"
        )
    if not model:
        raise FetchError(f"no source of {name} is whole; {get_it}")


def verify_losses(name, model):
    """Compare a model's loss on The Verdict with the one the book gives."""
    try:
        text = load_text("the-verdict")
    except FetchError:
        print("not compared: the loss on The Verdict, which cannot be had")
        return
    loaders = create_train_val_loaders(text, context_length=256)
    found = evaluate_model(model, *loaders, device="cpu", eval_iter=None)
    for part, loss, known in zip(
        ("training", "validation"), found, VERDICT_LOSSES[name]
    ):
        print(f"loss on The Verdict, {part} part: {loss:.4f}, in the book {known:.4f}")
        if abs(loss - known) > 0.005:
            raise CertificateError(f"{name} is not the book's: the losses differ")


def list_models():
    """Print each model and whether it is here, and which have no known sha256."""
    unchecked = []
    for name in SOURCES:
        sources = places(name)
        here = [place.title for place in sources if place.is_here()]
        where = f"here: {', '.join(here)}" if here else "not here"
        say(f"{name:20} {DESCRIPTIONS[name]}: {where}")
        unchecked += [f"{name} from {p.title}" for p in sources if p.unchecked()]
    say(
        "No sha256 is publicly known, so that a download is checked by its size and by "
        f"what the model computes, of: {'; '.join(unchecked)}."
    )


def main():
    """Read the command line; turn what a reader can mend into a sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m support.weights", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (get, convert, verify):
        help_line = command.__doc__.splitlines()[0]
        added = commands.add_parser(command.__name__, help=help_line)
        added.add_argument("name", help=", ".join(SOURCES))
    commands.add_parser("list", help=list_models.__doc__)
    stopped = "stopped; what came of a file is kept, and the same command goes on"
    with ending_in_a_line(FetchError, ValueError, OSError, stopped=stopped):
        args = parser.parse_args()
        if args.command == "list":
            list_models()
        else:
            {"get": get, "convert": convert, "verify": verify}[args.command](
                full_name(args.name)
            )


if __name__ == "__main__":
    main()
