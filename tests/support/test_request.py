"""One request to a real server: what is asked, what is believed, and what is kept."""

import errno
import gzip
import re
import socket
from contextlib import suppress
from email.utils import formatdate
from threading import Event, Thread
from time import time

import pytest

from support.download import request as module
from support.download.files import PartialFile
from support.download.request import (
    CorruptError,
    PermanentError,
    RequestError,
    UnreachableError,
    download,
    proxy_note,
)
from support.messages import printable
from tests.server import (
    BODY,
    HALF,
    KNOWN,
    OTHER,
    PAGE,
    SHA256,
    Answer,
    closed_url,
    serving,
)

LENGTH = len(BODY)
ETAG = '"first"'
WEAK = 'W/"first"'
UNTOLD = {"Content-Length": None}


@pytest.fixture
def server(monkeypatch):
    """A server that misbehaves as told."""
    with serving(monkeypatch) as server:
        yield server


@pytest.fixture
def begun(tmp_path):
    """Make a PartialFile, by default with half the file from a URL, and its ETag."""

    def make(url="", etag=ETAG, content=BODY[:HALF], sha256=SHA256, size=LENGTH):
        part = PartialFile(tmp_path / "model.bin", sha256, size)
        with part.open_at(0, url, etag) as file:
            file.write(content)
        return part

    return make


@pytest.fixture
def impatient(monkeypatch):
    """Give up on silence soon."""
    monkeypatch.setattr(module, "TIMEOUTS", (0.3, 0.3))


@pytest.fixture
def hasty(monkeypatch):
    """Give up soon on what comes slowly."""
    for name in ("RATE_WINDOW", "RESPONSE_TIMEOUT"):
        monkeypatch.setattr(module, name, 0.3)


@pytest.fixture
def dripping(listener, hasty):
    """Have one call answered by some bytes at once and others one by one."""
    over = Event()

    def answer(first, rest):
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.recv(10_000)
            connection.sendall(first)
            for i in range(len(rest)):
                connection.sendall(rest[i : i + 1])
                if over.wait(0.01):
                    return

    threads = []

    def start(*pieces):
        threads.append(Thread(target=answer, args=pieces))
        threads[0].start()
        return url_of(listener)

    yield start
    over.set()
    threads[0].join()


