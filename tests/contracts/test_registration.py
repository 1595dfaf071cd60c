# SPDX-License-Identifier: BSD-3-Clause
"""register_key: an intermediary's key is checked, registered once, and never changes."""

from __future__ import annotations

import pytest

from monetor_chain import statements
from monetor_chain.errors import TransactionReverted
from monetor_chain.rehearsal import NO_AUTHORISATION, NO_PERMIT, Rehearsal, TokenIssuer
from monetor_chain.statements import Role

from .actions import refused
from .odd_points import g1_not_canonical, g1_off_curve, g1_outside_subgroup

pytestmark = pytest.mark.precompiles


def _register(stage: Rehearsal, key: bytes, rest: bytes, role: str = "stranger"):
    return stage.send(stage.ledger.functions.register_key(key, rest), stage.party(role))


def test_key_hash_and_context_are_the_agreed_ones(stage: Rehearsal) -> None:
    issuer = TokenIssuer(2)
    event = stage.events(_register(stage, issuer.public_key, issuer.rest_hash), "KeyRegistered")[0]
    ledger = stage.ledger.functions
    assert event["key_hash"] == issuer.key_hash
    assert event["owner"] == stage.party("stranger").address
    assert ledger.intermediary(issuer.key_hash).call() == stage.party("stranger").address
    assert ledger.context(issuer.key_hash).call() == statements.context(
        stage.chain_id, stage.ledger.address, issuer.key_hash
    )


@pytest.mark.parametrize("role", ["intermediary", "stranger"])
def test_second_registration_is_refused(stage: Rehearsal, role: str) -> None:
    """Invariant L6: else a key's owner, and with it its vault, could be replaced."""
    with refused("issuer_keys: already registered"):
        _register(stage, stage.issuer.public_key, stage.issuer.rest_hash, role)
    owner = stage.ledger.functions.intermediary(stage.issuer.key_hash).call()
    assert owner == stage.party("intermediary").address


@pytest.mark.parametrize("index", range(6))
def test_identity_is_refused_everywhere(stage: Rehearsal, index: int) -> None:
    """Invariant L6: with Y_i = 1 a token would not depend on that message."""
    key = bytearray(TokenIssuer(3).public_key)
    key[128 * index : 128 * (index + 1)] = bytes(128)
    with refused("ps_verifier: identity"):
        _register(stage, bytes(key), bytes(32))


@pytest.mark.parametrize("index", [0, 3, 5])
@pytest.mark.parametrize("kind", ["off curve", "outside subgroup", "not canonical"])
def test_bad_points_are_refused(stage: Rehearsal, index: int, kind: str) -> None:
    """Invariant L6: what later calls take for granted is checked here."""
    key = bytearray(TokenIssuer(3).public_key)
    part = slice(128 * index, 128 * (index + 1))
    key[part] = {
        "off curve": g1_off_curve(),
        "outside subgroup": g1_outside_subgroup(),
        "not canonical": g1_not_canonical(bytes(key[part])),
    }[kind]
    with refused("ps_verifier: invalid point"):
        _register(stage, bytes(key), bytes(32))


def test_key_length(stage: Rehearsal) -> None:
    key = TokenIssuer(3).public_key
    with refused("ps_verifier: key length"):
        _register(stage, key[:-1], bytes(32))
    with pytest.raises(TransactionReverted):
        _register(stage, key + bytes(1), bytes(32))


def test_unregistered_key_opens_nothing(stage: Rehearsal) -> None:
    client = stage.party("client")
    stage.approve(client)
    call = stage.ledger.functions.open(
        TokenIssuer(4).key_hash,
        client.address,
        Role.CLIENT,
        1_000,
        0,
        1,
        *stage.windows(),
        bytes(32),
        bytes(32),
        NO_AUTHORISATION,
        NO_PERMIT,
    )
    with refused("ledger: unknown key"):
        stage.send(call, client)
