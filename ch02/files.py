"""Files that are whole or not there (a support module: used, not taught)."""

import hashlib
import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path

STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')


def sha256_of(path):
    """The sha256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path, sha256):
    """Raise ValueError unless the file has this sha256."""
    found = sha256_of(path)
    if found != sha256:
        raise ValueError(f"{path} is damaged: its sha256 is {found}, not {sha256}")


def move_into_place(temporary, path):
    """Give a finished file its name; it keeps it when the power fails right after."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    fsync_folder(Path(path).parent)


def fsync_folder(path):
    """Bring the names in a folder to the disk, where the system lets one do that."""
    with suppress(OSError):  # not every system lets a folder be opened
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def replacing(path):
    """Give a temporary path to write to; it becomes `path` if nothing goes wrong."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        move_into_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path, content):
    """Write bytes so that `path` holds all of them or stays as it was."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


class Part:
    """The bytes of a file that are here so far, in `<name>.part`.

    `<name>.part.source` names the URL they came from, and its ETag then. sha256 and
    size (bytes) are the whole file's, None if not known.
    """

    def __init__(self, target, sha256, size):
        self.path = target.with_name(f"{target.name}.part")
        self.source = target.with_name(f"{target.name}.part.source")
        self.sha256, self.size = sha256, size

    @property
    def length(self):
        """How many bytes are here."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def origin(self):
        """The URL of all the bytes and its strong ETag; "" for what is not known."""
        if not self.source.is_file():
            return "", ""
        text = self.source.read_text(encoding="utf-8", errors="replace")
        url, etag = [*text.split("\n"), ""][:2]
        return url, etag if STRONG_ETAG.fullmatch(etag) else ""

    def open_at(self, start, url, etag):
        """Open the file to append what `url` sends from byte `start` on."""
        if start == 0:
            self.path.write_bytes(b"")  # first, or old bytes would get the new source
            self.source.write_text(f"{url}\n{etag}\n", encoding="utf-8")
        elif url != self.origin[0]:
            self.source.unlink(missing_ok=True)
        return open(self.path, "ab")

    def discard(self):
        """Remove the bytes and the note of their source."""
        self.path.unlink(missing_ok=True)
        self.source.unlink(missing_ok=True)
