# SPDX-License-Identifier: BSD-3-Clause
"""One honest run of every proof, in a form that tests can take apart."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from monetor_chain.statements import GROUP_ORDER, NanoTerms, Role, TokenKind, tag
from offchain.crypto.generators import commit
from offchain.crypto.issuer import IssuerKey
from offchain.crypto.nano_close import prove_nano_close, verify_nano_close
from offchain.crypto.nano_establish import prove_nano_establish, verify_nano_establish
from offchain.crypto.nano_setup import prove_nano_setup, verify_nano_setup
from offchain.crypto.opening import prove_opening, verify_opening
from offchain.crypto.pay import (
    prove_pay_payee,
    prove_pay_payer,
    verify_pay_payee,
    verify_pay_payer,
)
from offchain.crypto.reissue import VoidPayment, prove_reissue, verify_reissue
from offchain.crypto.scalars import random_scalar

CTX = bytes(range(32))
TERMS = NanoTerms(
    delta_c=-100,
    delta_r=86,
    n=1024,
    hc0=b"\x11" * 32,
    t_exp=1_800_000_000,
    root=b"\x22" * 32,
    epoch=7,
)
COST = TERMS.n * TERMS.price
EARNED = TERMS.n * TERMS.delta_r
BALANCE = 5_000_000
AMOUNT = 1_234
PAY_FEE = 5
DEADLINE = 1_700_000_000

NAMES = (
    "opening",
    "nano_setup",
    "nano_establish",
    "nano_close_client",
    "nano_close_relay",
    "pay_payer",
    "pay_payee",
    "reissue",
)


def identifier() -> int:
    """A random nonzero 248-bit value."""
    return secrets.randbelow(2**248 - 1) + 1


def payment_tag(role: Role) -> int:
    """Tag of the wallet tokens of `role`."""
    return tag(TokenKind.PAYMENT, role, CTX)


@dataclass(frozen=True)
class Wallet:
    """A wallet and its token."""

    tag: int
    cid: int
    nonce: int
    wpk: int
    balance: int
    token: bytes

    def spend(self) -> dict[str, Any]:
        """Keyword arguments that provers take."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def messages(self) -> dict[str, int]:
        """The five signed messages."""
        return {k: v for k, v in self.spend().items() if k != "token"}


def wallet(issuer: IssuerKey, role: Role = Role.CLIENT, balance: int = BALANCE) -> Wallet:
    """A fresh wallet with a valid token."""
    messages = {
        "tag": payment_tag(role),
        "cid": identifier(),
        "nonce": identifier(),
        "wpk": identifier(),
        "balance": balance,
    }
    return Wallet(**messages, token=issuer.sign(**messages))


@dataclass(frozen=True)
class Case:
    """A statement, its proof and the public values it is verified under."""

    name: str
    verifier: Callable[..., None]
    statement: Any
    proof: bytes
    public: dict[str, Any]
    ranges: int = 0
    """Number of points at the beginning of the proof."""
    ctx: bytes = CTX

    def verify(self, key: Any) -> None:
        self.verifier(key, self.ctx, self.statement, self.proof, **self.public)

    def with_element(self, name: str, value: bytes) -> Case:
        """The case with one element of statement or public values exchanged."""
        if name in self.public:
            return replace(self, public={**self.public, name: value})
        return replace(self, statement=replace(self.statement, **{name: value}))

    def elements(self) -> dict[str, bytes]:
        """Names and encodings of all points outside the proof."""
        found = {f.name: getattr(self.statement, f.name) for f in fields(self.statement)}
        for name in ("commitment", "k"):
            if isinstance(self.public.get(name), bytes):
                found[name] = self.public[name]
        return found


