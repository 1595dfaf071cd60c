# SPDX-License-Identifier: BSD-3-Clause
"""Circuits over a network without sockets: what is delivered, to whom, and what ends a circuit."""

from __future__ import annotations

import pytest

from offchain.transport import channel, relay_circuit, router_core
from offchain.transport.cell import BODY_LEN, Command
from offchain.transport.channel import Channel
from offchain.transport.errors import (
    CircuitClosed,
    DestroyReason,
    EndReason,
    ImpossiblePath,
    MessageTooLong,
    ProtocolViolation,
)
from offchain.transport.extend import LinkTarget, encode_extend2
from offchain.transport.ntor import NtorClient, encode_create2
from offchain.transport.relay_cell import MAX_DATA, RelayCommand, encode_body
from offchain.transport.router_core import CREATE_BURST
from offchain.transport.scheduler import HIGH_MARK, MAX_QUEUED


def say(core, hop, command, stream_id=0, data=b"", cell=Command.RELAY, repeat=1):
    """Send whatever relay message to a hop, as a client that keeps no rule."""
    core._ship(hop, cell, [core._onion.seal(hop, encode_body(command, stream_id, data))
                           for _ in range(repeat)])


# --- use


@pytest.mark.parametrize("piece", [1 << 20, 700, 61])
def test_stream_carries_bytes_both_ways(rig, sink, piece):
    rig.routers[2].services[80] = lambda data: data.swapcase()
    core = rig.circuit()
    end = sink()
    stream = core.open_stream("127.0.0.1", 80, end)
    rig.run(piece)
    assert end.is_connected
    sent = bytes(range(256)) * 1000
    for at in range(0, len(sent), 50_000):
        stream.send(sent[at : at + 50_000])
        rig.run(piece)
    assert end.got == sent.swapcase()
    stream.finish()
    rig.run(piece)
    assert len(core.edge) == len(rig.at(2).edge) == 0


def test_payment_messages_reach_their_hop_and_come_back(rig):
    """Leaky pipe, and link cells at the guard, with messages of one and of many cells."""
    core = rig.circuit()
    got = []
    core.on_payment = lambda hop, pcmd, payload: got.append((hop, pcmd, payload))
    for hop, hooks in enumerate(rig.hooks):
        hooks.on_payment = lambda c, pcmd, payload, link: c.send_payment(
            pcmd + 1, payload[::-1], link)
        payload = bytes([hop]) * 1200 + b"end"
        assert core.send_payment(hop, 10 + hop, payload) == 3
        rig.run()
        assert hooks.payments == [(10 + hop, payload, False)]
        assert got.pop() == (hop, 11 + hop, payload[::-1])
    assert core.send_payment(0, 99, b"x" * 507, link=True) == 2
    rig.run()
    assert rig.hooks[0].payments[-1] == (99, b"x" * 507, True)
    assert got == [(0, 100, b"x" * 507)]
    assert [len(hooks.payments) for hooks in rig.hooks] == [2, 1, 1]


def test_payments_travel_while_data_flows(rig, sink):
    rig.routers[2].services[80] = lambda data: data * 40
    core = rig.circuit()
    got = []
    core.on_payment = lambda hop, pcmd, payload: got.append((hop, payload))
    for hooks in rig.hooks:
        hooks.on_payment = lambda c, pcmd, payload, link: c.send_payment(pcmd, payload, link)
    end = sink()
    stream = core.open_stream("127.0.0.1", 80, end)
    sent = []
    for turn in range(30):
        stream.send(bytes([turn]) * 5000)
        message = bytes([turn]) * (turn * 97)
        sent.append((turn % 3, message))
        core.send_payment(turn % 3, 5, message, link=turn % 6 == 0)
        rig.run()
    assert sorted(got) == sorted(sent)
    assert len(end.got) == 30 * 5000 * 40


