"""How the commands of the course end, and the numbers that they accept.

A command continues whatever happens to its console: what cannot be printed is replaced
or dropped. Only Ctrl-C and a closed pipe end it. Commands call `exit_on_interrupt`
before they import anything that takes long, so this module imports no such thing.
"""

import argparse
import os
import signal
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress

from support.messages import encodable, one_line, printable, reason_of

INTERRUPTED = 130  # exit status after Ctrl-C: 128 plus the number of the signal
BROKEN_PIPE = 141  # likewise, when nobody reads the output any more
MAX_COUNT = 10**12


def exit_on_interrupt():
    """Let Ctrl-C end this process at once with one line, except in `clean_exit`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, exit_interrupted)


def exit_interrupted(*_):
    """End the process at once: there is nothing to save yet, or nothing any more."""
    with suppress(OSError):
        os.write(2, b"stopped\n")
    os._exit(INTERRUPTED)


@contextmanager
def raising_keyboard_interrupt():
    """Let Ctrl-C raise KeyboardInterrupt again in the `with` block."""
    if signal.getsignal(signal.SIGINT) is not exit_interrupted:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, exit_interrupted)


class Console:
    """Standard output or standard error (None if closed) that never stops the work.

    Characters that it cannot encode become question marks. What cannot be written, for
    example to a full disk, is dropped. Only BrokenPipeError is raised.
    """

    def __init__(self, stream):
        self.stream = stream or null_stream()

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        """Write a text, and flush after each finished line."""
        with self.dropping_output():
            self.stream.write(encodable(text, self.stream))
        if "\n" in text:
            self.flush()
        return len(text)

    def flush(self):
        """Pass on what was written."""
        with self.dropping_output():
            self.stream.flush()

    @contextmanager
    def dropping_output(self):
        """Drop this and all later output if writing fails."""
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError if the stream is closed
            null = null_stream()
            with suppress(OSError, ValueError):  # also what is still buffered
                os.dup2(null.fileno(), self.stream.fileno())
            self.stream = null
            if isinstance(error, BrokenPipeError):
                raise


def null_stream():
    """Return a stream that drops what is written to it."""
    return open(os.devnull, "w", encoding="utf-8")


def open_standard_files():
    """Open those of the file descriptors 0 to 2 that are closed.

    Otherwise libraries would write their messages into a data file with such a number.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def exit_with(message, status):
    """Print a last line, if anyone still reads it, and exit."""
    from tqdm.auto import tqdm

    with suppress(BrokenPipeError):
        tqdm.write(one_line(message), file=sys.stderr)  # not into a progress bar
    raise SystemExit(status)


@contextmanager
def clean_exit(*errors, stopped="stopped"):
    """Turn an interruption, or one of `errors`, in a command into one line and exit.

    After Ctrl-C or a closed pipe, that line is `stopped`, and the exit status
    INTERRUPTED or BROKEN_PIPE. Other errors are raised, with printable messages.
    """
    open_standard_files()
    with (
        redirect_stdout(Console(sys.stdout)),
        redirect_stderr(Console(sys.stderr)),
        raising_keyboard_interrupt(),
    ):
        try:
            yield
            sys.stdout.flush()
        except BrokenPipeError:
            exit_with(f"nobody reads the output any more: {stopped}", BROKEN_PIPE)
        except KeyboardInterrupt:
            exit_with(stopped, INTERRUPTED)
        except errors as error:
            sys.exit(f"error: {printable(reason_of(error))}")
        except Exception as error:
            texts = (one_line(a, 5000) if isinstance(a, str) else a for a in error.args)
            error.args = tuple(texts)
            raise


def positive(text):
    """Convert a command-line option to a whole number from 1 to MAX_COUNT."""
    is_long = len(text) > len(str(MAX_COUNT))  # int refuses thousands of digits
    if text.isdecimal() and (is_long or int(text) > MAX_COUNT):
        raise argparse.ArgumentTypeError(
            f"the number is too large; it must be at most {MAX_COUNT:,}"
        )
    if not text.isdecimal() or int(text) < 1:
        message = f"{one_line(text)} is not a whole number above 0"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def fraction(text):
    """Convert a command-line option to a number of at least 0 and below 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(
            f"{one_line(text)} is not a number of at least 0 and below 1"
        )
    return value


def exit_renamed(old, new):
    """Exit with the new name of a command that was started by its old name."""
    sys.exit(f"`python -m {old}` is now `python -m {new}`, with the same options")
