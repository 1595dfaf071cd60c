# SPDX-License-Identifier: BSD-3-Clause
"""What a router says of itself in the directory, and what of that is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from offchain.agents.client import choose_path
from offchain.agents.directory import (
    MAX_ACCEPTED,
    MAX_BANDWIDTH,
    Consensus,
    DirectoryError,
    Router,
)
from offchain.agents.intermediary_port import IntermediaryPort
from offchain.transport.errors import TransportError
from offchain.transport.identity import RouterIdentity
from offchain.transport.proxy import OnionProxy

ACCOUNT = bytes(range(20))
KEYS = [bytes([number]) * 32 for number in range(1, 4)]


def relay(name, accepts, *, guard=False, exit=False, bandwidth=1000):
    info = RouterIdentity.generate().info(name, "127.0.0.1", 9001)
    return Router(info, guard, exit, False, ACCOUNT, accepts=tuple(accepts), bandwidth=bandwidth)


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


@pytest.mark.parametrize("bandwidth", [0, -1, MAX_BANDWIDTH + 1, "fast", None])
def test_bandwidth_that_cannot_be_claimed(bandwidth):
    with pytest.raises(DirectoryError, match=r"bytes a second|malformed"):
        Router.from_dict(relay("one", []).to_dict() | {"bandwidth": bandwidth})


def test_relays_are_chosen_by_their_bandwidth():
    key = KEYS[:1]
    slow, fast = relay("slow", key, exit=True), relay("fast", key, exit=True, bandwidth=9000)
    consensus = Consensus((relay("guard", [], guard=True), relay("middle", key), slow, fast), 1, 1)
    chosen = [choose_path(consensus, key)[-1].nickname for _ in range(1000)]
    # Nine in ten; 100 and a standard deviation of 9.5 are expected of the other.
    assert 40 <= chosen.count("slow") <= 160


def test_a_relay_that_is_needed_as_guard_is_no_exit():
    key = KEYS[:1]
    relays = (relay("both", key, guard=True, exit=True), relay("exit", key, exit=True),
              relay("middle", key))
    for _ in range(20):
        path = choose_path(Consensus(relays, 1, 1), key)
        assert [one.nickname for one in path] == ["both", "middle", "exit"]
    # Nor is a middle that has to be the guard.
    two = (relay("both", key, guard=True), relay("exit", key, exit=True))
    with pytest.raises(DirectoryError, match="no guard and middle are left"):
        choose_path(Consensus(two, 1, 1), key)


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
    with pytest.raises(DirectoryError, match="no guard and middle are left"):
        choose_path(Consensus((*guards, *exits), 1, 1), [third])