def test_counts_of_cells_agree(rig, sink):
    """The guard counts what the client counts; hops behind it count less; link cells are free."""
    rig.routers[2].services[80] = lambda data: data * 100
    core = rig.circuit()
    counted = []
    core.on_cells = counted.append
    before = core.cells_sent + core.cells_received
    end = sink()
    core.open_stream("127.0.0.1", 80, end).send(bytes(3000))
    core.send_payment(0, 1, bytes(2000))
    core.send_payment(0, 1, bytes(2000), link=True)
    rig.run()
    total = core.cells_sent + core.cells_received
    assert total - before == sum(counted)
    assert rig.hooks[0].cells == total
    assert rig.hooks[1].cells == total - 5 - 2  # without the payment and the guard's EXTEND2 pair
    assert rig.hooks[2].cells == total - 5 - 4


def test_payments_by_link_cells_keep_their_order_across_circuits(rig, sink):
    """All circuits over a guard are paid from one direct channel, whose payments count up."""
    cores = [rig.circuit(), rig.circuit()]
    end = sink()
    cores[0].open_stream("127.0.0.1", 80, end)
    for k in range(40):
        # One of them has much to say, and says it before its payments.
        cores[0].send_payment(2, 9, bytes(4000))
        cores[k % 2].send_payment(0, 7, bytes([k]) * (1 + 300 * (k % 3)), link=True)
    rig.run()
    links = [payload[0] for pcmd, payload, link in rig.hooks[0].payments if link]
    assert links == list(range(40))


def test_link_payments_that_are_not_read_are_bounded(rig):
    core = rig.circuit()
    with pytest.raises(ProtocolViolation, match="too many payments"):
        for _ in range(10_000):
            core.send_payment(0, 7, b"", link=True)


def test_sendmes_are_exactly_those_that_are_due(rig, sink):
    """Every 100 DATA cells one for the circuit, every 50 one for the stream, across streams."""
    rig.routers[2].services[80] = lambda data: bytes(MAX_DATA * 125)
    core = rig.circuit()
    before = core.cells_sent
    for _ in range(3):
        end = sink()
        core.open_stream("127.0.0.1", 80, end).send(b"go")
        rig.run()
        assert len(end.got) == 125 * MAX_DATA
    # Three BEGIN, three DATA, 375 // 100 circuit SENDMEs, 3 * (125 // 50) stream SENDMEs.
    assert core.cells_sent - before == 3 + 3 + 3 + 6
    assert rig.at(2).edge.package.available == 1000 - 75


def test_a_reader_that_is_behind_stops_its_stream_only(rig, sink):
    rig.routers[2].services[80] = lambda data: bytes(MAX_DATA * 2000)
    core = rig.circuit()
    slow, quick = sink(), sink()
    paused = core.open_stream("127.0.0.1", 80, slow)
    paused.pause()
    paused.send(b"go")
    core.open_stream("127.0.0.1", 80, quick).send(b"go")
    rig.run()
    assert len(slow.got) == 500 * MAX_DATA and len(quick.got) == 2000 * MAX_DATA
    paused.resume()
    rig.run()
    assert len(slow.got) == 2000 * MAX_DATA


def test_edge_stops_packaging_while_the_link_is_stuck(rig, sink):
    rig.routers[2].services[80] = lambda data: b""
    core = rig.circuit()
    end = sink()
    core.open_stream("127.0.0.1", 80, end)
    rig.run()
    back = rig.at(2)
    last = next(k for k in rig.network.links if k.responder is back._previous)
    last.held = True
    back.edge.get(1).send(bytes(MAX_DATA * 3000))
    rig.run()
    assert HIGH_MARK <= back._previous._queues.queued(back._previous_id) < HIGH_MARK + 32
    last.held = False
    rig.run()
    assert len(end.got) == 3000 * MAX_DATA


