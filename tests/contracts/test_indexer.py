# SPDX-License-Identifier: BSD-3-Clause
"""The state that follows from the ledger's events is the ledger's state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from monetor_chain import statements
from monetor_chain.abi import Position
from monetor_chain.bindings.ledger_events import (
    BondSettled,
    CloseRequested,
    Funded,
    GroupClosed,
    GuardClaimed,
    GuardClosed,
    GuardCloseRequested,
    GuardOpened,
    KeyRegistered,
    LedgerEvent,
    Opened,
    Reclaimed,
    RefundPosted,
    Refuted,
    Resolved,
    Revealed,
    VaultChanged,
    Withdrawn,
    decode_events,
)
from monetor_chain.errors import IllegalHistory, TransactionReverted
from monetor_chain.indexer import LedgerIndex
from monetor_chain.rehearsal import (
    NO_AUTHORISATION,
    Party,
    Rehearsal,
    payment_chain,
)
from monetor_chain.statements import Role, lock_of

from .actions import (
    DEPOSIT,
    FUND,
    account_of,
    open_channel,
    post_refund,
    post_session,
    resolve,
    reveal,
)
from .test_stateful import LedgerMachine, picks, steps


def events_after(stage: Rehearsal, block: int) -> tuple[LedgerEvent, ...]:
    """The ledger's events of later blocks, decoded as from any chain."""
    logs = stage.w3.eth.get_logs({"address": stage.ledger.address, "fromBlock": block + 1})
    plain = [
        {
            "address": log["address"],
            "topics": ["0x" + bytes(topic).hex() for topic in log["topics"]],
            "data": "0x" + bytes(log["data"]).hex(),
            "blockNumber": hex(log["blockNumber"]),
            "logIndex": hex(log["logIndex"]),
            "transactionHash": "0x" + bytes(log["transactionHash"]).hex(),
        }
        for log in logs
    ]
    return decode_events(plain, stage.ledger.address)


class Mirror:
    """An index that follows a rehearsal's ledger, and comparison with all of its views."""

    def __init__(self, stage: Rehearsal) -> None:
        self._stage = stage
        self._block = -1
        self.index = LedgerIndex(stage.pool.address)
        self.sessions: set[bytes] = set()
        self._seen: tuple[Any, Any] = (set(), set())
        self.follow()
        # What was sent to the ledger by mistake before.
        self._stray = self._balance() - self.index.held()

    def _balance(self) -> int:
        return int(self._stage.token.functions.balanceOf(self._stage.ledger.address).call())

    def follow(self) -> tuple[LedgerEvent, ...]:
        """Take in what is new."""
        events = events_after(self._stage, self._block)
        for event in events:
            self.index.apply(event)
            if isinstance(event, RefundPosted | Revealed):
                self.sessions.add(event.terms_hash)
        self._block = self._stage.w3.eth.block_number
        return events

    def compare_money(self) -> None:
        """What changed since the last time, and the sum."""
        ledger = self._stage.ledger.functions
        vaults, credits = self.index.vaults().items(), self.index.credits().items()
        for address, amount in vaults - self._seen[0]:
            assert amount == ledger.vault(address).call()
        for address, amount in credits - self._seen[1]:
            assert amount == ledger.credit(address).call()
        self._seen = (vaults, credits)
        totals = self.index.totals()
        assert self.index.held() == totals.held == self._balance() - self._stray
        assert totals.vaults == sum(self.index.vaults().values())
        assert totals.credits == sum(self.index.credits().values())

    def compare_groups(self, groups: Iterator[int] | set[int] | list[int]) -> None:
        ledger = self._stage.ledger.functions
        for group in groups:
            view = self.index.group(group)
            assert view is not None
            assert list(astuple(view)) == list(ledger.group(group).call())
            # One beyond the last too: it does not exist.
            for index in range(min(view.count + 1, 256)):
                cid = group << 8 | index
                found = ledger.channel(cid).call()
                assert list(astuple(self.index.channel(cid))) == list(found)

    def compare_all(self) -> None:
        ledger = self._stage.ledger.functions
        for address in (
            self._stage.pool.address,
            *(party.address for party in self._stage.parties.values()),
        ):
            assert self.index.vault(address) == ledger.vault(address).call()
            assert self.index.credit(address) == ledger.credit(address).call()
        self.compare_money()
        self.compare_groups(list(self.index.groups()))
        for gid, guard in self.index.guards().items():
            assert list(astuple(guard)) == list(ledger.guard(gid).call())
        for terms_hash in self.sessions:
            assert list(self.index.claims(terms_hash)) == list(ledger.claims(terms_hash).call())
        for key_hash, key in self.index.keys().items():
            assert self.index.intermediary(key_hash) == ledger.intermediary(key_hash).call()
            assert key.owner == self.index.intermediary(key_hash)
        self._compare_escrow()

    def _compare_escrow(self) -> None:
        """Escrow counted anew from the contract's own views."""
        ledger, escrow, bonds = self._stage.ledger.functions, 0, 0
        for cid in self.index.unresolved():
            view = ledger.group(cid >> 8).call()
            status, _, balance, *_ = ledger.channel(cid).call()
            escrow += view[5] + (view[6] if status != 4 else 0)
            bonds += balance if status == 1 else 0
        assert (self.index.totals().escrow, self.index.totals().bonds) == (escrow, bonds)


