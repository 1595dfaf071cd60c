# SPDX-License-Identifier: BSD-3-Clause
"""A Nano-Setup drafted ahead is the proof that it would have been, and becomes one only once."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest

from monetor_chain.statements import Role, TokenKind, tag
from offchain.crypto import encoding
from offchain.crypto.curve import G1_GENERATOR
from offchain.crypto.encoding import evm_g1
from offchain.crypto.errors import CryptoError
from offchain.crypto.issuer import IssuerKey
from offchain.crypto.nano_setup import SetupDraft, draft_nano_setup, verify_nano_setup
from tests.crypto.cases import BALANCE, COST, CTX, TERMS, identifier

TAG = tag(TokenKind.PAYMENT, Role.CLIENT, CTX)
NONCE, CID, WPK, NWPK = (identifier() for _ in range(4))


def drafted(issuer: IssuerKey) -> SetupDraft:
    token = issuer.sign(tag=TAG, cid=CID, nonce=NONCE, wpk=WPK, balance=BALANCE)
    return draft_nano_setup(issuer.public, token=token, cid=CID, wpk=WPK, balance=BALANCE,
                            cost=COST)  # fmt: skip


def finished(draft: SetupDraft, **changes: object) -> bytes:
    return draft.finish(CTX, tag=TAG, nonce=NONCE, terms=replace(TERMS, **changes), nwpk=NWPK)


def test_terms_that_come_after_the_draft_are_proved(issuer: IssuerKey) -> None:
    draft = drafted(issuer)
    later = {"t_exp": TERMS.t_exp + 86_400, "epoch": TERMS.epoch + 1, "hc0": b"\x33" * 32}
    proof = finished(draft, **later)
    verify_nano_setup(issuer, CTX, draft.statement, proof, tag=TAG, nonce=NONCE,
                      terms=replace(TERMS, **later), nwpk=NWPK)  # fmt: skip
    with pytest.raises(CryptoError):
        verify_nano_setup(issuer, CTX, draft.statement, proof, tag=TAG, nonce=NONCE, terms=TERMS,
                          nwpk=NWPK)  # fmt: skip


def test_a_draft_answers_one_challenge_only(blst_issuer: IssuerKey) -> None:
    """Two answers to one announcement give every secret of the wallet."""
    draft = drafted(blst_issuer)
    assert not draft.finished
    finished(draft)
    assert draft.finished
    with pytest.raises(CryptoError, match="before"):
        finished(draft, epoch=TERMS.epoch + 1)
    with pytest.raises(CryptoError, match="before"):
        finished(draft)


@pytest.mark.parametrize("twin", [copy.deepcopy, pickle.dumps])
def test_a_draft_can_neither_be_copied_nor_stored(blst_issuer: IssuerKey, twin: object) -> None:
    with pytest.raises(TypeError, match="memory only"):
        twin(drafted(blst_issuer))  # type: ignore[operator]


def test_a_draft_is_of_one_cost(blst_issuer: IssuerKey) -> None:
    """N opens to the balance after a session of this cost."""
    draft = drafted(blst_issuer)
    with pytest.raises(CryptoError, match="cost"):
        finished(draft, delta_c=TERMS.delta_c - 1)
    assert not draft.finished


def test_two_drafts_of_a_wallet_share_nothing(blst_issuer: IssuerKey) -> None:
    one, two = drafted(blst_issuer), drafted(blst_issuer)
    first, second = one.statement, two.statement
    assert not {first.com, first.commitment, first.k} & {second.com, second.commitment, second.k}
    assert not {first.sigma[:96], first.sigma[96:]} & {second.sigma[:96], second.sigma[96:]}
    proofs = [finished(one), finished(two)]
    pieces = [{proof[i : i + 32] for i in range(0, len(proof), 32)} for proof in proofs]
    assert not pieces[0] & pieces[1]


def test_a_proposed_coordinate_counts_only_if_it_is_on_the_curve(monkeypatch: pytest.MonkeyPatch
                                                                 ) -> None:
    """What the ledger reads is not taken from a library on trust."""
    honest = evm_g1(G1_GENERATOR)
    y = int.from_bytes(honest[64:], "big")
    monkeypatch.setattr(encoding, "_proposed_y", lambda point: encoding.FIELD_MODULUS - y)
    assert evm_g1(G1_GENERATOR) == honest
    monkeypatch.setattr(encoding, "_proposed_y", lambda point: y + 1)
    with pytest.raises(CryptoError, match="not on the curve"):
        evm_g1(G1_GENERATOR)