def test_edge_goes_on_when_the_link_has_room_again(rig, sink):
    """Even if no SENDME comes to remind it."""
    rig.routers[2].services[80] = lambda data: b""
    core = rig.circuit()
    end = sink()
    core.open_stream("127.0.0.1", 80, end).pause()
    core.edge.deliver.increment = 1 << 20
    rig.run()
    last = next(k for k in rig.network.links if k.responder is rig.at(2)._previous)
    last.held = True
    rig.at(2).edge.get(1).send(bytes(MAX_DATA * 3000))
    last.held = False
    rig.run()
    assert len(end.got) == 500 * MAX_DATA, "the whole stream window"


def test_two_circuits_share_links(rig):
    one, two = rig.circuit(), rig.circuit(2)
    assert len(rig.network.links) == 3
    assert rig.circuits() == [2, 2, 1]
    one.destroy()
    rig.run()
    assert rig.circuits() == [1, 1, 0] and not two.closed


def test_last_hop_without_service_refuses(rig, sink):
    core = rig.circuit()
    end = sink()
    core.open_stream("127.0.0.1", 81, end)
    rig.run()
    assert end.reason is EndReason.CONNECTREFUSED and not core.closed


# --- ends


def test_destroy_goes_along_the_circuit_after_what_was_sent(rig):
    core = rig.circuit()
    core.send_payment(2, 9, b"last words" * 100)
    core.destroy()
    assert core.reasons == [DestroyReason.NONE]
    rig.run()
    assert rig.hooks[2].payments == [(9, b"last words" * 100, False)]
    assert rig.circuits() == [0, 0, 0]
    assert [len(h.closed) for h in rig.hooks] == [1, 1, 1]
    with pytest.raises(CircuitClosed):
        core.send_payment(0, 1, b"")


@pytest.mark.parametrize("hop", [0, 1, 2])
def test_any_hop_may_end_the_circuit(rig, hop, sink):
    core = rig.circuit()
    rig.routers[2].services[80] = lambda data: data
    end = sink()
    core.open_stream("127.0.0.1", 80, end)
    rig.run()
    rig.at(hop).destroy(DestroyReason.RESOURCELIMIT)
    rig.run()
    assert core.reasons == [DestroyReason.RESOURCELIMIT]
    assert end.reason is EndReason.DESTROY
    assert rig.circuits() == [0, 0, 0]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_link_ends_the_circuit_everywhere(rig, lost):
    core = rig.circuit()
    rig.network.links[lost].cut()
    rig.run()
    assert core.reasons == [DestroyReason.CHANNEL_CLOSED]
    assert rig.circuits() == [0, 0, 0]


def test_a_hop_that_cannot_be_reached(rig):
    gone = rig.path[2].__class__(**{**{f: getattr(rig.path[2], f) for f in
                                       rig.path[2].__dataclass_fields__}, "port": 77})
    core = rig.client.start_circuit([rig.path[0], gone])
    rig.run()
    assert core.closed and core.close_reason is DestroyReason.CONNECTFAILED
    assert rig.circuits() == [0, 0, 0]


def test_a_hop_that_is_somebody_else(rig):
    """The middle dials router 3's port for a client that expects router 1 behind it."""
    fields = rig.path[0].__dataclass_fields__
    false = rig.path[0].__class__(**{**{f: getattr(rig.path[0], f) for f in fields}, "port": 3})
    core = rig.client.start_circuit([rig.path[1], false])
    rig.run()
    assert core.closed and not core.built
    assert rig.circuits() == [0, 0, 0]


def test_truncate_cuts_what_is_behind(rig):
    core = rig.circuit()
    core.truncate(1)
    rig.run()
    assert core.close_reason is DestroyReason.REQUESTED
    assert rig.circuits() == [0, 0, 0]
    assert rig.hooks[2].closed


