"""A JWKS endpoint on a real socket."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class KeyEndpoint(ThreadingHTTPServer):
    """Answers every request with `text`, when `go` is set."""

    def __init__(self, text: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status, self.text, self.asked = 200, text, 0
        self.asking, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/keys"


class _Answer(BaseHTTPRequestHandler):
    server: KeyEndpoint

    def do_GET(self) -> None:
        self.server.asked += 1
        self.server.asking.set()
        self.server.go.wait(10)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.text)))
        self.end_headers()
        self.wfile.write(self.server.text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as above
        """Say nothing."""


@contextmanager
def serving_keys(text: bytes) -> Iterator[KeyEndpoint]:
    """Serve a key set while the block runs."""
    with KeyEndpoint(text) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.go.set()
            server.shutdown()
            thread.join()
