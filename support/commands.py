"""What the commands of the course share: how they end, and numbers on a command line.

Whatever happens to the console of a command, its work goes on: what cannot be printed
is replaced or lost. Only Ctrl-C and a pipe that nobody reads any more end it.
"""

import argparse
import os
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress

from tqdm.auto import tqdm

from support.interrupts import STOPPED, work_to_put_away
from support.messages import one_line, printable

CLOSED = 141  # exit status, likewise, when nobody reads the output any more


class Console:
    """Standard output or standard error, None if closed, that stops no work.

    Characters that it does not have become question marks. What cannot be written, to a
    full disk or a terminal that is gone, is lost. Only BrokenPipeError is raised.
    """

    def __init__(self, stream):
        self.stream = stream or nowhere()

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        """Write a text, and bring each finished line to where it goes."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        with self.losing_words():
            self.stream.write(text.encode(encoding, "replace").decode(encoding))
        if "\n" in text:
            self.flush()
        return len(text)

    def flush(self):
        """Bring what was written to where it goes."""
        with self.losing_words():
            self.stream.flush()

    @contextmanager
    def losing_words(self):
        """Lose what is said from now on if writing fails."""
        try:
            yield
        except (OSError, ValueError) as error:  # the latter if the stream was closed
            lost = nowhere()
            with suppress(OSError, ValueError):  # what waits to be written is lost too
                os.dup2(lost.fileno(), self.stream.fileno())
            self.stream = lost
            if isinstance(error, BrokenPipeError):
                raise


def nowhere():
    """A stream whose words are lost."""
    return open(os.devnull, "w", encoding="utf-8")


def occupy_standard_files():
    """Open what was closed of the files 0 to 2, or data would get their numbers.

    What libraries say to standard error would be written into those data.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def end(words, status):
    """Say a last line, as far as anyone hears it, and end with an exit status."""
    with suppress(BrokenPipeError):
        tqdm.write(one_line(words), file=sys.stderr)  # not into a progress bar
    raise SystemExit(status)


@contextmanager
def ending_in_a_line(*errors, stopped="stopped"):
    """Let a command that is stopped, or meets one of `errors`, end with one message.

    Stopped means Ctrl-C, or that nobody reads its output any more: `stopped` is said
    then, and the exit status is STOPPED or CLOSED. Other errors are raised, with
    messages that can be printed.
    """
    occupy_standard_files()
    with (
        redirect_stdout(Console(sys.stdout)),
        redirect_stderr(Console(sys.stderr)),
        work_to_put_away(),
    ):
        try:
            yield
            sys.stdout.flush()
        except BrokenPipeError:
            end(f"nobody reads the output any more: {stopped}", CLOSED)
        except KeyboardInterrupt:
            end(stopped, STOPPED)
        except errors as error:
            sys.exit(f"error: {printable(error)}")
        except Exception as error:
            error.args = tuple(
                one_line(said, longest=5000) if isinstance(said, str) else said
                for said in error.args
            )
            raise


def positive(text):
    """A whole number of at least 1, or argparse's sentence about it."""
    if text.isdecimal() and len(text) > len(str(MOST)):
        raise argparse.ArgumentTypeError(f"a number above {MOST:,} is too large")
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"{one_line(text)} is not a whole number above 0"
        )
    return int(text)


MOST = 10**12  # of whatever is counted


def replaced(old, new):
    """End the process, which a command's old name has started: say its new one."""
    sys.exit(f"`python -m {old}` is now `python -m {new}`, with the same options")
