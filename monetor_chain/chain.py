# SPDX-License-Identifier: BSD-3-Clause
"""A connection to a chain: requests, blocks and the network's clock.

One kind of endpoint serves all: JSON-RPC over HTTP, whether the embedded chain, anvil or any
other chain answers.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import (
    BaseConnector,
    ClientError,
    ClientSession,
    ClientTimeout,
    ServerDisconnectedError,
)
from aiohttp_socks import ProxyConnectionError, ProxyConnector, ProxyError, ProxyTimeoutError

from .accounts import checksum
from .errors import ChainError, ChainUnavailable, NotADevelopmentChain, RpcError, WrongChain

EMBEDDED_CLIENT = "moneTor-embedded"
SEND_RAW = "eth_sendRawTransaction"
LEDGER_PROXY = "MONETOR_LEDGER_PROXY"
"""Environment variable with the SOCKS proxy that requests to the chain go through, if any. Whoever
serves the chain sees by which accounts it is asked for what; through an onion proxy it does not
see from where."""
_PROXY_SCHEMES = ("socks5://", "socks5h://")
_METHOD_NOT_FOUND = -32601
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Block:
    """A block's number, Unix timestamp and hash."""

    number: int
    timestamp: int
    hash: bytes


class Chain:
    """An open connection; make one with `Chain.connect`, end it with `close` or `async with`.

    Requests go out over a session of this connection alone. web3's provider guards its sessions by
    one lock of the whole process, which a request that is cancelled while it waits leaves locked
    for ever.
    """

    def __init__(self, url: str, session: ClientSession, chain_id: int, client: str) -> None:
        self.url = url
        self.chain_id = chain_id
        self.client = client
        self._session = session
        self._requests = itertools.count(1)

    @classmethod
    async def connect(
        cls, url: str, expect_chain_id: int | None = None, timeout: float = 30.0
    ) -> Self:
        """Open a connection; `timeout` in real seconds holds for each request.

        It goes through the proxy that the environment's `LEDGER_PROXY` names. Raises
        `ChainUnavailable`, `WrongChain` if the chain id is not the expected one, or `ChainError`
        for a proxy that cannot be used.
        """
        session = ClientSession(connector=_connector(), timeout=ClientTimeout(total=timeout),
                                raise_for_status=True)
        chain = cls(url, session, 0, "")
        try:
            chain.chain_id = int(await chain.rpc("eth_chainId"), 16)
            chain.client = str(await chain.rpc("web3_clientVersion"))
            if expect_chain_id is not None and chain.chain_id != expect_chain_id:
                raise WrongChain(
                    f"{url} serves chain {chain.chain_id}, not chain {expect_chain_id}"
                )
        except BaseException:
            await chain.close()
            raise
        return chain

    async def close(self) -> None:
        """End the connection."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def rpc(self, method: str, *params: Any) -> Any:
        """The result of one JSON-RPC request.

        A connection that the other side closed while it was idle is opened again, except for
        sending a transaction: whether that arrived is the sender's question. Raises
        `ChainUnavailable` if there is no usable answer and `RpcError` if it is an error.
        """
        try:
            try:
                response = await self._request(method, params)
            except ServerDisconnectedError:
                if method == SEND_RAW:
                    raise
                response = await self._request(method, params)
        except (ProxyConnectionError, ProxyTimeoutError, ProxyError) as error:
            raise ChainUnavailable(f"no answer from the chain at {self.url}: the proxy that "
                                   f"{LEDGER_PROXY} names fails: {error}") from error
        except (ClientError, TimeoutError, OSError, ValueError) as error:
            said = str(error) or type(error).__name__
            raise ChainUnavailable(f"no answer from the chain at {self.url}: {said}") from error
        problem = response.get("error")
        if problem is None:
            return response.get("result")
        if isinstance(problem, str):
            raise RpcError(f"{method}: {problem}")
        raise RpcError(
            str(problem.get("message", "error without a message")),
            int(problem.get("code", 0)),
            _payload(problem.get("data")),
        )

    async def _request(self, method: str, params: tuple[Any, ...]) -> dict[str, Any]:
        number = next(self._requests)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        async with self._session.post(self.url, json=request) as answer:
            found = await answer.json(content_type=None)
        if not isinstance(found, dict):
            raise ValueError("the answer is no JSON object")
        return found

    # --- Blocks -----------------------------------------------------------------------------------

    async def latest(self) -> Block:
        """The newest block."""
        return _block(await self.rpc("eth_getBlockByNumber", "latest", False))

    async def block(self, number: int) -> Block:
        """The block with this number; `ChainError` if the chain is not that long."""
        found = await self.rpc("eth_getBlockByNumber", hex(number), False)
        if found is None:
            raise ChainError(f"the chain has no block {number} yet")
        return _block(found)

    async def wait_past(self, timestamp: int, confirmations: int = 0) -> Block:
        """Wait until a block later than `timestamp` has the confirmations; that block.

        This is what "T_exp has passed" means in the protocol: no clock but the ledger's counts.
        """
        while True:
            number = (await self.latest()).number - confirmations
            if number >= 0:
                block = await self.block(number)
                if block.timestamp > timestamp:
                    return block
            await asyncio.sleep(_POLL_SECONDS)

    # --- Accounts ---------------------------------------------------------------------------------

    async def wei(self, address: str | bytes) -> int:
        """Native coin of an account, in wei."""
        return int(await self.rpc("eth_getBalance", checksum(address), "latest"), 16)

    async def code(self, address: str | bytes) -> bytes:
        """Code of an account, empty if it is no contract."""
        return bytes.fromhex((await self.rpc("eth_getCode", checksum(address), "latest"))[2:])

    async def call(
        self,
        to: str | bytes,
        data: bytes,
        sender: str | None = None,
        value: int = 0,
        gas: int | None = None,
        block: int | str = "latest",
    ) -> bytes:
        """Output of a call that changes nothing. Raises `RpcError`, whose `data` is a revert's."""
        request: dict[str, str] = {"to": checksum(to), "data": "0x" + data.hex()}
        if sender is not None:
            request["from"] = sender
        if value:
            request["value"] = hex(value)
        if gas is not None:
            request["gas"] = hex(gas)
        tag = hex(block) if isinstance(block, int) else block
        return bytes.fromhex((await self.rpc("eth_call", request, tag))[2:])

    # --- Clock ------------------------------------------------------------------------------------

    @property
    def is_embedded(self) -> bool:
        """Whether this is the embedded chain, which owns the network's clock."""
        return self.client.startswith(EMBEDDED_CLIENT)

    async def now(self) -> float:
        """The network's present in Unix seconds.

        On the embedded chain its clock; elsewhere the wall clock, or the newest block's time if
        that is ahead, as on a development chain whose time was moved.
        """
        if self.is_embedded:
            return float(await self.rpc("monetor_now"))
        return max(time.time(), float((await self.latest()).timestamp))

    async def clock(self) -> tuple[float, float]:
        """The present and the clock's speed in chain seconds per real second."""
        if self.is_embedded:
            reading = await self.rpc("monetor_clock")
            return float(reading["now"]), float(reading["speed"])
        return await self.now(), 1.0

    # --- Development chains -----------------------------------------------------------------------

    async def snapshot(self) -> str:
        """Remember the chain's state; an id for `revert`."""
        return str(await self._development("evm_snapshot"))

    async def revert(self, snapshot: str) -> None:
        """Return to a snapshot, which is used up; raises `ChainError` if there is none such."""
        if not await self._development("evm_revert", snapshot):
            raise ChainError("no such snapshot")

    async def increase_time(self, seconds: float) -> None:
        """Move the clock ahead and mine a block there."""
        if self.is_embedded:
            await self._development("monetor_increaseTime", seconds)
            return
        await self._development("evm_increaseTime", int(seconds))
        await self.mine()

    async def set_speed(self, speed: float) -> None:
        """Let the clock run `speed` times as fast as real time; 0 stops it."""
        await self._development("monetor_setSpeed", speed)

    async def mine(self) -> None:
        """Mine a block at once."""
        await self._development("evm_mine")

    async def _development(self, method: str, *params: Any) -> Any:
        try:
            return await self.rpc(method, *params)
        except RpcError as error:
            if error.code == _METHOD_NOT_FOUND:
                raise NotADevelopmentChain(
                    f"the chain at {self.url} does not offer {method}"
                ) from error
            raise


def _connector() -> BaseConnector | None:
    proxy = os.environ.get(LEDGER_PROXY)
    if not proxy:
        return None
    scheme = next((one for one in _PROXY_SCHEMES if proxy.startswith(one)), None)
    try:
        if scheme is None:
            raise ValueError("it has to start with socks5h://")
        # The proxy resolves names: asking for them here would tell what it is to hide.
        return ProxyConnector.from_url("socks5://" + proxy.removeprefix(scheme), rdns=True)
    except ValueError as error:
        raise ChainError(f"{LEDGER_PROXY} is {proxy!r}, which is no proxy: {error}; for example "
                         "socks5h://127.0.0.1:9050") from error


def _block(found: dict[str, str]) -> Block:
    return Block(
        int(found["number"], 16), int(found["timestamp"], 16), bytes.fromhex(found["hash"][2:])
    )


def _payload(data: Any) -> bytes:
    """A revert's payload: nodes put it into `data`, as hex."""
    if isinstance(data, str) and data.startswith("0x"):
        try:
            return bytes.fromhex(data[2:])
        except ValueError:
            return b""
    return b""
