# SPDX-License-Identifier: BSD-3-Clause
"""Nobody but the end user, or somebody with its signature on this very call, moves its channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from monetor_chain import statements
from monetor_chain.rehearsal import NO_AUTHORISATION, NO_PERMIT, Party, Rehearsal
from monetor_chain.statements import Role, TokenKind, keccak256, lock_of

from .actions import DEPOSIT, FUND, open_channel, post_refund, refused, resolve, reveal

ACCOUNT = "relay"
ACTIONS = ("open", "reclaim", "refund", "refund_conditional", "nano_refund", "close")


@dataclass
class Case:
    """A call that lacks only the authorisation, and what that must cover."""

    action: str
    identifier: int
    arguments: list[int | bytes]
    call: Callable[[tuple[int, bytes]], Any]


def _case(stage: Rehearsal, action: str) -> Case:
    ledger, relay = stage.ledger.functions, stage.party(ACCOUNT)
    if action == "open":
        stage.approve(relay)
        values = (
            stage.issuer.key_hash, relay.address, 2, DEPOSIT, FUND, 2, *stage.windows(),
            b"e" * 32, b"i" * 32,
        )  # fmt: skip
        group = statements.group_id(
            stage.ctx, relay.address, stage.party("intermediary").address, Role.RELAY,
            DEPOSIT, FUND, 2, b"e" * 32, b"i" * 32,
        )  # fmt: skip
        words = [values[0], statements.address_word(relay.address), *values[2:]]
        return Case(action, group, words, lambda auth: ledger.open(*values, auth, NO_PERMIT))
    if action == "reclaim":
        group = stage.open_group(relay, Role.RELAY, DEPOSIT, FUND, funded=False)
        return Case(action, group, [], lambda auth: ledger.reclaim(group, auth))
    cid = open_channel(stage, Role.RELAY)
    lock, balance = lock_of(stage.secret()), DEPOSIT + 7
    key = stage.issuer.public_key
    if action == "refund":
        token = stage.refund_token(Role.RELAY, cid, lock, balance)
        return Case(
            action,
            cid,
            [cid, lock, balance, keccak256(token)],
            lambda auth: ledger.refund(cid, key, lock, balance, token, auth),
        )
    if action == "refund_conditional":
        secret, t_p = stage.secret(), stage.now() + 1_000
        tag = statements.tag(
            TokenKind.CONDITIONAL_REFUND, Role.RELAY, stage.ctx, lock_of(secret), t_p
        )
        token = stage.issuer.sign(tag, cid, lock, balance)
        condition = (lock_of(secret), t_p, secret)
        return Case(
            action,
            cid,
            [cid, lock, balance, keccak256(token), *condition],
            lambda auth: ledger.refund_conditional(
                cid, key, lock, balance, token, *condition, auth
            ),
        )
    if action == "nano_refund":
        terms = stage.terms()
        claim = stage.nano_claim(Role.RELAY, cid, terms, stage.secret(), balance, 20)
        words = [cid, terms.hash(), claim[2], claim[3], claim[4], keccak256(claim[5])]
        return Case(action, cid, words, lambda auth: ledger.nano_refund(*claim[:-1], auth))
    group, total = cid >> 8, DEPOSIT + 3
    signature = stage.close_signature(group, 1, total)
    return Case(
        action,
        group,
        [group, 1, total, keccak256(signature)],
        lambda auth: ledger.close(group, 1, total, signature, auth),
    )


@pytest.mark.parametrize("sender", ["intermediary", "watcher"])
@pytest.mark.parametrize("action", ACTIONS)
def test_nobody_else_without_a_signature(stage: Rehearsal, action: str, sender: str) -> None:
    """Invariant L4: I signs tokens, so it could close anybody's channel at zero."""
    case = _case(stage, action)
    with refused("authorisation: expired"):
        stage.send(case.call(NO_AUTHORISATION), stage.party(sender))
    with refused("authorisation: signature"):
        stage.send(case.call((2**64, b"")), stage.party(sender))
    forged = stage.authorise(stage.party(sender), case.action, case.identifier, *case.arguments)
    with refused("authorisation: signature"):
        stage.send(case.call(forged), stage.party(sender))


@pytest.mark.parametrize("action", ACTIONS)
def test_a_watcher_with_a_signature(stage: Rehearsal, action: str) -> None:
    """Invariant L25: a third party may submit, and is no richer for it."""
    case, watcher = _case(stage, action), stage.party("watcher")
    auth = stage.authorise(stage.party(ACCOUNT), action, case.identifier, *case.arguments)
    assert stage.send(case.call(auth), watcher)["status"] == 1
    assert stage.ledger.functions.credit(watcher.address).call() == 0
    assert stage.token.functions.balanceOf(watcher.address).call() == 0


@pytest.mark.parametrize("action", ACTIONS)
def test_the_account_itself(stage: Rehearsal, action: str) -> None:
    case = _case(stage, action)
    assert stage.send(case.call(NO_AUTHORISATION), stage.party(ACCOUNT))["status"] == 1


