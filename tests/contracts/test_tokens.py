# SPDX-License-Identifier: BSD-3-Clause
"""Which refund tokens the ledger accepts: exactly the intermediary's, for exactly this channel."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from monetor_chain import statements
from monetor_chain.errors import TransactionReverted
from monetor_chain.rehearsal import NO_AUTHORISATION, Rehearsal, TokenIssuer
from monetor_chain.statements import GROUP_ORDER, Role, TokenKind, lock_of

from .actions import CLOSING_MICRO, open_channel, refused, status
from .odd_points import (
    g2_negated,
    g2_not_canonical,
    g2_off_curve,
    g2_outside_subgroup,
    g2_padded,
)

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


FORGERIES: dict[str, Callable[[bytes], bytes]] = {
    "zero": lambda t: bytes(512),
    "s1 identity": lambda t: bytes(256) + t[256:],
    "s2 identity": lambda t: t[:256] + bytes(256),
    "swapped": lambda t: t[256:] + t[:256],
    "s1 off curve": lambda t: g2_off_curve() + t[256:],
    "s2 off curve": lambda t: t[:256] + g2_off_curve(),
    "s1 outside subgroup": lambda t: g2_outside_subgroup() + t[256:],
    "s2 outside subgroup": lambda t: t[:256] + g2_outside_subgroup(),
    "s1 not canonical": lambda t: g2_not_canonical(t[:256]) + t[256:],
    "s2 not canonical": lambda t: t[:256] + g2_not_canonical(t[256:]),
    "s1 padded": lambda t: g2_padded(t[:256]) + t[256:],
    "s2 padded": lambda t: t[:256] + g2_padded(t[256:]),
    "s1 negated": lambda t: g2_negated(t[:256]) + t[256:],
    "s2 negated": lambda t: t[:256] + g2_negated(t[256:]),
    "all ones": lambda t: b"\xff" * 512,
    "short": lambda t: t[:-1],
    "half": lambda t: t[:256],
    "compressed": lambda t: t[:96] + t[256:352],
    "empty": lambda t: b"",
}


@pytest.mark.parametrize("conditional", [False, True], ids=["refund", "refund_conditional"])
@pytest.mark.parametrize("name", FORGERIES)
def test_malformed_tokens(stage: Rehearsal, name: str, conditional: bool) -> None:
    """Invariant L7. The all-zero token once verified, since the obvious comparison with the
    identity is always true."""
    cid, wpk = open_channel(stage, Role.CLIENT), lock_of(stage.secret())
    key = stage.issuer.public_key
    secret, t_p = stage.secret(), stage.now() + 1_000
    tag = statements.tag(
        TokenKind.CONDITIONAL_REFUND, Role.CLIENT, stage.ctx, lock_of(secret), t_p
    )
    forge = FORGERIES[name]
    with refused("ledger: token"):
        if conditional:
            token = forge(stage.issuer.sign(tag, cid, wpk, BALANCE))
            call = stage.ledger.functions.refund_conditional(
                cid, key, wpk, BALANCE, token, lock_of(secret), t_p, secret, NO_AUTHORISATION
            )
            stage.send(call, stage.party("client"))
        else:
            token = forge(stage.refund_token(Role.CLIENT, cid, wpk, BALANCE))
            _post(stage, cid, wpk, BALANCE, token)


def test_both_halves_negated_are_the_same_statement(stage: Rehearsal) -> None:
    """A token can be re-randomised by any exponent, minus one too: nothing may hang on its bytes
    being unique. Negating either half alone, as above, breaks it."""
    cid, wpk = open_channel(stage, Role.CLIENT), lock_of(stage.secret())
    token = stage.refund_token(Role.CLIENT, cid, wpk, BALANCE)
    both = g2_negated(token[:256]) + g2_negated(token[256:])
    _post(stage, cid, wpk, BALANCE, both)
    with refused("ledger: not open"):
        _post(stage, cid, wpk, BALANCE, token)


@pytest.mark.parametrize("extra", [b"\0", bytes(32)], ids=len)
def test_inputs_that_are_too_long(stage: Rehearsal, extra: bytes) -> None:
    """Invariant L7: neither token nor key may carry anything behind its end."""
    cid, wpk = open_channel(stage, Role.CLIENT), lock_of(stage.secret())
    token = stage.refund_token(Role.CLIENT, cid, wpk, BALANCE)
    with pytest.raises(TransactionReverted):
        _post(stage, cid, wpk, BALANCE, token + extra)
    with pytest.raises(TransactionReverted):
        _post(stage, cid, wpk, BALANCE, token, stage.issuer.public_key + extra)
    _post(stage, cid, wpk, BALANCE, token)


@pytest.mark.parametrize("key", [b"", bytes(768), bytes(767)], ids=["empty", "zero", "short"])
def test_a_key_that_is_none(stage: Rehearsal, key: bytes) -> None:
    """Invariants L6, L7: under the identity every token would verify."""
    cid, wpk = open_channel(stage, Role.CLIENT), lock_of(stage.secret())
    call = stage.ledger.functions.refund(cid, key, wpk, BALANCE, bytes(512), NO_AUTHORISATION)
    with refused("ledger: token"):
        stage.send(call, stage.party("client"))


@pytest.mark.parametrize("name", ["zero", "s1 off curve", "s2 outside subgroup", "short"])
def test_a_token_that_fails_costs_a_bounded_amount_of_gas(stage: Rehearsal, name: str) -> None:
    """Invariant L22: a failing pairing takes all the gas that it was given, which is little."""
    cid, wpk = open_channel(stage, Role.CLIENT), lock_of(stage.secret())
    token = FORGERIES[name](stage.refund_token(Role.CLIENT, cid, wpk, BALANCE))
    call = stage.ledger.functions.refund(
        cid, stage.issuer.public_key, wpk, BALANCE, token, NO_AUTHORISATION
    )
    sent = call.transact({"from": stage.party("client").address, "gas": 5_000_000})
    receipt = stage.w3.eth.wait_for_transaction_receipt(sent)
    assert not receipt["status"] and receipt["gasUsed"] < 350_000


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
