# SPDX-License-Identifier: BSD-3-Clause
"""A plain HTTP download over one stream of a circuit."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..transport.client_stream import ClientStream
from ..transport.errors import TransportError
from ..transport.proxy import ClientCircuit

MAX_HEAD = 64 * 1024
"""Longest response head in bytes."""
READ_SIZE = 256 * 1024
STALL_SECONDS = 60.0
"""A server that sends nothing for this long is given up."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and in all, if the server says how many."""


class DownloadError(Exception):
    """The download cannot start or did not finish; the text says why."""


@dataclass(frozen=True, slots=True)
class Download:
    """A finished download: size in bytes, SHA-256 in hex, seconds, and the body if it was kept."""

    size: int
    sha256: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads."""

    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Target:
        """Parse an http URL; `DownloadError` says what is wrong with another."""
        try:
            parts = urlsplit(url)
            port = parts.port or 80
        except ValueError as error:
            raise DownloadError(f"{url!r} is no URL: {error}") from error
        if parts.scheme != "http":
            raise DownloadError(f"{url!r} is no http:// URL; other schemes are not fetched")
        if not parts.hostname:
            raise DownloadError(f"{url!r} names no host")
        query = f"?{parts.query}" if parts.query else ""
        path = (parts.path or "/") + query
        if any(ord(letter) <= 32 or ord(letter) > 126 for letter in path):
            raise DownloadError(f"{url!r} has characters that must be percent-encoded")
        return cls(parts.hostname, port, path)


async def fetch(circuit: ClientCircuit, target: Target, progress: Progress) -> Download:
    """GET `target` through the circuit's exit; `DownloadError` if it does not arrive whole."""
    started = time.monotonic()
    digest = hashlib.sha256()
    size = 0
    try:
        stream = await circuit.open_stream(target.host, target.port)
        try:
            await stream.write(
                f"GET {target.path} HTTP/1.0\r\nHost: {target.host}:{target.port}\r\n"
                "User-Agent: monetor\r\nAccept-Encoding: identity\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                more = await _more(stream, None)
                if not more:
                    raise DownloadError("the server closed the connection before it answered")
                head += more
                if len(head) > MAX_HEAD and b"\r\n\r\n" not in head:
                    raise DownloadError("the server's answer has no end of its head")
            raw, _, body = head.partition(b"\r\n\r\n")
            total = _content_length(raw)
            # The head may come alone, with the first byte of the body still on its way.
            body = body or await _more(stream, total)
            while body:
                digest.update(body)
                size += len(body)
                progress(size, total)
                if total is not None and size >= total:
                    break
                body = await _more(stream, total)
        finally:
            await stream.close()
    except (TransportError, OSError, TimeoutError) as error:
        raise DownloadError(f"the download stopped after {size} bytes: {error}") from error
    if total is not None and size != total:
        raise DownloadError(f"the download stopped after {size} of {total} bytes")
    return Download(size, digest.hexdigest(), time.monotonic() - started)


async def _more(stream: ClientStream, total: int | None) -> bytes:
    """The next bytes of the body, b"" at its end."""
    if total == 0:
        return b""
    try:
        async with asyncio.timeout(STALL_SECONDS):
            return await stream.read(READ_SIZE)
    except TimeoutError:
        raise DownloadError(f"the server has sent nothing for {STALL_SECONDS:.0f} s") from None


def _content_length(head: bytes) -> int | None:
    lines = head.decode("latin-1").split("\r\n")
    status = lines[0].split(" ", 2)
    if len(status) < 2 or not status[0].startswith("HTTP/") or status[1] != "200":
        raise DownloadError(f"the server answers {lines[0][:80]!r}")
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-length":
            if not value.strip().isdigit():
                raise DownloadError(f"the server gives the length {value.strip()[:40]!r}")
            return int(value)
        if name.strip().lower() == "transfer-encoding":
            raise DownloadError("the server sends a transfer encoding that was not asked for")
    return None
