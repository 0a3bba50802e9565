"""What is printed, and how commands end (a support module: used, not taught).

Whatever happens to the console of a command, its work goes on: what cannot be printed
is replaced or lost. Only Ctrl-C and a pipe that nobody reads any more end it.
"""

import re
import sys

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
