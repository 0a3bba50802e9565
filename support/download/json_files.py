"""Small dicts on disk, with their own sha256 (a support module: used, not taught)."""

import hashlib
import json

from support.download.files import read_json, size_of, write_atomically
from support.messages import one_line

MOST_BYTES = 2**28  # of a file that is read as a whole


def read_small_json(path):
    """What a JSON file of at most MOST_BYTES bytes holds.

    Raises ValueError for what is missing, damaged, larger, or no regular file.
    """
    size = size_of(path)
    if size is None:
        raise ValueError(f"{one_line(path)} is missing, or it is not a regular file")
    if size > MOST_BYTES:
        raise ValueError(f"{one_line(path)} is damaged: it has {size:,} bytes")
    return read_json(path)


def content_sha256(content):
    """The sha256 of a dict as JSON, as hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_sealed(path, content):
    """Write a dict as JSON, whole or not at all, with its own sha256 in it."""
    sealed = content | {"sha256": content_sha256(content)}
    write_atomically(path, json.dumps(sealed, indent=1).encode())


def read_sealed(path, keys):
    """Read what `write_sealed` wrote, a dict with these keys and maybe others.

    Raises ValueError when the file is missing, damaged, or another one.
    """
    content = read_small_json(path)
    if not has_own_sha256(content) or not keys <= content.keys():
        raise ValueError(f"{one_line(path)} is damaged: its sha256 is not its own")
    return content


def has_own_sha256(content):
    """True for a dict with its own sha256, which is taken out of it."""
    try:
        return content.pop("sha256") == content_sha256(content)
    except (LookupError, TypeError, AttributeError, RecursionError):  # another file
        return False
