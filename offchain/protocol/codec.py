# SPDX-License-Identifier: BSD-3-Clause
"""Fixed-width big-endian encoding of frozen dataclasses.

A field's annotation says how it travels: `U8`…`U64` and `U248` unsigned integers, `I64` a signed
one, `Scalar` an integer below the group order, `B20`, `B32`, `G1`, `G2`, `Token`, `Ecdsa` byte
strings of one length, `Proof` a byte string behind its 16-bit length, `Path` at most 14 hashes
behind their number, and any other dataclass in place. Two messages of one type thus have one
length, whatever they say. Decoding yields a whole object or raises `ProtocolError`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from enum import IntEnum
from typing import Annotated, Any, TypeVar

from monetor_chain.statements import GROUP_ORDER

from .errors import ProtocolError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class UInt:
    """An unsigned integer of `size` bytes, below `limit` if one is given."""

    size: int
    limit: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class SInt:
    """A two's complement integer of `size` bytes."""

    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Fixed:
    """Exactly `size` bytes."""

    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Prefixed:
    """At most `limit` bytes behind a 16-bit length."""

    limit: int


@dataclasses.dataclass(frozen=True, slots=True)
class Many:
    """A tuple of at most `limit` items behind their 16-bit number."""

    limit: int


U8 = Annotated[int, UInt(1)]
U16 = Annotated[int, UInt(2)]
U32 = Annotated[int, UInt(4)]
U64 = Annotated[int, UInt(8)]
U248 = Annotated[int, UInt(31)]
I64 = Annotated[int, SInt(8)]
U256 = Annotated[int, UInt(32)]
Scalar = Annotated[int, UInt(32, GROUP_ORDER)]
B20 = Annotated[bytes, Fixed(20)]
B32 = Annotated[bytes, Fixed(32)]
G1 = Annotated[bytes, Fixed(48)]
G2 = Annotated[bytes, Fixed(96)]
Token = Annotated[bytes, Fixed(192)]
Ecdsa = Annotated[bytes, Fixed(65)]
Proof = Annotated[bytes, Prefixed(4096)]
Blob = Annotated[bytes, Prefixed(60_000)]
Path = Annotated[tuple[B32, ...], Many(14)]

_Encoder = Callable[[Any], bytes]
_Decoder = Callable[[memoryview, int, str], tuple[Any, int]]


def _take(data: memoryview, offset: int, size: int, name: str) -> tuple[bytes, int]:
    end = offset + size
    if end > len(data):
        raise ProtocolError(f"{name}: the message ends {end - len(data)} bytes too early")
    return bytes(data[offset:end]), end


def _integer(size: int, limit: int | None, signed: bool) -> tuple[_Encoder, _Decoder]:
    def encode(value: Any) -> bytes:
        if limit is not None and not 0 <= value < limit:
            raise ProtocolError(f"the value {value} is not below {limit}")
        try:
            return int(value).to_bytes(size, "big", signed=signed)
        except OverflowError as error:
            raise ProtocolError(f"the value {value} does not fit {size} bytes") from error

    def decode(data: memoryview, offset: int, name: str) -> tuple[int, int]:
        raw, end = _take(data, offset, size, name)
        value = int.from_bytes(raw, "big", signed=signed)
        if limit is not None and value >= limit:
            raise ProtocolError(f"{name}: the scalar is not canonical")
        return value, end

    return encode, decode


def _fixed(size: int) -> tuple[_Encoder, _Decoder]:
    def encode(value: Any) -> bytes:
        if len(value) != size:
            raise ProtocolError(f"a field has {len(value)} bytes instead of {size}")
        return bytes(value)

    return encode, lambda data, offset, name: _take(data, offset, size, name)


def _prefixed(limit: int) -> tuple[_Encoder, _Decoder]:
    def encode(value: Any) -> bytes:
        if len(value) > limit:
            raise ProtocolError(f"a field has {len(value)} bytes, more than {limit}")
        return len(value).to_bytes(2, "big") + bytes(value)

    def decode(data: memoryview, offset: int, name: str) -> tuple[bytes, int]:
        raw, offset = _take(data, offset, 2, name)
        size = int.from_bytes(raw, "big")
        if size > limit:
            raise ProtocolError(f"{name}: {size} bytes announced, at most {limit} allowed")
        return _take(data, offset, size, name)

    return encode, decode


