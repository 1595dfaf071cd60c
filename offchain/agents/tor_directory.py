# SPDX-License-Identifier: BSD-3-Clause
"""A real Tor network's directory, over HTTP: a relay publishes its descriptor at an authority, a
client fetches what it chooses its circuits from (dir-spec, "Directory server interface").

What is fetched is believed only as far as the authorities' keys go that the caller names
(`transport.network_status`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

import aiohttp

from ..transport.network_status import NetworkStatus, read_consensus
from .directory import DirectoryError

PUBLISH_AGAIN_SECONDS = 12 * 3600.0
"""Authorities forget a descriptor that is a day old; tor's relays publish every 18 hours."""
RETRY_SECONDS = 60.0
MAX_DOCUMENT = 64 * 1024 * 1024
"""Largest document in bytes that is read."""
BATCH = 90
"""Descriptors that are asked for at a time; tor's own clients ask for as many."""
_PATIENCE = aiohttp.ClientTimeout(total=60)


async def publish_descriptor(authority: tuple[str, int], descriptor: str) -> None:
    """Upload a server descriptor to the directory port of an authority.

    `DirectoryError` with the authority's own words if it does not take it.
    """
    host, port = authority
    try:
        async with aiohttp.ClientSession(timeout=_PATIENCE) as session, \
                session.post(_url(host, port, "/tor/"), data=descriptor.encode()) as response:
            if response.status != 200:
                raise DirectoryError(f"the authority at {host}:{port} refuses the descriptor: "
                                     f"{response.status} {response.reason}")
            await response.read()
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise _no_answer(host, port, error) from error


async def keep_listed(authority: tuple[str, int], describe: Callable[[], str],
                      log: Callable[[str], None]) -> None:
    """Publish what `describe` returns, again and again; `log` is told why that fails."""
    while True:
        wait = PUBLISH_AGAIN_SECONDS
        try:
            await publish_descriptor(authority, await asyncio.to_thread(describe))
        except DirectoryError as error:
            log(str(error))
            wait = RETRY_SECONDS
        await asyncio.sleep(wait)


async def fetch_network_status(server: tuple[str, int], authorities: Collection[bytes]
                               ) -> NetworkStatus:
    """The network as the consensus of these authorities (SHA-1 of their identity keys, 20 bytes
    each) has it, from the directory port of an authority or cache.

    `DirectoryError` if it does not answer, `DirectoryDocumentError` if it is not to be believed.
    """
    async with aiohttp.ClientSession(timeout=_PATIENCE) as session:
        consensus, certificates = [await _get(session, server, path) for path in (
            "/tor/status-vote/current/consensus", "/tor/keys/all")]
        signed = await asyncio.to_thread(read_consensus, consensus, certificates,
                                         authorities=authorities, now=time.time())
        digests = [one.hex() for one in signed.descriptor_digests()]
        descriptors = [
            await _get(session, server, "/tor/server/d/" + "+".join(digests[at : at + BATCH]))
            for at in range(0, len(digests), BATCH)]
    return await asyncio.to_thread(signed.with_descriptors, b"".join(descriptors))


async def _get(session: aiohttp.ClientSession, server: tuple[str, int], path: str) -> bytes:
    host, port = server
    found = bytearray()
    try:
        async with session.get(_url(host, port, path)) as response:
            if response.status != 200:
                raise DirectoryError(f"the directory at {host}:{port} has no {path}: "
                                     f"{response.status} {response.reason}")
            async for part in response.content.iter_chunked(1 << 16):
                found += part
                if len(found) > MAX_DOCUMENT:
                    raise DirectoryError("the directory sends more than any document has")
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise _no_answer(host, port, error) from error
    return bytes(found)


def _url(host: str, port: int, path: str) -> str:
    return f"http://[{host}]:{port}{path}" if ":" in host else f"http://{host}:{port}{path}"


def _no_answer(host: str, port: int, error: Exception) -> DirectoryError:
    return DirectoryError(f"the directory at {host}:{port} does not answer: "
                          f"{str(error) or 'no answer in time'}")
