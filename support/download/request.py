"""One request to one URL, into a `.part` file (a support module: used, not taught)."""

import re
import socket
import time
from contextlib import contextmanager, suppress
from email.utils import mktime_tz, parsedate_tz
from http.client import HTTPException, responses
from itertools import chain
from threading import Condition, Thread
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from tqdm.auto import tqdm
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from support.messages import one_line

TIMEOUTS = 5, 30  # seconds to connect, seconds without a byte
ANSWER_WITHIN = 60  # seconds from the request to the body, redirects and all
WINDOW = 30  # seconds in which so many bytes must come:
FEWEST = 30_000
MOST_UNTOLD = 2**30  # bytes of a file whose size nobody tells
LONGEST_WAIT = 60  # seconds that a server may ask for
YEAR = 365 * 24 * 60 * 60  # in seconds
CHUNK = 2**16
HEAD = 512  # bytes, enough for a web page to show itself
PAGE_STARTS = b"<!doctype html", b"<html", b"<?xml"
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
UNSATISFIED_RANGE = re.compile(r"bytes \*/([0-9]{1,18})")
# what requests, urllib3 and http.client raise for a line, an answer or a URL
NETWORK_ERRORS = (
    requests.RequestException,
    HTTPError,
    HTTPException,
    OSError,
    ValueError,
)


class Failure(Exception):
    """What went wrong at a URL, which may deliver when asked again."""

    def __init__(self, words, wait=0):
        super().__init__(one_line(words))
        self.wait = wait  # seconds, as the server wishes


class Slow(Failure):
    """Bytes that come too slowly to wait for them."""


class Refused(Failure):
    """An answer that asking again will not make better."""


class RangeRefused(Failure):
    """An answer that does not go on where the bytes that are here end."""


class Damaged(Failure):
    """Bytes that are not the file's."""


class Unreachable(Failure):
    """No connection to the server."""


class Watch(Thread):
    """Shuts a request's connections when its deadline passes, and is `late` then.

    Time limits of sockets start anew with each byte, and so a server that sends one now
    and then could keep a request for ever.
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.sockets, self.over, self.late = [], False, False
        self.changed = Condition()
        self.deadline = time.monotonic() + ANSWER_WITHIN

    def allow(self, seconds):
        """Set the deadline to so many seconds from now."""
        with self.changed:
            before, self.deadline = self.deadline, time.monotonic() + seconds
            if self.deadline < before:
                self.changed.notify()

    def run(self):
        with self.changed:
            while not self.over and self.deadline > time.monotonic():
                self.changed.wait(self.deadline - time.monotonic())
            self.late = not self.over
        if self.late:
            self.shut()

    def add(self, connected):
        """Watch one more connection of the request."""
        # a copy, for TLS takes the connection away from the socket that it gets
        self.sockets.append(connected.dup())
        if self.late:
            self.shut()

    def shut(self):
        """End the connections; whoever waits for their bytes waits no longer."""
        for connected in self.sockets:
            with suppress(OSError):  # it has ended by itself
                connected.shutdown(socket.SHUT_RDWR)

    def close(self):
        """End the watch."""
        with self.changed:
            self.over = True
            self.changed.notify()
        self.join()
        for connected in self.sockets:
            connected.close()


class WatchedAdapter(HTTPAdapter):
    """Has each connection of a session watched."""

    def __init__(self, watch):
        super().__init__()
        self.watch = watch

    def get_connection_with_tls_context(self, *args, **kwargs):
        watch = self.watch
        pool = super().get_connection_with_tls_context(*args, **kwargs)

        class Watched(pool.ConnectionCls):
            def _new_conn(self):
                connected = super()._new_conn()
                watch.add(connected)
                return connected

        pool.ConnectionCls = Watched
        return pool


@contextmanager
def watched_session():
    """A session of requests and the Watch over its connections."""
    watch = Watch()
    watch.start()
    try:
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, WatchedAdapter(watch))
            session.hooks["response"].append(drop_body_of_redirect)
            yield session, watch
    finally:
        watch.close()


def drop_body_of_redirect(answer, **_):
    """Leave a redirect's body where it is: requests would read it, however long."""
    if answer.is_redirect:
        answer.raw.close()


def transfer(url, part, *, whole=False, progress=True):
    """Ask a URL for what `part` lacks, or for the whole file, and save what comes.

    Returns when nothing lacks as far as the answer tells, else raises a Failure; what
    came stays in `part`. An OSError is this side's: no room, no right to write.
    """
    asked = {} if whole else range_headers(url, part)
    try:
        with watched_session() as (session, watch):
            receive(session, watch, url, part, asked, progress)
    except Failure as failure:
        failure.args = (f"{failure}{way_of(url)}",)
        raise


