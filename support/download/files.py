"""Write files completely or not at all, and read them or explain what is wrong."""

import codecs
import hashlib
import json
import os
import re
import secrets
import stat
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from support.messages import one_line, say

STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')
TEMPORARY = re.compile(r"(.+)\.[0-9a-f]{16}\.tmp")  # what `temporary_path` returns
UTF_16_MARKS = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE
FILE_TYPES = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def check_regular(path):
    """Raise ValueError if path is a folder, a pipe, a socket or a device.

    Reading one of those could block forever. The path may also not exist at all.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except ValueError as error:
        raise ValueError(f"{one_line(path)} is not a file name: {error}") from None
    if not stat.S_ISREG(mode):
        found = FILE_TYPES.get(stat.S_IFMT(mode), "a device")
        raise ValueError(
            f"{one_line(path)} is {found}, and a file is expected there: move it away "
            "or give another name"
        )


def size_of(path):
    """Return the size of a file in bytes, or None if there is no readable file."""
    with suppress(OSError, ValueError):
        check_regular(path)
        return os.stat(path).st_size
    return None


def sha256_of(path):
    """Return the sha256 of a file as hexadecimal digits."""
    check_regular(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path, sha256, size=None):
    """Raise ValueError unless the file has this sha256 and, if given, this size."""
    fault = ""
    if size is not None and size_of(path) not in (None, size):
        fault = f"it has {size_of(path):,} bytes, not {size:,}"
    elif (found := sha256_of(path)) != sha256:
        fault = f"its sha256 is {found}, not {sha256}"
    if fault:
        raise ValueError(
            f"{one_line(path)} is damaged: {fault}. Put the right file there, or move "
            "this one away"
        )


def read_text(path):
    r"""Return the text of a UTF-8 file without byte order mark; all lines end in "\n".

    Raises ValueError, with the name of the file and, if possible, the line number.
    """
    path = os.fsdecode(path)
    try:
        check_regular(path)
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{one_line(path)} cannot be read: {error.strerror}") from None
    return decode(one_line(path), content)


def decode(name, content):
    """Decode the bytes of the file `name` as `read_text` does."""
    check_encoding(name, content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + content.count(b"\n", 0, error.start)
        raise ValueError(
            f"{name}, line {line}: the byte {content[error.start]:#04x} is not UTF-8 "
            "text; save the file as UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_encoding(name, content):
    """Raise ValueError for UTF-16 text, with a byte order mark or without."""
    start, encoding = content[:1000], ""
    if start.count(0) > len(start) // 4:
        encoding = "not text, or it is UTF-16"
    if start.startswith(UTF_16_MARKS):
        encoding = "UTF-16"
    if encoding:
        raise ValueError(f"{name} is {encoding} text; save it as UTF-8")


def read_json(path):
    """Return the content of a JSON file; a list, if it is a JSON Lines file.

    Raises ValueError with the name of the file and the line number.
    """
    name, text = one_line(os.fsdecode(path)), read_text(path)
    if not text.strip():
        raise ValueError(f"{name} is empty, but it must contain JSON")
    try:
        return parse_json(text, name)
    except ValueError as error:
        if "Extra data" not in str(error):
            raise
    lines = enumerate(text.split("\n"), 1)
    return [parse_json(line, name, number) for number, line in lines if line.strip()]


def parse_json(text, name, first_line=1):
    """Parse JSON that begins at first_line of the file `name`; may raise ValueError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise ValueError(f"{name}, line {line} is not JSON: {error.msg}") from None
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply to be read") from None
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{name} cannot be read: {error}") from None


def make_folder(path):
    """Create a folder unless it exists; raise ValueError if a file has its name."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(
            f"the folder {path} cannot be created, because it or one of its parent "
            "folders is a file. Name another folder"
        ) from None


def set_aside(path):
    """Rename the file or folder at path to `<name>.old`, and print that.

    The reader may have put it there, so it is not deleted. An empty file stays: it is
    not worth keeping.
    """
    path = Path(path)
    if not os.path.lexists(path) or size_of(path) == 0:
        return
    names = (path.with_name(f"{path.name}.old{number or ''}") for number in count())
    old = next(name for name in names if not os.path.lexists(name))
    os.rename(path, old)
    say(f"{path} was not the expected file. It was renamed to {old.name}.")


def temporary_path(path):
    """Return a new name beside path for a file that is still being written."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")


@contextmanager
def replacing(path):
    """Yield a temporary path to write to, and rename it to path at the end.

    After an error, path is what it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        move_into_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path, content):
    """Write bytes so that path holds all of them or stays as it was.

    Raises OSError, with the name of path.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def move_into_place(temporary, path):
    """Rename a complete file to path, so that it is there after a power failure too."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    fsync_folder(Path(path).parent)


def fsync_folder(path):
    """Write the names in a folder to the disk, if the system supports that."""
    with suppress(OSError):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_temporaries(folder, names):
    """Remove the temporary files that killed processes left in a folder.

    names: a pattern of the files that they were writing. No other file is touched.
    """
    for entry in Path(folder).iterdir():
        match = TEMPORARY.fullmatch(entry.name)
        if match and names.fullmatch(match[1]) and entry.is_file():
            entry.unlink()


def check_writable(path, num_bytes):
    """Raise OSError unless a file of num_bytes bytes can be written at path.

    A temporary file of that size is written, synced and removed.
    """
    temporary = temporary_path(Path(path))
    try:
        with open(temporary, "wb") as file:
            allocate(file, num_bytes)
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def allocate(file, num_bytes):
    """Fill an open, empty file with num_bytes bytes."""
    if num_bytes and hasattr(os, "posix_fallocate"):  # macOS lacks it
        os.posix_fallocate(file.fileno(), 0, num_bytes)
        return
    for start in range(0, num_bytes, 2**20):
        file.write(bytes(min(2**20, num_bytes - start)))
    file.flush()


class PartialFile:
    """The bytes of a file that were downloaded so far, in `<name>.part`.

    `<name>.part.source` holds the URL they came from and its ETag at that time. sha256
    and size (in bytes) are those of the complete file, None if they are not known.
    """

    def __init__(self, target, sha256, size):
        self.path = target.with_name(f"{target.name}.part")
        self.source = target.with_name(f"{target.name}.part.source")
        self.sha256, self.size = sha256, size

    @property
    def length(self):
        """How many bytes were downloaded so far."""
        return size_of(self.path) or 0

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
            self.path.write_bytes(b"")  # before the new source is noted
            self.source.write_text(f"{url}\n{etag}\n", encoding="utf-8")
        elif url != self.origin[0]:
            self.source.unlink(missing_ok=True)
        return open(self.path, "ab")

    def discard(self):
        """Remove the bytes and the note of their source."""
        self.path.unlink(missing_ok=True)
        self.source.unlink(missing_ok=True)
