"""Small JSON files, some with their own sha256 (a support module: used, not taught)."""

import hashlib
import json
from pathlib import Path

from ch02.files import write_atomically

MOST_BYTES = 2**28  # of a file that is read as a whole


def parse_json(content):
    """Bytes or text of JSON as an object; ValueError for anything else.

    JSON has no NaN and no Infinity, and nothing a thousand brackets deep is ours.
    """
    try:
        return json.loads(content, parse_constant=refuse)
    except RecursionError:
        raise ValueError("the brackets are nested too deep") from None


def refuse(constant):
    """Raise ValueError for a constant that JSON lacks, though Python parses it."""
    raise ValueError(f"{constant} is not JSON")


def read_json(path):
    """What a JSON file holds.

    Raises ValueError for what is missing or no regular file (a folder, a pipe, a
    device), has more than MOST_BYTES bytes, or is not JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is missing, or it is not a regular file")
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{path} is damaged: it has {size:,} bytes")
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


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
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no dict")
    try:
        is_whole = content.pop("sha256", None) == content_sha256(content)
    except RecursionError:
        is_whole = False
    if not is_whole:
        raise ValueError(f"{path} is damaged: its content has another sha256")
    if missing := sorted(keys - content.keys()):
        raise ValueError(f"{path} is damaged: it has no {missing[0]}")
    return content
