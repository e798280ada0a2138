"""A loopback HTTP server for one file, with the faults of real ones: cuts, no Range, wrong bytes, slowness."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What the server sends and what it was asked."""

    payload: bytes
    ranges: bool = True
    cuts: list[int] = field(default_factory=list[int])
    """How many bytes to send before closing the connection, one entry a request; then whole answers."""
    pause_s: float = 0.0
    """Between blocks of 64 kB."""
    length: bool = True
    url: str = ""
    asked: list[str | None] = field(default_factory=list["str | None"])
    """The Range header of each request."""
    sent: int = 0

    @contextmanager
    def running(self) -> Generator[FileServer]:
        """Serve on a random port until the block ends."""
        state = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                state.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}/model.gguf"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join(5)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("range")
        self.asked.append(asked)
        found = re.fullmatch(r"bytes=(\d+)-", asked or "") if self.ranges else None
        start = int(found[1]) if found else 0
        body = self.payload[start:]
        request.send_response(206 if found else 200)
        if found:
            request.send_header("Content-Range", f"bytes {start}-{len(self.payload) - 1}/{len(self.payload)}")
        if self.length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        limit = self.cuts.pop(0) if self.cuts else len(body)
        try:
            for at in range(0, min(limit, len(body)), 65536):
                block = body[at : min(at + 65536, limit)]
                request.wfile.write(block)
                self.sent += len(block)
                time.sleep(self.pause_s)
        except OSError:
            # The client went away, as the test wants.
            return