def test_hooks_may_destroy_from_inside(rig):
    core = rig.circuit()
    rig.hooks[1].on_payment = lambda c, pcmd, payload, link: c.destroy()
    core.send_payment(1, 1, b"x")
    core.send_payment(2, 1, b"never arrives")
    rig.run()
    assert core.reasons == [DestroyReason.FINISHED]
    assert rig.circuits() == [0, 0, 0] and not rig.hooks[2].payments


# --- rules for clients


def skin_for(info):
    return NtorClient.begin(info.rsa_fingerprint, info.ntor_key).onionskin


CASES = {
    "a stream's window is overrun":
        lambda core, rig: say(core, 2, RelayCommand.DATA, 1, b"x", repeat=501),
    "DATA for a stream that never was":
        lambda core, rig: say(core, 2, RelayCommand.DATA, 9, b"x"),
    "BEGIN with an id in use":
        lambda core, rig: say(core, 2, RelayCommand.BEGIN, 1, b"h:80\0"),
    "BEGIN without an id":
        lambda core, rig: say(core, 2, RelayCommand.BEGIN, 0, b"h:81\0"),
    "BEGIN that cannot be read":
        lambda core, rig: say(core, 2, RelayCommand.BEGIN, 8, b"nonsense"),
    "circuit SENDME for nothing":
        lambda core, rig: say(core, 2, RelayCommand.SENDME, 0, b"\1\0\x14" + bytes(20)),
    "circuit SENDME of version 0":
        lambda core, rig: say(core, 2, RelayCommand.SENDME, 0, b""),
    "stream SENDME for nothing":
        lambda core, rig: say(core, 2, RelayCommand.SENDME, 1, b""),
    "more than eight RELAY_EARLY":
        lambda core, rig: say(core, 0, RelayCommand.DROP, cell=Command.RELAY_EARLY, repeat=9),
    "EXTEND2 in the middle of a circuit":
        lambda core, rig: say(core, 1, RelayCommand.EXTEND2, data=encode_extend2(
            rig.path[0].target, encode_create2(bytes(84))), cell=Command.RELAY_EARLY),
    "an oversized payment message":
        lambda core, rig: say(core, 2, RelayCommand.MT, data=b"\1\xff\xff" + bytes(495)),
    "an oversized payment message by link cell":
        lambda core, rig: core._channel.send_control(core._circ_id, Command.PAYMENT, b"\1\xff\xff"),
    "a relay cell that nobody recognizes":
        lambda core, rig: core._channel.send_relay(core._circ_id, Command.RELAY, bytes(BODY_LEN)),
    "CREATED2 from the client":
        lambda core, rig: core._channel.send_control(core._circ_id, Command.CREATED2, bytes(66)),
    "CREATE2 with an id in use":
        lambda core, rig: core._channel.send_control(core._circ_id, Command.CREATE2,
                                                     encode_create2(skin_for(rig.path[0]))),
}


@pytest.mark.parametrize("case", CASES)
def test_a_client_that_breaks_a_rule_loses_its_circuit(rig, sink, case):
    bystander = rig.circuit()
    core = rig.client.start_circuit(rig.path)
    rig.run()
    rig.routers[2].services[80] = lambda data: b""
    core.open_stream("127.0.0.1", 80, sink())
    rig.run()
    for circuit in rig.routers[2].core.circuits:
        for stream in circuit.edge._streams.values():
            stream.pause()
    CASES[case](core, rig)
    rig.run()
    assert core.closed, case
    assert rig.circuits() == [1, 1, 1]
    assert not bystander.closed
    bystander.send_payment(2, 1, b"still here")
    rig.run()
    assert rig.hooks[2].payments[-1] == (1, b"still here", False)