@pytest.fixture
def listener():
    """A socket that takes calls; who calls hears nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def url_of(listener, scheme="http"):
    """The URL of a listening socket."""
    return f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/model.bin"


def failure(kind, url, part, **options):
    """The words of the RequestError, of just this kind, that a download ends with."""
    with pytest.raises(RequestError) as caught:
        download(url, part, progress=False, **options)
    assert caught.type is kind
    return str(caught.value)


def content(part):
    """The bytes of a PartialFile."""
    return part.path.read_bytes()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_a_file_is_asked_for_plainly_and_saved(server, begun, known, chunked):
    url = server.mirror(chunked=chunked)
    part = begun(content=b"", **{"sha256": None, "size": None} | known)
    download(url, part, progress=False)
    assert content(part) == BODY
    [(_, headers)] = server.requests
    assert headers["Accept-Encoding"] == "identity" and "Range" not in headers


RESUMABLE = {  # (same URL, its ETag then, sha256) -> Range is sent, If-Range is sent
    "same": (True, ETAG, None, True, True),
    "same, known": (True, ETAG, SHA256, True, False),
    "same, weak": (True, WEAK, None, False, False),
    "same, weak, known": (True, WEAK, SHA256, True, False),
    "same, none": (True, "", None, False, False),
    "same, none, known": (True, "", SHA256, True, False),
    "other": (False, ETAG, None, False, False),
    "other, known": (False, ETAG, SHA256, True, False),
}


@pytest.mark.parametrize("case", RESUMABLE.values(), ids=RESUMABLE)
def test_it_goes_on_only_where_the_bytes_will_fit(server, begun, case):
    same, etag, sha256, ranged, conditional = case
    url = server.mirror(etag=etag)
    part = begun(url if same else "http://elsewhere/", etag, sha256=sha256)
    download(url, part, progress=False)
    [(_, headers)] = server.requests
    assert headers.get("Range") == (f"bytes={HALF}-" if ranged else None)
    assert headers.get("If-Range") == (etag if conditional else None)
    assert content(part) == BODY
    assert part.origin[0] == ("" if ranged and not same else url)


def test_a_new_start_has_its_own_source(server, begun):
    url = server.mirror(sent=600, etag='"new"')
    part = begun("http://elsewhere/", sha256=None)
    failure(RequestError, url, part)
    assert content(part) == BODY[:600] and part.origin == (url, '"new"')


def test_a_changed_etag_means_the_new_file_from_its_start(server, begun):
    url = server.mirror(etag='"second"')
    part = begun(url, content=OTHER[:HALF], sha256=None)
    download(url, part, progress=False)
    assert content(part) == BODY and part.origin == (url, '"second"')
    assert server.requests[0][1]["If-Range"] == ETAG


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("etag", ['"second"', WEAK, None])
def test_where_the_sha256_is_known_another_etag_costs_no_byte(
    server, begun, etag, if_range
):
    url = server.mirror(etag=etag, if_range=if_range)
    part = begun(url)
    download(url, part, progress=False)
    assert server.ranges == [f"bytes={HALF}-"] and content(part) == BODY


@pytest.mark.parametrize("known", [SHA256, None])
def test_a_server_without_ranges_sends_all(server, begun, known):
    url = server.mirror(ranges=False)
    part = begun(url, content=OTHER[:HALF], sha256=known)
    download(url, part, progress=False)
    # what is here already is kept where the sha256 tells in the end if it was right
    assert content(part) == (OTHER if known else BODY)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("sent", [0, 700, HALF - 1, HALF + 900])
def test_bytes_that_come_again_cost_none_that_are_here(server, begun, sent, chunked):
    url = server.mirror(ranges=False, sent=sent, chunked=chunked)
    part = begun(url)
    failure(RequestError, url, part)
    assert content(part) == BODY[: max(HALF, sent)]


def test_a_shorter_file_than_what_is_here_replaces_it(server, begun):
    url = server.mirror(ranges=False, body=BODY[: HALF - 1])
    part = begun(url, size=None)
    download(url, part, progress=False)
    assert content(part) == BODY[: HALF - 1]


LIES = {
    "start": f"bytes {HALF - 1}-{LENGTH - 1}/{LENGTH}",
    "total": f"bytes {HALF}-{LENGTH - 1}/{LENGTH + 1}",
    "untold": f"bytes {HALF}-{LENGTH - 1}/*",
    "garbage": "half of it",
    "unit": f"lines {HALF}-{LENGTH - 1}/{LENGTH}",
    "none": None,
}


@pytest.mark.parametrize("sha256", [SHA256, None])
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_after_a_part_that_does_not_fit_the_whole_file_is_asked_for(
    server, begun, lie, sha256
):
    url = server.mirror(headers={"Content-Range": lie})
    part = begun(url, sha256=sha256)
    download(url, part, progress=False)
    assert server.ranges == [f"bytes={HALF}-", None] and content(part) == BODY


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_part_that_does_not_fit_costs_no_byte(server, begun, lie):
    wrong = Answer(headers={"Content-Range": lie})
    url = server.mirror("/model.bin", wrong, Answer(sent=HALF + 1))
    part = begun(url)
    failure(RequestError, url, part)
    assert content(part) == BODY[: HALF + 1]


def test_a_part_of_a_changed_file_is_not_added(server, begun):
    url = server.mirror(body=OTHER, etag='"second"', if_range=False)
    part = begun(url, sha256=None)
    download(url, part, progress=False)
    assert server.ranges == [f"bytes={HALF}-", None] and content(part) == OTHER


def test_a_part_that_was_not_asked_for_is_refused(server, begun):
    told = {"Content-Range": f"bytes 0-{LENGTH - 1}/{LENGTH}"}
    url = server.mirror(status=206, headers=told)
    assert failure(PermanentError, url, begun(content=b"")) == "206 Partial Content"


def test_nothing_after_what_is_here_means_that_the_whole_file_is_asked_for(
    server, begun
):
    url = server.mirror("/model.bin", Answer(status=416, body=b""), Answer())
    part = begun(url)
    download(url, part, progress=False)
    assert server.ranges == [f"bytes={HALF}-", None] and content(part) == BODY


COMPLETE = {  # (length here, size, total told) -> complete
    "told": (LENGTH, None, LENGTH, True),
    "longer": (HALF, None, LENGTH, False),
    "not told": (LENGTH, None, None, False),
    "known to be longer": (HALF, LENGTH, HALF, False),
}


@pytest.mark.parametrize("case", COMPLETE.values(), ids=COMPLETE)
def test_nothing_beyond_may_mean_that_all_is_here(server, begun, case):
    length, size, told, complete = case
    told = {"Content-Range": f"bytes */{told}"} if told else {}
    answer = Answer(status=416, body=b"", headers=told)
    url = server.mirror("/model.bin", answer, Answer(status=404))
    part = begun(url, content=BODY[:length], size=size)
    if complete:
        download(url, part, progress=False)
    else:
        failure(PermanentError, url, part)
    assert content(part) == BODY[:length]
    assert server.ranges == [f"bytes={length}-"] + [None] * (not complete)


STATUSES = {
    204: PermanentError,
    304: PermanentError,
    400: PermanentError,
    403: PermanentError,
    404: PermanentError,
    408: RequestError,
    410: PermanentError,
    416: PermanentError,
    429: RequestError,
    451: PermanentError,
    500: RequestError,
    502: RequestError,
    503: RequestError,
    520: RequestError,
}


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
def test_a_status_says_whether_to_come_back(server, begun, status, kind):
    url = server.mirror(status=status, body=b"")
    part = begun(url, content=b"")
    assert failure(kind, url, part).startswith(str(status))
    assert content(part) == b""


def test_a_status_has_its_words(server, begun):
    assert (
        failure(PermanentError, server.mirror(status=404), begun()) == "404 Not Found"
    )


WAITS = {"7": 7, "-7": 0, "0": 0, "soon": 0, "": 0, "9" * 400: None, "3600": None}


@pytest.mark.parametrize(("asked", "wait"), WAITS.items())
def test_the_wait_that_is_asked_for(server, begun, asked, wait):
    url = server.mirror(status=429, headers={"Retry-After": asked})
    with pytest.raises(RequestError) as caught:
        download(url, begun(), progress=False)
    assert caught.value.wait == (wait or 0)
    assert caught.type is (PermanentError if wait is None else RequestError)


@pytest.mark.parametrize(("seconds", "least", "most"), [(30, 25, 31), (-30, 0, 0)])
def test_a_wait_may_be_a_date(server, begun, seconds, least, most):
    date = formatdate(time() + seconds, usegmt=True)
    url = server.mirror(status=503, headers={"Retry-After": date})
    with pytest.raises(RequestError) as caught:
        download(url, begun(), progress=False)
    assert least <= caught.value.wait <= most


@pytest.mark.parametrize("as_date", [False, True])
def test_a_wait_too_long_says_when_to_come_back(server, begun, as_date):
    asked = formatdate(time() + 7200, usegmt=True) if as_date else "7200"
    url = server.mirror(status=503, headers={"Retry-After": asked})
    words = failure(PermanentError, url, begun())
    assert words in {
        f"503 Service Unavailable; the server asks to wait {n} min" for n in (119, 120)
    }


PAGES = {
    "html": ({"Content-Type": "text/html; charset=utf-8"}, b"please log in", SHA256),
    "xhtml": ({"Content-Type": "Application/XHTML+xml"}, b"please log in", None),
}


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_web_page_is_refused_and_costs_no_byte(server, begun, page, resumed):
    headers, body, sha256 = page
    url = server.mirror(body=body, headers=headers, ranges=False)
    safe = BODY[:HALF] if resumed else b""
    part = begun(url, content=safe, sha256=sha256, size=None)
    assert (
        failure(PermanentError, url, part) == "the response is a web page, not the file"
    )
    assert content(part) == safe and part.origin == (url, ETAG)


def test_a_known_sha256_says_what_a_page_is(server, begun):
    part = begun(content=b"", sha256="0" * 64, size=len(PAGE))
    download(server.mirror(body=PAGE), part, progress=False)
    assert content(part) == PAGE


def test_a_packed_answer_is_refused(server, begun):
    packed = {"Content-Encoding": "gzip"}
    url = server.mirror(body=gzip.compress(BODY), headers=packed, ranges=False)
    part = begun(url, size=None)
    assert "compressed with gzip" in failure(PermanentError, url, part)
    assert content(part) == BODY[:HALF]


def test_a_wrong_length_is_refused_before_it_comes(server, begun):
    url = server.mirror(body=b"please log in", ranges=False)
    part = begun(url)
    assert "the server announces 13 bytes" in failure(PermanentError, url, part)
    assert content(part) == BODY[:HALF]


def test_a_body_that_goes_on_for_ever_is_stopped(server, begun):
    url = server.mirror(body=BODY * 20, chunked=True, sent=LENGTH * 20, stall=60)
    part = begun(content=b"")
    assert failure(CorruptError, url, part) == f"more than {LENGTH:,} bytes arrived"
    assert part.length <= LENGTH


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_an_end_that_is_not_told_needs_something_known(server, begun, known):
    url = server.mirror(headers={"Content-Length": None})
    part = begun(content=b"", **{"sha256": None, "size": None} | known)
    if known is KNOWN["neither"]:
        assert "does not say how many bytes it sends" in failure(
            PermanentError, url, part
        )
    else:
        download(url, part, progress=False)
        assert content(part) == BODY


CUTS = {
    "announced": {},
    "chunked": {"chunked": True},
    "untold": {"headers": {"Content-Length": None}},
}


@pytest.mark.parametrize("sent", [0, 700, HALF - 1])
@pytest.mark.parametrize("how", CUTS.values(), ids=CUTS)
def test_a_cut_keeps_all_that_came(server, begun, how, sent):
    url = server.mirror(sent=sent, **how)
    part = begun(url)
    words = failure(RequestError, url, part)
    came = HALF + sent
    assert words == f"connection lost after {came:,} of {LENGTH:,} bytes"
    assert content(part) == BODY[:came]


def test_a_cut_of_unknown_length_is_seen(server, begun):
    url = server.mirror(sent=HALF, chunked=True)
    part = begun(content=b"", sha256=None, size=None)
    assert failure(RequestError, url, part) == f"connection lost after {HALF:,} bytes"


def test_a_reset_is_a_cut(server, begun):
    url = server.mirror(sent=HALF, reset=True, stall=0.2)
    part = begun(content=b"")
    assert failure(RequestError, url, part).startswith("connection lost after")


def test_silence_keeps_what_came(server, begun, impatient):
    url = server.mirror(sent=HALF + 1, stall=60)
    part = begun(content=b"")
    words = failure(RequestError, url, part)
    assert words.startswith(f"no data for 0.3 s after {HALF + 1:,} of")
    assert content(part) == BODY[: HALF + 1]


def test_silence_before_the_answer(server, begun, impatient):
    url = server.mirror(before=60)
    assert failure(RequestError, url, begun()).startswith("no data for 0.3 s before")


@pytest.mark.parametrize("reply", [b"", b"SSH-2.0-OpenSSH_9.9\r\n"])
def test_a_hang_up_instead_of_an_answer(server, begun, listener, reply):
    def answer():
        connection, _ = listener.accept()
        with connection:
            connection.recv(10_000)
            connection.sendall(reply)

    thread = Thread(target=answer)
    thread.start()
    assert (
        failure(RequestError, url_of(listener), begun())
        == "connection lost before any response"
    )
    thread.join()


def test_redirects_are_followed(server, begun):
    url = server.mirror("/there", status=302, headers={"Location": "/here"})
    server.mirror("/here")
    part = begun(url)
    download(url, part, progress=False)
    assert (
        server.paths == ["/there", "/here"] and server.ranges == [f"bytes={HALF}-"] * 2
    )
    assert content(part) == BODY


def test_redirects_in_a_circle_are_refused(server, begun):
    url = server.mirror(status=302, headers={"Location": "/model.bin"})
    assert failure(PermanentError, url, begun()) == "too many redirects"


NO_URLS = [
    *["model.bin", "gopher://a/b", "file:///etc/passwd", "//[/", "http://"],
    *["http://[/", "http://a:99999999/", "http://\x00/", "http://%00/"],
    *["http://ü\udc80/", f"http://{'a' * 64}.invalid/"],
]


@pytest.mark.parametrize("url", ["", *NO_URLS])
def test_what_is_no_url_is_refused(begun, url):
    assert "is invalid" in failure(PermanentError, url, begun())


@pytest.mark.parametrize("url", NO_URLS)
def test_a_redirect_to_what_is_no_url_is_refused(server, begun, url):
    place = url.encode("utf-8", "surrogateescape").decode("latin-1")
    moved = server.mirror("/moved", status=302, headers={"Location": place})
    server.mirror("/model.bin", status=404)
    failure(PermanentError, moved, begun())


# RequestError and hostile servers


def test_bytes_that_come_too_slowly_are_not_waited_for(server, begun, hasty):
    part = begun(content=b"")
    words = failure(RequestError, server.mirror(drip=0.02), part)
    came = part.length
    assert 1000 <= came < LENGTH and content(part) == BODY[:came]
    assert (
        words == f"too slow: {came:,} bytes in 0.3 s, after {came:,} of 204,814 bytes"
    )


@pytest.mark.parametrize("how", [{"chunked": True}, {"headers": UNTOLD}])
def test_slow_bytes_of_unknown_length_are_not_taken_for_all(server, begun, hasty, how):
    part = begun(content=b"", size=None)
    failure(RequestError, server.mirror(drip=0.02, **how), part)
    assert part.length < LENGTH


def test_bytes_that_come_fast_enough_may_take_long(server, begun, hasty, monkeypatch):
    monkeypatch.setattr(module, "MIN_BYTES", 1000)
    part = begun(content=b"")
    download(server.mirror(drip=0.002), part, progress=False)
    assert content(part) == BODY


DRIPS = {  # what comes at once, and what then comes byte by byte
    "status": (b"HTTP/1.1 ", b"200 " + b"x" * 10_000),
    "header": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Long: ", b"x" * 10_000),
    "one more": (b"HTTP/1.1 100 Continue\r\n", b"X: y\r\n\r\nHTTP/1.1 100\r\n" * 99),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: ", b"/" * 10_000),
}


@pytest.mark.parametrize("first, rest", DRIPS.values(), ids=DRIPS)
def test_an_answer_that_drips_is_not_waited_for(server, begun, dripping, first, rest):
    words = failure(RequestError, dripping(first, rest), begun())
    assert words == "no response within 0.3 s"


BODY_DRIPS = {
    "body": (b"Content-Length: 9999\r\n\r\n", b"x" * 9999),
    "size of a chunk": (b"Transfer-Encoding: chunked\r\n\r\n5;", b"x" * 9999),
    "trailer": (b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 9999),
}


@pytest.mark.parametrize("first, rest", BODY_DRIPS.values(), ids=BODY_DRIPS)
def test_a_body_that_drips_is_not_waited_for(server, begun, dripping, first, rest):
    url = dripping(b"HTTP/1.1 200 OK\r\n" + first, rest)
    assert "too slow" in failure(RequestError, url, begun(content=b"", size=None))


def test_the_body_of_a_redirect_is_not_read(server, begun):
    endless = {"body": BODY * 20, "chunked": True, "stall": 60}
    url = server.mirror("/there", status=302, headers={"Location": "/here"}, **endless)
    server.mirror("/here")
    part = begun()
    download(url, part, progress=False)
    assert content(part) == BODY


@pytest.mark.parametrize("how", [{"chunked": True}, {"headers": UNTOLD}, {}])
@pytest.mark.parametrize("sha256", [SHA256, None])
def test_a_file_whose_size_nobody_tells_has_an_end(
    server, begun, monkeypatch, how, sha256
):
    monkeypatch.setattr(module, "MAX_UNKNOWN_SIZE", HALF)
    part = begun(content=b"", size=None, sha256=sha256)
    with pytest.raises((PermanentError, CorruptError)):
        download(server.mirror(**how), part, progress=False)
    assert part.length <= HALF


@pytest.mark.parametrize("length", ["9" * 18, str(2**30 + 1)])
@pytest.mark.parametrize("begin", [b"", BODY[:HALF]])
def test_an_absurd_announced_size_is_refused(server, begun, length, begin):
    told = {"Content-Length": length}
    if begin:
        told["Content-Range"] = f"bytes {HALF}-{int(length) - 1}/{length}"
    part = begun(content=begin, size=None)
    words = failure(PermanentError, server.mirror(headers=told), part)
    assert (
        f"the server announces {int(length):,} bytes, more than 1,073,741,824" in words
    )


ESCAPES = "\x1b[2J\x9b31m\x07\x08"


def test_escape_sequences_of_a_server_stay_out_of_the_words(server, begun):
    odd = {"Content-Encoding": ESCAPES}
    words = failure(PermanentError, server.mirror(headers=odd), begun())
    assert words == printable(words) and r"\x1b[2J\x9b31m\x07\x08" in words


def test_long_words_of_a_server_are_cut(server, begun):
    odd = {"Content-Encoding": "x" * 60_000}
    assert len(failure(PermanentError, server.mirror(headers=odd), begun())) < 500


@pytest.fixture
def proxied(server, monkeypatch):
    """A URL that is asked for through the server, which acts as a proxy and refuses."""
    name = f"127.0.0.1:{server.server_port}"
    monkeypatch.delenv("NO_PROXY")
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", f"http://me:secret@{name}")
    monkeypatch.setattr(server, "answer_to", lambda request: Answer(status=403))
    return name


@pytest.mark.parametrize("host", ["localhost:11434", "127.0.0.1:9", "example.org"])
def test_a_proxy_that_refuses_is_named(begun, proxied, host):
    url = f"http://{host}/model.bin"
    assert failure(PermanentError, url, begun()) == "403 Forbidden"
    note = proxy_note(url)
    assert f"; the request went through the proxy {proxied} from your settings" in note
    is_local = host != "example.org"
    assert ("(NO_PROXY=" in note) == is_local and "secret" not in note


def test_a_proxy_that_makes_no_sense_is_named(begun, proxied, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://[")
    url = "https://example.org/model.bin"
    failure(PermanentError, url, begun())
    assert "through the proxy http://[" in proxy_note(url)


def test_a_closed_port_is_unreachable(server, begun):
    words = failure(UnreachableError, closed_url(), begun())
    assert words == "unreachable: Connection refused"


def test_an_unknown_host_is_unreachable(begun, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    words = failure(UnreachableError, "https://mirror.invalid/model.bin", begun())
    assert words == "unreachable: Name or service not known"


def test_a_host_that_does_not_take_the_call_is_unreachable(server, begun, monkeypatch):
    def no_route(*_):
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket.socket, "connect", no_route)
    words = failure(UnreachableError, "http://127.0.0.1/model.bin", begun())
    assert words == "unreachable: timed out"


def test_a_server_that_speaks_no_tls_is_unreachable(server, begun):
    url = server.mirror().replace("http", "https")
    assert "SSL" in failure(UnreachableError, url, begun())


def test_a_handshake_without_an_answer_is_unreachable(
    server, begun, listener, impatient
):
    words = failure(UnreachableError, url_of(listener, "https"), begun())
    assert "handshake operation timed out" in words


def test_a_lost_certificate_file_is_not_taken_for_a_full_disk(begun, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file")
    words = failure(UnreachableError, "https://127.0.0.1/model.bin", begun())
    assert "/no/such/file" in words


def test_the_error_at_hand_is_not_the_reason(server, begun):
    try:
        raise FileNotFoundError(errno.ENOENT, "the reader's own trouble")
    except OSError:
        assert "refused" in failure(UnreachableError, closed_url(), begun())


@pytest.mark.parametrize("length", [0, HALF])
def test_the_bar_begins_where_the_bytes_do(server, begun, capsys, length):
    part = begun(content=BODY[:length])
    download(server.mirror(), part)
    shown = [int(percent) for percent in re.findall(r"(\d+)%", capsys.readouterr().err)]
    assert shown[0] == 100 * length // LENGTH
