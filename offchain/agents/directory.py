# SPDX-License-Identifier: BSD-3-Clause
"""The authority: which routers there are, what they are paid through, and for which prices.

Routers publish themselves by HTTP; the authority answers with a signed consensus that carries the
network's parameters as it reads them from the ledger. The documents are JSON.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from monetor_chain.errors import ChainError

from ..crypto.errors import CryptoError
from ..crypto.issuer import IssuerPublicKey
from ..transport.errors import TransportError
from ..transport.identity import RouterInfo
from .place import AgentPlace, ChainAccess

MAX_DOCUMENT = 256 * 1024
"""Largest document in bytes that an authority takes or a client reads for one router."""
MAX_ROUTERS = 10_000
MAX_ACCEPTED = 16
"""Intermediaries that one relay may name."""
MAX_BANDWIDTH = 100_000_000
"""What a relay can claim at most, in bytes per second: no claim draws all circuits to itself."""
MAX_CONSENSUS = 64 * 1024 * 1024
"""Largest consensus in bytes that is read."""
PUBLISH_SECONDS = 10.0
"""How often a router publishes itself, so that the directory knows who is still there."""
FORGET_SECONDS = 60.0
"""A router that has not published itself for this long is listed no more."""


class DirectoryError(Exception):
    """The directory cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Router:
    """One router of the consensus and what it does."""

    info: RouterInfo
    guard: bool
    exit: bool
    intermediary: bool
    account: bytes
    """A relay's or intermediary's ledger account, 20 bytes."""
    key_hash: bytes = bytes(32)
    """An intermediary's registered key."""
    issuer: IssuerPublicKey | None = None
    accepts: tuple[bytes, ...] = ()
    """A relay's intermediaries, by the hashes of their keys."""
    opens: bool = True
    """Whether an intermediary opens new channels; one whose key retires serves the old ones only.
    """
    bandwidth: int = 1
    """Bytes per second that a relay claims; nobody measures them."""

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        return {
            "router": self.info.to_dict(), "guard": self.guard, "exit": self.exit,
            "intermediary": self.intermediary, "account": self.account.hex(),
            "key_hash": self.key_hash.hex(),
            "issuer": self.issuer.encode().hex() if self.issuer else "",
            "accepts": [one.hex() for one in self.accepts],
            "opens": self.opens, "bandwidth": self.bandwidth,
        }

    @classmethod
    def from_dict(cls, data: Any) -> Router:
        """The inverse; `DirectoryError` names what is missing or malformed."""
        try:
            issuer = str(data["issuer"])
            found = cls(
                RouterInfo.from_dict(data["router"]), bool(data["guard"]), bool(data["exit"]),
                bool(data["intermediary"]), bytes.fromhex(data["account"]),
                bytes.fromhex(data["key_hash"]),
                IssuerPublicKey.decode(bytes.fromhex(issuer)) if issuer else None,
                tuple(bytes.fromhex(one) for one in data["accepts"]), bool(data["opens"]),
                int(data["bandwidth"]))
        except (KeyError, TypeError, ValueError, CryptoError, TransportError) as error:
            raise DirectoryError(f"a router's entry is malformed: {error}") from error
        if len(found.account) != 20 or {len(one) for one in (found.key_hash, *found.accepts)} != {
                32}:
            raise DirectoryError("a router's entry has an account or key hash of the wrong length")
        if not 1 <= found.bandwidth <= MAX_BANDWIDTH:
            raise DirectoryError(f"a relay claims 1 to {MAX_BANDWIDTH} bytes a second, not "
                                 f"{found.bandwidth}")
        if len(found.accepts) > MAX_ACCEPTED:
            raise DirectoryError(f"a relay accepts at most {MAX_ACCEPTED} intermediaries, not "
                                 f"{len(found.accepts)}")
        return found


@dataclass(frozen=True, slots=True)
class Consensus:
    """What the authority vouches for at one time."""

    routers: tuple[Router, ...]
    cells_per_payment: int
    initial_credit: int

    def relays(self) -> tuple[Router, ...]:
        """Routers that carry circuits, intermediaries left out."""
        return tuple(one for one in self.routers if not one.intermediary)

    def intermediaries(self) -> tuple[Router, ...]:
        """Routers that end circuits for payments."""
        return tuple(one for one in self.routers if one.intermediary)

    def accepted_by(self, info: RouterInfo) -> tuple[bytes, ...]:
        """The intermediaries, by the hashes of their keys, that a relay is paid through."""
        return next((one.accepts for one in self.routers
                     if one.info.ed25519_identity == info.ed25519_identity), ())


