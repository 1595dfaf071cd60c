# SPDX-License-Identifier: BSD-3-Clause
"""Every message and record survives the wire; whatever else arrives is refused by name."""

from __future__ import annotations

import dataclasses
import typing
from contextlib import suppress
from enum import IntEnum
from typing import Annotated, Any

import pytest
from hypothesis import given, settings, strategies as some

from offchain.protocol import codec, messages as m
from offchain.protocol.codec import Fixed, Many, Prefixed, SInt, UInt, decode, encode
from offchain.protocol.errors import ProtocolError
from offchain.protocol.records import RECORD_TYPES, MemoryRecords, Table, dump, load
from tests.protocol.world import World

MESSAGES = sorted(m.MESSAGES.values(), key=lambda kind: kind.PCMD)


def values(annotation: Any) -> some.SearchStrategy[Any]:
    """Whatever a field of this annotation may hold."""
    if typing.get_origin(annotation) is Annotated:
        base, rule = typing.get_args(annotation)[:2]
        match rule:
            case UInt():
                top = rule.limit if rule.limit is not None else 1 << 8 * rule.size
                return some.integers(0, top - 1)
            case SInt():
                return some.integers(-(1 << 8 * rule.size - 1), (1 << 8 * rule.size - 1) - 1)
            case Fixed():
                return some.binary(min_size=rule.size, max_size=rule.size)
            case Prefixed():
                return some.binary(max_size=min(rule.limit, 200))
            case Many():
                return some.lists(values(typing.get_args(base)[0]),
                                  max_size=min(rule.limit, 4)).map(tuple)
    if annotation is bool:
        return some.booleans()
    if issubclass(annotation, IntEnum):
        return some.sampled_from(list(annotation))
    return instances(annotation)