def test_circuit_window_counts_cells_of_ended_streams_too(rig, sink):
    """And an overrun of the circuit's window closes the circuit, whatever the streams' allow."""
    core = rig.circuit()
    rig.routers[2].services[80] = lambda data: b""
    for _ in range(3):
        core.open_stream("127.0.0.1", 80, sink())
    rig.run()
    edge = rig.at(2).edge
    for stream in edge._streams.values():
        stream.pause()
    edge.deliver.unacknowledged = 700
    edge.deliver.increment = 1 << 20  # and none are going to be acknowledged
    say(core, 2, RelayCommand.DATA, 1, b"x", repeat=299)
    rig.run()
    assert not core.closed
    say(core, 2, RelayCommand.DATA, 2, b"x", repeat=2)
    rig.run()
    assert core.closed and core.close_reason is DestroyReason.PROTOCOL


def test_a_circuit_whose_queue_outgrows_its_windows_is_destroyed(rig):
    core = rig.circuit()
    link = rig.network.links[2]  # middle to exit
    link.held = True
    with pytest.raises(ProtocolViolation) as caught:
        for _ in range(MAX_QUEUED):
            core.send_payment(2, 1, bytes(495 * 60))
    assert caught.value.reason is DestroyReason.RESOURCELIMIT
    rig.run()
    while not core.closed:
        core.send_payment(2, 1, bytes(495 * 60))
        rig.run()
    assert core.close_reason is DestroyReason.RESOURCELIMIT
    assert rig.circuits() == [0, 0, 1], "the exit hears of it when its link moves again"
    link.held = False
    rig.run()
    assert rig.circuits() == [0, 0, 0]


def test_who_reads_nothing_makes_room_for_the_others(rig, sink):
    """A peer whose circuits fill all the room that there is loses them, and nobody else."""
    rig.routers[2].services[80] = lambda data: bytes(500 * MAX_DATA)
    deaf = rig.circuit()
    rig.client = rig.network.add_client()
    other = rig.circuit()
    streams = []
    for core in (deaf, other):
        streams.append(core.open_stream("127.0.0.1", 80, sink()))
    rig.run()
    link = rig.network.links[0]
    streams[0].send(b"x")
    link.responder.receive(link.initiator.take_output())
    link.held = True
    rig.run()
    shared = rig.routers[0].scheduling
    assert shared.used == 500
    shared.limit = 550
    for number in range(1, 5):
        streams[1].send(b"x")
        rig.run()
        assert len(streams[1].sink.got) == number * 500 * MAX_DATA
    assert shared.used == 1, "the DESTROY that the deaf one has not read"
    link.held = False
    rig.run()
    assert deaf.close_reason is DestroyReason.RESOURCELIMIT and not other.closed


def test_refusals_that_are_not_read_are_bounded(rig, monkeypatch):
    monkeypatch.setattr(channel, "MAX_FORGOTTEN", 50)
    rig.circuit(1)
    link = rig.network.links[0]
    link.held = True

    def create(circ_id):
        link.initiator.send_control(circ_id, Command.CREATE2, bytes(10))
        link.responder.receive(link.initiator.take_output())

    for _ in range(30):
        create(0x80000001)
    assert rig.routers[0].scheduling.used == 1
    with pytest.raises(ProtocolViolation, match="reads nothing"):
        for number in range(100):
            create(0x80000002 + number)
    assert rig.routers[0].scheduling.used == 51


# --- rules for routers, as the client and the other routers enforce them


def from_hop(rig, hop, command, stream_id=0, data=b""):
    circuit = rig.at(hop)
    circuit.ship([circuit.seal(encode_body(command, stream_id, data))])


def early_from_hop(rig, hop):
    """A cell that would be fine if it were RELAY."""
    circuit = rig.at(hop)
    body = circuit.seal(encode_body(RelayCommand.DROP, 0, b""))
    circuit._previous.send_relay(circuit._previous_id, Command.RELAY_EARLY,
                                 circuit._layer.backward.apply(body))


