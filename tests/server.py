"""A real server on this machine that misbehaves as told, for the tests of downloads."""

import hashlib
import re
import socket
import struct
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread

BODY = bytes(range(256)) * 800 + b"the last bytes"
SHA256 = hashlib.sha256(BODY).hexdigest()
OTHER = b"?" + BODY[1:]  # of the same size
PAGE = b"<!DOCTYPE html><title>Please log in</title>" * 100
HALF = len(BODY) // 2
KNOWN = {
    "both": {"sha256": SHA256, "size": len(BODY)},
    "sha256": {"sha256": SHA256},
    "size": {"size": len(BODY)},
    "neither": {"size": None},
}


@dataclass
class Answer:
    """What the server says to one request; unless told otherwise, the right thing."""

    body: bytes = BODY
    status: int = 200
    headers: dict = field(default_factory=dict)  # above the usual ones; None removes
    etag: str | None = '"first"'
    ranges: bool = True  # honours Range
    if_range: bool = True  # and If-Range
    shift: int = 0  # a range begins so many bytes early, and is announced so
    sent: int | None = None  # bytes of its body before the connection is cut
    chunked: bool = False
    reset: bool = False  # cut harshly
    before: float = 0  # seconds until it answers
    stall: float = 0  # seconds of silence where it is cut
    drip: float = 0  # seconds after each thousand bytes of its body


class Handler(BaseHTTPRequestHandler):
    """Gives the next answer of the path, and notes the request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        answer = self.server.answer_to(self)
        self.server.over.wait(answer.before)
        status, start, usual = self.choose(answer)
        body = answer.body[start:] if status in (200, 206) else b""
        if answer.status != 200:
            status, body = answer.status, answer.body
        self.send_head(status, usual | {"Content-Length": str(len(body))}, answer)
        self.send_body(body, answer)
        self.close_connection = True

    def choose(self, answer):
        """The status, the first byte, and the headers that tell of them."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        changed = self.headers.get("If-Range", answer.etag) != answer.etag
        if not asked or not answer.ranges or (changed and answer.if_range):
            return 200, 0, {}
        start, length = int(asked[1]), len(answer.body)
        if start >= length:
            return 416, length, {"Content-Range": f"bytes */{length}"}
        start = max(0, start - answer.shift)
        return 206, start, {"Content-Range": f"bytes {start}-{length - 1}/{length}"}

    def send_head(self, status, usual, answer):
        """Send the status and the headers."""
        if answer.chunked:
            usual = usual | {"Content-Length": None, "Transfer-Encoding": "chunked"}
        usual = {
            "Content-Type": "application/octet-stream",
            "ETag": answer.etag,
        } | usual
        self.send_response(status)
        for name, value in (usual | answer.headers | {"Connection": "close"}).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def send_body(self, body, answer):
        """Send as much of the body as the answer is to."""
        whole = answer.sent is None
        body = body[: answer.sent]
        step = 10_000 if answer.chunked else max(1, len(body))
        step = 1000 if answer.drip else step
        for i in range(0, len(body), step):
            piece = body[i : i + step]
            self.wfile.write(
                b"%x\r\n%b\r\n" % (len(piece), piece) if answer.chunked else piece
            )
            self.server.over.wait(answer.drip)
        if answer.chunked and whole:
            self.wfile.write(b"0\r\n\r\n")
        self.server.over.wait(answer.stall)
        if answer.reset:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def log_message(self, *_):
        """Keep quiet."""


class Server(ThreadingHTTPServer):
    """Mirrors on loopback; `requests` holds (path, headers) of each request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.requests = {}, []
        self.lock, self.over = Lock(), Event()

    def mirror(self, path="/model.bin", *answers, **answer):
        """Set the answers to a path, of which the last repeats; return its URL."""
        self.answers[path] = list(answers) or [Answer(**answer)]
        return f"http://127.0.0.1:{self.server_port}{path}"

    def answer_to(self, request):
        """Note a request and take the next answer to its path."""
        with self.lock:
            self.requests.append((request.path, dict(request.headers)))
            answers = self.answers[request.path]
            return answers.pop(0) if len(answers) > 1 else answers[0]

    @property
    def paths(self):
        """The paths that were asked for, in order."""
        return [path for path, _ in self.requests]

    @property
    def ranges(self):
        """The Range of each request, None where there was none."""
        return [headers.get("Range") for _, headers in self.requests]

    def handle_error(self, *_):
        """A client that hangs up is no news."""


@contextmanager
def serving(monkeypatch):
    """A server without mirrors yet, in reach whatever this machine's settings are."""
    monkeypatch.delenv("LLMS_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


def closed_url():
    """A URL at a port where nobody listens."""
    with Server() as gone:
        return gone.mirror()
