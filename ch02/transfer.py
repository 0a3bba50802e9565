"""One request to one URL, into a `.part` file (a support module: used, not taught)."""

import re
import time
from email.utils import mktime_tz, parsedate_tz
from functools import partial
from http.client import responses
from itertools import chain

import requests
from tqdm.auto import tqdm
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

TIMEOUTS = 5, 30  # seconds to connect, seconds without a byte
LONGEST_WAIT = 60  # seconds that a server may ask for
YEAR = 365 * 24 * 60 * 60  # in seconds
CHUNK = 2**16
HEAD = 512  # bytes, enough for a web page to show itself
PAGE_STARTS = b"<!doctype html", b"<html", b"<?xml"
CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")
UNSATISFIED_RANGE = re.compile(r"bytes \*/(\d{1,18})")
NETWORK_ERRORS = requests.RequestException, HTTPError


class Failure(Exception):
    """What went wrong at a URL, which may deliver when asked again."""

    def __init__(self, words, wait=0):
        super().__init__(words)
        self.wait = wait  # seconds, as the server wishes


class Refused(Failure):
    """An answer that asking again will not make better."""


class RangeRefused(Failure):
    """An answer that does not go on where the bytes that are here end."""


class Damaged(Failure):
    """Bytes that are not the file's."""


class Unreachable(Failure):
    """No connection to the server."""


def transfer(url, part, *, whole=False, progress=True):
    """Ask a URL for what `part` lacks, or for the whole file, and save what comes.

    Returns when nothing lacks as far as the answer tells, else raises a Failure; what
    came stays in `part`. An OSError is this side's: no room, no right to write.
    """
    asked = {} if whole else range_headers(url, part)
    with ask(url, asked) as answer:
        if asked and answer.status_code == 416:
            check_complete(answer, part)
            return
        start, total = judge(answer, part, asked)
        try:
            save_body(answer, part, url, start, total, progress)
        except NETWORK_ERRORS as error:
            raise failure_of(error, so_far(part, total)) from error
    if total is not None and part.length < total:
        raise Failure(f"cut {so_far(part, total)}")


def range_headers(url, part):
    """The headers that ask for what is lacking; none if it could not be added."""
    origin, etag = part.origin
    is_same = bool(etag) and url == origin
    if part.length == 0 or not (is_same or part.sha256):
        return {}
    condition = {"If-Range": etag} if is_same else {}
    return {"Range": f"bytes={part.length}-"} | condition


def ask(url, headers):
    """The answer to a request, its body yet to come."""
    headers = {"Accept-Encoding": "identity"} | headers
    try:
        return requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS)
    except (*NETWORK_ERRORS, OSError, ValueError) as error:
        raise failure_of(error, "before any answer") from error


def failure_of(error, when):
    """The Failure, in few words, behind an error of requests or urllib3."""
    causes = [error, *causes_of(error)]
    words = getattr(causes[-1], "strerror", None) or str(causes[-1])
    if isinstance(error, requests.TooManyRedirects):
        return Refused("it redirects without end")
    if isinstance(error, ValueError):
        return Refused(f"nothing that can be asked for: {error}")
    if any(isinstance(cause, ProtocolError) for cause in causes):
        return Failure(f"cut {when}")
    # a TLS handshake that times out is a ReadTimeoutError as well
    if (
        any(isinstance(c, ReadTimeoutError) for c in causes)
        and "handshake" not in words
    ):
        return Failure(f"nothing came for {TIMEOUTS[1]} s {when}")
    return Unreachable(f"unreachable: {words}")


def causes_of(error):
    """The errors that an error wraps, the innermost last."""
    wrapped = error.__cause__, getattr(error, "reason", None), *error.args
    for cause in wrapped:
        if isinstance(cause, Exception):
            return [cause, *causes_of(cause)]
    return []


def so_far(part, total):
    """How much has come, in words."""
    known = "" if total is None else f" of {total:,}"
    return f"after {part.length:,}{known} bytes"


def check_complete(answer, part):
    """Raise RangeRefused unless a 416 says that there are no more bytes to come."""
    told = UNSATISFIED_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    total = int(told[1]) if told and part.size is None else part.size
    if part.length != total:
        raise RangeRefused(f"416, and {part.length:,} bytes are not the whole file")


