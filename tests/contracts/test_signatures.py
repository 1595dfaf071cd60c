# SPDX-License-Identifier: BSD-3-Clause
"""Every place that takes a secp256k1 signature takes 65 bytes r || s || v with v 27 or 28 and s in
the lower half, by the right account, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from monetor_chain import statements
from monetor_chain.errors import TransactionReverted
from monetor_chain.rehearsal import NO_AUTHORISATION, Party, Rehearsal, payment_chain
from monetor_chain.statements import Role

from .actions import DEPOSIT, FUND, open_channel, refused
from .test_authorisation import ACCOUNT, ACTIONS, case_of

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def malformed(good: bytes) -> dict[str, bytes]:
    """Everything that is not the one form of a signature, made from one that is."""
    r, s, v = good[:32], good[32:64], good[64]
    high = _word(ORDER - int.from_bytes(s, "big"))
    compact = _word(int.from_bytes(s, "big") | (v - 27) << 255)
    forms = {
        "nothing": b"",
        "zero": bytes(65),
        "64 bytes, without v": r + s,
        "64 bytes, EIP-2098": r + compact,
        "65 bytes, EIP-2098": r + compact + bytes([55 - v]),
        "66 bytes": good + b"\0",
        "66 bytes, a zero before": b"\0" + good,
        "130 bytes, twice": good + good,
        "upper s": r + high + bytes([55 - v]),
        "upper s, same v": r + high + bytes([v]),
        "other v": r + s + bytes([55 - v]),
        "v from 0": r + s + bytes([v - 27]),
        "r zero": bytes(32) + s + bytes([v]),
        "s zero": r + bytes(32) + bytes([v]),
        "r the order": _word(ORDER) + s + bytes([v]),
        "r above the order": _word(ORDER + 1) + s + bytes([v]),
        "r largest": b"\xff" * 32 + s + bytes([v]),
        "s the order": r + _word(ORDER) + bytes([v]),
        "s largest": r + b"\xff" * 32 + bytes([v]),
        "r and s exchanged": s + r + bytes([v]),
    }
    return forms | {f"v {n}": r + s + bytes([n]) for n in (0, 1, 2, 26, 29, 35, 255)}


@dataclass
class Place:
    """A call that takes a signature, which here is a good one."""

    good: bytes
    sender: Party
    call: Callable[[bytes], Any]


def _statement(stage: Rehearsal, batch: bool) -> Place:
    """nrt: the intermediary's statement on a session."""
    cid, terms = open_channel(stage, Role.RELAY), stage.terms()
    claim = stage.nano_claim(Role.RELAY, cid, terms, stage.secret(), DEPOSIT, 0)

    def call(signature: bytes) -> Any:
        changed = (*claim[:5], signature, *claim[6:])
        ledger = stage.ledger.functions
        return ledger.batch_nano_refund([changed]) if batch else ledger.nano_refund(*changed)

    return Place(claim[5], stage.party("relay"), call)


def _close(stage: Rehearsal) -> Place:
    group = open_channel(stage, Role.RELAY) >> 8
    return Place(
        stage.close_signature(group, 1, DEPOSIT),
        stage.party("relay"),
        lambda signature: stage.ledger.functions.close(
            group, 1, DEPOSIT, signature, NO_AUTHORISATION
        ),
    )


def _authorisation(stage: Rehearsal, action: str) -> Place:
    case = case_of(stage, action)
    last, good = stage.authorise(stage.party(ACCOUNT), action, case.identifier, *case.arguments)
    return Place(good, stage.party("watcher"), lambda signature: case.call((last, signature)))


def _batch_authorisation(stage: Rehearsal) -> Place:
    case, relay = case_of(stage, "nano_refund"), stage.party(ACCOUNT)
    last, good = stage.authorise(relay, "nano_refund", case.identifier, *case.arguments)

    def call(signature: bytes) -> Any:
        *claim, _ = case.call(NO_AUTHORISATION).args
        return stage.ledger.functions.batch_nano_refund([(*claim, (last, signature))])

    return Place(good, stage.party("watcher"), call)


def _voucher(stage: Rehearsal) -> Place:
    client, chain = stage.party("client"), payment_chain(32)
    call = stage.ledger.functions.open_guard(
        stage.party("guard").address, DEPOSIT, stage.permit(client, DEPOSIT)
    )
    gid = stage.events(stage.send(call, client), "GuardOpened")[0]["gid"]
    fields = (gid, 1, 7, 32, chain.hc0, chain.root, stage.now() + 10_000)
    return Place(
        client.sign(stage.digest(statements.voucher_struct(*fields))),
        stage.party("guard"),
        lambda signature: stage.ledger.functions.claim_guard(*fields, *chain.proof(0), signature),
    )


PLACES: dict[str, Callable[[Rehearsal], Place]] = {
    "statement": lambda stage: _statement(stage, False),
    "statement in a batch": lambda stage: _statement(stage, True),
    "close": _close,
    "voucher": _voucher,
    "authorisation in a batch": _batch_authorisation,
    **{f"authorisation of {a}": lambda stage, a=a: _authorisation(stage, a) for a in ACTIONS},
}


