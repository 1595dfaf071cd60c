# SPDX-License-Identifier: BSD-3-Clause
"""What users compute off the chain is what the ledger accepts."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from web3.contract import Contract

from monetor_chain import statements
from monetor_chain.rehearsal import NO_AUTHORISATION, Rehearsal, commitment
from monetor_chain.statements import Role, TokenKind, lock_of
from offchain.crypto import ecdsa
from offchain.crypto.encoding import evm_g1, evm_signature
from offchain.crypto.generators import commit
from offchain.crypto.hash_chain import HashChain, verify_claim
from offchain.crypto.issuer import IssuerKey, rerandomise, unblind
from offchain.crypto.opening import prove_opening

from .actions import CLOSING_MICRO, DEPOSIT, FUND, status
from .mocks import compiled


@pytest.fixture(scope="module")
def arithmetic(shared_stage: Rehearsal) -> Contract:
    return shared_stage.deploy_code(*compiled("Arithmetic"))


@pytest.mark.precompiles
def test_a_blindly_issued_token_closes_a_channel(stage: Rehearsal) -> None:
    """Invariant L7, with the cryptography that users run: KeyGen, Establish, refund."""
    key, client = IssuerKey.generate(), stage.party("client")
    public = key.public
    encoded = public.evm_encoding()
    stage.send(
        stage.ledger.functions.register_key(encoded, public.rest_hash()),
        stage.party("intermediary"),
    )
    ctx = statements.context(stage.chain_id, stage.ledger.address, public.key_hash)
    assert stage.ledger.functions.context(public.key_hash).call() == ctx
    receipt = stage.send(
        stage.ledger.functions.open(
            public.key_hash, client.address, Role.CLIENT, DEPOSIT, FUND, 1, *stage.windows(),
            secrets.token_bytes(32), secrets.token_bytes(32), NO_AUTHORISATION,
            stage.permit(client, DEPOSIT),
        ),
        client,
    )  # fmt: skip
    group = stage.events(receipt, "Opened")[0]["group"]
    stage.send(stage.ledger.functions.fund(group), stage.party("intermediary"))
    cid, wpk = group << 8, lock_of(secrets.token_bytes(32))
    request, _, blinding = prove_opening(
        public, ctx, role=Role.CLIENT, cid=cid, balance=DEPOSIT, nonce=5, wpk=wpk
    )
    tag = statements.tag(TokenKind.REFUND, Role.CLIENT, ctx)
    reply = key.blind_sign(request.d_rt, tag=tag, cid=cid, balance=DEPOSIT)
    token = unblind(
        public, reply, blinding.t_rt, tag=tag, cid=cid, nonce=0, wpk=wpk, balance=DEPOSIT
    )
    shown = evm_signature(rerandomise(token))
    assert shown != evm_signature(token)
    call = stage.ledger.functions.refund(cid, encoded, wpk, DEPOSIT, shown, NO_AUTHORISATION)
    stage.send(call, client)
    assert status(stage, cid) == CLOSING_MICRO


def test_commitments_and_signatures(stage: Rehearsal) -> None:
    """Two implementations of N, and of the signer that the ledger recovers."""
    assert evm_g1(commit(5, 6, 7)) == commitment(5, 6, 7)
    party, digest = stage.party("intermediary"), secrets.token_bytes(32)
    assert ecdsa.recover(digest, party.sign(digest)) == bytes.fromhex(party.address[2:])
    assert ecdsa.sign(digest, party.private_key) == party.sign(digest)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_one_predicate_for_everybody(arithmetic: Contract, data: st.DataObject) -> None:
    """Invariant L12: a payment that a relay counts is one that the ledger counts, and no other,
    whatever is wrong with the proof."""
    n = data.draw(st.sampled_from([32, 64, 256]))
    chain = HashChain(n, bytes(32))
    j = data.draw(st.integers(0, n))
    k = data.draw(st.one_of(st.just(j), st.integers(0, n + 20)))
    path = list(chain.path(data.draw(st.one_of(st.just(j), st.integers(0, n)))))
    if path and data.draw(st.booleans()):
        change = data.draw(st.sampled_from(["drop", "add", "swap", "alter", "none"]))
        if change == "drop":
            path.pop()
        elif change == "add":
            path.append(bytes(32))
        elif change == "swap":
            path.reverse()
        elif change == "alter":
            path[0] = bytes(32)
    arguments = {
        "n": n, "hc0": chain.hc0, "root": chain.root, "k": k, "hc": chain.value(j),
    }  # fmt: skip
    offchain = verify_claim(**arguments, path=tuple(path))
    assert arithmetic.functions.proves(*arguments.values(), path).call() == offchain
