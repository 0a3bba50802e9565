"""Downloads that arrive whole or say why (a support module: used, not taught)."""

import hashlib
import os
from contextlib import contextmanager
from pathlib import Path

import requests
from filelock import FileLock
from tqdm.auto import tqdm

CONNECT_AND_READ_SECONDS = (10, 30)
CHUNK = 2**16


class FetchError(Exception):
    """A file could not be had; the message says where it was sought and what to do."""


def downloads_folder():
    """Where fetched files lie: `downloads/` in the repository, or LLMS_DOWNLOADS."""
    named = os.environ.get("LLMS_DOWNLOADS")
    return Path(named) if named else Path(__file__).resolve().parents[1] / "downloads"


def is_offline():
    """True when LLMS_OFFLINE forbids every network call."""
    return os.environ.get("LLMS_OFFLINE", "") not in ("", "0")


def sha256_of(path):
    """The sha256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path, sha256):
    """Raise ValueError unless the file has this sha256."""
    found = sha256_of(path)
    if found != sha256:
        raise ValueError(f"{path} is damaged: its sha256 is {found}, not {sha256}")


@contextmanager
def replacing(path):
    """Give a temporary path to write to; it becomes `path` if nothing goes wrong."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path, content):
    """Write bytes so that `path` holds all of them or stays as it was."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def fetch(urls, path, *, sha256=None, size=None, progress=True):
    """Fetch a file from the first of `urls` that delivers it whole; return its Path.

    sha256 (hexadecimal digits) and size (bytes) say what whole means. A whole file at
    `path` is used without a network call; a damaged one is replaced. Two processes may
    ask at once. Raises FetchError, which names each URL and what happened there.
    """
    path = Path(path)
    if is_whole(path, sha256, size):
        return path
    if is_offline():
        state = "damaged" if path.is_file() else "not there"
        raise FetchError(
            f"{path} is {state}, and LLMS_OFFLINE forbids fetching it. Unset that, or "
            "save the file there yourself, from:\n  " + "\n  ".join(urls)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    with FileLock(path.with_name(path.name + ".lock")):
        if is_whole(path, sha256, size):  # another process was faster
            return path
        for url in urls:
            try:
                return download(url, path, sha256, size, progress)
            except (requests.RequestException, ValueError) as error:
                failures.append(f"  {url}\n    {error}")
    raise FetchError(
        f"could not fetch {path.name}. Tried:\n" + "\n".join(failures) + "\n"
        f"Fetch it by other means, save it as {path}, and run this again."
    )


def is_whole(path, sha256, size):
    """True for a file that is there and has the size and sha256 that are known."""
    if not path.is_file() or (size is not None and path.stat().st_size != size):
        return False
    return sha256 is None or sha256_of(path) == sha256


def download(url, path, sha256, size, progress):
    """Stream one URL into `path`, by way of a `.part` file that is checked first."""
    part = path.with_name(path.name + ".part")
    try:
        with requests.get(url, stream=True, timeout=CONNECT_AND_READ_SECONDS) as answer:
            answer.raise_for_status()
            if sha256 is None and "html" in answer.headers.get("Content-Type", ""):
                raise ValueError("the answer is a web page, not the file")
            save_body(answer, part, progress)
        if not is_whole(part, sha256, size):
            raise ValueError(f"{part.stat().st_size} bytes came, and not the file's")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def save_body(answer, part, progress):
    """Write the body of an answer to a file, with a progress bar in bytes."""
    total = int(answer.headers.get("Content-Length", 0)) or None
    with (
        open(part, "wb") as file,
        tqdm(
            desc=part.stem,
            total=total,
            unit="B",
            unit_scale=True,
            leave=False,
            disable=not progress,
        ) as bar,
    ):
        for chunk in answer.iter_content(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
