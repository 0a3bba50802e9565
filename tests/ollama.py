"""A stand-in on this machine that speaks Ollama's protocol, for tests of judges."""

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Event, Thread


class StandIn(BaseHTTPRequestHandler):
    """Answers each request with the next of `server.replies`, and notes it.

    A reply is a status and a body; the status may be "silent"; of a "drip" the bytes
    come slowly, be they those of the head or, with one, of the body; an "endless" body
    is the same bytes for ever.
    """

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.server.asked.append(json.loads(self.rfile.read(length)))
        status, body = self.server.replies.pop(0)
        if status == "silent":
            self.server.over.wait(5)
            return
        if status in ("drip", "endless"):
            self.send_for_long(status, body)
            return
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_for_long(self, status, body):
        """Send raw bytes, one at a time and with pauses, or again and again."""
        self.close_connection = True
        try:
            for i in range(len(body)) if status == "drip" else count():
                if self.server.over.wait(0.005 if status == "drip" else 0):
                    return
                self.wfile.write(body[i : i + 1] if status == "drip" else body)
                self.server.sent += 1
        except OSError:  # the client has hung up
            self.server.cut.set()

    def log_message(self, *args):
        """Say nothing in the tests' output."""


@contextmanager
def stand_in():
    """A server, with the lists `replies` and `asked`, and its address `url`.

    `cut` is set when a client hangs up on a long reply.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    server.replies, server.asked, server.sent = [], [], 0
    server.over, server.cut = Event(), Event()
    server.url = f"http://127.0.0.1:{server.server_port}/api/chat"
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()


def message(content):
    """A reply as Ollama gives it."""
    return 200, {"message": {"role": "assistant", "content": content}, "done": True}
