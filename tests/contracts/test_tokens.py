# SPDX-License-Identifier: BSD-3-Clause
"""Which refund tokens the ledger accepts: exactly the intermediary's, for exactly this channel."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from monetor_chain import statements
from monetor_chain.rehearsal import NO_AUTHORISATION, Rehearsal, TokenIssuer
from monetor_chain.statements import GROUP_ORDER, Role, TokenKind, lock_of

from .actions import CLOSING_MICRO, open_channel, refused, status
from .odd_points import g2_off_curve, g2_outside_subgroup

pytestmark = pytest.mark.precompiles

BALANCE = 70_000


def _post(stage: Rehearsal, cid: int, wpk: int, balance: int, token: bytes, key: bytes = b""):
    call = stage.ledger.functions.refund(
        cid, key or stage.issuer.public_key, wpk, balance, token, NO_AUTHORISATION
    )
    return stage.send(call, stage.party("client"))


def test_a_genuine_token_passes(stage: Rehearsal) -> None:
    cid, wpk = open_channel(stage, Role.CLIENT), lock_of(stage.secret())
    receipt = _post(stage, cid, wpk, BALANCE, stage.refund_token(Role.CLIENT, cid, wpk, BALANCE))
    event = stage.events(receipt, "RefundPosted")[0]
    assert status(stage, cid) == CLOSING_MICRO
    assert event["lock"] == wpk and event["balance"] == BALANCE and event["kind"] == 2
    assert event["deadline"] == stage.now() + stage.parameters.dispute_window


@pytest.mark.parametrize(
    "forge",
    [
        lambda t: bytes(512),
        lambda t: bytes(256) + t[256:],
        lambda t: t[:256] + bytes(256),
        lambda t: t[256:] + t[:256],
        lambda t: g2_off_curve() + t[256:],
        lambda t: t[:256] + g2_off_curve(),
        lambda t: g2_outside_subgroup() + t[256:],
        lambda t: t[:256] + g2_outside_subgroup(),
        lambda t: t[:-1],
        lambda t: t[:256],
        lambda t: b"",
    ],
    ids=[
        "zero",
        "s1 identity",
        "s2 identity",
        "swapped",
        "s1 off curve",
        "s2 off curve",
        "s1 outside subgroup",
        "s2 outside subgroup",
        "short",
        "half",
        "empty",
    ],
)
def test_malformed_tokens(stage: Rehearsal, forge: Callable[[bytes], bytes]) -> None:
    """Invariant L7. The all-zero token once verified, since the obvious comparison with the
    identity is always true."""
    cid, wpk = open_channel(stage, Role.CLIENT), lock_of(stage.secret())
    token = stage.refund_token(Role.CLIENT, cid, wpk, BALANCE)
    with refused("ledger: token"):
        _post(stage, cid, wpk, BALANCE, forge(token))


def test_every_message_counts(stage: Rehearsal) -> None:
    """Invariant L7: tag (kind, role, context), cid, nonce 0, lock and balance are all bound."""
    cid, wpk = open_channel(stage, Role.CLIENT, 2), lock_of(stage.secret())
    right = statements.tag(TokenKind.REFUND, Role.CLIENT, stage.ctx)
    other_ctx = statements.context(stage.chain_id + 1, stage.ledger.address, stage.issuer.key_hash)
    wrong = {
        "kind": (statements.tag(TokenKind.PAYMENT, Role.CLIENT, stage.ctx), cid, wpk, BALANCE),
        "role": (statements.tag(TokenKind.REFUND, Role.RELAY, stage.ctx), cid, wpk, BALANCE),
        "context": (
            statements.tag(TokenKind.REFUND, Role.CLIENT, other_ctx),
            cid,
            wpk,
            BALANCE,
        ),
        "conditional": (
            statements.tag(TokenKind.CONDITIONAL_REFUND, Role.CLIENT, stage.ctx, 5, 6),
            cid,
            wpk,
            BALANCE,
        ),
        "cid": (right, cid + 1, wpk, BALANCE),
        "lock": (right, cid, wpk + 1, BALANCE),
        "balance": (right, cid, wpk, BALANCE - 1),
    }
    for name, messages in wrong.items():
        token = stage.issuer.sign(*messages)
        with refused("ledger: token"):
            _post(stage, cid, wpk, BALANCE, token)
        assert name
    with refused("ledger: token"):
        _post(stage, cid, wpk, BALANCE, stage.issuer.sign(right, cid, wpk, BALANCE, nonce=1))
    _post(stage, cid, wpk, BALANCE, stage.issuer.sign(right, cid, wpk, BALANCE))


def test_numbers_beyond_their_range(stage: Rehearsal) -> None:
    """Invariant L7: a scalar and the scalar plus the group order are one to the precompile."""
    cid, wpk = open_channel(stage, Role.CLIENT), lock_of(stage.secret())
    token = stage.refund_token(Role.CLIENT, cid, wpk, BALANCE)
    for lock, balance in (
        (wpk + GROUP_ORDER, BALANCE),
        (wpk, BALANCE + GROUP_ORDER),
        (2**248, BALANCE),
        (wpk, 2**64),
    ):
        with refused("ledger: out of range"):
            _post(stage, cid, lock, balance, token)


def test_only_the_pinned_key(stage: Rehearsal) -> None:
    """Invariant L6: a group follows the key it was opened under, whatever I registers later."""
    second = TokenIssuer(5)
    stage.send(
        stage.ledger.functions.register_key(second.public_key, second.rest_hash),
        stage.party("intermediary"),
    )
    cid, wpk = open_channel(stage, Role.CLIENT), lock_of(stage.secret())
    tag = statements.tag(TokenKind.REFUND, Role.CLIENT, stage.ctx)
    with refused("ledger: token"):
        _post(stage, cid, wpk, BALANCE, second.sign(tag, cid, wpk, BALANCE), second.public_key)
    with refused("ledger: token"):
        _post(stage, cid, wpk, BALANCE, stage.refund_token(Role.CLIENT, cid, wpk, BALANCE), b"x")


def test_balance_above_the_escrow_is_capped(stage: Rehearsal) -> None:
    """Invariant L2: even a signature on too much pays no more than the channel holds."""
    cid, wpk = open_channel(stage, Role.CLIENT), lock_of(stage.secret())
    huge = 2**64 - 1
    _post(stage, cid, wpk, huge, stage.refund_token(Role.CLIENT, cid, wpk, huge))
    assert stage.ledger.functions.channel(cid).call()[2] == huge