def instances(kind: type[Any]) -> some.SearchStrategy[Any]:
    """Any object of a message or record type."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return some.builds(kind, **{one.name: values(hints[one.name])
                                for one in dataclasses.fields(kind)})


RECORDS = sorted(RECORD_TYPES.items())


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(max_examples=15, deadline=None)
@given(data=some.data())
def test_messages_survive_the_wire(kind: type[Any], data: some.DataObject) -> None:
    message = data.draw(instances(kind))
    pcmd, payload = m.pack(message)
    assert m.unpack(pcmd, payload) == message
    # One byte more or less is another message.
    for wrong in (payload + b"\x00", payload[:-1]):
        if wrong != payload:
            with pytest.raises(ProtocolError):
                m.unpack(pcmd, wrong)


@pytest.mark.parametrize(("name", "kind"), RECORDS, ids=[name for name, _ in RECORDS])
@settings(max_examples=8, deadline=None)
@given(data=some.data())
def test_records_survive_the_disk(name: str, kind: type[Any], data: some.DataObject) -> None:
    record = data.draw(instances(kind))
    stored = dump(record)
    assert stored[0] == name and load(*stored) == record


@settings(max_examples=400, deadline=None)
@given(pcmd=some.integers(0, 255), payload=some.binary(max_size=1200))
def test_garbage_is_refused(pcmd: int, payload: bytes) -> None:
    try:
        message = m.unpack(pcmd, payload)
    except ProtocolError:
        return
    assert m.pack(message) == (pcmd, payload), "two encodings of one message"


@settings(max_examples=200, deadline=None)
@given(data=some.data())
def test_changed_messages_are_refused_or_read_as_they_are(data: some.DataObject) -> None:
    kind = data.draw(some.sampled_from(MESSAGES))
    pcmd, payload = m.pack(data.draw(instances(kind)))
    changed = bytearray(payload)
    for _ in range(data.draw(some.integers(0, 4))):
        if changed:
            changed[data.draw(some.integers(0, len(changed) - 1))] = data.draw(
                some.integers(0, 255))
    cut = data.draw(some.integers(0, len(changed)))
    for mutated in (bytes(changed), bytes(changed[:cut])):
        try:
            message = m.unpack(pcmd, mutated)
        except ProtocolError:
            continue
        assert m.pack(message) == (pcmd, mutated)


@pytest.mark.parametrize(("annotation", "bad"), [
    (codec.U8, [-1, 256]), (codec.U64, [-1, 1 << 64]), (codec.U248, [1 << 248]),
    (codec.I64, [1 << 63, -(1 << 63) - 1]), (codec.B32, [b"", bytes(31), bytes(33)]),
    (codec.Proof, [bytes(4097)]), (codec.Path, [(bytes(32),) * 15, (bytes(31),)]),
    (codec.Scalar, [-1, codec.GROUP_ORDER]),
])
def test_what_does_not_fit_is_not_sent(annotation: Any, bad: list[Any]) -> None:
    kind = dataclasses.make_dataclass("Sample", [("field", annotation)], frozen=True)
    for value in bad:
        with pytest.raises(ProtocolError, match="field"):
            encode(kind(value))


def test_errors_name_the_field() -> None:
    payload = encode(m.NanoAccepted(bytes(32)))
    with pytest.raises(ProtocolError, match=r"NanoAccepted\.terms_hash"):
        decode(m.NanoAccepted, payload[:-1])
    with pytest.raises(ProtocolError, match="1 bytes too many"):
        decode(m.NanoAccepted, payload + b"\x00")
    with pytest.raises(ProtocolError, match="canonical"):
        decode(m.NanoSetupReveal, bytes(63) + b"\xff" * 32)
    with pytest.raises(ProtocolError, match="0x99"):
        m.unpack(0x99, b"")
    with pytest.raises(ProtocolError, match="unknown type"):
        load("NoSuchRecord", b"")


@settings(max_examples=150, deadline=None)
@given(data=some.data())
def test_the_intermediary_refuses_any_well_formed_nonsense(
        fuzzed: World, data: some.DataObject) -> None:
    """Whatever is in the fields, the answer is a refusal or a reply, never another exception."""
    kind = data.draw(some.sampled_from(MESSAGES))
    fuzzed.request(*m.pack(data.draw(instances(kind))))


@pytest.fixture(scope="module")
def fuzzed(opened_world: World) -> typing.Iterator[World]:
    saved = opened_world.save()
    opened_world.session(3)
    yield opened_world
    opened_world.load(saved)


@settings(max_examples=60, deadline=None)
@given(data=some.data())
def test_replies_of_a_malicious_intermediary_raise_nothing_else(
        fuzzed: World, data: some.DataObject) -> None:
    kind = data.draw(some.sampled_from(MESSAGES))
    node = data.draw(some.sampled_from([fuzzed.c, fuzzed.e, fuzzed.r]))
    kinds = {b"session:": Table.SESSION, b"establish:": Table.WALLET, b"cash-out:": Table.GROUP}
    names = [prefix + key for prefix, table in kinds.items()
             for key, _ in node.records.scan(table)]
    names += [b"group:" + bytes(32), b"pay:" + bytes(31)]
    names += [b"pay-terms:"] if node is not fuzzed.r else []
    conversation = data.draw(some.sampled_from(names))
    records = node.records.copy()
    with suppress(ProtocolError):
        node.machine.on_reply(records, fuzzed.moment(), conversation,
                              *m.pack(data.draw(instances(kind))))


def test_records_are_ordered_and_never_aliased() -> None:
    records = MemoryRecords()
    for key in (b"b", b"a", b"ab", b"c"):
        records.put(Table.META, key, m_tip(len(key)))
    assert [key for key, _ in records.scan(Table.META)] == [b"a", b"ab", b"b", b"c"]
    assert [key for key, _ in records.scan(Table.META, b"ab", b"c")] == [b"ab", b"b"]
    twin = records.copy()
    twin.delete(Table.META, b"a")
    twin.delete(Table.META, b"missing")
    assert records.get(Table.META, b"a") == m_tip(1)


def m_tip(number: int) -> Any:
    from offchain.protocol.moment import Tip

    return Tip(number, number)
