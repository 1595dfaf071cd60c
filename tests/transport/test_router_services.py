# SPDX-License-Identifier: BSD-3-Clause
"""What stock clients and relays ask of a router and ours do not: CREATE_FAST, handshakes of other
kinds to pass on, circuits down a link that we opened, names to look up, a directory."""

from __future__ import annotations

import pytest

from offchain.transport import create_fast
from offchain.transport.cell import CellParser, Command
from offchain.transport.errors import EndReason
from offchain.transport.extend import encode_extend2
from offchain.transport.ntor import NtorClient, encode_create2
from offchain.transport.onion import ClientOnion, OnionLayer
from offchain.transport.relay_cell import RelayCommand, decode_body, encode_body
from offchain.transport.relay_circuit import MAX_LOOKUPS


def say(core, hop, command, stream_id=0, data=b"", cell=Command.RELAY):
    core._ship(hop, cell, [core._onion.seal(hop, encode_body(command, stream_id, data))])


def heard(core, hop):
    """From now on, what `hop` says, instead of what the client would make of it."""
    found = []
    handle = core._handle

    def keep(at, message, tag):
        if at == hop:
            found.append(message)
        else:
            handle(at, message, tag)

    core._handle = keep
    return found


class Wire:
    """The client's side of a link, cell by cell."""

    def __init__(self, rig) -> None:
        rig.circuit(1)
        self.rig, self.link = rig, rig.network.links[0]
        self.link.held = True

    def ask(self, circ_id, command, body):
        self.link.initiator.send_control(circ_id, command, body)
        return self.answer(self.link.initiator.take_output())

    def answer(self, wire):
        self.link.responder.receive(wire)
        parser = CellParser()
        parser.id_len = 4
        parser.feed(self.link.responder.take_output())
        return parser.drain()


class End:
    """A circuit's end that writes down what it is told."""

    def __init__(self) -> None:
        self.cells = []

    def control_cell(self, command, body):
        self.cells.append(command)

    def channel_lost(self):
        pass


def test_create_fast(rig):
    wire = Wire(rig)
    ours = bytes(range(20))
    (cell,) = wire.ask(0x80000005, Command.CREATE_FAST, ours)
    assert (cell.circ_id, cell.command) == (0x80000005, Command.CREATED_FAST)
    theirs, proof = cell.body[:20], cell.body[20:40]
    derived = create_fast.kdf_tor(ours + theirs, 92)
    assert proof == derived[:20]
    onion = ClientOnion()
    onion.layers = [OnionLayer(derived[20:])]
    body = onion.encrypt(0, onion.seal(0, encode_body(RelayCommand.BEGIN_DIR, 7, b"")))
    (cell,) = wire.ask(0x80000005, Command.RELAY, body)
    (_, plain, _), = onion.open(cell.body)
    assert decode_body(plain).stream_id == 7
    assert decode_body(plain).command == RelayCommand.END
    assert decode_body(plain).data == bytes([EndReason.NOTDIRECTORY])


def test_a_handshake_of_another_kind_is_passed_on(rig):
    """ntor v3 is between the client and the next relay, of whatever length; so is its answer."""
    core = rig.circuit(2)
    got = heard(core, 1)
    create2 = b"\0\3" + (200).to_bytes(2, "big") + bytes(range(200))
    say(core, 1, RelayCommand.EXTEND2, data=encode_extend2(rig.path[2].target, create2),
        cell=Command.RELAY_EARLY)
    channels = []
    rig.routers[2].core.create_received = (
        lambda channel, circ_id, command, body: channels.append((channel, circ_id, body)))
    rig.run()
    ((channel, circ_id, body),) = channels
    assert body.startswith(create2) and not any(body[len(create2):])
    answer = (100).to_bytes(2, "big") + bytes(range(100))
    channel.send_control(circ_id, Command.CREATED2, answer)
    rig.run()
    assert [(one.command, one.data) for one in got] == [(RelayCommand.EXTENDED2, answer)]


def test_a_link_is_used_both_ways(rig):
    """A relay may create circuits down a link that we opened to it, and they are served."""
    rig.circuit(2)
    (link,) = [one for one in rig.network.links if one.initiator.peer.rsa_fingerprint
               == rig.path[1].rsa_fingerprint]
    assert link.responder.peer.rsa_fingerprint == rig.path[0].rsa_fingerprint
    skin = NtorClient.begin(rig.path[0].rsa_fingerprint, rig.path[0].ntor_key).onionskin

    end = End()
    circ_id = link.responder.attach(end)
    assert not circ_id & 0x80000000, "the half of those who were called"
    link.responder.send_control(circ_id, Command.CREATE2, encode_create2(skin))
    rig.run()
    assert end.cells == [Command.CREATED2]
    assert rig.circuits() == [2, 1, 0]


def test_a_client_that_called_is_asked_for_no_circuit(rig):
    rig.circuit(1)
    link = rig.network.links[0]
    assert link.responder.peer is None
    end = End()
    circ_id = link.responder.attach(end)
    link.responder.send_control(circ_id, Command.CREATE2, encode_create2(bytes(84)))
    rig.run()
    assert end.cells == [Command.DESTROY]
    assert not link.cut_off and rig.circuits() == [1, 0, 0]


def test_names_are_looked_up(rig):
    core = rig.circuit()
    got = heard(core, 2)
    say(core, 2, RelayCommand.RESOLVE, 9, b"example.com\0")
    rig.run()
    assert [(one.command, one.stream_id) for one in got] == [(RelayCommand.RESOLVED, 9)]
    assert got[0].data[:6] == b"\4\4\x7f\0\0\1"


@pytest.mark.parametrize("stream_ids", [
    [0], range(1, MAX_LOOKUPS + 2), [7] * (MAX_LOOKUPS + 1)])
def test_lookups_are_bounded_and_have_a_stream(rig, stream_ids):
    core = rig.circuit()
    asked = []
    # A resolver that is slow.
    rig.routers[2].resolve = lambda circuit, stream_id, name: asked.append(stream_id)
    for stream_id in stream_ids:
        say(core, 2, RelayCommand.RESOLVE, stream_id, b"example.com\0")
    rig.run()
    assert core.closed and rig.circuits() == [0, 0, 0]
    assert len(asked) <= MAX_LOOKUPS


def test_there_is_no_directory_in_memory(rig):
    core = rig.circuit()
    got = heard(core, 2)
    say(core, 2, RelayCommand.BEGIN_DIR, 3)
    rig.run()
    assert [(one.command, one.data) for one in got] == [
        (RelayCommand.END, bytes([EndReason.NOTDIRECTORY]))]
