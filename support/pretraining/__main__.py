"""Pretrain a GPT on your own texts.

`python -m support.pretraining tokenize` writes texts as token ids; `run` trains a model
on them. If a command is stopped, run it again, and it continues where it stopped.
"""

if __name__ == "__main__":
    from support.commands import exit_on_interrupt

    exit_on_interrupt()  # before imports that take seconds

import argparse
import sys
from contextlib import contextmanager

import torch
from filelock import Timeout

from support.commands import clean_exit
from support.download.fetch import FetchError
from support.messages import reason_of
from support.pretraining.command_run import add_run_arguments, run_command
from support.pretraining.command_tokenize import (
    add_tokenize_arguments,
    tokenize_command,
)

PROGRAM = "python -m support.pretraining"
COMMANDS = {
    "tokenize": (add_tokenize_arguments, tokenize_command),
    "run": (add_run_arguments, run_command),
}
ERRORS = FetchError, ValueError, FloatingPointError, OSError
STOPPED_MESSAGE = "stopped; run the same command again to continue"
CONTINUE = "Solve this problem and run the same command again to continue"


def main():
    """Read the command line and call the command's function."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("command", choices=COMMANDS, help="`COMMAND --help` says more")
    with clean_exit(*ERRORS, stopped=STOPPED_MESSAGE):
        name = parser.parse_args(sys.argv[1:2]).command
        add_arguments, command = COMMANDS[name]
        parser = argparse.ArgumentParser(f"{PROGRAM} {name}", None, command.__doc__)
        add_arguments(parser)
        args = parser.parse_intermixed_args(sys.argv[2:])
        with explaining_errors(args.folder):
            command(args)


@contextmanager
def explaining_errors(folder):
    """Let errors in the `with` block that a reader can solve say how."""
    try:
        yield
    except BrokenPipeError:  # nobody reads the output any more
        raise
    except Timeout:
        raise ValueError(
            f"another process is writing to {folder}: wait for it, stop it, or name "
            "another folder"
        ) from None
    except OSError as error:
        reason = reason_of(error)
        raise OSError(f"the work in {folder} stopped: {reason}. {CONTINUE}") from error
    except (MemoryError, RuntimeError) as error:
        is_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not is_memory and "can't allocate memory" not in str(error):
            raise
        raise ValueError(
            "there is not enough memory: close other programs or, with `run`, split "
            f"batches into more parts (--num-parts). {CONTINUE}"
        ) from error


if __name__ == "__main__":
    main()
