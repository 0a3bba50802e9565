"""Small dicts in JSON files that contain their own sha256."""

import hashlib
import json

from support.download.files import read_json, size_of, write_atomically
from support.messages import one_line

MAX_SIZE = 2**28  # bytes of a file that is read


def read_small_json(path):
    """Return the content of a JSON file of at most MAX_SIZE bytes, or ValueError."""
    size = size_of(path)
    if size is None:
        raise ValueError(f"{one_line(path)} is missing, or it is not a regular file")
    if size > MAX_SIZE:
        raise ValueError(
            f"{one_line(path)} is damaged: it has {size:,} bytes, and at most "
            f"{MAX_SIZE:,} are expected"
        )
    return read_json(path)


def content_sha256(content):
    """Return the sha256 of a dict written as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_sealed(path, content):
    """Write a dict and its sha256 to a JSON file, completely or not at all."""
    sealed = content | {"sha256": content_sha256(content)}
    write_atomically(path, json.dumps(sealed, indent=1).encode())


def read_sealed(path, keys):
    """Return a dict that `write_sealed` wrote and that has at least these keys.

    Raises ValueError when the file is missing or damaged.
    """
    content = read_small_json(path)
    try:
        if content.pop("sha256") == content_sha256(content) and keys <= content.keys():
            return content
    except (LookupError, TypeError, AttributeError, RecursionError):
        pass  # not even a dict with a sha256
    raise ValueError(
        f"{one_line(path)} is damaged: the sha256 in it does not match its content"
    )
