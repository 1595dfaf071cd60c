# SPDX-License-Identifier: BSD-3-Clause
"""A small HTTP server on loopback whose file is slow, breaks off, or never comes, as told."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = 32 * 1024


class FileServer:
    """Serves `size` bytes at any path, `per_second` at most, `stop_after` of them if given."""

    def __init__(self, size, per_second=None, stop_after=None):
        self.body = random.Random(size).randbytes(size)
        self.sha256 = hashlib.sha256(self.body).hexdigest()
        self.per_second = per_second
        self.stop_after = stop_after
        self.status = 200
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.serve(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}/file"

    def serve(self, request):
        request.send_response(self.status)
        request.send_header("Content-Length", str(len(self.body)))
        request.end_headers()
        for start in range(0, len(self.body), PIECE):
            if self.stop_after is not None and start >= self.stop_after:
                return
            try:
                request.wfile.write(self.body[start:start + PIECE])
            except OSError:
                return  # whoever fetched is gone
            if self.per_second:
                time.sleep(PIECE / self.per_second)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
