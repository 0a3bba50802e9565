"""Download a file from one of several mirrors, completely or not at all."""

import os
import random
import shutil
import time
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from support.checks import is_switched_on
from support.download.checked_files import CheckedFiles
from support.download.files import (
    PartialFile,
    check_regular,
    move_into_place,
    replacing,
    set_aside,
    sha256_of,
    size_of,
)
from support.download.request import (
    CorruptError,
    PermanentError,
    RequestError,
    UnreachableError,
    download,
    proxy_note,
)
from support.messages import printable, reason_of, say
from support.paths import ROOT

MAX_IDLE_ROUNDS = 5  # consecutive rounds over the mirrors without progress
MIN_GAIN = 30_000  # new bytes that count as progress
# what zipfile raises for a file that is damaged or not a zip file
BAD_ZIP = zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, ValueError
JITTER = random.SystemRandom()  # independent of the random numbers a reader seeded


class FetchError(Exception):
    """A file could not be fetched; the message says why, and what to do."""

    def __init__(self, message):
        super().__init__(printable(message))  # it quotes servers and file names


def downloads_folder():
    """Return the folder for downloads: LLMS_DOWNLOADS, or `downloads/`.

    A relative path begins at the root of the course, wherever a program is started.
    Raises ValueError if `~` cannot be expanded.
    """
    name = os.environ.get("LLMS_DOWNLOADS") or "downloads"
    try:
        return ROOT / Path(name).expanduser()
    except RuntimeError:
        raise ValueError(
            f"LLMS_DOWNLOADS is {name}, but there is no such home folder: give the "
            "full path"
        ) from None


def is_offline():
    """Return True if LLMS_OFFLINE forbids every use of the network."""
    return is_switched_on("LLMS_OFFLINE")