class IndexMachine(LedgerMachine):
    """The ledger's random histories, with direct channels, batches, and one address on both sides.

    What the rules added here do is outside the model, which therefore only has its vault set right
    after them: the index alone is judged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mirror = Mirror(self.stage)
        self.others: list[tuple[int, Party, Role]] = []
        self.gids: list[int] = []

    def teardown(self) -> None:
        self.mirror.follow()
        self.mirror.compare_all()
        super().teardown()

    def _read_vault(self) -> None:
        address = self.stage.party("intermediary").address
        self.model.vault = self.stage.ledger.functions.vault(address).call()

    def _try(self, call: Any, sender: Party) -> Any:
        """Send what the ledger may refuse; None if it does."""
        try:
            receipt = self.stage.send(call, sender)
        except TransactionReverted:
            return None
        self._read_vault()
        return receipt

    def _other(self, pick: int) -> tuple[int, Party, Role]:
        group, account, role = self.others[pick % len(self.others)]
        return group << 8 | (pick // len(self.others)) % 2, account, role

    @rule(
        name=st.sampled_from(["client", "relay", "intermediary"]),
        role=st.sampled_from(Role),
        funded=st.booleans(),
    )
    def open_other(self, name: str, role: Role, funded: bool) -> None:
        if len(self.others) > 3:
            return
        account = self.stage.party(name)
        group = self.stage.open_group(account, role, 1_000, 2_000, 2, funded=False)
        self.others.append((group, account, role))
        if funded:
            self._try(self.stage.ledger.functions.fund(group), self.stage.party("intermediary"))

    @precondition(lambda self: self.others)
    @rule(pick=picks)
    def reclaim_other(self, pick: int) -> None:
        cid, account, _ = self._other(pick)
        self._try(self.stage.ledger.functions.reclaim(cid >> 8, NO_AUTHORISATION), account)

    @precondition(lambda self: self.others)
    @rule(pick=picks, seconds=steps)
    def request_other(self, pick: int, seconds: int) -> None:
        cid, _, _ = self._other(pick)
        self._pass(seconds)
        call = self.stage.ledger.functions.request_close(cid)
        self._try(call, self.stage.party("intermediary"))

    @precondition(lambda self: self.others)
    @rule(pick=picks, balance=st.integers(0, 4_000), seconds=steps)
    def refund_other(self, pick: int, balance: int, seconds: int) -> None:
        cid, account, role = self._other(pick)
        lock = lock_of(self.stage.secret())
        token = self.stage.refund_token(role, cid, lock, balance)
        self._pass(seconds)
        call = self.stage.ledger.functions.refund(
            cid, self.stage.issuer.public_key, lock, balance, token, NO_AUTHORISATION
        )
        self._try(call, account)

    @precondition(lambda self: self.others)
    @rule(pick=picks, session=st.integers(0, 2), ks=st.tuples(st.integers(0, 32), picks))
    def batch(self, pick: int, session: int, ks: tuple[int, int]) -> None:
        cid, account, role = self._other(pick)
        claims = [
            self.stage.nano_claim(
                role, cid ^ i, self.terms[session], self.stage.secret(), 2_000, k % 33
            )
            for i, k in enumerate(ks)
        ]
        self._try(self.stage.ledger.functions.batch_nano_refund(claims), account)

    @precondition(lambda self: self.others)
    @rule(pick=picks, seconds=steps)
    def resolve_other(self, pick: int, seconds: int) -> None:
        cid, _, _ = self._other(pick)
        self._pass(seconds)
        self._try(self.stage.ledger.functions.resolve(cid), self.stage.party("watcher"))

    @precondition(lambda self: self.others)
    @rule(pick=picks, channels=st.integers(1, 3), total=st.integers(0, 5_000))
    def close_other(self, pick: int, channels: int, total: int) -> None:
        cid, account, _ = self._other(pick)
        signature = self.stage.close_signature(cid >> 8, channels, total)
        call = self.stage.ledger.functions.close(
            cid >> 8, channels, total, signature, NO_AUTHORISATION
        )
        self._try(call, account)

    @rule(name=st.sampled_from(["intermediary", "guard"]))
    def withdraw_other(self, name: str) -> None:
        self._try(self.stage.ledger.functions.withdraw(), self.stage.party(name))

    @rule(
        client=st.sampled_from(["client", "intermediary"]),
        payout=st.sampled_from(["guard", "client", "pool"]),
        deposit=st.integers(1, 5_000),
    )
    def open_guard(self, client: str, payout: str, deposit: int) -> None:
        to = self.stage.pool if payout == "pool" else self.stage.party(payout)
        permit = self.stage.permit(self.stage.party(client), deposit)
        call = self.stage.ledger.functions.open_guard(to.address, deposit, permit)
        receipt = self.stage.send(call, self.stage.party(client))
        self.gids.append(self.stage.events(receipt, "GuardOpened")[0]["gid"])

    @precondition(lambda self: self.gids)
    @rule(pick=picks, base=st.integers(0, 2_000), k=st.integers(0, 32))
    def claim_guard(self, pick: int, base: int, k: int) -> None:
        gid = self.gids[pick % len(self.gids)]
        view, chain = self.mirror.index.guard(gid), payment_chain(32)
        if view is None:
            return
        fields = (gid, 1, base, 32, chain.hc0, chain.root, 2**40)
        client = next(p for p in self.stage.parties.values() if p.address == view.client)
        signature = client.sign(self.stage.digest(statements.voucher_struct(*fields)))
        call = self.stage.ledger.functions.claim_guard(*fields, *chain.proof(k), signature)
        self._try(call, self.stage.party("watcher"))

    @precondition(lambda self: self.gids)
    @rule(pick=picks, seconds=steps, close=st.booleans())
    def end_guard(self, pick: int, seconds: int, close: bool) -> None:
        gid = self.gids[pick % len(self.gids)]
        self._pass(seconds)
        ledger = self.stage.ledger.functions
        call = ledger.close_guard(gid) if close else ledger.request_close_guard(gid)
        for name in ("client", "intermediary"):
            self._try(call, self.stage.party(name))

    @invariant()
    def books_agree(self) -> None:
        """In place of the model's books: those of the index."""
        groups = set()
        for event in self.mirror.follow():
            if isinstance(event, Opened | Funded | Reclaimed | GroupClosed):
                groups.add(event.group)
            elif hasattr(event, "cid"):
                groups.add(event.cid >> 8)
        self.mirror.compare_money()
        self.mirror.compare_groups(groups)


