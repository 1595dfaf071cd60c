# SPDX-License-Identifier: BSD-3-Clause
"""What a router says of itself in the directory, and what of that is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from offchain.agents.client import choose_path
from offchain.agents.directory import MAX_ACCEPTED, Consensus, DirectoryError, Router
from offchain.agents.intermediary_port import IntermediaryPort
from offchain.transport.errors import TransportError
from offchain.transport.identity import RouterIdentity
from offchain.transport.proxy import OnionProxy

ACCOUNT = bytes(range(20))
KEYS = [bytes([number]) * 32 for number in range(1, 4)]


def relay(name, accepts, *, guard=False, exit=False):
    info = RouterIdentity.generate().info(name, "127.0.0.1", 9001)
    return Router(info, guard, exit, False, ACCOUNT, accepts=tuple(accepts))


def test_an_entry_comes_back_as_it_was():
    one = relay("one", KEYS)
    assert Router.from_dict(one.to_dict()) == one
    consensus = Consensus((one,), 1, 1)
    assert consensus.accepted_by(one.info) == tuple(KEYS)
    assert consensus.accepted_by(relay("another", KEYS).info) == ()


@pytest.mark.parametrize(("accepts", "message"), [
    (["00" * 31], "wrong length"), (["xy"], "malformed"), (7, "malformed"),
    (["00" * 32] * (MAX_ACCEPTED + 1), "at most 16 intermediaries")])
def test_what_a_relay_cannot_accept(accepts, message):
    with pytest.raises(DirectoryError, match=message):
        Router.from_dict(relay("one", []).to_dict() | {"accepts": accepts})


@pytest.mark.parametrize("host", ["relay.example", "localhost", "", "127.0.0.1:80"])
def test_a_relay_is_at_an_address(host):
    entry = relay("one", []).to_dict()
    with pytest.raises(DirectoryError, match="malformed"):
        Router.from_dict(entry | {"router": entry["router"] | {"host": host}})


def test_entries_with_one_identity_are_one_relay():
    """A circuit through both would be impossible, which anybody could bring about by publishing
    a relay's entry with another Ed25519 identity."""
    one = relay("one", KEYS, guard=True, exit=True)
    twin = replace(one, info=replace(one.info, ed25519_identity=bytes(32)))
    other, third = relay("other", KEYS, guard=True), relay("third", KEYS)
    for _ in range(50):
        path = choose_path(Consensus((one, twin, other, third), 1, 1), KEYS)
        assert len({hop.rsa_fingerprint for hop in path}) == 3
    with pytest.raises(DirectoryError):
        choose_path(Consensus((one, twin, third), 1, 1), KEYS)


def test_an_intermediary_is_asked_again_when_a_path_was_impossible():
    """Whoever asks catches what the transport raises."""
    one = relay("one", KEYS)
    twin = replace(one, info=replace(one.info, ed25519_identity=bytes(32)))

    async def ask():
        proxy = OnionProxy()
        port = IntermediaryPort(proxy, lambda conversation: relay("i", []).info,
                                lambda: [one.info, twin.info])
        with pytest.raises(TransportError):
            async with port.circuit(b""):
                pass
        await proxy.close()

    asyncio.run(ask())


def test_a_path_is_one_that_can_be_paid():
    first, second, third = KEYS
    guards = [relay("guard", [], guard=True)]
    middles = [relay("m1", [first]), relay("m2", [second, third])]
    exits = [relay("e1", [first], exit=True), relay("e2", [third], exit=True)]
    consensus = Consensus((*guards, *middles, *exits), 1, 1)
    for _ in range(20):
        names = [one.nickname for one in choose_path(consensus, [second, third])]
        assert names == ["guard", "m2", "e2"]
    seen = {tuple(one.nickname for one in choose_path(consensus, KEYS)) for _ in range(200)}
    assert seen == {("guard", middle, exit_) for middle in ("m1", "m2") for exit_ in ("e1", "e2")}
    with pytest.raises(DirectoryError, match="no exit accepts"):
        choose_path(consensus, [second])
    with pytest.raises(DirectoryError, match="in the middle"):
        choose_path(Consensus((*guards, *exits), 1, 1), [third])
