# SPDX-License-Identifier: BSD-3-Clause
"""Windows and SENDMEs, payment fragments, the scheduler, and the smaller message bodies."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from offchain.transport import flow_control as flow
from offchain.transport.errors import EndReason, MessageTooLong, ProtocolViolation
from offchain.transport.exit_policy import ExitPolicy
from offchain.transport.extend import LinkTarget, decode_extend2, encode_extend2
from offchain.transport.ntor import encode_create2
from offchain.transport.payment_cell import (
    LINK_PAYLOAD,
    MAX_MESSAGE,
    RELAY_PAYLOAD,
    Assembler,
    fragment,
)
from offchain.transport.scheduler import MAX_QUEUED, LinkQueues, Scheduling
from offchain.transport.stream_cell import (
    Begin,
    decode_begin,
    decode_end,
    encode_begin,
    encode_connected,
)

# --- windows


def test_window_sizes_are_those_of_tor_spec():
    assert (flow.CIRCUIT_WINDOW, flow.CIRCUIT_INCREMENT) == (1000, 100)
    assert (flow.STREAM_WINDOW, flow.STREAM_INCREMENT) == (500, 50)


def test_deliver_window_owes_a_sendme_per_increment_and_never_overruns():
    window = flow.DeliverWindow(1000, 100)
    due_at = []
    for cell in range(1, 1001):
        window.received()
        if window.sendme_due and len(due_at) < 3:
            due_at.append(cell)
            window.acknowledge()
    assert due_at == [100, 200, 300]
    for _ in range(300):
        window.received()
    with pytest.raises(ProtocolViolation):
        window.received()


def test_package_window_refuses_credit_for_nothing():
    window = flow.PackageWindow(500, 50)
    with pytest.raises(ProtocolViolation):
        window.credit()
    for _ in range(50):
        window.take()
    window.credit()
    assert window.available == 500
    window.in_flight = 500
    with pytest.raises(ValueError):
        window.take()


def test_circuit_sendme_must_quote_the_marked_cells_in_order():
    def sent(cells):
        window = flow.CircuitPackageWindow()
        for cell in range(1, cells + 1):
            marked = window.next_is_marked
            assert marked == (cell % 100 == 0)
            window.sent(cell.to_bytes(20, "big") if marked else None)
        return window

    window = sent(250)
    window.credit_tagged((100).to_bytes(20, "big"))
    assert window.available == 850
    window.credit_tagged((200).to_bytes(20, "big"))
    with pytest.raises(ProtocolViolation):
        window.credit_tagged((200).to_bytes(20, "big"))
    with pytest.raises(ProtocolViolation):
        sent(250).credit_tagged((200).to_bytes(20, "big"))
    with pytest.raises(ProtocolViolation):
        sent(99).credit_tagged((100).to_bytes(20, "big"))


def test_sendme_body():
    tag = bytes(range(20))
    assert flow.encode_circuit_sendme(tag) == b"\1\0\x14" + tag
    assert flow.decode_circuit_sendme(b"\1\0\x14" + tag + b"more") == tag
    for body in (b"", b"\0\0\0", b"\0\0\x14" + tag, b"\1\0\x13" + tag, b"\1\0\x14" + tag[:19]):
        with pytest.raises(ProtocolViolation):
            flow.decode_circuit_sendme(body)


# --- payment fragments


def test_payload_room_is_that_of_figure_3():
    assert (RELAY_PAYLOAD, LINK_PAYLOAD) == (495, 506)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=4000), st.integers(0, 255), st.sampled_from([495, 506]))
def test_fragments_come_together(payload, pcmd, room):
    parts = fragment(pcmd, payload, room)
    assert len(parts) == max(1, -(-len(payload) // room))
    assembler = Assembler(room)
    for _ in range(2):
        results = [assembler.feed(part + bytes(3 + room - len(part))) for part in parts]
        assert results[:-1] == [None] * (len(parts) - 1) and results[-1] == (pcmd, payload)


def test_length_counts_what_is_still_to_come():
    parts = fragment(7, bytes(1000), 495)
    assert [part[:3] for part in parts] == [
        bytes([7]) + n.to_bytes(2, "big") for n in (1000, 505, 10)]


def test_oversized_message_is_refused_at_its_first_cell():
    with pytest.raises(ProtocolViolation, match="bytes"):
        Assembler(495).feed(bytes([1]) + (MAX_MESSAGE + 1).to_bytes(2, "big") + bytes(495))
    assert Assembler(495).feed(bytes([1]) + MAX_MESSAGE.to_bytes(2, "big") + bytes(495)) is None
    with pytest.raises(MessageTooLong):
        fragment(1, bytes(MAX_MESSAGE + 1), 495)


@pytest.mark.parametrize("second", [
    bytes([8]) + (505).to_bytes(2, "big"),   # another PCMD in between
    bytes([7]) + (504).to_bytes(2, "big"),   # a length that leaves something out
    bytes([7]) + (1000).to_bytes(2, "big"),  # the first cell again
])
def test_fragment_must_continue_the_one_before(second):
    assembler = Assembler(495)
    assembler.feed(fragment(7, bytes(1000), 495)[0])
    with pytest.raises(ProtocolViolation, match="continue"):
        assembler.feed(second + bytes(495))


def test_short_fragments_are_refused():
    for content in (b"", b"\1\0", b"\1\0\5abcd"):
        with pytest.raises(ProtocolViolation):
            Assembler(495).feed(content)


# --- scheduler


def test_circuits_take_turns_and_keep_their_order():
    queues = LinkQueues()
    for number in range(3):
        queues.push(1, b"a%d" % number, 1)
    queues.push(2, b"b0", 1)
    queues.push(3, b"c0", 1)
    assert [queues.pop()[1] for _ in range(5)] == [b"a0", b"b0", b"c0", b"a1", b"a2"]
    assert not queues


def test_queues_are_bounded_by_circuit_and_in_total():
    budget = Scheduling(limit=MAX_QUEUED + 10)
    one, two = LinkQueues(budget), LinkQueues(budget)
    assert one.room_for(1, MAX_QUEUED) and not one.room_for(1, MAX_QUEUED + 1)
    one.push(1, b"x", MAX_QUEUED)
    assert not one.room_for(1, 1)
    assert two.room_for(1, 10) and not two.room_for(1, 11)
    one.discard(1)
    assert budget.used == 0 and two.room_for(1, 11)
    two.push(5, b"y", 4)
    two.push(6, b"z", 5)
    two.pop()
    assert budget.used == 5
    two.clear()
    assert budget.used == 0 and two.queued(6) == 0


# --- EXTEND2, BEGIN, CONNECTED, END


def test_extend2_layout():
    target = LinkTarget("127.0.0.1", 9001, bytes(range(20)), bytes(range(32)))
    skin = encode_create2(bytes(84))
    body = encode_extend2(target, skin)
    assert body == (b"\3" + b"\0\6\x7f\0\0\1\x23\x29" + b"\2\x14" + bytes(range(20))
                    + b"\3\x20" + bytes(range(32)) + b"\0\2\0\x54" + bytes(84))
    assert decode_extend2(body) == (target, skin)
    v6 = LinkTarget("::1", 9001, bytes(20), b"")
    assert decode_extend2(encode_extend2(v6, skin)) == (v6, skin)
    unknown = b"\4" + b"\x09\2ab" + body[1:]
    assert decode_extend2(unknown) == (target, skin)


def test_extend2_refusals():
    target = LinkTarget("127.0.0.1", 9001, bytes(20), bytes(32))
    body = encode_extend2(target, encode_create2(bytes(84)))
    twice = b"\4" + b"\2\x14" + bytes(20) + body[1:]
    no_address = b"\2" + body[9:]
    wrong_size = b"\1\2\x13" + bytes(19) + body[-88:]
    cases = [twice, no_address, wrong_size, *(body[:n] for n in range(len(body)))]
    for case in cases:
        with pytest.raises(ProtocolViolation):
            decode_extend2(case)


def test_begin():
    assert encode_begin(Begin("example.com", 80)) == b"example.com:80\0\0\0\0\1"
    for host in ("example.com", "127.0.0.1", "::1"):
        assert decode_begin(encode_begin(Begin(host, 443))) == Begin(host, 443)
    for body in (b"", b"host:80", b"host\0", b":80\0", b"host:\0", b"host:0\0", b"host:65536\0",
                 b"host:8x\0", b"ho st:80\0", b"h\xc3\xb6st:80\0", b"x" * 300 + b":80\0",
                 "host:\u00b2".encode("latin-1") + b"\0"):
        with pytest.raises(ProtocolViolation):
            decode_begin(body)
    for bad in (("", 80), ("host", 0), ("host", 70000)):
        with pytest.raises(ValueError):
            encode_begin(Begin(*bad))


def test_connected_and_end():
    assert encode_connected("127.0.0.1") == b"\x7f\0\0\1\0\0\0\x3c"
    assert encode_connected("::1") == bytes(4) + b"\6" + bytes(15) + b"\1" + b"\0\0\0\x3c"
    assert decode_end(b"\6") is EndReason.DONE
    assert decode_end(b"") is decode_end(b"\xff") is EndReason.MISC


# --- exit policy


def test_exit_policy():
    policy = ExitPolicy(["127.0.0.0/8:80", "10.1.2.3:1000-2000", "[::1]:*"])
    accepted = [("127.0.0.1", 80), ("127.255.0.1", 80), ("10.1.2.3", 1500), ("::1", 9)]
    refused = [("127.0.0.1", 81), ("10.1.2.4", 1500), ("10.1.2.3", 2001), ("::2", 9),
               ("8.8.8.8", 80), ("localhost", 80), ("", 80)]
    assert all(policy.accepts(*a) for a in accepted)
    assert not any(policy.accepts(*a) for a in refused)
    assert not ExitPolicy.reject_all().is_exit
    assert not ExitPolicy.loopback_only().accepts("192.168.0.1", 80)
    assert ExitPolicy(["*:443"]).accepts("8.8.8.8", 443)
    public = ExitPolicy(["public:80-443", "10.1.2.3:80"])
    assert public.accepts("8.8.8.8", 443) and public.accepts("2600::1", 80)
    assert public.accepts("10.1.2.3", 80), "named by another rule"
    for address in ("10.1.2.4", "127.0.0.1", "192.168.1.1", "172.20.0.1", "169.254.169.254",
                    "100.64.0.1", "0.0.0.0", "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1",
                    "224.0.0.1", "255.255.255.255", "64:ff9b::a00:1", "2002:a00:1::1",
                    "::127.0.0.1", "fec0::1", "::ffff:10.1.2.4"):
        assert not public.accepts(address, 80), address
    assert public.accepts("::ffff:8.8.8.8", 80) and public.accepts("::ffff:10.1.2.3", 80)
    assert not public.accepts("8.8.8.8", 22)
    assert not ExitPolicy(["[::/0]:*"]).accepts("::ffff:127.0.0.1", 80), "that is IPv4"
    for rule in ("", "127.0.0.1", ":80", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:9-8", "x:80"):
        with pytest.raises(ValueError):
            ExitPolicy([rule])
