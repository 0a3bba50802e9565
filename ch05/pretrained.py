"""Pretrained models from wherever they can be had (support: used, not taught).

`load_pretrained()` in Python. In the shell: `python -m ch05.pretrained get NAME`, and
likewise `convert NAME`, `verify NAME` and `list`.
"""

if __name__ == "__main__":
    from ch02.interrupts import stop_in_a_line

    stop_in_a_line()  # before imports that take seconds

import argparse
import json
import os
from dataclasses import dataclass
from itertools import chain

from torch import nn

from ch02.dataset import load_text
from ch02.fetch import FetchError, is_offline
from ch02.messages import ending_in_a_line, say
from ch05.certificate import CertificateError, fixed_logits
from ch05.checkpoint import save_model
from ch05.remote_files import is_fault
from ch05.sources import DESCRIPTIONS, SOURCES, Converted
from ch05.training import create_train_val_loaders, evaluate_model

PREFERRED = (
    "gpt2-small (124M)",
    "smollm2-135M",
    "local",
)  # what "auto" tries, in order
# The Verdict's losses, training and validation part (the book's exercises 5.5 and 5.6)
VERDICT_LOSSES = {
    "gpt2-small (124M)": (3.7548, 3.5596),
    "gpt2-xl (1558M)": (3.3046, 3.1195),
}


@dataclass
class Pretrained:
    """A model in evaluation mode, its tokenizer, and where its weights came from."""

    model: nn.Module
    tokenizer: object
    name: str
    source: str
    config: dict


def load_pretrained(name="auto", *, source="auto", device="cpu"):
    """Load a pretrained model and check it against its file: a Pretrained.

    name: "gpt2-small (124M)" or one of OpenAI's three larger ones, "smollm2-135M"
    (SmolLM2-135M-Instruct with 4-bit weights, which is already instruction-tuned),
    "local" (trained on one story, by 5.2 or `make`), or "auto" for the first of 124M,
    SmolLM2 and local that can be had. source: "auto", or the `title` of a class in
    ch05/sources.py. Prints which model it is. Raises FetchError when no source has it,
    CertificateError when the model is not what its file says.
    """
    if name == "auto":
        return load_first(PREFERRED, source, device)
    name = full_name(name)
    place, loaded = first_success(name, places(name, source), "load")
    model, tokenizer, config = loaded
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    what = f"{DESCRIPTIONS[name]}, {millions:.1f} million parameters"
    print(f"{name}: {what}, from source: {place.title}")
    return Pretrained(model.to(device), tokenizer, name, place.title, config)


def load_first(names, source, device):
    """Load the first of several models that can be had; say why not those before it."""
    names = [name for name in names if source in ("auto", *titles(name))] or names
    for name in names[:-1]:
        try:
            return load_pretrained(name, source=source, device=device)
        except FetchError:
            say(f"{name} cannot be had: {brief(name)}")
    return load_pretrained(names[-1], source=source, device=device)


def brief(name):
    """Why a model for which there is a substitute was not had."""
    found = [fault.strip() for fault in faults(places(name))]
    if damaged := [fault for fault in found if fault.startswith("damaged")]:
        return "; ".join(damaged)
    if is_offline():
        return "not here, and LLMS_OFFLINE forbids fetching it"
    return f"`python -m ch05.pretrained get {name.split()[0]}` says why"


def full_name(name):
    """A model's full name: "gpt2-small" will do for "gpt2-small (124M)"."""
    for known in SOURCES:
        if name in (known, known.split()[0]):
            return known
    raise ValueError(f"unknown model {name!r}: there are {', '.join(SOURCES)}")


def titles(name):
    """What the sources of a model are called."""
    return [place.title for place in SOURCES[name]]


def places(name, source="auto"):
    """The sources of a model, those first whose files are here."""
    found = [place(name) for place in SOURCES[name] if source in ("auto", place.title)]
    if not found:
        there_are = ", ".join(titles(name))
        raise ValueError(f"{name} has no source {source!r}: there are {there_are}")
    return sorted(found, key=lambda place: not place.is_here())


def first_success(name, sources, action):
    """`get` or `load` from the first source that can: (source, what it returned)."""
    failures = []
    for place in sources:
        try:
            return place, getattr(place, action)()
        except FetchError as error:
            failures += [f"from {place.title}: {error}", *faults([place])]
    raise FetchError(f"{name} cannot be had.\n" + "\n".join(failures))


def faults(sources):
    """A line for each file of these sources that is missing or damaged."""
    states = [state for place in sources for state in place.states()]
    return [f"  {state}: {path}" for path, state in states if is_fault(state)]


def get(name):
    """Fetch a model's files from the first source that has them whole."""
    place, path = first_success(name, places(name), "get")
    say(f"{name} is here: {path}")
    if unchecked := place.unchecked():
        say(
            f"No sha256 is publicly known of {', '.join(unchecked)}: only sizes were "
            f"compared. `python -m ch05.pretrained verify {name.split()[0]}` tests "
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
    command = f"python -m ch05.pretrained get {name.split()[0]}"
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
        prog="python -m ch05.pretrained", description=__doc__.splitlines()[0]
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