def make(name: str, issuer: IssuerKey) -> Case:
    """An honest case of the proof `name`."""
    pk = issuer.public
    new = {"wpk_new": identifier(), "nonce_new": identifier()}
    if name == "opening":
        public: dict[str, Any] = {"role": Role.CLIENT, "cid": identifier(), "balance": BALANCE}
        request, proof, _ = prove_opening(pk, CTX, nonce=identifier(), wpk=identifier(), **public)
        return Case(name, verify_opening, request, proof, public)
    if name in ("nano_setup", "nano_establish"):
        setup = name == "nano_setup"
        w = wallet(issuer, Role.CLIENT if setup else Role.RELAY)
        shared: dict[str, Any] = {"terms": TERMS, "nwpk": identifier()}
        prove = prove_nano_setup if setup else prove_nano_establish
        statement, proof, _ = prove(pk, CTX, **w.spend(), **shared)
        public = {"tag": w.tag, "nonce": w.nonce, **shared}
        verifier = verify_nano_setup if setup else verify_nano_establish
        return Case(name, verifier, statement, proof, public, ranges=4 if setup else 0)
    if name in ("nano_close_client", "nano_close_relay"):
        client = name == "nano_close_client"
        cid, rho = identifier(), random_scalar()
        public = {
            "role": Role.CLIENT if client else Role.RELAY,
            "commitment": commit(cid, BALANCE, rho, curve=pk.curve),
            "adjustment": 1000 * (TERMS.price if client else -TERMS.delta_r),
            "terms_hash": TERMS.hash(),
            "k": TERMS.n - 1000,
        }
        request, proof, _ = prove_nano_close(
            pk, CTX, cid=cid, saturated=BALANCE, rho=rho, **new, **public
        )
        return Case(name, verify_nano_close, request, proof, public)
    if name == "pay_payer":
        w = wallet(issuer)
        shared = {"pay_fee": PAY_FEE, "payment_deadline": DEADLINE}
        statement, proof, _ = prove_pay_payer(
            pk, CTX, **w.spend(), amount=AMOUNT, s=random_scalar(), **new, **shared
        )
        public = {"tag": w.tag, "nonce": w.nonce, "wpk": w.wpk, **shared}
        return Case(name, verify_pay_payer, statement, proof, public, ranges=8)
    if name == "pay_payee":
        w = wallet(issuer)
        shared = {"wpk_payer": identifier(), "payment_deadline": DEADLINE}
        statement, proof, _ = prove_pay_payee(
            pk, CTX, **w.spend(), amount=AMOUNT, s=random_scalar(), **new, **shared
        )
        public = {"tag": w.tag, "nonce": w.nonce, "wpk": w.wpk, **shared}
        return Case(name, verify_pay_payee, statement, proof, public)
    if name == "reissue":
        w = wallet(issuer)
        leg, _, hidden = prove_pay_payee(
            pk,
            CTX,
            **w.spend(),
            amount=AMOUNT,
            s=random_scalar(),
            **new,
            wpk_payer=identifier(),
            payment_deadline=DEADLINE,
        )
        void = VoidPayment(w.tag, w.nonce, DEADLINE, identifier())
        request, proof, _ = prove_reissue(
            pk,
            CTX,
            t=hidden.t,
            cid=w.cid,
            balance=w.balance,
            wpk_new=identifier(),
            nonce_new=identifier(),
            role=Role.CLIENT,
            void=void,
        )
        public = {"k": leg.k, "role": Role.CLIENT, "void": void}
        return Case(name, verify_reissue, request, proof, public)
    raise AssertionError(name)


def other_public(value: Any) -> Any:
    """A public value of the same kind, but another one."""
    if isinstance(value, Role):
        return Role.RELAY if value is Role.CLIENT else Role.CLIENT
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    if isinstance(value, NanoTerms):
        return replace(value, t_exp=value.t_exp + 1)
    if isinstance(value, VoidPayment):
        return replace(value, wpk_payer=value.wpk_payer + 1)
    return value - 1


def scalar_at(proof: bytes, start: int) -> int:
    """The scalar that begins at `start`."""
    return int.from_bytes(proof[start : start + 32], "big")


def with_scalar(proof: bytes, start: int, value: int) -> bytes:
    """`proof` with another scalar at `start`."""
    return proof[:start] + value.to_bytes(32, "big") + proof[start + 32 :]


def shifted(value: int) -> int:
    """The non-canonical form of a scalar: the same residue, still 32 bytes long."""
    return value + GROUP_ORDER
