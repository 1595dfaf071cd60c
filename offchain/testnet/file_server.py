# SPDX-License-Identifier: BSD-3-Clause
"""A file on loopback for downloads to fetch."""

from __future__ import annotations

import hashlib
import random

from aiohttp import web

CHUNK = 256 * 1024


class FileServer:
    """Serves one file of `size` bytes at /file; `sha256` is its digest in hex.

    The bytes are pseudo-random from a fixed seed: reproducible, and not compressible. With
    `stop_after` the connection breaks after that many bytes, as a failing server's would.
    """

    def __init__(self, size: int, stop_after: int | None = None) -> None:
        self._body = random.Random(size).randbytes(size)
        self.sha256 = hashlib.sha256(self._body).hexdigest()
        self._stop_after = stop_after
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application()
        app.router.add_get("/file", self._serve)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/file"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(self._body))})
        await response.prepare(request)
        for start in range(0, len(self._body), CHUNK):
            if self._stop_after is not None and start >= self._stop_after:
                if request.transport is not None:
                    request.transport.abort()
                break
            try:
                await response.write(self._body[start:start + CHUNK])
            except ConnectionError:
                break  # whoever fetched has gone away
        return response
