# SPDX-License-Identifier: BSD-3-Clause
"""A token that calls back during every transfer and swallows whatever comes of it.

The token is also a party: an intermediary with a key and a vault, and an end user with channels, so
that each of its calls would succeed at any other time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from monetor_chain import statements
from monetor_chain.rehearsal import (
    NO_AUTHORISATION,
    NO_PERMIT,
    Rehearsal,
    TokenIssuer,
    payment_chain,
    words,
)
from monetor_chain.rehearsal_chain import RehearsalChain
from monetor_chain.statements import Role, TokenKind, lock_of
from monetor_chain.tax_tree import TaxTree

from .actions import DEPOSIT, FUND
from .mocks import compiled

CONSTANTS = {"token", "tax_pool", "tax_rate_bp", "consensus"}
"""Views that cannot change, so that nothing depends on when they are asked."""


@contextmanager
def undone(stage: Rehearsal) -> Iterator[None]:
    snapshot = stage.snapshot()
    yield
    stage.revert(snapshot)


class Intruder:
    """The hostile token as a party, with a call ready for every function of the ledger."""

    def __init__(self, stage: Rehearsal) -> None:
        self.stage = stage
        self.address = stage.token.address
        self.issuer = TokenIssuer(9)
        self._send(stage.token.functions.issue(self.address, 10**9))
        self.act("register_key", self.issuer.public_key, self.issuer.rest_hash)
        self.act("deposit_vault", 10**8)
        self.calls = self._prepare()

    def _send(self, call: Any) -> Any:
        return self.stage.send(call, self.stage.party("stranger"))

    def encode(self, name: str, *arguments: Any) -> bytes:
        return bytes.fromhex(self.stage.ledger.encode_abi(name, list(arguments))[2:])

    def act(self, name: str, *arguments: Any) -> Any:
        """One call on the ledger by the token."""
        data = self.encode(name, *arguments)
        return self._send(self.stage.token.functions.act(self.stage.ledger.address, data))

    def _group(self, count: int = 1, *, own_key: bool = False, funded: bool = True) -> int:
        """A group whose account is the token."""
        issuer = self.issuer if own_key else self.stage.issuer
        receipt = self.act(
            "open", issuer.key_hash, self.address, int(Role.RELAY), DEPOSIT, FUND, count,
            *self.stage.windows(), self.stage.secret(), self.stage.secret(), NO_AUTHORISATION,
            NO_PERMIT,
        )  # fmt: skip
        group = int(self.stage.events(receipt, "Opened")[0]["group"])
        if funded and own_key:
            self.act("fund", group)
        elif funded:
            call = self.stage.ledger.functions.fund(group)
            self.stage.send(call, self.stage.party("intermediary"))
        return group

    def _refund(self, cid: int, secret: bytes) -> tuple[Any, ...]:
        lock = lock_of(secret)
        token = self.stage.refund_token(Role.RELAY, cid, lock, DEPOSIT)
        return cid, self.stage.issuer.public_key, lock, DEPOSIT, token, NO_AUTHORISATION

    def _guard(self) -> int:
        receipt = self.act("open_guard", self.address, DEPOSIT, NO_PERMIT)
        return int(self.stage.events(receipt, "GuardOpened")[0]["gid"])

    def _prepare(self) -> dict[str, bytes]:
        stage, terms = self.stage, self.stage.terms(32)
        cid, secret = self._group(7) << 8, stage.secret()
        ended_guard, open_guard = self._guard(), self._guard()
        self.act("request_close_guard", ended_guard)
        self.act("refund", *self._refund(cid, secret))
        stage.travel(stage.now() + stage.parameters.dispute_window + 1)
        self.act("refund", *self._refund(cid + 1, secret))
        reclaimed = self._group(funded=False)
        self.act("reclaim", reclaimed, NO_AUTHORISATION)
        lock, far = lock_of(secret), stage.now() + 10_000
        tag = statements.tag(TokenKind.CONDITIONAL_REFUND, Role.RELAY, stage.ctx, lock, far)
        conditional = stage.issuer.sign(tag, cid + 3, lock, DEPOSIT)
        signature = stage.close_signature(cid >> 8, 1 << 6, DEPOSIT)
        client, chain = stage.party("client"), payment_chain(32)
        receipt = stage.send(
            stage.ledger.functions.open_guard(self.address, DEPOSIT, NO_PERMIT), client
        )
        fields = (
            stage.events(receipt, "GuardOpened")[0]["gid"], 1, 7, 32, chain.hc0, chain.root, far
        )  # fmt: skip
        voucher = client.sign(stage.digest(statements.voucher_struct(*fields)))
        third = TokenIssuer(11)
        arguments: dict[str, tuple[Any, ...]] = {
            "deposit_vault": (1,),
            "withdraw_vault": (1,),
            "withdraw": (),
            "register_key": (third.public_key, third.rest_hash),
            "reveal": (words(terms), *chain.proof(3)),
            "open_guard": (self.address, DEPOSIT, NO_PERMIT),
            "claim_guard": (*fields, *chain.proof(0), voucher),
            "request_close_guard": (open_guard,),
            "close_guard": (ended_guard,),
            "open": (
                stage.issuer.key_hash, self.address, int(Role.CLIENT), DEPOSIT, FUND, 1,
                *stage.windows(), stage.secret(), stage.secret(), NO_AUTHORISATION, NO_PERMIT,
            ),
            "fund": (self._group(own_key=True, funded=False),),
            "reclaim": (self._group(funded=False), NO_AUTHORISATION),
            "refund": self._refund(cid + 2, secret),
            "refund_conditional": (
                cid + 3, stage.issuer.public_key, lock, DEPOSIT, conditional, lock, far, secret,
                NO_AUTHORISATION,
            ),
            "nano_refund": stage.nano_claim(Role.RELAY, cid + 4, terms, secret, DEPOSIT, 3),
            "batch_nano_refund": (
                [stage.nano_claim(Role.RELAY, cid + 5, terms, secret, DEPOSIT, 3)],
            ),
            "request_close": (self._group(own_key=True) << 8,),
            "refute": (cid + 1, secret),
            "resolve": (cid,),
            "close": (cid >> 8, 1 << 6, DEPOSIT, signature, NO_AUTHORISATION),
            "vault": (self.address,),
            "credit": (self.address,),
            "intermediary": (self.issuer.key_hash,),
            "context": (self.issuer.key_hash,),
            "claims": (terms.hash(),),
            "group": (cid >> 8,),
            "channel": (cid,),
            "guard": (open_guard,),
        }  # fmt: skip
        return {name: self.encode(name, *given) for name, given in arguments.items()}

    def arm(self, *calls: tuple[str, bytes]) -> None:
        self._send(self.stage.token.functions.forget())
        for call in calls:
            self._send(self.stage.token.functions.prepare(call))

    def entered(self) -> list[bool]:
        """Which of the calls succeeded, in order."""
        return list(self.stage.token.functions.entered().call())


@pytest.fixture(scope="module")
def hostile_stage(new_chain: Callable[[], RehearsalChain]) -> Rehearsal:
    return Rehearsal(chain=new_chain(), token=compiled("HostileToken"))


@pytest.fixture(scope="module")
def intruder(hostile_stage: Rehearsal) -> Intruder:
    return Intruder(hostile_stage)


@pytest.fixture
def armed(intruder: Intruder) -> Iterator[Intruder]:
    with undone(intruder.stage):
        yield intruder


def functions(stage: Rehearsal) -> set[str]:
    return {item["name"] for item in stage.ledger.abi if item["type"] == "function"}


def test_every_call_would_succeed_at_another_time(armed: Intruder) -> None:
    """Without this, being refused during a transfer would prove nothing."""
    stage = armed.stage
    assert set(armed.calls) == functions(stage) - CONSTANTS
    for name, data in armed.calls.items():
        with undone(stage):
            armed.arm((stage.ledger.address, data))
            stage.send(stage.token.functions.run(), stage.party("stranger"))
            assert armed.entered()[0], name


def _outer(stage: Rehearsal, name: str) -> tuple[Any, str]:
    ledger, client = stage.ledger.functions, stage.party("client")
    permit = (DEPOSIT, 2**64 - 1, bytes(65))
    return {
        "deposit_vault": (ledger.deposit_vault(5), "intermediary"),
        "withdraw_vault": (ledger.withdraw_vault(5), "intermediary"),
        "withdraw": (ledger.withdraw(), "client"),
        "open": (
            ledger.open(
                stage.issuer.key_hash, client.address, int(Role.CLIENT), DEPOSIT, FUND, 1,
                *stage.windows(), stage.secret(), stage.secret(), NO_AUTHORISATION, permit,
            ),
            "client",
        ),
        "open_guard": (
            ledger.open_guard(stage.party("guard").address, DEPOSIT, permit), "client",
        ),
        "collect": (stage.pool.functions.collect(), "stranger"),
    }[name]  # fmt: skip


MOVING = ("deposit_vault", "withdraw_vault", "withdraw", "open", "open_guard", "collect")
"""Entry points that move tokens; all other functions call nobody but precompiles."""


@pytest.mark.parametrize("name", MOVING)
def test_nothing_can_be_called_while_tokens_move(armed: Intruder, name: str) -> None:
    """Invariants L18, L19: neither a function nor a view answers in the middle of another, so that
    nobody acts on books that are half-written."""
    stage = armed.stage
    collect = bytes.fromhex(stage.pool.encode_abi("collect", [])[2:])
    calls = [(stage.ledger.address, data) for data in armed.calls.values()]
    armed.arm(*calls, (stage.pool.address, collect))
    call, sender = _outer(stage, name)
    assert stage.send(call, stage.party(sender), gas=10_000_000)["status"] == 1
    # Permits call the token as well.
    rounds = 2 if name in ("open", "open_guard") else 1
    assert armed.entered() == [False] * (len(calls) + 1) * rounds


@pytest.mark.parametrize("name", MOVING)
def test_the_books_are_the_same_as_without_intrusion(armed: Intruder, name: str) -> None:
    """Invariant L1: what is owed afterwards does not depend on what the token tried meanwhile."""
    stage = armed.stage
    addresses = [armed.address, stage.pool.address, *(p.address for p in stage.parties.values())]

    def books() -> list[int]:
        ledger, token = stage.ledger.functions, stage.token.functions
        views = (ledger.vault, ledger.credit, token.balanceOf)
        return [view(a).call() for view in views for a in (*addresses, stage.ledger.address)]

    call, sender = _outer(stage, name)
    found = []
    for calls in ([], [(stage.ledger.address, data) for data in armed.calls.values()]):
        with undone(stage):
            armed.arm(*calls)
            stage.send(call, stage.party(sender), gas=10_000_000)
            found.append(books())
    assert found[0] == found[1]


def test_the_pool_is_locked_as_well(armed: Intruder) -> None:
    """Invariant L18: what the pool holds cannot be read while it is being paid."""
    stage = armed.stage
    holdings = bytes.fromhex(stage.pool.encode_abi("holdings", [])[2:])
    armed.arm((stage.pool.address, holdings))
    stage.send(stage.token.functions.run(), stage.party("stranger"))
    stage.send(stage.pool.functions.collect(), stage.party("stranger"))
    assert armed.entered() == [True, False]


def test_a_share_is_not_paid_again_while_it_is_paid(armed: Intruder) -> None:
    """Invariants L18, L31: the token claims the share that is being paid once more."""
    stage, pool = armed.stage, armed.stage.pool.functions
    stage.send(stage.token.functions.transfer(stage.pool.address, 100), stage.party("client"))
    epoch = stage.now() // stage.parameters.epoch - 1
    total = pool.available().call()
    share = total // 2
    guard = stage.party("guard").address
    tree = TaxTree(epoch, [(guard, share), (stage.party("relay").address, total - share)])
    for seat in (1, 2):
        stage.send(
            pool.distribute(epoch, tree.root, total, "bandwidth-proportional", bytes(32)),
            stage.party(f"authority_{seat}"),
        )
    claim = (guard, [(epoch, 0, share, list(tree.proof(0)))])
    again = bytes.fromhex(stage.pool.encode_abi("claim", claim)[2:])
    armed.arm((stage.pool.address, again))
    before = stage.token.functions.balanceOf(guard).call()
    stage.send(pool.claim(*claim), stage.party("stranger"))
    assert armed.entered() == [False]
    assert stage.token.functions.balanceOf(guard).call() == before + share
    assert pool.distribution(epoch).call()[2] == share


def test_only_these_entry_points_move_tokens(armed: Intruder) -> None:
    """Whatever else the ledger does, the token is not called."""
    stage = armed.stage
    armed.arm((stage.ledger.address, armed.calls["vault"]))
    for name, data in armed.calls.items():
        with undone(stage):
            stage.send(
                stage.token.functions.act(stage.ledger.address, data), stage.party("stranger")
            )
            assert bool(armed.entered()) == (name in MOVING), name