ROUTER_CASES = {
    "DATA from a hop that is not the last": lambda rig: from_hop(rig, 1, RelayCommand.DATA, 1),
    "DATA for a stream that never was": lambda rig: from_hop(rig, 2, RelayCommand.DATA, 7),
    "EXTENDED2 twice": lambda rig: from_hop(rig, 2, RelayCommand.EXTENDED2, 0, bytes(66)),
    "CONNECTED twice": lambda rig: from_hop(rig, 2, RelayCommand.CONNECTED, 1),
    "SENDME from a hop that is not the last": lambda rig: from_hop(rig, 0, RelayCommand.SENDME),
    "a command that only clients use": lambda rig: from_hop(rig, 2, RelayCommand.BEGIN, 3),
    "an oversized payment message":
        lambda rig: from_hop(rig, 1, RelayCommand.MT, 0, b"\1\xff\xff" + bytes(495)),
    "a cell that no layer recognizes": lambda rig: rig.at(1).ship([bytes(BODY_LEN)]),
    "RELAY_EARLY towards the client": lambda rig: early_from_hop(rig, 0),
    "RELAY_EARLY from the exit to the middle": lambda rig: early_from_hop(rig, 2),
    "a link payment cell inside the network": lambda rig: rig.at(2).send_payment(1, b"", link=True),
    "CREATED2 twice": lambda rig: rig.at(2)._previous.send_control(
        rig.at(2)._previous_id, Command.CREATED2, b"\0\x40" + bytes(64)),
}
INSIDE = [case for case in ROUTER_CASES if "middle" in case or "inside" in case
          or "CREATED2" in case]


@pytest.mark.parametrize("case", ROUTER_CASES)
def test_a_router_that_breaks_a_rule_loses_the_circuit(rig, sink, case):
    core = rig.circuit()
    rig.routers[2].services[80] = lambda data: b""
    core.open_stream("127.0.0.1", 80, sink())
    rig.run()
    ROUTER_CASES[case](rig)
    rig.run()
    assert core.closed and core.close_reason is DestroyReason.PROTOCOL
    assert rig.circuits() == [0, 0, 0]


@pytest.mark.parametrize("case", INSIDE)
def test_the_middle_itself_ends_such_a_circuit(rig, sink, case):
    rig.circuit()
    rig.network.links[0].held = True  # the client hears nothing and cannot help
    ROUTER_CASES[case](rig)
    rig.run()
    assert rig.circuits()[1] == 0


def test_extend_must_come_in_relay_early(rig):
    """Its own case, because a router that let it pass would extend."""
    core = rig.circuit(2)
    target = rig.path[2]
    say(core, 1, RelayCommand.EXTEND2, data=encode_extend2(
        target.target, encode_create2(skin_for(target))))
    rig.run()
    assert core.closed and not rig.hooks[2].opened


def test_a_router_does_not_extend_to_itself(rig):
    core = rig.circuit(1)
    own = rig.path[0]
    say(core, 0, RelayCommand.EXTEND2, data=encode_extend2(
        own.target, encode_create2(skin_for(own))), cell=Command.RELAY_EARLY)
    rig.run()
    assert core.closed and len(rig.network.links) == 1


def test_a_router_does_not_extend_back(rig):
    """The previous router has said who it is, so that a circuit cannot be folded back onto it."""
    core = rig.circuit(2)
    guard = rig.path[0]
    say(core, 1, RelayCommand.EXTEND2, data=encode_extend2(
        guard.target, encode_create2(skin_for(guard))), cell=Command.RELAY_EARLY)
    rig.run()
    assert core.closed and len(rig.network.links) == 2


@pytest.mark.parametrize("premature", [
    lambda circuit: circuit.send_payment(1, b"", link=True),
    lambda circuit: circuit.ship([circuit.seal(encode_body(
        RelayCommand.EXTENDED2, 0, b"\0\x40" + bytes(64)))]),
    lambda circuit: circuit.ship([circuit.seal(encode_body(RelayCommand.DATA, 1, b""))]),
])
def test_a_guard_cannot_speak_out_of_turn_while_the_circuit_is_built(rig, premature):
    """The client waits for the exit's EXTENDED2, which is to come through the middle."""
    rig.circuit().destroy()
    rig.run()
    rig.network.links[2].held = True
    core = rig.client.start_circuit(rig.path)
    rig.run()
    assert not core.built and not core.closed
    premature(rig.at(0))
    rig.run()
    assert core.close_reason is DestroyReason.PROTOCOL