class Authority:
    """Serves the directory on `place.host`; start it before anybody who publishes."""

    def __init__(self, place: AgentPlace) -> None:
        """`DirectoryError` if the key in the folder is none."""
        self._place = place
        self._routers: dict[bytes, tuple[float, dict[str, Any]]] = {}
        self._runner: web.AppRunner | None = None
        self._access: ChainAccess | None = None
        key = place.secret("authority.key",
                           lambda: Ed25519PrivateKey.generate().private_bytes_raw())
        try:
            self._key = Ed25519PrivateKey.from_private_bytes(key)
        except ValueError as error:
            raise DirectoryError(f"{place.folder / 'authority.key'} is no key: {error}") from error
        self.url = ""

    @property
    def identity(self) -> bytes:
        """The Ed25519 public key that signs the consensus."""
        return self._key.public_key().public_bytes_raw()

    async def start(self) -> None:
        """Connect to the chain and listen; `OSError` if the port is taken."""
        try:
            await self._listen()
        except BaseException:
            await self.stop()
            raise

    async def _listen(self) -> None:
        self._access = await ChainAccess.open(self._place)
        app = web.Application(client_max_size=MAX_DOCUMENT)
        app.router.add_post("/router", self._publish)
        app.router.add_get("/consensus", self._consensus)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._place.host, self._place.port)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://{self._place.host}:{port}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._access is not None:
            await self._access.chain.close()

    async def _publish(self, request: web.Request) -> web.Response:
        try:
            data = json.loads(await request.read())
            router = Router.from_dict(data)
        except (ValueError, DirectoryError) as error:
            return web.Response(status=400, text=str(error))
        now = time.monotonic()
        self._routers = {name: one for name, one in self._routers.items()
                         if now - one[0] < FORGET_SECONDS}
        name = router.info.ed25519_identity
        if name not in self._routers and len(self._routers) >= MAX_ROUTERS:
            return web.Response(status=503, text="the directory is full")
        self._routers[name] = (now, data)
        return web.Response(text="published")

    async def _consensus(self, request: web.Request) -> web.Response:
        assert self._access is not None, "the authority is started"
        try:
            parameters = await self._access.contracts.consensus.parameters()
        except ChainError as error:
            return web.Response(status=503, text=f"the ledger does not answer: {error}")
        now = time.monotonic()
        body = json.dumps({
            "valid_after": int(time.time()),
            "ledger": self._access.deployment.ledger,
            "cells_per_payment": parameters.cells_per_payment,
            "initial_credit": parameters.initial_credit,
            "routers": [data for at, data in self._routers.values() if now - at < FORGET_SECONDS],
        }, sort_keys=True)
        return web.json_response({"body": body, "identity": self.identity.hex(),
                                  "signature": self._key.sign(body.encode()).hex()})


async def publish(url: str, router: Router) -> None:
    """Tell the authority of a router; `DirectoryError` if it does not take it."""
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session, \
                session.post(f"{url}/router", json=router.to_dict()) as response:
            if response.status != 200:
                raise DirectoryError(f"the directory refuses {router.info.nickname}: "
                                     f"{await response.text()}")
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise DirectoryError(f"the directory at {url} does not answer: "
                             f"{str(error) or 'no answer in time'}") from error


async def keep_published(url: str, router: Router, log: Callable[[str], None]) -> None:
    """Publish a router again and again; `log` is told why that fails."""
    while True:
        await asyncio.sleep(PUBLISH_SECONDS)
        try:
            await publish(url, router)
        except DirectoryError as error:
            log(str(error))


async def fetch_consensus(url: str, identity: bytes | None = None) -> Consensus:
    """The authority's consensus, its signature checked (against `identity` if it is known)."""
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session, \
                session.get(f"{url}/consensus") as response:
            if response.status != 200:
                raise DirectoryError(f"the directory has no consensus: {await response.text()}")
            raw = bytearray()
            async for part in response.content.iter_chunked(1 << 16):
                raw += part
                if len(raw) > MAX_CONSENSUS:
                    raise DirectoryError("the directory sends more than any consensus has")
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        raise DirectoryError(f"the directory at {url} does not answer: "
                             f"{str(error) or 'no answer in time'}") from error
    try:
        document = json.loads(raw)
        signer = bytes.fromhex(document["identity"])
        body = document["body"]
        Ed25519PublicKey.from_public_bytes(signer).verify(
            bytes.fromhex(document["signature"]), body.encode())
        data = json.loads(body)
        routers = tuple(Router.from_dict(one) for one in data["routers"])
        cells, credit = int(data["cells_per_payment"]), int(data["initial_credit"])
    except (KeyError, TypeError, AttributeError, ValueError, InvalidSignature) as error:
        raise DirectoryError(f"the consensus is malformed or badly signed: {error}") from error
    if identity is not None and signer != identity:
        raise DirectoryError("the consensus is signed by another authority")
    return Consensus(routers, cells, credit)