def _many(item: tuple[_Encoder, _Decoder], limit: int) -> tuple[_Encoder, _Decoder]:
    encode_item, decode_item = item

    def encode(value: Any) -> bytes:
        if len(value) > limit:
            raise ProtocolError(f"a field has {len(value)} items, more than {limit}")
        return len(value).to_bytes(2, "big") + b"".join(encode_item(one) for one in value)

    def decode(data: memoryview, offset: int, name: str) -> tuple[tuple[Any, ...], int]:
        raw, offset = _take(data, offset, 2, name)
        count = int.from_bytes(raw, "big")
        if count > limit:
            raise ProtocolError(f"{name}: {count} items announced, at most {limit} allowed")
        items = []
        for _ in range(count):
            one, offset = decode_item(data, offset, name)
            items.append(one)
        return tuple(items), offset

    return encode, decode


def _enum(kind: type[IntEnum]) -> tuple[_Encoder, _Decoder]:
    def decode(data: memoryview, offset: int, name: str) -> tuple[IntEnum, int]:
        raw, end = _take(data, offset, 1, name)
        try:
            return kind(raw[0]), end
        except ValueError as error:
            raise ProtocolError(f"{name}: {raw[0]} is no {kind.__name__}") from error

    return lambda value: int(value).to_bytes(1, "big"), decode


def _boolean() -> tuple[_Encoder, _Decoder]:
    def decode(data: memoryview, offset: int, name: str) -> tuple[bool, int]:
        raw, end = _take(data, offset, 1, name)
        if raw[0] > 1:
            raise ProtocolError(f"{name}: {raw[0]} is neither true nor false")
        return raw[0] == 1, end

    return lambda value: b"\x01" if value else b"\x00", decode


def _nested(kind: type) -> tuple[_Encoder, _Decoder]:
    def decode(data: memoryview, offset: int, name: str) -> tuple[Any, int]:
        values = {}
        for field, (_, decode_field) in _fields(kind):
            values[field], offset = decode_field(data, offset, f"{name}.{field}")
        return kind(**values), offset

    def encode(value: Any) -> bytes:
        return b"".join(encode_field(getattr(value, field))
                        for field, (encode_field, _) in _fields(kind))

    return encode, decode


def _for(annotation: Any) -> tuple[_Encoder, _Decoder]:
    if typing.get_origin(annotation) is Annotated:
        base, rule = typing.get_args(annotation)[:2]
        if isinstance(rule, UInt):
            return _integer(rule.size, rule.limit, signed=False)
        if isinstance(rule, SInt):
            return _integer(rule.size, None, signed=True)
        if isinstance(rule, Fixed):
            return _fixed(rule.size)
        if isinstance(rule, Prefixed):
            return _prefixed(rule.limit)
        if isinstance(rule, Many):
            return _many(_for(typing.get_args(base)[0]), rule.limit)
    if annotation is bool:
        return _boolean()
    if isinstance(annotation, type) and issubclass(annotation, IntEnum):
        return _enum(annotation)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return _nested(annotation)
    raise TypeError(f"no encoding is defined for {annotation!r}")


_Fields = tuple[tuple[str, tuple[_Encoder, _Decoder]], ...]
_known: dict[type[Any], _Fields] = {}


def _fields(kind: type[Any]) -> _Fields:
    found = _known.get(kind)
    if found is None:
        hints = typing.get_type_hints(kind, include_extras=True)
        found = tuple((field.name, _for(hints[field.name])) for field in dataclasses.fields(kind))
        _known[kind] = found
    return found


def encode(message: Any) -> bytes:
    """The encoding of a message or record; `ProtocolError` if a field does not fit its width."""
    parts = []
    for field, (encode_field, _) in _fields(type(message)):
        try:
            parts.append(encode_field(getattr(message, field)))
        except ProtocolError as error:
            raise ProtocolError(f"{type(message).__name__}.{field}: {error}") from error
    return b"".join(parts)


def decode(kind: type[T], data: bytes) -> T:
    """The message of type `kind` that `data` is, whole and with nothing behind it."""
    view = memoryview(data)
    value, end = _nested(kind)[1](view, 0, kind.__name__)
    if end != len(data):
        raise ProtocolError(f"{kind.__name__}: {len(data) - end} bytes too many")
    return typing.cast(T, value)