def test_streams_of_a_circuit_and_circuits_are_bounded(rig, sink, monkeypatch):
    monkeypatch.setattr(router_core, "MAX_CIRCUITS_PER_LINK", 2)
    monkeypatch.setattr(relay_circuit, "MAX_STREAMS", 2)
    core = rig.circuit()
    rig.routers[2].services[80] = lambda data: b""
    ends = [sink() for _ in range(3)]
    for end in ends:
        core.open_stream("127.0.0.1", 80, end)
    rig.run()
    assert [end.is_connected for end in ends] == [True, True, False]
    assert ends[2].reason is EndReason.RESOURCELIMIT
    rig.circuit()
    third = rig.client.start_circuit(rig.path)
    rig.run()
    assert third.close_reason is DestroyReason.RESOURCELIMIT and not core.closed
    monkeypatch.setattr(router_core, "MAX_CIRCUITS", 2)
    fourth = rig.network.add_client().start_circuit(rig.path)
    rig.run()
    assert fourth.close_reason is DestroyReason.RESOURCELIMIT and rig.circuits() == [2, 2, 2]


def test_exit_that_overruns_a_window_loses_the_circuit(rig, sink):
    core = rig.circuit()
    rig.routers[2].services[80] = lambda data: b""
    stream = core.open_stream("127.0.0.1", 80, sink())
    stream.pause()
    rig.run()
    exit_end = rig.at(2)
    for _ in range(500):
        marked = exit_end.edge.package.next_is_marked
        from_hop(rig, 2, RelayCommand.DATA, 1, b"x")
        exit_end.edge.package.sent(exit_end.sealed_tag() if marked else None)
    rig.run()
    assert not core.closed
    from_hop(rig, 2, RelayCommand.DATA, 1, b"x")
    rig.run()
    assert core.close_reason is DestroyReason.PROTOCOL


def test_exit_that_quotes_a_wrong_digest_loses_the_circuit(rig, sink):
    """A hop on the way cannot acknowledge for the exit (proposal 289)."""
    core = rig.circuit()
    rig.routers[2].services[80] = lambda data: b""
    stream = core.open_stream("127.0.0.1", 80, sink())
    rig.run()
    rig.at(2).edge.deliver.increment = 1 << 20  # the honest SENDMEs stay away
    stream.send(bytes(MAX_DATA * 100))
    rig.run()
    from_hop(rig, 2, RelayCommand.SENDME, 0, b"\1\0\x14" + bytes(20))
    rig.run()
    assert core.close_reason is DestroyReason.PROTOCOL


# --- rules of the link


def test_create_with_an_id_of_our_own_half_closes_the_link(rig):
    core = rig.circuit(1)
    core._channel.send_control(5, Command.CREATE2, encode_create2(bytes(84)))
    rig.run()
    assert rig.network.links[0].cut_off and core.close_reason is DestroyReason.CHANNEL_CLOSED


def test_a_client_serves_no_circuits(rig):
    rig.circuit(1)
    link = rig.network.links[0]
    link.responder.send_control(5, Command.CREATE2, encode_create2(bytes(84)))
    rig.run()
    assert not link.cut_off and link.responder.stray_cells == 1, "answered with DESTROY"


def test_handshake_cells_do_not_come_twice(rig):
    rig.circuit(1)
    rig.network.links[0].initiator.send_control(0, Command.NETINFO, b"")
    rig.run()
    assert rig.network.links[0].cut_off


