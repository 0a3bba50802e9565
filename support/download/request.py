"""Download from one URL into a partial file, continuing where that ends."""

import re
import socket
import time
from contextlib import suppress
from http.client import HTTPException, responses
from math import inf
from threading import Event, Thread
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from tqdm.auto import tqdm
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError
from urllib3.util import Retry

from support.messages import one_line

TIMEOUTS = 5, 30  # seconds to connect, seconds without a byte
RESPONSE_TIMEOUT = 60  # seconds until the body begins, redirects included
RATE_WINDOW = 30  # seconds in which at least MIN_BYTES of the body must arrive
MIN_BYTES = 30_000
MAX_UNKNOWN_SIZE = 2**30  # bytes of a file whose size is not known
MAX_WAIT = 60  # seconds that a server may ask for
YEAR = 365 * 24 * 60 * 60  # in seconds
CHUNK = 2**16
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")
# what requests (an OSError), urllib3 and http.client raise
NETWORK_ERRORS = HTTPError, HTTPException, OSError, ValueError


class RequestError(Exception):
    """A request failed, and the same request may succeed later."""

    def __init__(self, message, wait=0):
        super().__init__(one_line(message))
        self.wait = wait  # seconds to wait before, as the server asks


class PermanentError(RequestError):
    """The same request would fail again."""


class CorruptError(RequestError):
    """The bytes are not those of the file."""


class UnreachableError(RequestError):
    """There is no connection to the server."""


class ResumeError(Exception):
    """The server cannot continue where the partial file ends."""


class WatchedSession(requests.Session):
    """A session that shuts down its connections when its deadline has passed.

    The timeouts of a socket start again with each byte, so a server that sends a byte
    now and then could keep a request waiting forever.
    """

    def __init__(self):
        super().__init__()
        self.deadline, self.expired = inf, False
        self.sockets, self.closed = [], Event()
        for scheme in ("http://", "https://"):
            self.mount(scheme, WatchedAdapter(self.sockets))
        self.hooks["response"].append(close_redirect)
        self.thread = Thread(target=self.watch, daemon=True)
        self.thread.start()

    def set_deadline(self, seconds):
        """Set the deadline to a number of seconds from now."""
        self.deadline = time.monotonic() + seconds

    def watch(self):
        """Wait for the deadline, then shut down old and new connections."""
        while not self.closed.wait(0.02):
            self.expired = self.expired or time.monotonic() > self.deadline
            if self.expired:
                for connection in list(self.sockets):
                    with suppress(OSError):  # it may have ended already
                        connection.shutdown(socket.SHUT_RDWR)

    def close(self):
        super().close()
        self.closed.set()
        self.thread.join()
        for connection in self.sockets:
            connection.close()


class WatchedAdapter(HTTPAdapter):
    """Appends each new connection of a session to a list of sockets."""

    def __init__(self, sockets):
        super().__init__()
        self.sockets = sockets

    def get_connection_with_tls_context(self, *args, **kwargs):
        sockets = self.sockets
        pool = super().get_connection_with_tls_context(*args, **kwargs)

        class WatchedConnection(pool.ConnectionCls):
            def _new_conn(self):
                connection = super()._new_conn()
                sockets.append(connection.dup())  # TLS detaches the original
                return connection

        pool.ConnectionCls = WatchedConnection
        return pool


def close_redirect(response, **_):
    """Close a redirect, because requests would read its body, however long."""
    if response.is_redirect:
        response.raw.close()


def download(url, part, *, progress=True):
    """Download what a PartialFile lacks, or raise a RequestError.

    If the server cannot continue where the file ends, it is asked for the whole file.
    Whatever arrived stays in the file. An OSError means that it could not be written.
    """
    with WatchedSession() as session:
        try:
            receive(session, url, part, resume_headers(url, part), progress)
        except ResumeError:
            receive(session, url, part, {}, progress)


def resume_headers(url, part):
    """Return the headers that ask for the missing bytes, or {} for the whole file.

    If the sha256 is known, it shows in the end whether all bytes belong to one file. If
    not, the server must have the same file as before, which its ETag tells. (Several
    servers behind one address may give the same file different ETags.)
    """
    origin, etag = part.origin
    is_same = bool(etag) and url == origin
    if part.length == 0 or not (is_same or part.sha256):
        return {}
    condition = {} if part.sha256 else {"If-Range": etag}
    return {"Range": f"bytes={part.length}-"} | condition


def receive(session, url, part, headers, progress):
    """Send one request and write the body of the response into the partial file."""
    with send(session, url, headers) as response:
        if headers and response.status_code == 416:
            size = response.headers.get("Content-Range", "").removeprefix("bytes */")
            if size == str(part.length) and part.size in (None, part.length):
                return  # no byte is missing
            raise ResumeError
        start, total = check_response(response, part, headers)
        if part.size is None and (total or 0) > MAX_UNKNOWN_SIZE:
            raise PermanentError(
                f"the server announces {total:,} bytes, more than {MAX_UNKNOWN_SIZE:,}"
            )
        # without ranges, bytes that are here already arrive once more
        is_longer = total is None or total > part.length
        skipped = part.length if start == 0 and part.sha256 and is_longer else 0
        save_body(response, session, url, part, start, skipped, total, progress)
    if total is not None and part.length < total:
        raise RequestError(f"connection lost {byte_count(part, total)}")


