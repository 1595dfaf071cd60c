# SPDX-License-Identifier: BSD-3-Clause
"""Calls and events of a contract, written down as signatures and coded by eth-abi.

The bindings state what they call in the usual notation, so that using the contracts needs neither
their sources nor a compiler; a test compares every signature with the compiled contracts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from eth_abi.abi import decode as abi_decode, encode as abi_encode
from eth_abi.exceptions import DecodingError, EncodingError

from .accounts import checksum
from .errors import ChainError, DeploymentMismatch
from .statements import keccak256


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: a canonical ABI type, a name, and for events whether it is a topic."""

    type: str
    name: str
    indexed: bool = False


class Function:
    """One function of a contract, e.g. ``Function("claims(bytes32)", "(uint256,uint256)")``."""

    def __init__(self, signature: str, returns: str = "()") -> None:
        self.name = signature[: signature.index("(")]
        self.signature = signature
        self.inputs = _split(signature[len(self.name) :])
        self.outputs = _split(returns)
        self.selector = keccak256(signature.encode())[:4]

    def encode(self, *arguments: Any) -> bytes:
        """Calldata. Raises `ValueError` for arguments that do not fit the types."""
        for kind, value in zip(self.inputs, arguments, strict=True):
            _check_size(kind, value, self.name)
        try:
            return self.selector + abi_encode(self.inputs, arguments)
        except EncodingError as error:
            raise ValueError(f"{self.name}: {error}") from error

    def decode(self, output: bytes) -> tuple[Any, ...]:
        """The returned values; addresses in checksummed form, arrays as tuples.

        Raises `DeploymentMismatch` if they are not of the expected form: an address without code
        answers every call with nothing.
        """
        try:
            values = abi_decode(self.outputs, output)
        except DecodingError as error:
            raise DeploymentMismatch(
                f"what answers to {self.name} is not the expected contract"
            ) from error
        return tuple(_present(k, v) for k, v in zip(self.outputs, values, strict=True))


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where on the chain an event happened; sorts in chain order."""

    block: int
    log_index: int
    transaction: bytes


class Event(Protocol):
    """A dataclass whose fields are an event's parameters by name, and `at`, its position."""

    SIGNATURE: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


EventType = TypeVar("EventType")


class _Layout:
    """How the log of one event class is laid out."""

    def __init__(self, event: type[Event]) -> None:
        signature = event.SIGNATURE
        name = signature[: signature.index("(")]
        self.parameters = tuple(_parameter(part) for part in _split(signature[len(name) :]))
        canonical = ",".join(parameter.type for parameter in self.parameters)
        self.topic = "0x" + keccak256(f"{name}({canonical})".encode()).hex()
        self.indexed = tuple(p for p in self.parameters if p.indexed)
        self.plain = tuple(p for p in self.parameters if not p.indexed)


class EventDecoder(Generic[EventType]):
    """Turns a contract's logs into events; logs of other kinds are passed over."""

    def __init__(self, classes: Iterable[type[Any]]) -> None:
        self._layouts = {}
        for event in classes:
            layout = _Layout(event)
            self._layouts[layout.topic] = (event, layout)

    @property
    def topics(self) -> dict[str, type[Any]]:
        """First topics of the known events."""
        return {topic: event for topic, (event, _) in self._layouts.items()}

    def decode(self, log: Mapping[str, Any]) -> EventType | None:
        """The event of one JSON-RPC log entry; None if its kind is unknown.

        Raises `ChainError` for a log whose content does not fit its own kind.
        """
        topics = log["topics"]
        known = self._layouts.get(topics[0]) if topics else None
        if known is None:
            return None
        event, layout = known
        try:
            values = dict(
                zip(
                    (p.name for p in layout.plain),
                    abi_decode([p.type for p in layout.plain], _raw(log["data"])),
                    strict=True,
                )
            )
            for parameter, topic in zip(layout.indexed, topics[1:], strict=True):
                (values[parameter.name],) = abi_decode([parameter.type], _raw(topic))
        except (DecodingError, ValueError) as error:
            raise ChainError(f"a log of {event.__name__} cannot be read: {error}") from error
        fields = {p.name: _present(p.type, values[p.name]) for p in layout.parameters}
        at = Position(
            int(log["blockNumber"], 16), int(log["logIndex"], 16), _raw(log["transactionHash"])
        )
        return event(**fields, at=at)  # type: ignore[no-any-return]


def _split(text: str) -> tuple[str, ...]:
    """The parts of a parenthesised list, at its outermost commas."""
    if text[0] != "(" or text[-1] != ")":
        raise ValueError(f"not a parameter list: {text}")
    parts, depth, current = [], 0, ""
    for character in text[1:-1]:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += character
    return (*parts, current.strip()) if current.strip() else tuple(parts)


def _parameter(text: str) -> Parameter:
    *kind, name = text.split(" ")
    return Parameter(kind[0], name, kind[1:] == ["indexed"])


def _raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _check_size(kind: str, value: Any, where: str) -> None:
    """eth-abi pads short values of fixed size in silence; here they are mistakes."""
    if kind == "bytes32" and len(value) != 32:
        raise ValueError(f"{where}: a bytes32 has 32 bytes, this one has {len(value)}")
    if kind.endswith("[]"):
        for item in value:
            _check_size(kind[:-2], item, where)
    elif kind.startswith("("):
        for part, item in zip(_split(kind), value, strict=True):
            _check_size(part, item, where)


def _present(kind: str, value: Any) -> Any:
    if kind.endswith("[]"):
        return tuple(_present(kind[:-2], item) for item in value)
    if kind.startswith("("):
        return tuple(_present(k, v) for k, v in zip(_split(kind), value, strict=True))
    return checksum(value) if kind == "address" else value
