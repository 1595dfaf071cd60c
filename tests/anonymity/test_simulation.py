# SPDX-License-Identifier: BSD-3-Clause
"""Whoever verifies proofs learns nothing: a simulator without any wallet makes the same messages.

The verifier is the product's, unmodified; only the random oracle is programmed (`oracle.py`). That
is what a proof is zero-knowledge in, and each test has the control without: unprogrammed, the very
same message is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from monetor_chain.statements import NanoTerms, Role, TokenKind, lock_of, tag
from offchain.crypto.errors import CryptoError
from offchain.crypto.hash_chain import HashChain
from offchain.crypto.issuer import IssuerKey
from offchain.crypto.reissue import VoidPayment
from offchain.protocol import messages as m, moment as moments, wallet as wallets
from offchain.protocol.errors import RefusalCode
from tests.anonymity.oracle import Oracle
from tests.anonymity.simulators import (
    element_g1,
    simulate,
    simulate_close,
    simulate_establish,
    simulate_opening,
    simulate_payee,
    simulate_payer,
    simulate_reissue,
    simulate_setup,
)
from tests.anonymity.stand import Stand
from tests.crypto.cases import CTX, NAMES, Case, make

SAMPLES = 32
"""Of each kind: that a bit which is not constant looks so in all of them has probability 2^-31."""
MANY = 1_000


@pytest.fixture(scope="module")
def issuer() -> IssuerKey:
    return IssuerKey.generate()


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Oracle:
    return Oracle().install(monkeypatch)


def simulated(honest: Case, oracle: Oracle, issuer: IssuerKey) -> Case:
    """The honest case's public values with a statement and a proof of nobody."""
    public = dict(honest.public)
    for name, value in public.items():
        # A commitment of the session's, or of the payment's: in a simulation it is nobody's too.
        if isinstance(value, bytes) and len(value) == 48:
            public[name] = element_g1(issuer.public)
    statement, proof = simulate(honest.name, oracle, issuer.public, CTX, public)
    return replace(honest, statement=statement, proof=proof, public=public)


# --- The verifiers


@pytest.mark.parametrize("name", NAMES)
def test_a_verifier_accepts_what_was_made_without_a_wallet(
        name: str, issuer: IssuerKey, oracle: Oracle) -> None:
    for _ in range(3):
        simulated(make(name, issuer), oracle, issuer).verify(issuer)


@pytest.mark.parametrize("name", NAMES)
def test_without_the_oracle_there_is_no_simulation(
        name: str, issuer: IssuerKey, oracle: Oracle) -> None:
    oracle.programmable = False
    with pytest.raises(CryptoError, match="proof: does not verify"):
        simulated(make(name, issuer), oracle, issuer).verify(issuer)


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_makes_nothing_else_pass(name: str, issuer: IssuerKey, oracle: Oracle) -> None:
    """What is programmed is one point: every other statement or public value is another one."""
    honest = make(name, issuer)
    one = simulated(honest, oracle, issuer)
    other = simulated(honest, oracle, issuer)
    with pytest.raises(CryptoError):
        replace(one, proof=other.proof).verify(issuer)
    for element, value in other.elements().items():
        with pytest.raises(CryptoError):
            one.with_element(element, value).verify(issuer)


# --- The distribution


def layout(case: Case) -> bytes:
    """Statement and proof in one piece."""
    elements = (getattr(case.statement, one.name) for one in dataclasses.fields(case.statement))
    return b"".join(elements) + case.proof


def ones(samples: list[bytes]) -> list[int]:
    """How often each bit is set."""
    width = 8 * len(samples[0])
    counts = [0] * width
    for one in samples:
        bits = f"{int.from_bytes(one, 'big'):0{width}b}"
        counts = [count + (bit == "1") for count, bit in zip(counts, bits, strict=True)]
    return counts


def compare(name: str, issuer: IssuerKey, oracle: Oracle, number: int) -> None:
    real, made = [], []
    for _ in range(number):
        honest = make(name, issuer)
        real.append(layout(honest))
        made.append(layout(simulated(honest, oracle, issuer)))
    assert {len(one) for one in real} == {len(one) for one in made} == {len(real[0])}
    for at, (one, other) in enumerate(zip(ones(real), ones(made), strict=True)):
        # Flags and leading bits: what is constant in one is constant in the other.
        assert (one in (0, number)) == (other in (0, number)), f"bit {at}"
        # Two frequencies out of `number`: the deviation of their difference is at most
        # sqrt(1 / 2 number); 6.5 of them occur by chance once in 10^10 bits.
        assert abs(one - other) <= 6.5 * (number / 2) ** 0.5, f"bit {at}"
    # Nothing of one sample recurs in another, of either kind.
    pieces = [one[at:at + 32] for one in real + made for at in range(0, len(one) - 31, 48)]
    assert len(set(pieces)) == len(pieces)


