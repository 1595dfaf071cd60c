# SPDX-License-Identifier: BSD-3-Clause
"""Random sequences of calls, allowed and forbidden ones, against the Python model.

After every step the ledger has taken or refused the call as the model has, its books equal the
model's, and it holds exactly what it owes (invariant L1).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from monetor_chain.errors import TransactionReverted
from monetor_chain.parameters import TAX_RATE_BP
from monetor_chain.rehearsal import (
    NO_AUTHORISATION,
    Party,
    Rehearsal,
    payment_chain,
    words,
)
from monetor_chain.statements import NanoTerms, Role, lock_of

from .actions import account_of
from .reference import Channel, Group, Model, State

steps = st.one_of(st.just(1), st.integers(1, 200), st.integers(100, 900))
"""Seconds that pass before a call: often none to speak of, sometimes beyond a deadline."""
small = st.integers(0, 40_000)
picks = st.integers(0, 2**16)


class LedgerMachine(RuleBasedStateMachine):
    """One intermediary, one client, one relay."""

    stage: Rehearsal

    def __init__(self) -> None:
        super().__init__()
        stage = self.stage
        self.snapshot = stage.snapshot()
        intermediary = stage.party("intermediary")
        ledger = stage.ledger.functions
        # A vault of limited means, so that calls fail for want of money too.
        have = ledger.vault(intermediary.address).call()
        stage.send(ledger.withdraw_vault(have - 300_000), intermediary)
        self.model = Model(stage.parameters, Fraction(TAX_RATE_BP, 10_000), 300_000)
        self.ids: list[int] = []
        self.offset = stage.token.functions.balanceOf(stage.ledger.address).call() - 300_000
        self.terms = [stage.terms(32, stage.now() + life) for life in (50, 400, 1_500)]

    def teardown(self) -> None:
        self.stage.revert(self.snapshot)

    def _send(self, call: Any, sender: Party, expected: bool) -> Any:
        try:
            receipt = self.stage.send(call, sender)
        except TransactionReverted as error:
            assert not expected, f"refused: {error.reason}"
            return None
        assert expected, "the ledger took what the model refuses"
        return receipt

    def _pass(self, seconds: int) -> int:
        now = self.stage.now() + seconds
        self.stage.travel(now)
        return now

    def _group(self, pick: int) -> tuple[int, Group]:
        index = pick % len(self.ids)
        return self.ids[index], self.model.groups[index]

    def _channel(self, pick: int) -> tuple[int, Group, Channel]:
        group_id, group = self._group(pick)
        index = (pick // len(self.ids)) % len(group.channels)
        return group_id << 8 | index, group, group.channels[index]

    @rule(
        role=st.sampled_from(Role),
        deposit=small,
        fund=st.integers(0, 60_000),
        count=st.integers(1, 3),
        funded=st.booleans(),
    )
    def open(self, role: Role, deposit: int, fund: int, count: int, funded: bool) -> None:
        if deposit + fund == 0 or len(self.ids) > 5:
            return
        account = account_of(self.stage, role)
        group = self.stage.open_group(account, role, deposit, fund, count, funded=False)
        assert self.model.open(role, deposit, fund, count)
        self.ids.append(group)
        if funded:
            expected = self.model.fund(self.model.groups[-1])
            self._send(
                self.stage.ledger.functions.fund(group), self.stage.party("intermediary"), expected
            )

    @precondition(lambda self: self.ids)
    @rule(pick=picks)
    def fund(self, pick: int) -> None:
        group_id, group = self._group(pick)
        call = self.stage.ledger.functions.fund(group_id)
        self._send(call, self.stage.party("intermediary"), self.model.fund(group))

    @precondition(lambda self: self.ids)
    @rule(pick=picks)
    def reclaim(self, pick: int) -> None:
        group_id, group = self._group(pick)
        call = self.stage.ledger.functions.reclaim(group_id, NO_AUTHORISATION)
        self._send(call, account_of(self.stage, group.role), self.model.reclaim(group))

    @precondition(lambda self: self.ids)
    @rule(pick=picks, balance=st.one_of(small, st.integers(0, 2**64 - 1)), seconds=steps)
    def refund(self, pick: int, balance: int, seconds: int) -> None:
        cid, group, channel = self._channel(pick)
        secret, now = self.stage.secret(), self._pass(seconds)
        token = self.stage.refund_token(group.role, cid, lock_of(secret), balance)
        call = self.stage.ledger.functions.refund(
            cid, self.stage.issuer.public_key, lock_of(secret), balance, token, NO_AUTHORISATION
        )
        expected = self.model.refund(group, channel, balance, secret, now)
        self._send(call, account_of(self.stage, group.role), expected)

    @precondition(lambda self: self.ids)
    @rule(
        pick=picks,
        session=st.integers(0, 2),
        b_full=st.one_of(small, st.integers(0, 2**64 - 1)),
        k=st.integers(0, 32),
        seconds=steps,
    )
    def nano_refund(self, pick: int, session: int, b_full: int, k: int, seconds: int) -> None:
        cid, group, channel = self._channel(pick)
        terms, secret = self.terms[session], self.stage.secret()
        claim = self.stage.nano_claim(group.role, cid, terms, secret, b_full, k)
        now = self._pass(seconds)
        expected = self.model.nano_refund(group, channel, terms, b_full, k, secret, now)
        call = self.stage.ledger.functions.nano_refund(*claim)
        self._send(call, account_of(self.stage, group.role), expected)

    @rule(session=st.integers(0, 2), k=st.integers(0, 32), seconds=steps)
    def reveal(self, session: int, k: int, seconds: int) -> None:
        terms: NanoTerms = self.terms[session]
        now = self._pass(seconds)
        call = self.stage.ledger.functions.reveal(words(terms), *payment_chain(32).proof(k))
        self._send(call, self.stage.party("watcher"), self.model.reveal(terms, k, now))

    @precondition(lambda self: self.ids)
    @rule(pick=picks, seconds=steps)
    def request_close(self, pick: int, seconds: int) -> None:
        cid, group, channel = self._channel(pick)
        now = self._pass(seconds)
        call = self.stage.ledger.functions.request_close(cid)
        expected = self.model.request_close(group, channel, now)
        self._send(call, self.stage.party("intermediary"), expected)

    @precondition(lambda self: self.ids)
    @rule(pick=picks, right=st.booleans(), seconds=steps)
    def refute(self, pick: int, right: bool, seconds: int) -> None:
        cid, group, channel = self._channel(pick)
        secret = channel.secret if right and channel.secret else self.stage.secret()
        now = self._pass(seconds)
        call = self.stage.ledger.functions.refute(cid, secret)
        expected = self.model.refute(group, channel, secret, now)
        self._send(call, self.stage.party("watcher"), expected)

    @precondition(lambda self: self.ids)
    @rule(pick=picks, edge=st.sampled_from([None, 0, 1]), seconds=steps)
    def resolve(self, pick: int, edge: int | None, seconds: int) -> None:
        cid, group, channel = self._channel(pick)
        if edge is not None and channel.deadline + edge > self.stage.now():
            seconds = channel.deadline + edge - self.stage.now()
        now = self._pass(seconds)
        call = self.stage.ledger.functions.resolve(cid)
        expected = self.model.resolve(group, channel, now)
        self._send(call, self.stage.party("watcher"), expected)

    @precondition(lambda self: self.ids)
    @rule(pick=picks, channels=st.integers(0, 8), total=st.integers(0, 150_000))
    def close(self, pick: int, channels: int, total: int) -> None:
        group_id, group = self._group(pick)
        signature = self.stage.close_signature(group_id, channels, total)
        call = self.stage.ledger.functions.close(
            group_id, channels, total, signature, NO_AUTHORISATION
        )
        expected = self.model.close(group, channels, total)
        self._send(call, account_of(self.stage, group.role), expected)

    @rule(role=st.sampled_from(Role))
    def withdraw(self, role: Role) -> None:
        self._send(self.stage.ledger.functions.withdraw(), account_of(self.stage, role), True)
        self.model.credit[role] = 0

    @rule(amount=st.integers(0, 20_000))
    def withdraw_vault(self, amount: int) -> None:
        expected = amount <= self.model.vault
        call = self.stage.ledger.functions.withdraw_vault(amount)
        self._send(call, self.stage.party("intermediary"), expected)
        if expected:
            self.model.vault -= amount

    @invariant()
    def books_agree(self) -> None:
        stage, ledger = self.stage, self.stage.ledger.functions
        assert ledger.vault(stage.party("intermediary").address).call() == self.model.vault
        assert ledger.credit(stage.pool.address).call() == self.model.pool
        for role in Role:
            credit = ledger.credit(account_of(stage, role).address).call()
            assert credit == self.model.credit[role]
        held = stage.token.functions.balanceOf(stage.ledger.address).call()
        assert held - self.offset == self.model.held()

    @invariant()
    def resolved_channels_agree(self) -> None:
        for group_id, group in zip(self.ids, self.model.groups, strict=True):
            if group.funded:
                expected = sum(
                    1 << i for i, c in enumerate(group.channels) if c.state is State.RESOLVED
                )
                assert self.stage.ledger.functions.group(group_id).call()[10] == expected


def test_the_ledger_follows_the_model(stage: Rehearsal) -> None:
    """Invariant L1, and with it L8 to L16 in arbitrary order."""
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("BoundMachine", (LedgerMachine,), {"stage": stage})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_model_is_not_vacuous(stage: Rehearsal) -> None:
    """The comparison catches a wrong book: a model that taxes clients disagrees at once."""

    class WrongModel(Model):
        def _cap(self, group: Group, count: int) -> int:
            return super()._cap(group, count) - 1

    machine = LedgerMachine.__new__(LedgerMachine)
    machine.stage = stage
    LedgerMachine.__init__(machine)
    machine.model = WrongModel(machine.model.parameters, machine.model.rate, 300_000)
    machine.open(Role.CLIENT, 100, 50, 1, True)
    with pytest.raises(AssertionError):
        machine.close(0, 1, 150)
    machine.teardown()
