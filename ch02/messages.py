"""What is printed, and how commands end (a support module: used, not taught).

Whatever happens to the console of a command, its work goes on: what cannot be printed
is replaced or lost. Only Ctrl-C and a pipe that nobody reads any more end it.
"""

import os
import re
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress

from tqdm.auto import tqdm

from ch02.interrupts import STOPPED, work_to_put_away

CLOSED = 141  # exit status, likewise, when nobody reads the output any more

# What a terminal obeys or cannot show: control characters, but for tabs and line
# breaks, marks that turn the direction of writing, and halves of characters.
CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text):
    r"""Text of others, safe to print: what a terminal would obey is spelled out, \x1b.

    Line breaks and tabs stay as they are.
    """
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], str(text))


def one_line(text, longest=300):
    """A printable text in one line, cut if it is longer than `longest` characters."""
    line = printable(text).replace("\n", "\\n").replace("\t", "\\t")
    return line if len(line) <= longest else f"{line[:longest]}..."


def say(text):
    """Print a text of others at once; what the console does not have becomes `?`."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(printable(text).encode(encoding, "replace").decode(encoding), flush=True)


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