@pytest.mark.parametrize("name", PLACES)
def test_no_other_form_of_a_signature_is_taken(stage: Rehearsal, name: str) -> None:
    """Invariant L21."""
    place = PLACES[name](stage)
    for form, signature in malformed(place.good).items():
        with pytest.raises(TransactionReverted) as caught:
            stage.send(place.call(signature), place.sender)
        # What is too long does not even fit the argument.
        if len(signature) <= 65:
            assert caught.value.reason == "authorisation: signature", form
    assert stage.send(place.call(place.good), place.sender)["status"] == 1


def _opening(stage: Rehearsal, permit: tuple[int, int, bytes]) -> Any:
    return stage.ledger.functions.open(
        stage.issuer.key_hash, stage.party("client").address, int(Role.CLIENT), DEPOSIT, FUND, 1,
        *stage.windows(), stage.secret(), bytes(32), NO_AUTHORISATION, permit,
    )  # fmt: skip


def _guard_opening(stage: Rehearsal, permit: tuple[int, int, bytes]) -> Any:
    return stage.ledger.functions.open_guard(stage.party("guard").address, DEPOSIT, permit)


@pytest.mark.parametrize("opening", [_opening, _guard_opening], ids=["open", "open_guard"])
def test_no_other_form_of_a_permit_is_taken(stage: Rehearsal, opening: Callable[..., Any]) -> None:
    """Invariant L21: a permit that is none gives no allowance, and then nothing can be pulled."""
    client = stage.party("client")
    value, last, good = stage.permit(client, DEPOSIT)
    for form, signature in malformed(good).items():
        with pytest.raises(TransactionReverted) as caught:
            stage.send(opening(stage, (value, last, signature)), client)
        if len(signature) <= 65:
            assert caught.value.reason == "erc20: insufficient allowance", form
    assert stage.send(opening(stage, (value, last, good)), client)["status"] == 1


def test_the_token_itself_takes_no_other_form(stage: Rehearsal) -> None:
    """Invariant L21, and a failed permit uses up no nonce."""
    client, token = stage.party("client"), stage.token.functions
    value, last, good = stage.permit(client, DEPOSIT)
    nonce = token.nonces(client.address).call()

    def permit(signature: bytes) -> Any:
        return token.permit(
            client.address, stage.ledger.address, value, last, signature[64], signature[:32],
            signature[32:64],
        )  # fmt: skip

    for form, signature in malformed(good).items():
        if len(signature) == 65:
            with pytest.raises(TransactionReverted) as caught:
                stage.send(permit(signature), stage.party("watcher"))
            assert caught.value.reason in (
                "erc20: invalid signature", "ecdsa: invalid signature",
                "ecdsa: invalid signature `s` value",
            ), form  # fmt: skip
    assert token.allowance(client.address, stage.ledger.address).call() == 0
    assert token.nonces(client.address).call() == nonce
    stage.send(permit(good), stage.party("watcher"))
    assert token.allowance(client.address, stage.ledger.address).call() == DEPOSIT


def test_a_permit_for_the_zero_account_is_none(stage: Rehearsal) -> None:
    """Invariant L21: a recovery that fails yields the zero address, which owns nothing here."""
    zero = "0x" + "00" * 20
    with pytest.raises(TransactionReverted):
        stage.send(
            stage.token.functions.permit(
                zero, stage.ledger.address, 1, 2**64, 27, bytes(32), bytes(32)
            ),
            stage.party("watcher"),
        )
    assert stage.token.functions.allowance(zero, stage.ledger.address).call() == 0


# --- Permits of one account at the same time ------------------------------------------------------


def test_two_openings_with_permits_of_one_nonce(stage: Rehearsal) -> None:
    """The first one mined uses the nonce: the second finds no allowance, is refused as a whole and
    has to be signed anew."""
    client = stage.party("client")
    first, second = stage.permit(client, DEPOSIT), stage.permit(client, DEPOSIT + 1)
    before = stage.token.functions.balanceOf(client.address).call()
    stage.send(_opening(stage, first), client)
    with refused("erc20: insufficient allowance"):
        stage.send(_opening(stage, second), client)
    assert stage.token.functions.balanceOf(client.address).call() == before - DEPOSIT
    stage.send(_opening(stage, stage.permit(client, DEPOSIT)), client)


def test_a_permit_replaces_an_allowance_and_does_not_add_to_it(stage: Rehearsal) -> None:
    """Two permits in a row, then two openings: the second permit's value is all there is."""
    client = stage.party("client")
    for value in (5 * DEPOSIT, DEPOSIT):
        _, last, signature = stage.permit(client, value)
        stage.send(
            stage.token.functions.permit(
                client.address, stage.ledger.address, value, last, signature[64],
                signature[:32], signature[32:64],
            ),
            stage.party("watcher"),
        )  # fmt: skip
    stage.send(_opening(stage, (0, 0, b"")), client)
    with refused("erc20: insufficient allowance"):
        stage.send(_opening(stage, (0, 0, b"")), client)


def test_openings_under_one_allowance_need_no_order(stage: Rehearsal) -> None:
    """What to do instead: allow the sum once, and open as often as it lasts."""
    client = stage.party("client")
    stage.approve(client, 2 * DEPOSIT)
    for _ in range(2):
        stage.send(_opening(stage, (0, 0, b"")), client)
    with refused("erc20: insufficient allowance"):
        stage.send(_opening(stage, (0, 0, b"")), client)