def receive(session, watch, url, part, asked, progress):
    """Make the request of `transfer`, with headers that ask for what is lacking."""
    with ask(session, watch, url, asked) as answer:
        if asked and answer.status_code == 416:
            check_complete(answer, part)
            return
        start, total = judge(answer, part, asked)
        if part.size is None and (total or 0) > MOST_UNTOLD:
            raise Refused(f"it announces {total:,} bytes, and its size is not known")
        # bytes that come again, where the server does not send a part of the file
        skipped = part.length if asked and start == 0 and part.sha256 else 0
        if total is not None and total < skipped:
            raise RangeRefused(f"it has {total:,} bytes, and {skipped:,} are here")
        save_body(answer, watch, part, url, start, total, skipped, progress)
    if total is not None and part.length < total:
        raise Failure(f"cut {so_far(part, total)}")


def range_headers(url, part):
    """The headers that ask for what is lacking; none if it could not be added.

    A known sha256 tells in the end whether all the bytes are the file's; without one
    the server must have the same file as before, by its ETag. (Servers behind one
    address may each give the same file another.)
    """
    origin, etag = part.origin
    is_same = bool(etag) and url == origin
    if part.length == 0 or not (is_same or part.sha256):
        return {}
    condition = {} if part.sha256 else {"If-Range": etag}
    return {"Range": f"bytes={part.length}-"} | condition


def ask(session, watch, url, headers):
    """The answer to a request, its body yet to come."""
    headers = {"Accept-Encoding": "identity"} | headers
    try:
        answer = session.get(url, headers=headers, stream=True, timeout=TIMEOUTS)
        if not watch.late:  # or the head may have been cut
            return answer
    except requests.TooManyRedirects as error:
        raise Refused("it redirects without end") from error
    except NETWORK_ERRORS as error:
        if not watch.late and isinstance(error, ValueError):
            raise Refused(f"the URL or the answer makes no sense: {error}") from error
        if not watch.late:
            raise failure_of(error, "before any answer") from error
    raise Slow(f"no answer came within {ANSWER_WITHIN} s")


def failure_of(error, when):
    """The Failure, in few words, behind an error of requests or urllib3."""
    causes = [error, *causes_of(error)]
    words = getattr(causes[-1], "strerror", None) or str(causes[-1])
    if any(isinstance(c, (ProtocolError, HTTPException, ValueError)) for c in causes):
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


def way_of(url):
    """The proxy that a URL is asked through by this machine's settings, in words."""
    with suppress(ValueError):
        proxy = select_proxy(url, get_environ_proxies(url))
        host = urlsplit(url).hostname or ""
        if proxy:
            _, _, name = proxy.rpartition("@")  # without the password
            words = f"; asked through the proxy {name}, as the environment has it"
            is_local = host in ("localhost", "::1") or host.startswith("127.")
            return words + f" (NO_PROXY={host} would go past it)" * is_local
    return ""


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
    if is_chunked(answer) or not re.fullmatch("[0-9]{1,18}", length):
        return None
    return int(length)


def save_body(answer, watch, part, url, start, total, skipped, progress):
    """Write the body, which begins at byte `start`, with a progress bar in bytes.

    Its first `skipped` bytes are here already.
    """
    pieces = body_pieces(answer, watch, part, total)
    if start == 0 and part.sha256 is None:
        pieces = check_head(pieces)
    etag = answer.headers.get("ETag", "")
    show = {"unit": "B", "unit_scale": True, "leave": False, "disable": not progress}
    name = one_line(part.path.stem)
    with (
        part.open_at(start + skipped, url, etag) as file,
        tqdm(desc=name, initial=start, total=total, **show) as bar,
    ):
        for piece in pieces:
            start += len(piece)
            if start > (MOST_UNTOLD if total is None else total):
                raise Damaged(f"more than {total or MOST_UNTOLD:,} bytes came")
            file.write(piece[skipped:])
            file.flush()  # so that `so_far` and whoever kills us find it there
            skipped = max(0, skipped - len(piece))
            bar.update(len(piece))


def body_pieces(answer, watch, part, total):
    """Yield the body as it comes; what goes wrong with the line becomes a Failure."""
    watch.allow(WINDOW)
    came = 0  # in this window of time
    try:
        # read1 returns what has come so far: `read` would lose it when the line is cut
        while piece := answer.raw.read1(CHUNK, decode_content=False):
            came += len(piece)
            if came >= FEWEST:
                watch.allow(WINDOW)
                came = 0
            yield piece
    except NETWORK_ERRORS as error:
        if not watch.late:
            raise failure_of(error, so_far(part, total)) from error
    if watch.late:
        raise Slow(f"too slow: {came:,} bytes in {WINDOW} s, {so_far(part, total)}")


def check_head(pieces):
    """All the pieces again; refuses what begins like a web page, whatever it is called.

    That is seen before a byte of an older beginning is given up.
    """
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= HEAD:
            break
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(PAGE_STARTS):
        raise Refused("the answer is a web page")
    return chain([head], pieces)
