"""What commands say and how they end (a support module: used, not taught).

Whatever happens to the console, the work goes on: what it cannot print is replaced or
left out. Only a pipe that was closed ends the command, as Ctrl-C does, in one line.
"""

import os
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress

from tqdm.auto import tqdm

STOPPED = (
    130  # exit status after Ctrl-C: 128 and the number of the signal, as in shells
)
CLOSED = 141  # likewise when nobody reads the output any more


def printable(text):
    r"""A text on one line, with what a terminal would obey spelled out: "\x1b[2J"."""
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape").decode()
        for character in str(text)
    )


def say(text):
    """Print a line that may hold the names of files."""
    print(printable(text), flush=True)


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
        tqdm.write(printable(words), file=sys.stderr)  # not into a progress bar
    raise SystemExit(status)


@contextmanager
def command(when_stopped="stopped"):
    """A `with` block in which a command does its work.

    Ctrl-C ends it with the status STOPPED, a closed pipe with CLOSED, and either says
    when_stopped. Other errors are raised, their messages `printable`.
    """
    occupy_standard_files()
    with redirect_stdout(Console(sys.stdout)), redirect_stderr(Console(sys.stderr)):
        try:
            yield
        except BrokenPipeError:
            end(when_stopped, CLOSED)
        except KeyboardInterrupt:
            end(when_stopped, STOPPED)
        except Exception as error:
            error.args = tuple(
                printable(said) if isinstance(said, str) else said
                for said in error.args
            )
            raise
