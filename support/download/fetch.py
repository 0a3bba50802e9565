"""Downloads that arrive whole or say why (a support module: used, not taught)."""

import errno
import os
import random
import shutil
import time
import zipfile
import zlib
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from shlex import quote

from filelock import FileLock, Timeout

from support.download.files import (
    Part,
    check_regular,
    check_sha256,
    move_into_place,
    replacing,
    set_aside,
    sha256_of,
    size_of,
)
from support.download.request import (
    Damaged,
    Failure,
    RangeRefused,
    Refused,
    Slow,
    Unreachable,
    transfer,
)
from support.messages import printable, say
from support.paths import ROOT

MOST_IDLE_ROUNDS = 5  # rounds over the mirrors that bring nothing new
MOST_ROUNDS = 100  # also when each brings a little
MUCH = 2**20  # bytes, for which a mirror is asked again at once
# what zipfile raises for a file that is damaged or no zip
BAD_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    RuntimeError,
    ValueError,
)
JITTER = random.SystemRandom()  # leaves the draws that a reader seeded alone


class FetchError(Exception):
    """A file could not be had; the message says where it was sought and what to do."""

    def __init__(self, message):
        super().__init__(printable(message))  # servers and file names speak in it


def downloads_folder():
    """Where fetched files lie: `downloads/` in the repository, or LLMS_DOWNLOADS.

    A relative folder is one in the repository, wherever a program is started; `~` is
    the reader's home. Raises ValueError when there is no such home.
    """
    named = os.environ.get("LLMS_DOWNLOADS") or "downloads"
    try:
        return ROOT / Path(named).expanduser()
    except RuntimeError:
        raise ValueError(
            f"LLMS_DOWNLOADS is {named}, and `~` stands for no folder here: give the "
            "whole path"
        ) from None


def is_offline():
    """True when LLMS_OFFLINE forbids every network call."""
    return says_offline(os.environ.get("LLMS_OFFLINE", ""))


@cache
def says_offline(value):
    """What a value of LLMS_OFFLINE means; an odd one is told, once, and means yes."""
    word = value.strip().lower()
    if word in ("", "0", "false", "no", "off"):
        return False
    if word not in ("1", "true", "yes", "on"):
        say(
            f"LLMS_OFFLINE is {value!r}, which is taken for 1: no network is used. "
            "Set it to 0, or unset it, to allow downloads."
        )
    return True


def fetch(urls, path, *, sha256=None, size=None, progress=True):
    """Fetch a file from whichever of `urls` delivers it whole; return its Path.

    urls: one, or several mirrors. sha256 (hexadecimal digits) and size (bytes) say what
    whole means. A whole file at `path` is used without a network call; another one is
    kept as `<name>.old` when a whole one has come. What a failure leaves unfinished
    lies in `<name>.part`, and the next call goes on from there. Two processes may ask
    at once. Raises FetchError, which names each URL and what happened there, and
    nothing else.
    """
    urls = [urls] if isinstance(urls, str) else [str(url) for url in urls]
    path = Path(os.fsdecode(path))
    part = Part(path, sha256 and sha256.lower(), size)
    try:
        if is_complete(path, part.sha256, size):
            return path
        for used in (path, part.path, part.source):
            check_regular(used)
        if is_offline() and size_of(part.path) is None:
            raise FetchError(offline_words(urls, path, size))
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            # another process may have been faster
            if not is_complete(path, part.sha256, size):
                complete(part, urls, path, progress)
    except BrokenPipeError:
        raise  # nobody reads what is printed: no fault of the file's
    except (OSError, ValueError, NotImplementedError) as error:
        raise FetchError(local_words(path, part, error)) from error
    return path


def is_complete(path, sha256, size):
    """True for a file that is there and has the size and sha256 that are known."""
    found = size_of(path)
    if found is None or size not in (None, found):
        return False
    if found == 0 and size is None and sha256 is None:
        return False  # nobody would publish that
    return sha256 is None or sha256_of(path) == sha256