def send(session, url, headers):
    """Send a GET request and return the response, whose body is still to be read."""
    headers = {"Accept-Encoding": "identity"} | headers
    session.set_deadline(RESPONSE_TIMEOUT)
    error = None
    try:
        response = session.get(url, headers=headers, stream=True, timeout=TIMEOUTS)
    except NETWORK_ERRORS as raised:
        error = raised
    if session.expired:
        raise RequestError(f"no response within {RESPONSE_TIMEOUT} s")
    if isinstance(error, requests.TooManyRedirects):
        raise PermanentError("too many redirects")
    if isinstance(error, ValueError):
        raise PermanentError(f"the URL or the response is invalid: {error}")
    if error:
        raise request_error(error, "before any response")
    return response


def request_error(error, when):
    """Return the RequestError that explains an error of requests or urllib3."""
    chain = causes(error)
    message = getattr(chain[-1], "strerror", None) or str(chain[-1])
    if any(isinstance(e, (ProtocolError, HTTPException, ValueError)) for e in chain):
        return RequestError(f"connection lost {when}")
    is_silent = any(isinstance(e, ReadTimeoutError) for e in chain)
    if is_silent and "handshake" not in message:  # one of TLS is no connection yet
        return RequestError(f"no data for {TIMEOUTS[1]} s {when}")
    return UnreachableError(f"unreachable: {message}")


def causes(error):
    """Return an error and the errors inside it, the innermost one last."""
    inside = (error.__cause__, getattr(error, "reason", None), *error.args)
    for cause in inside:
        if isinstance(cause, Exception):
            return [error, *causes(cause)]
    return [error]


def proxy_note(url):
    """Name the proxy that the settings of this computer prescribe for a URL, if any."""
    with suppress(ValueError):
        proxy = select_proxy(url, get_environ_proxies(url))
        host = urlsplit(url).hostname or ""
        if proxy:
            name = proxy.rpartition("@")[2]  # without the password
            note = f"; the request went through the proxy {name} from your settings"
            is_local = host in ("localhost", "::1") or host.startswith("127.")
            return note + f" (NO_PROXY={host} avoids it)" * is_local
    return ""


def byte_count(part, total):
    """Return how many bytes have arrived, in words."""
    known = "" if total is None else f" of {total:,}"
    return f"after {part.length:,}{known} bytes"


def check_response(response, part, headers):
    """Return where in the file the body begins, and the size of the file or None.

    Raises ResumeError, or a RequestError if the response cannot be the file.
    """
    check_status(response, headers)
    encoding = response.headers.get("Content-Encoding") or "identity"
    if encoding.lower() != "identity":
        raise PermanentError(
            f"the response is compressed with {encoding}, which was not asked for"
        )
    if "html" in response.headers.get("Content-Type", "").lower():
        raise PermanentError("the response is a web page, not the file")
    if response.status_code == 206:
        return part.length, size_by_range(response, part, headers.get("If-Range"))
    size = response.raw.length_remaining  # by its headers
    if None not in (size, part.size) and size != part.size:
        raise PermanentError(
            f"the server announces {size:,} bytes, but the file has {part.size:,}"
        )
    if (size, part.size, part.sha256) == (None,) * 3 and not response.raw.chunked:
        raise PermanentError("the server does not say how many bytes it sends")
    return 0, size if part.size is None else part.size


def check_status(response, headers):
    """Raise a RequestError unless the status is 200, or 206 as asked for."""
    status = response.status_code
    if status == 200 or (status == 206 and headers):
        return
    message = f"{status} {responses.get(status, '')}".rstrip()
    if status < 500 and status not in (408, 429):
        raise PermanentError(message)
    wait = 0
    with suppress(HTTPError, ValueError, OverflowError):
        wait = Retry(retry_after_max=YEAR).get_retry_after(response) or 0
    if wait > MAX_WAIT:
        raise PermanentError(f"{message}; the server asks to wait {wait / 60:,.0f} min")
    raise RequestError(message, wait)


def size_by_range(response, part, etag):
    """Return the size of the file; ResumeError if a 206 does not continue `part`."""
    found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    start, size = map(int, found.groups()) if found else (None, None)
    is_same = not etag or response.headers.get("ETag") == etag
    if start != part.length or part.size not in (None, size) or not is_same:
        raise ResumeError
    return size


def save_body(response, session, url, part, start, skipped, total, progress):
    """Write the body, which begins at byte `start`, and show a progress bar.

    Its first `skipped` bytes are here already.
    """
    etag = response.headers.get("ETag", "")
    style = {"unit": "B", "unit_scale": True, "leave": False, "disable": not progress}
    limit = MAX_UNKNOWN_SIZE if total is None else total
    with (
        part.open_at(start + skipped, url, etag) as file,
        tqdm(desc=one_line(part.path.stem), initial=start, total=total, **style) as bar,
    ):
        for chunk in chunks(response, session, part, total):
            start += len(chunk)
            if start > limit:
                raise CorruptError(f"more than {limit:,} bytes arrived")
            file.write(chunk[skipped:])
            file.flush()  # for `byte_count`, and in case this process is killed
            skipped = max(0, skipped - len(chunk))
            bar.update(len(chunk))


def chunks(response, session, part, total):
    """Yield the body as it arrives; a RequestError says why it ends too early."""
    session.set_deadline(RATE_WINDOW)
    arrived = 0  # bytes in this window of time
    error = None
    try:
        # read1 returns what has arrived, and `read` would lose it if the line breaks
        while chunk := response.raw.read1(CHUNK, decode_content=False):
            arrived += len(chunk)
            if arrived >= MIN_BYTES:
                session.set_deadline(RATE_WINDOW)
                arrived = 0
            yield chunk
    except NETWORK_ERRORS as raised:
        error = raised
    count = byte_count(part, total)
    if session.expired:
        raise RequestError(f"too slow: {arrived:,} bytes in {RATE_WINDOW} s, {count}")
    if error:
        raise request_error(error, count)