def judge(answer, part, asked):
    """Where in the file the answer begins, and the file's length if that is known.

    Raises a Failure for an answer that cannot be the file or the part asked for.
    """
    check_status(answer, asked)
    check_form(answer)
    if answer.status_code == 206:
        return part.length, total_of_range(answer, part, asked.get("If-Range"))
    told = announced(answer)
    if None not in (told, part.size) and told != part.size:
        raise Refused(f"{told:,} bytes are announced, the file has {part.size:,}")
    total = told if part.size is None else part.size
    if total is None and part.sha256 is None and not is_chunked(answer):
        raise Refused("the answer does not tell where it ends")
    return 0, total


def check_status(answer, asked):
    """Raise a Failure unless the status is 200, or 206 where a range was asked for."""
    status, wait = answer.status_code, seconds_to_wait(answer)
    words = f"{status} {responses.get(status, '')}".rstrip()
    if status == 200 or (status == 206 and asked):
        return
    if status < 500 and status not in (408, 429):
        raise Refused(words)
    if wait > LONGEST_WAIT:
        raise Refused(f"{words}; it asks to come back in {wait / 60:,.0f} min")
    raise Failure(words, wait)


def seconds_to_wait(answer):
    """The seconds of a Retry-After, be it a number or a date; at most a year."""
    value = answer.headers.get("Retry-After", "0")
    date = parsedate_tz(value)
    try:
        seconds = mktime_tz(date) - time.time() if date else int(value)
    except (ValueError, OverflowError):
        return 0
    return min(max(0, seconds), YEAR)


def check_form(answer):
    """Refuse a web page, and bytes that are not the file's own."""
    encoding = answer.headers.get("Content-Encoding") or "identity"
    if encoding.lower() != "identity":
        raise Refused(f"the answer is packed with {encoding}, which was not asked for")
    if "html" in answer.headers.get("Content-Type", "").lower():
        raise Refused("the answer is a web page")


def total_of_range(answer, part, etag):
    """The file's length by a 206; RangeRefused unless the 206 goes on from `part`."""
    told = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if not told or int(told[1]) != part.length:
        raise RangeRefused(f"the answer does not begin at byte {part.length:,}")
    total = part.size if told[2] == "*" else int(told[2])
    if part.size not in (None, total):
        raise RangeRefused(f"it goes on in a file of {total:,} bytes")
    if total is None and part.sha256 is None:
        raise RangeRefused("the answer does not tell where the file ends")
    if etag and answer.headers.get("ETag") != etag:
        raise RangeRefused("the file is another one than before")
    return total


def is_chunked(answer):
    """True when the body itself tells where it ends."""
    return answer.headers.get("Transfer-Encoding", "").lower() == "chunked"


def announced(answer):
    """The length of the body in bytes, None if the headers do not tell."""
    length = answer.headers.get("Content-Length", "")
    if is_chunked(answer) or not re.fullmatch(r"\d{1,18}", length):
        return None
    return int(length)


def save_body(answer, part, url, start, total, progress):
    """Write the body, which begins at byte `start`, with a progress bar in bytes."""
    head = answer.raw.read(HEAD, decode_content=False)
    if start == 0 and part.sha256 is None:
        check_head(head)
    # read1 returns what has come so far: `read` would lose it when the line is cut
    rest = iter(partial(answer.raw.read1, CHUNK, decode_content=False), b"")
    etag = answer.headers.get("ETag", "")
    show = {"unit": "B", "unit_scale": True, "leave": False, "disable": not progress}
    with (
        part.open_at(start, url, etag) as file,
        tqdm(desc=part.path.stem, initial=start, total=total, **show) as bar,
    ):
        for piece in chain([head], rest):
            start += len(piece)
            if total is not None and start > total:
                raise Damaged(f"more than {total:,} bytes came")
            file.write(piece)
            bar.update(len(piece))


def check_head(head):
    """Refuse what begins like a web page, whatever its headers call it."""
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(PAGE_STARTS):
        raise Refused("the answer is a web page")
