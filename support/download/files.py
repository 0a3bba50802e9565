"""Files: written whole or not at all, and read or refused in a sentence (support)."""

import errno
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
TEMPORARY = re.compile(r"(.+)\.[0-9a-f]{16}\.tmp")  # the names that `replacing` gives
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# how texts in other encodings begin; UTF-32's mark begins with one of UTF-16
MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def check_regular(path):
    """Raise ValueError if a folder, a pipe or a device lies where a file is expected.

    Opening those could take for ever. Nothing at all may lie there.
    """
    try:
        kind = KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except (FileNotFoundError, NotADirectoryError):
        return
    except ValueError as error:
        raise ValueError(f"{one_line(path)} is no file's name: {error}") from None
    if kind:
        raise ValueError(
            f"{one_line(path)} is {kind}, and a file is expected there: move it away "
            "or give another name"
        )


def size_of(path):
    """The bytes of a file; None where no file is, or none that one may look at."""
    with suppress(OSError, ValueError):
        check_regular(path)
        return os.stat(path).st_size
    return None


def sha256_of(path):
    """The sha256 of a file, as hexadecimal digits."""
    check_regular(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path, sha256, size=None):
    """Raise ValueError unless the file has this sha256, and this size if it is given.

    A file of another size is not read.
    """
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
    r"""The text of a UTF-8 file, without a byte order mark; its lines end with "\n".

    Raises ValueError, with the file's name and, where there is one, the line's number,
    for what is not that.
    """
    path = os.fsdecode(path)
    name = one_line(path)
    try:
        check_regular(path)
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}") from None
    return decode(name, content)


def decode(name, content):
    """The text in the bytes of a file, as `read_text` gives it."""
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
    """Raise ValueError for bytes that are UTF-16 or UTF-32, with a mark or without."""
    forms = [form for mark, form in MARKS.items() if content.startswith(mark)]
    begin = content[:1000]
    if not forms and begin.count(0) > len(begin) // 4:
        forms = ["UTF-16, or no"]
    if forms:
        raise ValueError(f"{name} is {forms[0]} text; save it as UTF-8")


def read_json(path):
    """What a JSON file holds, or the list of what the lines of a JSON Lines file hold.

    Raises ValueError, with the file's name and the line's number, for any other file.
    """
    name, text = one_line(os.fsdecode(path)), read_text(path)
    if not text.strip():
        raise ValueError(f"{name} is empty, and JSON is expected in it")
    lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if len(lines) > 1 and is_json(lines[0][1]):
        return [parse_json(line, name, number) for number, line in lines]
    return parse_json(text, name)


def is_json(text):
    """True if a text is JSON."""
    with suppress(ValueError):
        parse_json(text, "")
        return True
    return False


def parse_json(text, name, number=1):
    """JSON in the file `name`, from line `number` on; ValueError says what is wrong."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = number + error.lineno - 1
        raise ValueError(f"{name}, line {line} is not JSON: {error.msg}") from None
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply to be read") from None
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{name} cannot be read: {error}") from None


def move_into_place(temporary, path):
    """Give a finished file its name; it keeps it when the power fails right after."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    fsync_folder(Path(path).parent)


def set_aside(path):
    """Rename what lies at `path` to `<name>.old` and say so; an empty file may go.

    A reader may have put it there, and nothing of a reader's is deleted.
    """
    path = Path(path)
    if not os.path.lexists(path) or size_of(path) == 0:
        return
    names = (path.with_name(f"{path.name}.old{number or ''}") for number in count())
    old = next(name for name in names if not os.path.lexists(name))
    os.rename(path, old)
    say(f"{path} was not what is expected there. It is kept as {old.name}.")


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
    temporary = temporary_path(path)
    try:
        yield temporary
        move_into_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(path):
    """Where a file is written before it gets its name; no reader has such a name."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")


def remove_temporaries(folder, names):
    """Remove what `replacing` left in a folder when a process was killed.

    names: a pattern of the files that were to be written. Nothing else is touched.
    """
    for entry in Path(folder).iterdir():
        match = TEMPORARY.fullmatch(entry.name)
        if match and names.fullmatch(match[1]) and entry.is_file():
            entry.unlink()


def write_atomically(path, content):
    """Write bytes so that `path` holds all of them or stays as it was."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def make_folder(path):
    """Make a folder, if there is none; ValueError if a file has its name."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(
            f"{path} cannot be a folder: a file has this name, or a part of it. Name "
            "another folder"
        ) from None


def check_writable(path, num_bytes):
    """Raise OSError unless num_bytes can be written to where a file is to lie.

    They are written and synced, under a name of their own, and removed again.
    """
    temporary = temporary_path(Path(path))
    try:
        with open(temporary, "wb") as file:
            fill(file, num_bytes)
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def fill(file, num_bytes):
    """Let an open file have num_bytes bytes that the disk has set aside for it."""
    with suppress(AttributeError):  # macOS does not have the function
        try:
            if num_bytes:
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    for start in range(0, num_bytes, 2**20):
        file.write(bytes(min(2**20, num_bytes - start)))
    file.flush()


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
            self.path.write_bytes(b"")  # first, or old bytes would get the new source
            self.source.write_text(f"{url}\n{etag}\n", encoding="utf-8")
        elif url != self.origin[0]:
            self.source.unlink(missing_ok=True)
        return open(self.path, "ab")

    def discard(self):
        """Remove the bytes and the note of their source."""
        self.path.unlink(missing_ok=True)
        self.source.unlink(missing_ok=True)
