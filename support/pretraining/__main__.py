"""`python -m support.pretraining tokenize` and `run`: more text, and more time."""

if __name__ == "__main__":
    from support.commands import exit_on_interrupt

    exit_on_interrupt()  # before imports that take seconds

import argparse

from support.commands import clean_exit
from support.download.fetch import FetchError
from support.pretraining.command_run import add_run_arguments, run_command
from support.pretraining.command_tokenize import (
    add_tokenize_arguments,
    tokenize_command,
)


def main():
    """Read the command line and turn what a reader can mend into a sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m support.pretraining", description=__doc__
    )
    commands = parser.add_subparsers(required=True)
    for name, add, command, meaning in (
        ("tokenize", add_tokenize_arguments, tokenize_command, "texts to token shards"),
        ("run", add_run_arguments, run_command, "train on shards; goes on if stopped"),
    ):
        added = commands.add_parser(name, help=meaning, description=command.__doc__)
        add(added)
        added.set_defaults(command=command)
    with clean_exit(FetchError, ValueError, FloatingPointError, OSError):
        args = parser.parse_args()
        try:
            args.command(args)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(f"the results could not be written: {error}") from None


if __name__ == "__main__":
    main()