@contextmanager
def locked(path):
    """Let one process at a time fetch a file; say so when another one does."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        say(f"Another process is fetching {path.name}; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def complete(part, urls, path, progress):
    """Fetch what `part` lacks, and give the whole file its name."""
    known = (part.sha256, part.size) != (None, None)
    if not (known and is_complete(part.path, part.sha256, part.size)):
        if is_offline():
            raise FetchError(offline_words(urls, path, part.size))
        if part.size is not None and part.length >= part.size:
            part.discard()
        check_room(part)
        Download(urls, part, progress).run(path)
    set_aside(path)
    move_into_place(part.path, path)
    part.source.unlink(missing_ok=True)


def check_room(part):
    """Raise FetchError if a file of known size will not fit on the disk."""
    free = shutil.disk_usage(part.path.parent).free
    lacking = 0 if part.size is None else part.size - part.length
    if lacking > free:
        raise FetchError(
            f"{part.path.stem} needs {lacking:,} bytes more, and {free:,} are free in "
            f"{part.path.parent}. Make room, or name another folder in LLMS_DOWNLOADS."
        )


class Download:
    """The way of one file through its mirrors."""

    def __init__(self, urls, part, progress):
        self.part, self.progress = part, progress
        self.mirrors = list(dict.fromkeys(urls))  # those still in play
        self.said = {}  # what went wrong at each URL last
        self.whole_only, self.restarted = set(), set()
        self.reached = part.length
        self.gained = 0  # bytes never reached before, in this call

    def run(self, path):
        """Go round the mirrors until one delivers; raise FetchError if none does."""
        idle = 0
        for _ in range(MOST_ROUNDS):
            before, turn = self.gained, self.in_turn(idle)
            if any(self.delivers(url) for url in turn):
                return
            all_slow = all(isinstance(self.said[url], Slow) for url in turn)
            idle = idle + 1 if all_slow or self.gained == before else 0
            if idle == MOST_IDLE_ROUNDS or not self.mirrors:
                break
            waits = [self.said[url].wait for url in turn]
            pause(max(*waits, JITTER.uniform(0, 2**idle / 4)))
        raise FetchError(failure_words(path, self.part, self.said))

    def in_turn(self, idle):
        """The mirrors to ask in a round: at first only one that need not start anew."""
        part, (origin, etag) = self.part, self.part.origin
        is_bound = etag and not part.sha256 and part.length >= MUCH
        if is_bound and origin in self.mirrors and idle < MOST_IDLE_ROUNDS // 2:
            return [origin]
        return list(self.mirrors)

    def delivers(self, url):
        """Ask a mirror, and again at once while that promises more; True when done."""
        while True:
            before = self.gained
            try:
                self.attempt(url)
                return True
            except Failure as failure:
                self.said[url] = failure
                if self.is_final(failure):
                    self.mirrors.remove(url)
                    return False
                if not isinstance(failure, Damaged) and self.gained < before + MUCH:
                    return False

    def is_final(self, failure):
        """True when the mirror is out; a network that brought bytes may come back."""
        if isinstance(failure, Unreachable):
            return self.gained == 0
        return isinstance(failure, Refused)

    def attempt(self, url):
        """Make one request; a Failure says why the bytes here are not the file yet."""
        part = self.part
        try:
            self.receive(url)
            if not is_complete(part.path, part.sha256, part.size):
                raise Damaged(f"the {part.length:,} bytes that came are not the file's")
        except RangeRefused:
            self.whole_only.add(url)
            raise
        except Damaged as failure:
            part.discard()
            self.reached = 0
            if url in self.restarted:
                raise Refused(str(failure)) from failure
            self.restarted.add(url)
            raise

    def receive(self, url):
        """Make one request, and count the bytes that are new."""
        whole = url in self.whole_only
        self.whole_only.discard(url)
        try:
            transfer(url, self.part, whole=whole, progress=self.progress)
        finally:
            new = max(0, self.part.length - self.reached)
            self.gained += new
            self.reached += new


def unzip_member(archive, member, path, *, sha256, size):
    """Write one member of a zip file to `path`, if it has the known size and sha256.

    Another file that lies there is kept as `<name>.old`. Raises FetchError.
    """
    try:
        check_regular(archive)
        with zipfile.ZipFile(archive) as zipped, replacing(path) as temporary:
            found = zipped.getinfo(member).file_size
            if found != size:
                raise ValueError(f"it holds {found:,} bytes, not {size:,}")
            with zipped.open(member) as source, open(temporary, "wb") as target:
                shutil.copyfileobj(source, target)
            check_sha256(temporary, sha256)
            set_aside(path)
    except OSError as error:
        raise FetchError(f"{archive} cannot be unpacked to {path}: {error}") from None
    except BAD_ZIP as error:
        reason = str(error) or "it ends too early"
        raise FetchError(
            f"{archive} is not the file that is known: {reason}. Move it away, and try "
            "again"
        ) from None


def pause(seconds):
    """Leave the servers alone for a while."""
    time.sleep(seconds)


def offline_words(urls, path, size):
    """Why LLMS_OFFLINE leaves us without the file, and what to do."""
    state, found = "not there", size_of(path)
    if found is not None:
        fault = "and not the file's" if size in (None, found) else f"not {size:,}"
        state = f"damaged ({found:,} bytes, {fault})"
    return (
        f"{path} is {state}, and LLMS_OFFLINE forbids fetching it. Unset that, or "
        "save the file there yourself, from:\n  " + "\n  ".join(urls)
    )


def failure_words(path, part, said):
    """What happened at each URL, what is safe, and what to do by hand."""
    tried = "".join(f"  {url}\n    {failure}\n" for url, failure in said.items())
    origin, etag = part.origin
    safe = ""
    if part.length and (part.sha256 or etag):
        safe = f"{part.length:,} bytes are safe in {part.path}; the next run goes on.\n"
    here, there, url = (
        quote(str(s)) for s in (part.path, path, origin or next(iter(said), ""))
    )
    return (
        f"could not fetch {path.name}. Tried:\n{tried}{safe}"
        f"Run this again later, or first fetch it by hand:\n"
        f"  curl -fL -C - -o {here} {url} && mv {here} {there}\n"
        f"or save it as {path} in some other way."
    )


def local_words(path, part, error):
    """Why this side could not keep the file, and what to do."""
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full: {part.length:,} bytes of {path.name} are safe in "
            f"{part.path}. Make room and run this again."
        )
    reason = getattr(error, "strerror", None) or error
    return (
        f"{path.name} cannot be kept in {path.parent}: {reason}. Mend that, or name "
        "another folder in LLMS_DOWNLOADS."
    )
