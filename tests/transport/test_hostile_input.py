# SPDX-License-Identifier: BSD-3-Clause
"""Whatever arrives, a parser returns a value or raises ProtocolViolation, and a router goes on."""

from __future__ import annotations

import time
import warnings

import pytest
from cryptography.utils import CryptographyDeprecationWarning
from hypothesis import HealthCheck, given, settings, strategies as st

from offchain.transport import (
    certificates,
    create_fast,
    extend,
    flow_control,
    link,
    ntor,
    stream_cell,
)
from offchain.transport.cell import BODY_LEN, Command, encode_fixed, encode_variable, is_variable
from offchain.transport.channel import Channel
from offchain.transport.errors import ProtocolViolation, TransportError
from offchain.transport.link import Initiating, Responding, encode_versions
from offchain.transport.payment_cell import Assembler
from offchain.transport.relay_cell import MAX_DATA, RelayCommand, decode_body, encode_body

PARSERS = {
    "relay body": decode_body,
    "CREATE2": ntor.decode_create2,
    "CREATED2": ntor.decode_created2,
    "EXTEND2": extend.decode_extend2,
    "EXTENDED2": extend.encode_extended2,
    "CREATE_FAST": create_fast.answer,
    "BEGIN": stream_cell.decode_begin,
    "RESOLVE": stream_cell.decode_resolve,
    "END": stream_cell.decode_end,
    "SENDME": flow_control.decode_circuit_sendme,
    "VERSIONS": link.choose_version,
    "NETINFO": link.check_netinfo,
    "AUTH_CHALLENGE": link.decode_auth_challenge,
    "CERTS": certificates.decode_certs,
    "Ed25519 certificate": certificates.parse_ed25519_cert,
    "whole CERTS": lambda data: certificates.check_responder(data, b"", 0.0),
    "CERTS of an initiator": lambda data: certificates.check_initiator(data, 0.0),
    "payment fragment": lambda data: Assembler(495).feed(data),
}


def survives(action):
    try:
        action()
    except ProtocolViolation:
        return


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=300, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=600))
def test_parsers_take_any_bytes(name, data):
    survives(lambda: PARSERS[name](data))
    survives(lambda: PARSERS[name](data.ljust(BODY_LEN, b"\0")[:BODY_LEN]))


@settings(max_examples=300, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_spoiled_certificates_are_refused_cleanly(identities, data):
    now = time.time()
    der = bytearray(identities[0].identity_cert)
    der[data.draw(st.integers(0, len(der) - 1))] ^= data.draw(st.integers(1, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        survives(lambda: certificates._rsa_identity(bytes(der), now))
    good = bytearray(certificates.responder_certs(identities[0], now))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(good)))
    survives(lambda: certificates.check_responder(bytes(good), identities[0].link_cert, now))
    survives(lambda: certificates.check_responder(bytes(good[:cut]), identities[0].link_cert, now))


def test_identity_certificate_of_another_version(identities):
    der = bytearray(identities[0].identity_cert)
    at = der.index(bytes.fromhex("a003020102"))
    der[at + 4] = 3
    with pytest.raises(ProtocolViolation, match="malformed"):
        certificates._rsa_identity(bytes(der), time.time())


class _Owner:
    """An owner that refuses every circuit."""

    def channel_open(self, channel):
        pass

    def channel_closed(self, channel, error):
        pass

    def create_received(self, channel, circ_id, command, body):
        ntor.decode_create2(body)
        raise ProtocolViolation("no")


def opened_responder(identity):
    channel = Channel(_Owner(), Responding(identity), now=time.time())
    netinfo = link.encode_netinfo("127.0.0.1", "", 0)
    channel.receive(encode_versions() + encode_fixed(0, Command.NETINFO, netinfo))
    assert channel.is_open
    return channel


@settings(max_examples=200, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=3000), initiating=st.booleans(), polite=st.booleans())
def test_a_handshake_takes_any_bytes(identities, data, initiating, polite):
    info = identities[0].info("r", "127.0.0.1", 1)
    role = Initiating(info.target, b"") if initiating else Responding(identities[0])
    channel = Channel(_Owner(), role, now=time.time())
    channel.start()
    survives(lambda: channel.receive((encode_versions() if polite else b"") + data))
    channel.take_output()


_body = st.one_of(st.binary(max_size=BODY_LEN),
                  st.just(ntor.encode_create2(bytes(84))))
_cells = st.lists(st.tuples(st.sampled_from([0, 1, 0x80000001, 0xFFFFFFFF]), st.integers(0, 255),
                            _body), max_size=20)


@settings(max_examples=200, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=_cells)
def test_an_open_link_takes_any_cells(identities, cells):
    channel = opened_responder(identities[0])
    for circ_id, command, body in cells:
        encode = encode_variable if is_variable(command) else encode_fixed
        try:
            channel.receive(encode(circ_id, command, body))
        except ProtocolViolation as error:
            channel.lost(error)
    channel.take_output()


_message = st.tuples(
    st.integers(0, 2),
    st.one_of(st.sampled_from([int(c) for c in RelayCommand]), st.integers(0, 255)),
    st.sampled_from([0, 1, 2, 0xFFFF]),
    st.one_of(st.binary(max_size=MAX_DATA), st.just(b"127.0.0.1:80\0\0\0\0\0"),
              st.just(b"\1\0\x14" + bytes(20)), st.just(b"\7\0\5hello"),
              st.just(b"\7\7\7" + bytes(495))),
    st.sampled_from([Command.RELAY, Command.RELAY, Command.RELAY_EARLY]),
)


@settings(max_examples=150, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(_message, min_size=1, max_size=12))
def test_routers_take_any_relay_messages(rig, messages):
    """Well encrypted nonsense from a client: at worst its own circuit ends."""
    bystander = rig.circuit()
    rig.routers[2].services[80] = lambda data: data
    core = rig.circuit()
    for hop, command, stream_id, data, cell in messages:
        core._ship(hop, cell, [core._onion.seal(hop, encode_body(command, stream_id, data))])
        rig.run()
    assert not bystander.closed
    bystander.send_payment(2, 1, b"x")
    rig.run()
    assert rig.hooks[2].payments[-1] == (1, b"x", False)
    core.destroy()
    bystander.destroy()
    rig.run()
    assert rig.circuits() == [0, 0, 0]


@settings(max_examples=150, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(_message, min_size=1, max_size=12))
def test_clients_take_any_relay_messages(rig, sink, messages):
    """Well encrypted nonsense from the hops: at worst the circuit ends."""
    rig.routers[2].services[80] = lambda data: data
    core = rig.circuit()
    core.open_stream("127.0.0.1", 80, sink())
    rig.run()
    hops = [rig.at(hop) for hop in range(3)]
    for hop, command, stream_id, data, _ in messages:
        circuit = hops[hop]
        circuit.ship([circuit.seal(encode_body(command, stream_id, data))])
        rig.run()
    core.destroy()
    rig.run()
    assert rig.circuits() == [0, 0, 0]


def test_every_error_here_is_a_transport_error():
    assert issubclass(ProtocolViolation, TransportError)
