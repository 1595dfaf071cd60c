# SPDX-License-Identifier: BSD-3-Clause
"""What dishonest parties make with the project's own machines and provers, bent in one place.

Each function leaves everything as it was: a forgery is a message, or a way to make one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from monetor_chain.statements import GROUP_ORDER, Role, TokenKind, lock_of, tag
from offchain.crypto import pay as pay_proof, range_proof, sigma
from offchain.crypto.hash_chain import HashChain
from offchain.protocol import messages as m, nano_establish, nano_setup, pay, wallet as wallets
from offchain.protocol.records import MemoryRecords, Table
from offchain.protocol.wallet import Idle
from tests.protocol.world import Node, World


@contextmanager
def bent(target: Any, name: str, value: Any) -> Iterator[None]:
    """One attribute is another for a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, value)
        yield


class Odd(int):
    """A lock that is never equal to another: for a payee that does not look at whose it is."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


class Twisted(HashChain):
    """A chain with another root than its own: other terms over the same payments."""

    @property
    def root(self) -> bytes:
        return bytes(31) + b"\x07"


def setup_on(chain: HashChain, records: MemoryRecords, moment: Any, node: Node, cid: int) -> Any:
    """Nano-Setup with a hash chain of the client's choice."""
    with bent(HashChain, "generate", classmethod(lambda cls, n: chain)):
        return nano_setup.start(records, node.machine.user, moment, cid)


def setup_with_secret(secret: bytes, records: MemoryRecords, moment: Any, node: Node, cid: int
                      ) -> Any:
    """Nano-Setup with a session lock of the client's choice."""
    with bent(wallets, "fresh_secret", lambda: secret):
        return nano_setup.start(records, node.machine.user, moment, cid)


def join_with(user: Any, records: MemoryRecords, moment: Any, cid: int, offer: m.NanoOffer) -> Any:
    """Nano-Establish, without the relay's own look at time, escrow and what it was offered."""
    key = (cid >> 8).to_bytes(31, "big")
    records.put(Table.GROUP, key, replace(records.get(Table.GROUP, key), fund=2**31 - 1))
    records.delete(Table.SESSION, offer.terms.nano_terms().hash())
    early = replace(moment, now=0)
    return nano_establish.on_offer(records, user, early, cid, offer)


def pay_oneself(records: MemoryRecords, moment: Any, node: Node, payer: m.PayerRequest) -> Any:
    """The payee's leg for the same wallet that pays."""
    current = pay.transfer(records, payer.wpk)
    wallet = wallets.get(records, current.cid)
    wallets.put(records, current.cid, wallet.idle)
    records.delete(Table.PAYMENT, payer.wpk.to_bytes(31, "big"))
    key = (current.cid >> 8).to_bytes(31, "big")
    records.put(Table.GROUP, key, replace(records.get(Table.GROUP, key), fund=2**31 - 1))
    wpk = Idle.wpk
    with bent(Idle, "wpk", property(lambda idle: Odd(wpk.fget(idle)))):
        return node.machine.receive(records, moment, current.cid, m.PayInvoice(
            current.amount, current.s, current.t_p, payer.wpk))


def weak_payer_relation(bases: Any, points: Any, rest_digits: Any, amount_digits: Any,
                        pay_fee: int, digit_secret: int = 0) -> Any:
    """The payer's relation with a range for what is left and none for the amount."""
    rest, moved = range_proof.value(pay_proof._NEW_BALANCE), sigma.secret("moved")
    return [*pay_proof._leg_equations(bases, points, balance=rest + moved + pay_fee,
                                      amount=moved, new_balance=rest),
            *range_proof.equations(bases, pay_proof._NEW_BALANCE, rest_digits, digit_secret)]


@contextmanager
def negative_amounts() -> Iterator[None]:
    """A payer that proves what it can of an amount below zero."""
    real = range_proof.blind_digits

    def digits(pk: Any, name: str, number: int) -> Any:
        made = real(pk, name, max(number, 0))
        return made if number >= 0 else replace(
            made, witness={**made.witness, "moved": number % GROUP_ORDER})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pay_proof, "_payer_relation", weak_payer_relation)
        patch.setattr(range_proof, "blind_digits", digits)
        patch.setattr(pay_proof, "check_amount", lambda value, field: None)
        yield


NEW_SECRET, NEW_NONCE, BLIND = b"\x05" * 32, 9, 7


def negative_payer(world: World, node: Node, idle: Idle, amount: int, t_p: int
                   ) -> tuple[m.PayerRequest, pay_proof.PaySecrets]:
    """The payer's leg for an amount below zero, out of `idle`; the new wallet has `NEW_SECRET`."""
    user = node.machine.user
    with negative_amounts():
        statement, proof, secrets = pay_proof.prove_pay_payer(
            user.issuer, user.ctx, token=idle.pt,
            tag=tag(TokenKind.PAYMENT, Role.CLIENT, user.ctx), cid=idle.cid, nonce=idle.nonce,
            wpk=idle.wpk, balance=idle.balance, amount=amount, s=BLIND,
            pay_fee=world.moment().parameters.pay_fee, wpk_new=lock_of(NEW_SECRET),
            nonce_new=NEW_NONCE, payment_deadline=t_p)
    return m.PayerRequest(idle.nonce, idle.wpk, t_p, statement.sigma, statement.k, statement.v,
                          statement.d_rt, statement.d_pt, proof), secrets


def negative_payee(node: Node, idle: Idle, amount: int, t_p: int, wpk_c: int) -> m.PayeeRequest:
    """The payee's leg of the same payment: it has no range, and its wallet is worth nothing then.
    """
    user = node.machine.user
    with bent(pay_proof, "check_amount", lambda value, field: None):
        statement, proof, _ = pay_proof.prove_pay_payee(
            user.issuer, user.ctx, token=idle.pt,
            tag=tag(TokenKind.PAYMENT, Role.CLIENT, user.ctx), cid=idle.cid, nonce=idle.nonce,
            wpk=idle.wpk, balance=idle.balance, amount=amount % GROUP_ORDER, s=BLIND,
            wpk_new=lock_of(b"\x06" * 32), nonce_new=10, payment_deadline=t_p, wpk_payer=wpk_c)
    return m.PayeeRequest(idle.nonce, idle.wpk, t_p, wpk_c, statement.sigma, statement.k,
                          statement.v, statement.d_rt, statement.d_pt, proof)