def test_unknown_cells_and_stray_cells_are_dropped(rig):
    core = rig.circuit(1)
    channel = core._channel
    for command in (Command.PADDING, Command.PADDING_NEGOTIATE, 55):
        channel.send_control(0, command, b"")
    channel.send_relay(0x81234567, Command.RELAY, bytes(BODY_LEN * 3))
    channel.send_destroy(0x81234567, DestroyReason.NONE)
    rig.run()
    assert not core.closed and rig.network.links[0].responder.stray_cells == 4


def test_create_flood_is_refused_and_recovers(rig):
    core = rig.circuit(1)
    channel: Channel = core._channel
    info = rig.path[0]
    skin = encode_create2(NtorClient.begin(info.rsa_fingerprint, info.ntor_key).onionskin)
    for number in range(int(CREATE_BURST) + 20):
        channel.send_control(0x80000001 + number, Command.CREATE2, skin)
    rig.run()
    assert rig.circuits()[0] == CREATE_BURST
    assert not core.closed
    rig.network.clock += 1.0
    rig.circuit(1)


def test_one_client_does_not_use_up_the_links_that_a_router_opens(rig, monkeypatch):
    monkeypatch.setattr(router_core, "MAX_WAITING_PER_LINK", 3)
    asked = []
    dial = rig.routers[0].dial
    rig.routers[0].dial = lambda target, done: asked.append(target)  # nobody answers
    target = rig.path[2].target
    lost = []
    for number in range(5):
        core = rig.circuit(1)
        elsewhere = LinkTarget("127.0.0.1", 1000 + number, target.rsa_fingerprint, b"")
        say(core, 0, RelayCommand.EXTEND2, data=encode_extend2(
            elsewhere, encode_create2(skin_for(rig.path[2]))), cell=Command.RELAY_EARLY)
        rig.run()
        lost.append(core.close_reason)
    assert len(asked) == 3
    assert lost == [DestroyReason.NONE] * 3 + [DestroyReason.CONNECTFAILED] * 2
    rig.routers[0].dial = dial
    rig.client = rig.network.add_client()
    rig.circuit(2)


def test_one_client_does_not_use_up_what_relays_may_create(rig):
    """Through its guard it creates as many circuits at the middle as it may at the guard."""
    rig.circuit(2)
    (link,) = [one for one in rig.network.links if one.responder.peer is not None]
    info = rig.path[1]
    skin = encode_create2(NtorClient.begin(info.rsa_fingerprint, info.ntor_key).onionskin)
    for number in range(int(CREATE_BURST)):
        link.initiator.send_control(0x80000001 + number, Command.CREATE2, skin)
    rig.run()
    rig.circuit(2)


def test_bad_onionskin_is_refused_without_a_circuit(rig):
    core = rig.circuit(1)
    core._channel.send_control(0x80000001, Command.CREATE2, b"\0\0\0\x54")
    core._channel.send_control(0x80000002, Command.CREATE2, encode_create2(bytes(84)))
    rig.run()
    assert rig.circuits()[0] == 1 and core._channel.stray_cells == 2


# --- arguments


def test_what_a_client_cannot_ask(rig, sink):
    with pytest.raises(ImpossiblePath):
        rig.client.start_circuit([])
    with pytest.raises(ImpossiblePath):
        rig.client.start_circuit([rig.path[0], rig.path[0]])
    core = rig.circuit()
    for hop, link in ((3, False), (-1, False), (1, True)):
        with pytest.raises(ValueError):
            core.send_payment(hop, 1, b"", link)
    with pytest.raises(MessageTooLong):
        core.send_payment(1, 1, bytes(40_000))
    unbuilt = rig.client.start_circuit(rig.path)
    with pytest.raises(CircuitClosed):
        unbuilt.send_payment(0, 1, b"")
    assert LinkTarget("127.0.0.1", 1, bytes(20), b"") != rig.path[0].target