@pytest.mark.parametrize("name", NAMES)
def test_every_field_is_distributed_as_the_real_one(
        name: str, issuer: IssuerKey, oracle: Oracle) -> None:
    compare(name, issuer, oracle, SAMPLES)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_every_field_is_distributed_as_the_real_one_in_many_samples(
        name: str, issuer: IssuerKey, oracle: Oracle) -> None:
    compare(name, issuer, oracle, MANY)


def test_a_difference_would_be_seen(issuer: IssuerKey, oracle: Oracle,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: responses that are a byte too short."""
    real = Oracle.simulate

    def short(self: Oracle, *arguments: Any) -> bytes:
        proof = real(self, *arguments)
        return proof[:-32] + bytes(2) + proof[-30:]

    monkeypatch.setattr(Oracle, "simulate", short)
    with pytest.raises(AssertionError, match="bit"):
        compare("opening", issuer, oracle, SAMPLES)


# --- The intermediary


class Nobody:
    """Talks to the intermediary's machine in every protocol, and has no wallet and no token.

    It knows what the intermediary knows anyway: its public key, the network's terms, and the
    account of a group at its opening. Secrets behind locks are its own, as are hash chains: they
    are drawn at random by an honest user too.
    """

    def __init__(self, stand: Stand, oracle: Oracle) -> None:
        self.stand, self.oracle = stand, oracle
        self.pk, self.ctx = stand.issuer.public, stand.ctx

    def ask(self, message: Any) -> Any:
        answer = self.stand.ask("nobody", *m.pack(message))
        assert answer is not None
        return m.unpack(*answer)

    def tag(self, role: Role) -> int:
        return tag(TokenKind.PAYMENT, role, self.ctx)

    def terms(self, chain: HashChain) -> NanoTerms:
        moment = self.stand.moment
        one = moment.parameters
        return NanoTerms(-one.price, one.delta_r, one.n, chain.hc0,
                         moments.expiry(moment.epoch, one), chain.root, moment.epoch)

    def establish(self, cid: int, balance: int) -> Iterator[Any]:
        made, proof = simulate_opening(self.oracle, self.pk, self.ctx, role=Role.CLIENT, cid=cid,
                                       balance=balance)
        yield self.ask(m.EstablishRequest(cid, made.d_rt, made.d_pt, proof))

    def session(self, payments: int) -> Iterator[Any]:
        """A session with both legs, the relay a nobody as well."""
        chain = HashChain.generate(self.stand.parameters.n)
        terms = self.terms(chain)
        legs = {}
        for role in (Role.CLIENT, Role.RELAY):
            nonce, wsk, nwsk = wallets.fresh_nonce(), *(wallets.fresh_secret() for _ in range(2))
            simulator = simulate_setup if role is Role.CLIENT else simulate_establish
            one, proof, r = simulator(
                self.oracle, self.pk, self.ctx, tag=self.tag(role), nonce=nonce,
                wpk=lock_of(wsk), terms=terms, nwpk=lock_of(nwsk))
            spent = (lock_of(nwsk), one.com, one.commitment, one.sigma, one.k, proof)
            legs[role] = nwsk, one.commitment
            if role is Role.CLIENT:
                yield self.ask(m.NanoSetupRequest(nonce, m.Terms.of(terms), *spent))
                yield self.ask(m.NanoSetupReveal(nonce, wsk, r))
            else:
                yield self.ask(m.NanoEstablishRequest(nonce, terms.hash(), *spent))
                yield self.ask(m.NanoEstablishReveal(nonce, wsk, r))
        for role, price in ((Role.RELAY, -terms.delta_r), (Role.CLIENT, terms.price)):
            nwsk, commitment = legs[role]
            made, proof = simulate_close(
                self.oracle, self.pk, self.ctx, role=role, commitment=commitment,
                adjustment=price * (terms.n - payments), terms_hash=terms.hash(), k=payments)
            request = made.d_rt, made.d_pt, proof
            if role is Role.RELAY:
                yield self.ask(m.RelayCloseRequest(
                    terms.hash(), payments, chain.value(payments), chain.path(payments), *request))
                yield self.ask(m.RelayCloseReveal(terms.hash(), nwsk))
            else:
                count = self.ask(m.ClientCloseQuery(terms.hash(), lock_of(nwsk)))
                assert count.k == payments
                yield self.ask(m.ClientCloseRequest(terms.hash(), payments, *request))
                yield self.ask(m.ClientCloseReveal(terms.hash(), nwsk))

    def payment(self, *, void: bool) -> Iterator[Any]:
        """Both legs of a hidden payment, made or come to nothing."""
        deadline = self.ask(m.PayQuery()).t_p
        v = element_g1(self.pk)
        own = self.tag(Role.CLIENT)
        (nonce, wsk), (other, secret) = (
            (wallets.fresh_nonce(), wallets.fresh_secret()) for _ in range(2))
        lock = lock_of(wsk)
        one, proof = simulate_payer(
            self.oracle, self.pk, self.ctx, tag=own, nonce=nonce, wpk=lock, v=v,
            pay_fee=self.stand.parameters.pay_fee, payment_deadline=deadline)
        payer = m.PayerRequest(nonce, lock, deadline, one.sigma, one.k, v, one.d_rt, one.d_pt,
                               proof)
        leg, proof = simulate_payee(
            self.oracle, self.pk, self.ctx, tag=own, nonce=other, wpk=lock_of(secret),
            payment_deadline=deadline, wpk_payer=lock, v=v)
        payee = m.PayeeRequest(other, lock_of(secret), deadline, lock, leg.sigma, leg.k, v,
                               leg.d_rt, leg.d_pt, proof)
        waits = self.ask(payer)
        assert isinstance(waits, m.Refusal) and waits.code is RefusalCode.NOT_YET
        yield self.ask(payee)
        yield self.ask(payer)
        if void:
            self.stand.wait(deadline + 1 - self.stand.clock)
            made, proof = simulate_reissue(
                self.oracle, self.pk, self.ctx, k=leg.k, role=Role.CLIENT,
                void=VoidPayment(own, other, deadline, lock))
            yield self.ask(m.PayeeVoid(other, made.d_rt, made.d_pt, proof))
        else:
            yield self.ask(m.PayerReveal(nonce, wsk))
            yield self.ask(m.PayeeClaim(other, wsk))
        yield self.ask(m.PayeeReveal(other, secret))

    def everything(self) -> Iterator[Any]:
        """One of each, as the intermediary answers it."""
        self.stand.silenced = lambda heard: (heard.source, heard.pcmd) == (
            "A", m.EstablishRequest.PCMD)
        self.stand.act("A", lambda side: side.machine.open_group(
            side.records, self.stand.moment, deposit=20_000, fund=0, count=1))
        (request,) = self.stand.sides["A"].requests.values()
        yield from self.establish(m.unpack(request.pcmd, request.payload).cid, 20_000)
        yield from self.session(20)
        yield from self.session(0)
        yield from self.payment(void=False)
        yield from self.payment(void=True)


@pytest.fixture
def stand(issuer: IssuerKey) -> Stand:
    stand = Stand(issuer)
    # The dispute windows that decide on T_p are those of open channels.
    stand.open("E", deposit=20_000, fund=0)
    return stand


def test_the_intermediary_answers_whole_conversations_with_nobody(
        stand: Stand, oracle: Oracle) -> None:
    answers = list(Nobody(stand, oracle).everything())
    assert len(answers) == 1 + 2 * 8 + 2 + 3 + 2 + 2
    assert not [one for one in answers if isinstance(one, m.Refusal)]
    proofs = [kind for kind in m.MESSAGES.values()
              if "proof" in {one.name for one in dataclasses.fields(kind)}]
    asked = {one.pcmd for one in stand.log if one.source == "nobody"}
    assert {kind.PCMD for kind in proofs} <= asked, "a message with a proof is not simulated"


def test_the_intermediary_answers_nobody_without_the_oracle(
        stand: Stand, oracle: Oracle) -> None:
    oracle.programmable = False
    nobody = Nobody(stand, oracle)
    for conversation in (nobody.everything(), nobody.session(0)):
        answer = next(conversation)
        assert isinstance(answer, m.Refusal) and answer.code is RefusalCode.PROOF


def test_a_cash_out_tells_what_it_says_and_nothing_else(stand: Stand) -> None:
    """A token that is shown in clear cannot be simulated without the key that signs it. With it,
    group, channel and balance are enough: nonce, lock and signature are of nobody."""
    (cid,) = stand.open("A", deposit=30_000, fund=0)
    shown = {"nonce": wallets.fresh_nonce(), "wpk": lock_of(wallets.fresh_secret()),
             "balance": 30_000}
    token = stand.issuer.sign(tag=tag(TokenKind.PAYMENT, Role.CLIENT, stand.ctx), cid=cid, **shown)
    answer = stand.ask("nobody", *m.pack(m.CashOutRequest(
        cid >> 8, (m.CashOutWallet(cid & 0xFF, pt=token, **shown),))))
    assert answer is not None and isinstance(m.unpack(*answer), m.CashOutReply)
