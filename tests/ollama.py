"""A stand-in on this machine that speaks Ollama's protocol, for tests of judges."""

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread


class StandIn(BaseHTTPRequestHandler):
    """Answers each request with the next of `server.replies`, and notes it."""

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.server.asked.append(json.loads(self.rfile.read(length)))
        status, body = self.server.replies.pop(0)
        if status == "silent":
            self.server.over.wait(5)
            return
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing in the tests' output."""


@contextmanager
def stand_in():
    """A server, with the lists `replies` and `asked`, and its address `url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    server.replies, server.asked, server.over = [], [], Event()
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