@pytest.mark.slow
def test_the_index_follows_the_ledger(stage: Rehearsal) -> None:
    """Invariant L1, kept from the log alone: every view, and what the ledger must hold."""
    run_state_machine_as_test(
        type("BoundMachine", (IndexMachine,), {"stage": stage}),
        settings=settings(
            max_examples=5,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


# --- Known histories ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relay", "intermediary"])
def test_what_becomes_of_a_bond(stage: Rehearsal, name: str) -> None:
    """Answered, unanswered, and given back by a cooperative close; also when the same address is
    on both sides, so that vault and credit are one owner's."""
    mirror, account, ledger = Mirror(stage), stage.party(name), stage.ledger.functions
    group = stage.open_group(account, Role.RELAY, DEPOSIT, FUND, 4)
    for index in range(3):
        stage.send(ledger.request_close(group << 8 | index), stage.party("intermediary"))
    mirror.follow()
    mirror.compare_all()
    bond = stage.parameters.close_bond
    assert mirror.index.totals().bonds == 3 * bond
    lock = lock_of(stage.secret())
    token = stage.refund_token(Role.RELAY, group << 8, lock, DEPOSIT)
    call = ledger.refund(
        group << 8, stage.issuer.public_key, lock, DEPOSIT, token, NO_AUTHORISATION
    )
    stage.send(call, account)
    mirror.follow()
    mirror.compare_all()
    assert mirror.index.credit(account.address) == bond
    resolve(stage, group << 8 | 1)
    mirror.follow()
    mirror.compare_all()
    assert mirror.index.totals().bonds == bond
    channels = 0b1101
    signature = stage.close_signature(group, channels, 3 * DEPOSIT + 50_000)
    call = ledger.close(group, channels, 3 * DEPOSIT + 50_000, signature, NO_AUTHORISATION)
    stage.send(call, account)
    mirror.follow()
    mirror.compare_all()
    assert mirror.index.totals().bonds == 0
    # A closed channel's record stays as it was, and is resolved all the same.
    assert mirror.index.channel(group << 8 | 2).balance == bond
    assert mirror.index.channel(group << 8 | 2).status == 6


def test_both_legs_a_batch_and_a_refutation(stage: Rehearsal) -> None:
    mirror, terms, ledger = Mirror(stage), stage.terms(32), stage.ledger.functions
    cid, secret = open_channel(stage, Role.RELAY, 3), stage.secret()
    claims = [
        stage.nano_claim(Role.RELAY, cid | i, terms, secret, DEPOSIT + 9_000, k)
        for i, k in enumerate((0, 7))
    ]
    stage.send(ledger.batch_nano_refund(claims), stage.party("relay"))
    post_session(stage, Role.CLIENT, open_channel(stage, Role.CLIENT), terms, 500, 9)
    reveal(stage, terms, 30)
    mirror.follow()
    mirror.compare_all()
    assert mirror.index.claims(terms.hash()) == (30, 30)
    stage.send(ledger.refute(cid, secret), stage.party("watcher"))
    resolve(stage, cid | 1)
    mirror.follow()
    mirror.compare_all()


def test_half_open_reclaimed_and_unknown(stage: Rehearsal) -> None:
    mirror, client = Mirror(stage), stage.party("client")
    group = stage.open_group(client, Role.CLIENT, DEPOSIT, FUND, 256, funded=False)
    mirror.follow()
    mirror.compare_groups([group])
    stage.send(stage.ledger.functions.reclaim(group, NO_AUTHORISATION), client)
    mirror.follow()
    mirror.compare_groups([group])
    assert mirror.index.credit(client.address) == 256 * DEPOSIT
    assert mirror.index.group(group + 1) is None
    assert mirror.index.channel((group + 1) << 8).status == 0
    assert mirror.index.guard(7) is None
    assert mirror.index.claims(bytes(32)) == (0, 0)
    assert mirror.index.key(bytes(32)) is None
    assert mirror.index.intermediary(bytes(32)) is None


def test_what_was_sent_by_mistake_is_not_held_for_anybody(stage: Rehearsal) -> None:
    """Invariant L19: the surplus is what the balance has beyond the index."""
    mirror = Mirror(stage)
    held = mirror.index.held()
    stage.send(stage.token.functions.transfer(stage.ledger.address, 5), stage.party("relay"))
    mirror.follow()
    assert mirror.index.held() == held
    assert stage.token.functions.balanceOf(stage.ledger.address).call() == held + 5


def test_views_do_not_change_afterwards(stage: Rehearsal) -> None:
    mirror = Mirror(stage)
    vaults, groups = mirror.index.vaults(), mirror.index.groups()
    before = (dict(vaults), dict(groups))
    open_channel(stage, Role.CLIENT)
    mirror.follow()
    assert (dict(vaults), dict(groups)) == before
    with pytest.raises(TypeError):
        vaults["0x"] = 1  # type: ignore[index]


def history(stage: Rehearsal) -> tuple[LedgerEvent, ...]:
    """One of every kind of event."""
    ledger, client = stage.ledger.functions, stage.party("client")
    stage.open_group(client, Role.CLIENT, DEPOSIT, FUND, funded=False)
    reclaimed = stage.open_group(client, Role.CLIENT, DEPOSIT, FUND, funded=False)
    stage.send(ledger.reclaim(reclaimed, NO_AUTHORISATION), client)
    stage.send(ledger.withdraw(), client)
    cid, secret = open_channel(stage, Role.RELAY, 4), stage.secret()
    post_session(stage, Role.RELAY, cid, stage.terms(32), DEPOSIT, 5)
    post_refund(stage, Role.RELAY, cid + 1, DEPOSIT, secret)
    stage.send(ledger.refute(cid + 1, secret), client)
    stage.send(ledger.request_close(cid + 2), stage.party("intermediary"))
    stage.send(ledger.request_close(cid + 3), stage.party("intermediary"))
    post_refund(stage, Role.RELAY, cid + 2, DEPOSIT, secret)
    signature = stage.close_signature(cid >> 8, 8, DEPOSIT)
    stage.send(
        ledger.close(cid >> 8, 8, DEPOSIT, signature, NO_AUTHORISATION),
        account_of(stage, Role.RELAY),
    )
    resolve(stage, cid)
    receipt = stage.send(
        ledger.open_guard(stage.party("guard").address, 500, stage.permit(client, 500)), client
    )
    gid, chain = stage.events(receipt, "GuardOpened")[0]["gid"], payment_chain(32)
    fields = (gid, 1, 7, 32, chain.hc0, chain.root, 2**40)
    signature = client.sign(stage.digest(statements.voucher_struct(*fields)))
    stage.send(ledger.claim_guard(*fields, *chain.proof(0), signature), client)
    stage.send(ledger.request_close_guard(gid), client)
    stage.travel(stage.now() + stage.parameters.dispute_window + 1)
    stage.send(ledger.close_guard(gid), client)
    return events_after(stage, -1)


def test_an_event_too_few_too_many_or_too_early(stage: Rehearsal) -> None:
    """Whatever is left out, doubled or exchanged is noticed, at the latest by the sum."""
    events = history(stage)
    pool = stage.pool.address
    whole = LedgerIndex(pool)
    for event in events:
        whole.apply(event)
        with pytest.raises(IllegalHistory, match="not later"):
            whole.apply(event)
    # What nothing later builds on can go missing unnoticed here: comparing with the contract finds
    # it out, since some view differs.
    for i in range(len(events)):
        index = LedgerIndex(pool)
        try:
            for event in (*events[:i], *events[i + 1 :]):
                index.apply(event)
        except IllegalHistory:
            continue
        assert everything(index) != everything(whole)


def test_no_event_happens_twice(stage: Rehearsal) -> None:
    """Also at once and at the end, as a later log; only a vault may be told of again."""
    events, pool = history(stage), stage.pool.address
    index, whole = LedgerIndex(pool), LedgerIndex(pool)
    for event in events:
        whole.apply(event)
    for i, event in enumerate(events):
        index.apply(event)
        if isinstance(event, VaultChanged):
            continue
        with pytest.raises(IllegalHistory, match=type(event).__name__):
            index.apply(replace(event, at=replace(event.at, log_index=event.at.log_index + 1)))
        with pytest.raises(IllegalHistory, match=type(event).__name__):
            whole.apply(replace(event, at=Position(2**40 + i, 0, bytes(32))))
    assert everything(index) == everything(whole)


def everything(index: LedgerIndex) -> tuple[Any, ...]:
    cids = [g << 8 | i for g, view in index.groups().items() for i in range(view.count)]
    return (
        index.totals(), index.keys(), index.vaults(), index.credits(), index.groups(),
        index.sessions(), index.guards(), [index.channel(cid) for cid in cids],
    )  # fmt: skip


FIRST = {
    Funded: "no such group",
    Reclaimed: "no such group",
    Opened: "not registered",
    RefundPosted: "no such group",
    Revealed: "",
    Refuted: "no such group",
    Resolved: "no such group",
    GroupClosed: "no such group",
    CloseRequested: "no such group",
    BondSettled: "no such group",
    GuardClaimed: "no such channel",
    GuardCloseRequested: "no such channel",
    GuardClosed: "no such channel",
    Withdrawn: "credit of 0",
    KeyRegistered: "",
    VaultChanged: "",
    GuardOpened: "",
}
"""What is said of each kind as the first event of a ledger; nothing where that is possible."""


def test_nothing_comes_out_of_nothing(stage: Rehearsal) -> None:
    kinds = {type(event): event for event in history(stage)}
    assert set(kinds) == set(FIRST)
    for kind, objection in FIRST.items():
        index = LedgerIndex(stage.pool.address)
        if not objection:
            index.apply(kinds[kind])
            continue
        with pytest.raises(IllegalHistory, match=objection):
            index.apply(kinds[kind])
        assert index.held() == 0 and not index.groups() and not index.guards()


def _change(
    events: tuple[LedgerEvent, ...], kind: type, changes: dict[str, int]
) -> list[LedgerEvent]:
    """The history up to the first event of a kind, which is changed."""
    index = next(i for i, event in enumerate(events) if isinstance(event, kind))
    return [*events[:index], replace(events[index], **changes)]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (KeyRegistered, {"index": 2}),
        (Opened, {"count": 257}),
        (Opened, {"role": 3}),
        (Funded, {"group": 1}),
        (Reclaimed, {"amount": 1}),
        (Withdrawn, {"amount": 1}),
        (RefundPosted, {"cid": 1 << 8}),
        (RefundPosted, {"kind": 5}),
        (Refuted, {"cid": 1}),
        (Resolved, {"tax": 1}),
        (GroupClosed, {"channels": 0}),
        (GroupClosed, {"channels": 16}),
        (GroupClosed, {"channels": 9}),
        (GroupClosed, {"channels": 2}),
        (GroupClosed, {"total": 0}),
        (BondSettled, {"amount": 1}),
        (GuardClaimed, {"claimed": 501}),
        (GuardClaimed, {"claimed": 501, "to_payout": 500, "tax": 1}),
        (GuardClaimed, {"tax": 5}),
        (Revealed, {"k_r": 3}),
        (GuardClosed, {"to_client": 1}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_an_event_that_contradicts_the_state(
    stage: Rehearsal, kind: type, changes: dict[str, int]
) -> None:
    index = LedgerIndex(stage.pool.address)
    *before, last = _change(history(stage), kind, changes)
    for event in before:
        index.apply(event)
    held = index.held()
    with pytest.raises(IllegalHistory, match=kind.__name__):
        index.apply(last)
    assert index.held() == held
    assert index.held() == index.totals().held


def test_a_vault_cannot_pay_what_it_does_not_hold(stage: Rehearsal) -> None:
    events = history(stage)
    emptied = next(event for event in events if isinstance(event, VaultChanged))
    index = LedgerIndex(stage.pool.address)
    with pytest.raises(IllegalHistory, match="vault holds only 0"):
        for event in events:
            index.apply(replace(event, balance=0) if event == emptied else event)


def test_order_is_that_of_the_chain(stage: Rehearsal) -> None:
    index = LedgerIndex(stage.pool.address)
    owner = stage.party("intermediary").address
    index.apply(VaultChanged(owner, 5, Position(3, 4, bytes(32))))
    for block, log in ((3, 4), (3, 3), (2, 9)):
        with pytest.raises(IllegalHistory, match="not later"):
            index.apply(VaultChanged(owner, 6, Position(block, log, bytes(32))))
    index.apply(VaultChanged(owner, 6, Position(3, 5, bytes(32))))
    assert index.vault(owner) == 6 == index.held()
