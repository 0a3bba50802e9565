"""Download, convert, check and list pretrained models.

`python -m support.weights get NAME`, and likewise `convert NAME`, `verify NAME` and
`list`.
"""

if __name__ == "__main__":
    from support.commands import exit_on_interrupt

    exit_on_interrupt()  # before imports that take seconds

import argparse
import json
import os

from support.commands import clean_exit
from support.download.fetch import FetchError
from support.messages import say
from support.weights.checkpoint import save_model
from support.weights.parity import fixed_logits
from support.weights.pretrained import (
    find_sources,
    full_name,
    list_faults,
    try_sources,
)
from support.weights.sources import DESCRIPTIONS, SOURCES, Converted


def get(name):
    """Download a model's files from the first source that has all of them."""
    source, path = try_sources(name, find_sources(name), "get")
    say(f"{name} is here: {path}")
    if unchecked := source.unchecked():
        say(
            f"The sha256 of {', '.join(unchecked)} is not publicly known, so only the "
            f"size was checked. `python -m support.weights verify {name.split()[0]}` "
            "checks the model."
        )


def convert(name):
    """Save one of OpenAI's models in the course's own format, which loads fastest."""
    others = [each for each in find_sources(name) if not isinstance(each, Converted)]
    if len(others) == len(SOURCES[name]):
        raise ValueError(f"{name} is not one of OpenAI's models: nothing to convert")
    target = Converted(name)
    if os.path.lexists(target.path):
        raise FetchError(
            f"{target.path} is there already; move it away to write a new one"
        )
    source, (model, _, config) = try_sources(name, others, "load")
    save_model(target.path, model, config, logits=json.dumps(fixed_logits(model)))
    say(f"wrote {target.path} from source: {source.title}")


def verify(name):
    """Print whether each file is whole, missing or damaged, and check the model.

    No file is downloaded or changed.
    """
    sources = find_sources(name)
    states = {source: source.states() for source in sources}
    for path, state in sum(states.values(), []):
        say(f"{state}: {path}")
    is_damaged = any(s.startswith("damaged") for _, s in sum(states.values(), []))
    is_sound = False
    for source in sources:
        if not list_faults([source]):
            try:
                source.read()
                is_sound = True
                say(f"source {source.title}: the model matches its file")
            except FetchError as error:
                say(f"source {source.title}: {error}")
                is_damaged = True
    get_it = (
        f"`python -m support.weights get {name.split()[0]}` downloads what is missing"
    )
    if is_damaged:
        raise FetchError(
            f"some files of {name} are damaged, as printed above; nothing was changed. "
            f"Move the damaged files away; {get_it}"
        )
    if not is_sound:
        raise FetchError(f"no source of {name} has all its files; {get_it}")


def list_models():
    """Print each model, whether it is here, and which files have no known sha256."""
    unchecked = []
    for name in SOURCES:
        sources = find_sources(name)
        here = [source.title for source in sources if source.is_here()]
        where = f"here ({', '.join(here)})" if here else "not here"
        say(f"{name:20} {DESCRIPTIONS[name]}: {where}")
        unchecked += [f"{name} from {s.title}" for s in sources if s.unchecked()]
    say(
        "For some downloads no sha256 is publicly known, so they are checked by their "
        f"size and by what the model computes: {'; '.join(unchecked)}."
    )


def main():
    """Parse the command line; print one sentence about what a reader can correct."""
    parser = argparse.ArgumentParser(
        prog="python -m support.weights", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (get, convert, verify):
        help_line = command.__doc__.splitlines()[0]
        added = commands.add_parser(command.__name__, help=help_line)
        added.set_defaults(run=lambda args, run=command: run(full_name(args.name)))
        added.add_argument("name", help=", ".join(SOURCES))
    added = commands.add_parser("list", help=list_models.__doc__)
    added.set_defaults(run=lambda _: list_models())
    stopped = "stopped; what was downloaded is kept: run the same command to continue"
    with clean_exit(FetchError, ValueError, OSError, stopped=stopped):
        args = parser.parse_args()
        args.run(args)


if __name__ == "__main__":
    main()
