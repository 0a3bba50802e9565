"""Downloads from a real server on this machine: whole, or an error that says why."""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import sleep

import pytest

from ch02.fetch import (
    CHUNK,
    FetchError,
    check_sha256,
    downloads_folder,
    fetch,
    is_offline,
    write_atomically,
)
from tests.notebooks import ROOT

BODY = bytes(range(256)) * (3 * CHUNK // 256) + b"the last bytes"
SHA256 = hashlib.sha256(BODY).hexdigest()
DAMAGED = b"?" + BODY[1:]  # of the same size
PAGE = b"<html>Please log in</html>"
KNOWN = {"hash": {"sha256": SHA256}, "size": {"size": len(BODY)}, "no": {"size": None}}
FAULTS = {
    "404": {"status": 404},
    "503": {"status": 503},
    "cut": {"cut": 9},
    "cut, of unknown length": {"cut": 9, "announced": False},
    "damaged": {"body": DAMAGED},
    "page": {"body": PAGE, "content_type": "text/html"},
}


@dataclass
class Answer:
    """What the server says to one path."""

    body: bytes = BODY
    status: int = 200
    content_type: str = "application/octet-stream"
    cut: int = 0  # bytes of the body that are announced and never come
    announced: bool = True  # with a Content-Length
    seconds: float = 0  # until it answers


class Handler(BaseHTTPRequestHandler):
    """Gives the server's answer to the path, and notes the request."""

    def do_GET(self):
        self.server.requests.append(self.path)
        answer = self.server.answers[self.path]
        sleep(answer.seconds)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        if answer.announced:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body[: len(answer.body) - answer.cut])

    def log_message(self, *_):
        """Keep quiet."""


class Server(ThreadingHTTPServer):
    """Mirrors on loopback; `requests` holds the path of each request that came."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.requests = {}, []

    def mirror(self, path="/model.bin", **answer):
        """Set the answer to a path; return its URL."""
        self.answers[path] = Answer(**answer)
        return f"http://127.0.0.1:{self.server_port}{path}"


@pytest.fixture
def server(monkeypatch):
    """A server without mirrors yet, in reach whatever this machine's settings are."""
    monkeypatch.delenv("LLMS_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path):
    """Where the file is to lie."""
    return tmp_path / "downloads" / "model.bin"


def get(urls, target, **known):
    """Fetch without a progress bar; the file's sha256 is known unless others are."""
    return fetch(urls, target, progress=False, **(known or {"sha256": SHA256}))


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_a_file_arrives_whole(server, target, known, announced):
    url = server.mirror(announced=announced)
    assert get([url], str(target), **known) == target
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_second_mirror_is_asked_when_the_first_fails(server, target, fault):
    get([server.mirror("/1", **fault), server.mirror("/2")], target)
    assert target.read_bytes() == BODY
    assert list(dict.fromkeys(server.requests)) == ["/1", "/2"]


def test_the_second_mirror_is_left_alone_when_the_first_delivers(server, target):
    get([server.mirror("/1"), server.mirror("/2")], target)
    assert server.requests == ["/1"]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_error_names_each_url_and_leaves_nothing_behind(server, target, fault):
    urls = [server.mirror("/1", **fault), server.mirror("/2", **fault)]
    with pytest.raises(FetchError) as caught:
        get(urls, target)
    for needed in (*urls, f"save it as {target}"):
        assert needed in str(caught.value)
    assert not target.exists()


def test_the_error_says_what_happened_at_each_url(server, target):
    with Server() as gone:
        refused = gone.mirror()
    faults = {"404": {"status": 404}, "503": {"status": 503}}
    urls = [server.mirror(f"/{name}", **fault) for name, fault in faults.items()]
    with pytest.raises(FetchError, match="(?s)404.*503.*refused"):
        get([*urls, refused], target)


@pytest.mark.parametrize("cut", [1, CHUNK, len(BODY)])
@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_a_cut_body_is_refused(server, target, known, cut):
    with pytest.raises(FetchError):
        get([server.mirror(cut=cut)], target, **known)
    assert not target.exists()


@pytest.mark.parametrize("known", [{"size": len(PAGE)}, {"size": None}])
def test_a_web_page_is_refused_when_no_hash_is_known(server, target, known):
    url = server.mirror(body=PAGE, content_type="text/html; charset=utf-8")
    with pytest.raises(FetchError, match="web page"):
        get([url], target, **known)
    assert not target.exists()


def test_a_web_page_that_has_the_hash_is_the_file(server, target):
    url = server.mirror(content_type="text/html")
    assert get([url], target).read_bytes() == BODY


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_a_whole_file_is_used_with_no_request(server, target, known):
    write_atomically(target, BODY)
    assert get([server.mirror()], target, **known) == target
    assert server.requests == []


@pytest.mark.parametrize("content", [b"", BODY[:-1], BODY + b"?", DAMAGED])
def test_a_damaged_file_is_replaced(server, target, content):
    write_atomically(target, content)
    assert get([server.mirror()], target).read_bytes() == BODY


def test_a_file_of_the_wrong_size_is_replaced(server, target):
    write_atomically(target, BODY[:-1])
    url = server.mirror()
    assert get([url], target, size=len(BODY)).read_bytes() == BODY


def test_two_at_once_make_one_request(server, target):
    url = server.mirror(seconds=0.3)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(get, [[url]] * 2, [target] * 2))
    assert found == [target, target] and target.read_bytes() == BODY
    assert len(server.requests) == 1


@pytest.mark.parametrize("content", [None, DAMAGED], ids=["absent", "damaged"])
def test_offline_no_request_is_made(server, target, monkeypatch, content):
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    if content:
        write_atomically(target, content)
    with pytest.raises(FetchError, match="LLMS_OFFLINE") as caught:
        get([server.mirror()], target)
    assert str(target) in str(caught.value)
    assert server.requests == []


def test_offline_a_whole_file_is_used(target, monkeypatch):
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    write_atomically(target, BODY)
    assert get(["http://127.0.0.1/model.bin"], target) == target


@pytest.mark.parametrize(
    ("value", "offline"), [(None, False), ("", False), ("0", False), ("1", True)]
)
def test_llms_offline_says_whether_the_network_is_forbidden(
    monkeypatch, value, offline
):
    monkeypatch.delenv("LLMS_OFFLINE", raising=False)
    if value is not None:
        monkeypatch.setenv("LLMS_OFFLINE", value)
    assert is_offline() == offline


@pytest.mark.parametrize(
    ("value", "folder"), [("", ROOT / "downloads"), ("/srv/data", Path("/srv/data"))]
)
def test_llms_downloads_names_the_folder(monkeypatch, value, folder):
    monkeypatch.setenv("LLMS_DOWNLOADS", value)
    assert downloads_folder() == folder


def test_a_damaged_file_is_named_with_both_hashes(target):
    write_atomically(target, DAMAGED)
    found = hashlib.sha256(DAMAGED).hexdigest()
    reason = f"{target} is damaged: its sha256 is {found}, not {SHA256}"
    with pytest.raises(ValueError, match=re.escape(reason)):
        check_sha256(target, SHA256)