def fetch(urls, path, *, sha256=None, size=None, progress=True):
    """Download a file from the first of `urls` that has all of it; return its Path.

    urls: one URL, or several mirrors. sha256 (hexadecimal digits) and size (in bytes)
    are used to check it. If the complete file is already at path, no request is made.
    Another file there is renamed to `<name>.old` once the download is complete. An
    unfinished download stays in `<name>.part`, and the next call resumes it. Several
    processes may call this at once. Raises only FetchError, whose message names each
    URL and what happened.
    """
    urls = [urls] if isinstance(urls, str) else [str(url) for url in urls]
    path = Path(os.fsdecode(path))
    part = PartialFile(path, sha256 and sha256.lower(), size)
    try:
        if is_complete(path, part.sha256, size):
            return path
        for used in (path, part.path, part.source):
            check_regular(used)
        if is_offline() and not is_whole(part):
            raise FetchError(offline_message(urls, path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            # another process may have fetched it in the meantime
            if not is_complete(path, part.sha256, size):
                complete(part, urls, path, progress)
    except BrokenPipeError:
        raise  # printing failed, not the download
    except (OSError, ValueError, NotImplementedError) as error:
        raise FetchError(local_message(path, part, error)) from error
    return path


def is_complete(path, sha256, size):
    """Return True if a file exists and has the size and sha256, where known."""
    found = size_of(path)
    if found is None or size not in (None, found):
        return False
    if found == 0 and size is None and sha256 is None:
        return False  # nobody would publish an empty file
    return sha256 is None or has_sha256(path, sha256)


def has_sha256(path, sha256):
    """Return True if a file has this sha256, now or when it was checked before."""
    file = CheckedFiles(path)
    if file.have_passed(f"sha256 {sha256}"):
        return True
    if sha256_of(path) != sha256:
        return False
    file.note(f"sha256 {sha256}")
    return True


def is_whole(part):
    """Return True if a PartialFile is known to hold all of its file."""
    is_known = (part.sha256, part.size) != (None, None)
    return is_known and is_complete(part.path, part.sha256, part.size)


@contextmanager
def locked(path):
    """Let only one process at a time fetch a file."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        acquired = lock.acquire(blocking=False)
    except Timeout:
        say(f"Another process is downloading {path.name}; waiting for it.")
        acquired = lock.acquire()
    with acquired:
        yield


def complete(part, urls, path, progress):
    """Download what a PartialFile lacks, and rename it to path."""
    if not is_whole(part):
        if part.size is not None and part.length >= part.size:
            part.discard()
        check_room(part)
        MirrorDownload(urls, part, progress).run(path)
    set_aside(path)
    move_into_place(part.path, path)
    part.source.unlink(missing_ok=True)


def check_room(part):
    """Raise FetchError if the missing bytes of a PartialFile do not fit on the disk."""
    free = shutil.disk_usage(part.path.parent).free
    missing = 0 if part.size is None else part.size - part.length
    if missing > free:
        raise FetchError(
            f"{part.path.stem} needs {missing:,} more bytes, but only {free:,} are "
            f"free in {part.path.parent}. Free some space, or name another folder in "
            "LLMS_DOWNLOADS."
        )


class MirrorDownload:
    """The download of one file from several mirrors, asked in turn."""

    def __init__(self, urls, part, progress):
        self.part, self.progress = part, progress
        self.mirrors = list(dict.fromkeys(urls))  # those that may still succeed
        self.errors = {}  # the last RequestError of each URL
        self.start = self.furthest = part.length  # the most bytes that were here

    def run(self, path):
        """Ask the mirrors in rounds until the file is whole, or raise FetchError."""
        idle = 0
        while True:
            before, asked = self.furthest, self.mirrors_to_ask(idle)
            if any(self.succeeds(url) for url in asked):
                return
            idle = idle + 1 if self.furthest - before < MIN_GAIN else 0
            if idle == MAX_IDLE_ROUNDS or not self.mirrors:
                raise FetchError(failure_message(path, self.part, self.errors))
            waits = [self.errors[url].wait for url in asked]
            pause(max(*waits, JITTER.uniform(0, 2**idle / 4)))

    def mirrors_to_ask(self, idle):
        """Return the mirrors of a round: first only one that need not start again."""
        part, (origin, etag) = self.part, self.part.origin
        is_bound = part.length and etag and not part.sha256
        if is_bound and origin in self.mirrors and idle < MAX_IDLE_ROUNDS // 2:
            return [origin]
        return list(self.mirrors)

    def succeeds(self, url):
        """Ask one mirror; return True if the file is whole, else note the error."""
        part, last_error = self.part, self.errors.get(url)
        try:
            download(url, part, progress=self.progress)
            if is_complete(part.path, part.sha256, part.size):
                return True
            raise CorruptError(
                f"the {part.length:,} bytes that arrived have the wrong size or sha256"
            )
        except RequestError as raised:
            error = self.errors[url] = raised
        self.furthest = max(part.length, self.furthest)
        is_final = isinstance(error, PermanentError)
        if isinstance(error, UnreachableError):
            is_final = self.furthest == self.start  # else the network may come back
        if isinstance(error, CorruptError):
            is_final = isinstance(last_error, CorruptError)
            part.discard()
            self.furthest = 0
        if is_final:
            self.mirrors.remove(url)
        return False


def unzip_member(archive, member, path, *, sha256, size):
    """Extract a file of known size and sha256 from a zip file to path.

    Another file that is there is renamed to `<name>.old`. Raises FetchError.
    """
    try:
        check_regular(archive)
        with zipfile.ZipFile(archive) as zipped, replacing(path) as temporary:
            found = zipped.getinfo(member).file_size
            if found != size:
                raise ValueError(f"{member} in it has {found:,} bytes, not {size:,}")
            with zipped.open(member) as source, open(temporary, "wb") as target:
                shutil.copyfileobj(source, target)
            if (found := sha256_of(temporary)) != sha256:
                raise ValueError(f"{member} in it has the sha256 {found}, not {sha256}")
            set_aside(path)
    except OSError as error:
        raise FetchError(
            f"{archive} cannot be unpacked to {path}: {reason_of(error)}. Solve this "
            "problem, or name another folder in LLMS_DOWNLOADS"
        ) from None
    except BAD_ZIP as error:
        reason = str(error) or "it ends too early"
        raise FetchError(
            f"{archive} is not the expected file: {reason}. Move it away, and try again"
        ) from None


def pause(seconds):
    """Wait before the mirrors are asked again."""
    time.sleep(seconds)


def offline_message(urls, path):
    """Explain that LLMS_OFFLINE forbids a download, and what to do."""
    state = "missing" if size_of(path) is None else "damaged"
    return (
        f"{path} is {state}, and LLMS_OFFLINE forbids downloading it. Unset "
        "LLMS_OFFLINE, or save the file there yourself, from:\n  " + "\n  ".join(urls)
    )


def failure_message(path, part, errors):
    """Name each URL, what happened there, what was saved, and what to do."""
    tried = "".join(
        f"  {url}\n    {error}{proxy_note(url)}\n" for url, error in errors.items()
    )
    return (
        f"could not download {path.name}. Tried:\n{tried}{saved_note(part)}Run this "
        f"again later, or download the file in another way and save it as {path}."
    )


def local_message(path, part, error):
    """Explain why a file could not be written, and what to do."""
    reason = getattr(error, "strerror", None) or error
    return (
        f"{path.name} cannot be saved in {path.parent}: {reason}. {saved_note(part)}"
        "Solve this problem, or name another folder in LLMS_DOWNLOADS."
    )


def saved_note(part):
    """Say how many bytes the next call will not download again, if any."""
    if not part.length or not (part.sha256 or part.origin[1]):
        return ""
    return (
        f"{part.length:,} bytes are saved in {part.path}; the next run resumes the "
        "download.\n"
    )