@pytest.mark.parametrize("action", ACTIONS)
def test_signature_covers_action_id_and_arguments(stage: Rehearsal, action: str) -> None:
    """Invariant L4: nothing of the call can be exchanged under a signature."""
    case, watcher, relay = _case(stage, action), stage.party("watcher"), stage.party(ACCOUNT)
    others = [name for name in ACTIONS if name != action]
    wrong = [(name, case.identifier, case.arguments) for name in others]
    wrong.append((action, case.identifier + 1, case.arguments))
    for i, value in enumerate(case.arguments):
        changed = value + 1 if isinstance(value, int) else bytes(32)
        wrong.append((action, case.identifier, _with(case.arguments, i, changed)))
    for name, identifier, arguments in wrong:
        auth = stage.authorise(relay, name, identifier, *arguments)
        with refused("authorisation: signature"):
            stage.send(case.call(auth), watcher)


def _with(values: list[int | bytes], index: int, value: int | bytes) -> list[int | bytes]:
    return [*values[:index], value, *values[index + 1 :]]


@pytest.mark.parametrize("action", ACTIONS)
def test_expiry(stage: Rehearsal, action: str) -> None:
    """Invariant L4: a stale authorisation forfeits everything in the wrong hands."""
    case, watcher, relay = _case(stage, action), stage.party("watcher"), stage.party(ACCOUNT)
    last = stage.now() + 500
    auth = stage.authorise(relay, action, case.identifier, *case.arguments, not_after=last)
    with refused("authorisation: signature"):
        stage.send(case.call((last + 1, auth[1])), watcher)
    snapshot = stage.snapshot()
    stage.travel(last + 1)
    with refused("authorisation: expired"):
        stage.send(case.call(auth), watcher)
    stage.revert(snapshot)
    stage.travel(last)
    assert stage.send(case.call(auth), watcher)["status"] == 1


def test_preimages_are_not_covered(stage: Rehearsal) -> None:
    """Invariant L4: a watcher claims at the best k it knows with a signature made before."""
    case, terms = _case(stage, "nano_refund"), stage.terms()
    auth = stage.authorise(stage.party(ACCOUNT), case.action, case.identifier, *case.arguments)
    reveal(stage, terms, 21)
    assert stage.send(case.call(auth), stage.party("watcher"))["status"] == 1


def test_reveal_refute_resolve_are_open_to_anybody(stage: Rehearsal) -> None:
    """Invariant L25: they add information or follow from it."""
    stranger = stage.party("stranger")
    cid, secret = open_channel(stage, Role.RELAY, 2), stage.secret()
    post_refund(stage, Role.RELAY, cid, DEPOSIT, secret)
    stage.send(stage.ledger.functions.refute(cid, secret), stranger)
    post_refund(stage, Role.RELAY, cid + 1, DEPOSIT, stage.secret())
    resolve(stage, cid + 1)
    reveal(stage, stage.terms(), 4)
    assert stage.ledger.functions.credit(stranger.address).call() == 0


def test_funds_come_from_the_account_not_the_sender(stage: Rehearsal) -> None:
    """Invariant L25: whoever submits an opening, the account's tokens pay for it."""
    case, relay = _case(stage, "open"), stage.party(ACCOUNT)
    auth = stage.authorise(relay, "open", case.identifier, *case.arguments)

    def balance(party: Party) -> int:
        return int(stage.token.functions.balanceOf(party.address).call())

    before = balance(relay)
    stage.send(case.call(auth), stage.party("watcher"))
    assert before - balance(relay) == 2 * DEPOSIT


def test_a_copied_claim_at_no_payments_does_not_fail_the_claim(stage: Rehearsal) -> None:
    """Invariant L25: the authorisation leaves k open, so a copy with k = 0 may come first."""
    ledger, watcher, relay = stage.ledger.functions, stage.party("watcher"), stage.party(ACCOUNT)
    cid, terms, secret = open_channel(stage, Role.RELAY), stage.terms(), stage.secret()
    saturated = DEPOSIT + terms.n * terms.delta_r
    claim = stage.nano_claim(Role.RELAY, cid, terms, secret, saturated, 20)
    words = [cid, terms.hash(), claim[2], claim[3], claim[4], keccak256(claim[5])]
    auth = stage.authorise(relay, "nano_refund", cid, *words)
    copied = stage.nano_claim(Role.RELAY, cid, terms, secret, saturated, 0)
    stage.send(ledger.nano_refund(*copied[:-1], auth), stage.party("intermediary"))
    deadline = ledger.channel(cid).call()[1]
    stage.send(ledger.batch_nano_refund([(*claim[:-1], auth)]), watcher)
    assert ledger.claims(terms.hash()).call() == [20, 20]
    assert ledger.channel(cid).call()[1] == deadline
    assert stage.events(resolve(stage, cid), "Resolved")[0]["to_account"] == (
        DEPOSIT + 20 * terms.delta_r
    )
    with refused("channel_groups: resolved"):
        stage.send(ledger.nano_refund(*claim[:-1], auth), watcher)
