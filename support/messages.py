"""Print text that comes from others, for example from files and servers, safely."""

import re
import sys

# What a terminal obeys or cannot show: control characters except tab and line break,
# marks that change the direction of writing, and halves of surrogate pairs.
CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text):
    r"""Replace the control characters of a text by their escapes, for example \x1b.

    Line breaks and tabs stay as they are.
    """
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], str(text))


def one_line(text, longest=300):
    """Return a printable text in one line, cut after `longest` characters."""
    line = printable(text).replace("\n", "\\n").replace("\t", "\\t")
    return line if len(line) <= longest else f"{line[:longest]}..."


def reason_of(error):
    """Return what an error says; an OSError says it without its number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    file = "" if error.filename is None else f"{error.filename}: "
    return f"{file}{error.strerror}"


def encodable(text, stream):
    """Replace the characters that a stream cannot encode by `?`."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def say(text):
    """Print a text safely and at once."""
    print(encodable(printable(text), sys.stdout), flush=True)
