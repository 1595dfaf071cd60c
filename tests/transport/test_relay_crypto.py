# SPDX-License-Identifier: BSD-3-Clause
"""ntor and the onion layers, against published vectors and against tampering."""

from __future__ import annotations

import hashlib
import secrets

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from offchain.transport import ntor
from offchain.transport.cell import BODY_LEN
from offchain.transport.errors import DestroyReason, MessageTooLong, ProtocolViolation
from offchain.transport.onion import ClientOnion, OnionLayer
from offchain.transport.relay_cell import (
    MAX_DATA,
    RelayCommand,
    RelayMessage,
    decode_body,
    encode_body,
)


def _key(text):
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(text))


def test_ntor_vector(vectors):
    v = vectors("ntor_v1")
    identity, onion = bytes.fromhex(v["identity"]), _key(v["onion_private"])
    client = ntor.NtorClient(identity, bytes.fromhex(v["onion_public"]), _key(v["client_private"]))
    assert client.onionskin.hex() == v["onionskin"]
    reply, server_keys = ntor.answer(identity, onion, client.onionskin,
                                     ephemeral=_key(v["server_private"]))
    assert reply.hex() == v["reply"]
    size = len(v["keys"]) // 2
    assert server_keys[:size].hex() == client.finish(reply)[:size].hex() == v["keys"]
    assert len(server_keys) == 92


def test_ntor_refuses_what_is_not_right():
    identity, onion = secrets.token_bytes(20), X25519PrivateKey.generate()
    public = onion.public_key().public_bytes_raw()
    client = ntor.NtorClient.begin(identity, public)
    reply, _ = ntor.answer(identity, onion, client.onionskin)
    for spoiled in (reply[:60] + bytes([reply[60] ^ 1]) + reply[61:], reply[:-1], bytes(64)):
        with pytest.raises(ProtocolViolation):
            client.finish(spoiled)
    other = ntor.NtorClient.begin(secrets.token_bytes(20), public)
    with pytest.raises(ProtocolViolation) as caught:
        ntor.answer(identity, onion, other.onionskin)
    assert caught.value.reason is DestroyReason.OR_IDENTITY
    with pytest.raises(ProtocolViolation, match="degenerate"):
        ntor.answer(identity, onion, identity + public + bytes(32))
    # A relay without the onion key cannot answer, even with the right public values.
    impostor = ntor.NtorClient.begin(identity, X25519PrivateKey.generate().public_key()
                                     .public_bytes_raw())
    stranger = X25519PrivateKey.generate()
    forged, _ = ntor.answer(identity, stranger,
                            identity + stranger.public_key().public_bytes_raw()
                            + impostor.onionskin[-32:])
    with pytest.raises(ProtocolViolation, match="onion key"):
        impostor.finish(forged)


def test_tor1_vector_three_hops(vectors):
    v = vectors("tor1_relay_cells")
    onion = ClientOnion()
    onion.layers = [OnionLayer(key.encode()) for key in v["keys"]]
    expected = {case["cell"]: case["body"] for case in v["cells"]}
    stream = hashlib.shake_256(v["shake256_seed"].encode()).digest(51 * MAX_DATA)
    seen = 0
    for number in range(51):
        data = stream[number * MAX_DATA : (number + 1) * MAX_DATA]
        body = encode_body(RelayCommand.DATA, 1, data)
        wire = onion.encrypt(2, onion.seal(2, body))
        if number in expected:
            assert wire.hex() == expected[number]
            seen += 1
    assert seen == len(expected) == 8


def test_a_run_encrypts_like_single_cells(vectors):
    keys = [key.encode() for key in vectors("tor1_relay_cells")["keys"]]
    single, run = ClientOnion(), ClientOnion()
    single.layers, run.layers = ([OnionLayer(k) for k in keys] for _ in range(2))
    bodies = [encode_body(2, 1, bytes([i]) * MAX_DATA) for i in range(40)]
    one_by_one = b"".join(single.encrypt(2, single.seal(2, body)) for body in bodies)
    assert run.encrypt(2, b"".join(run.seal(2, body) for body in bodies)) == one_by_one


def _backward(layers, hop, body):
    """What the client gets when `hop` says `body`: sealed there, encrypted there and before."""
    wire = layers[hop].backward_digest.seal(body)
    for layer in reversed(layers[: hop + 1]):
        wire = layer.backward.apply(wire)
    return wire


def test_one_run_may_hold_cells_of_several_hops():
    keys = [secrets.token_bytes(92) for _ in range(3)]
    relays = [OnionLayer(key) for key in keys]
    client = ClientOnion()
    client.layers = [OnionLayer(key) for key in keys]
    said = [2, 1, 2, 0, 0, 2, 1, 2, 2, 0, 1]
    wire = b"".join(_backward(relays, hop, encode_body(2, i, b"x" * i))
                    for i, hop in enumerate(said))
    opened = client.open(wire)
    assert [hop for hop, _, _ in opened] == said
    assert [decode_body(body) for _, body, _ in opened] == [
        RelayMessage(2, i, b"x" * i) for i in range(len(said))]


def test_tag_is_the_whole_running_digest_of_that_cell():
    key = secrets.token_bytes(92)
    relay, client = OnionLayer(key), ClientOnion()
    client.layers = [OnionLayer(key)]
    bodies = [encode_body(2, 1, bytes([i])) for i in range(3)]
    running = hashlib.sha1(key[20:40])
    tags = []
    for body in bodies:
        running.update(body)
        tags.append(running.digest())
    opened = client.open(b"".join(_backward([relay], 0, body) for body in bodies))
    assert [tag for _, _, tag in opened] == tags


def test_what_no_layer_recognizes_is_a_violation():
    keys = [secrets.token_bytes(92) for _ in range(3)]
    relays = [OnionLayer(key) for key in keys]
    client = ClientOnion()
    client.layers = [OnionLayer(key) for key in keys]
    wire = bytearray(_backward(relays, 2, encode_body(2, 1, b"hello")))
    wire[300] ^= 1
    with pytest.raises(ProtocolViolation, match="no layer"):
        client.open(bytes(wire))


def test_a_refused_body_leaves_the_digest_as_it_was():
    key = secrets.token_bytes(92)
    one, other = OnionLayer(key), OnionLayer(key)
    body = one.forward_digest.seal(encode_body(2, 1, b"first"))
    assert not other.forward_digest.accept(body[:-1] + bytes([body[-1] ^ 1]))
    assert other.forward_digest.accept(body)
    assert not other.forward_digest.accept(body), "a replayed cell is not recognized"


def test_relay_body_layout_and_padding():
    body = encode_body(RelayCommand.MT, 0x1234, b"abc")
    assert len(body) == BODY_LEN
    assert body[:14] == bytes([200, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 0, 3]) + b"abc"
    assert body[14:18] == bytes(4)
    assert body[18:] != encode_body(RelayCommand.MT, 0x1234, b"abc")[18:], "padding is random"
    for size in (MAX_DATA - 4, MAX_DATA - 1, MAX_DATA):
        assert decode_body(encode_body(2, 1, bytes(size))).data == bytes(size)
    with pytest.raises(MessageTooLong):
        encode_body(2, 1, bytes(MAX_DATA + 1))
    with pytest.raises(ProtocolViolation):
        decode_body(body[:9] + b"\xff\xff" + body[11:])
