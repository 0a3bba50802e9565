"""Ctrl-C while a command begins and ends (a support module: used, not taught).

A command imports it before all else, so it imports nothing that takes long.
"""

import os
import signal
from contextlib import contextmanager, suppress

STOPPED = 130  # exit status after Ctrl-C: 128 and the signal's number, as in shells


def stop_in_a_line():
    """Let Ctrl-C end this process at once, in a line, until its work begins."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)


def stop(*_):
    """End the process; there is nothing to put away yet, or nothing any more."""
    with suppress(OSError):
        os.write(2, b"stopped\n")
    os._exit(STOPPED)


@contextmanager
def work_to_put_away():
    """Let Ctrl-C be a KeyboardInterrupt again in the `with` block."""
    if signal.getsignal(signal.SIGINT) is not stop:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, stop)
