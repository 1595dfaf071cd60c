# SPDX-License-Identifier: BSD-3-Clause
"""Tokens that answer with garbage or burn gas, and accounts that are contracts and take nothing.

None of them gets what did not arrive, and none stands in another's way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from monetor_chain.errors import TransactionReverted
from monetor_chain.rehearsal import NO_AUTHORISATION, NO_PERMIT, Rehearsal, TokenIssuer
from monetor_chain.rehearsal_chain import RehearsalChain
from monetor_chain.statements import Role, TokenKind, lock_of, tag

from .actions import DEPOSIT, ESCROW, FUND, refused, resolve
from .mocks import compiled

GWEI = 10**9
TAKES, REVERTS, BURNS, REENTERS, FAILS_INSIDE = range(5)
TRUE = (1).to_bytes(32, "big")


@pytest.fixture(scope="module")
def hostile_stage(new_chain: Callable[[], RehearsalChain]) -> Rehearsal:
    return Rehearsal(chain=new_chain(), token=compiled("HostileToken"))


@pytest.fixture
def hostile(hostile_stage: Rehearsal) -> Iterator[Rehearsal]:
    snapshot = hostile_stage.snapshot()
    yield hostile_stage
    hostile_stage.revert(snapshot)


def set_up(stage: Rehearsal, call: Any) -> None:
    stage.send(call, stage.party("stranger"))


def _opening(stage: Rehearsal, permit: tuple[int, int, bytes] = NO_PERMIT) -> Any:
    return stage.ledger.functions.open(
        stage.issuer.key_hash, stage.party("client").address, int(Role.CLIENT), DEPOSIT, FUND, 1,
        *stage.windows(), stage.secret(), bytes(32), NO_AUTHORISATION, permit,
    )  # fmt: skip


def _moving(stage: Rehearsal) -> list[tuple[Any, str]]:
    """Every entry point that moves tokens, with who may call it."""
    ledger = stage.ledger.functions
    return [
        (ledger.deposit_vault(10), "intermediary"),
        (ledger.withdraw_vault(10), "intermediary"),
        (ledger.withdraw(), "client"),
        (_opening(stage), "client"),
        (ledger.open_guard(stage.party("guard").address, DEPOSIT, NO_PERMIT), "client"),
        (stage.pool.functions.collect(), "watcher"),
    ]


def _books(stage: Rehearsal) -> list[int]:
    ledger, token = stage.ledger.functions, stage.token.functions
    names = ("intermediary", "client", "guard")
    addresses = [stage.pool.address, *(stage.party(name).address for name in names)]
    views = (ledger.vault, ledger.credit, token.balanceOf)
    return [view(a).call() for view in views for a in (*addresses, stage.ledger.address)]


def _earn(stage: Rehearsal) -> None:
    """Gives client and pool a credit."""
    client = stage.party("client")
    receipt = stage.send(
        stage.ledger.functions.open(
            stage.issuer.key_hash, client.address, int(Role.RELAY), DEPOSIT, FUND, 1,
            *stage.windows(), stage.secret(), bytes(32), NO_AUTHORISATION, NO_PERMIT,
        ),
        client,
    )  # fmt: skip
    group = stage.events(receipt, "Opened")[0]["group"]
    stage.send(stage.ledger.functions.fund(group), stage.party("intermediary"))
    signature = stage.close_signature(group, 1, DEPOSIT + 1_000)
    stage.send(
        stage.ledger.functions.close(group, 1, DEPOSIT + 1_000, signature, NO_AUTHORISATION), client
    )


@pytest.mark.parametrize(
    "answer",
    [
        bytes(32),
        (2).to_bytes(32, "big"),
        b"\xff" * 32,
        b"\x01",
        TRUE[1:],
        bytes(31) + b"\x02" + TRUE,
        bytes(4096),
    ],
    ids=["false", "two", "all ones", "one byte", "31 bytes", "64 bytes, two", "4096 zero bytes"],
)
def test_an_answer_that_is_not_yes_is_no(hostile: Rehearsal, answer: bytes) -> None:
    """Invariants L18, L19: nothing is booked, in or out, at any entry point."""
    _earn(hostile)
    before = _books(hostile)
    set_up(hostile, hostile.token.functions.set_answer(answer))
    for call, sender in _moving(hostile):
        with pytest.raises(TransactionReverted):
            hostile.send(call, hostile.party(sender))
    assert _books(hostile) == before
    # And nothing is lost: it goes on where it stopped.
    set_up(hostile, hostile.token.functions.set_answer(TRUE))
    for call, sender in _moving(hostile):
        hostile.send(call, hostile.party(sender))


@pytest.mark.parametrize(
    "answer",
    [b"", TRUE, TRUE + b"\x01", TRUE + b"\xff" * 4064],
    ids=["nothing", "true", "33 bytes", "4096 bytes"],
)
def test_an_answer_that_begins_with_yes_is_yes(hostile: Rehearsal, answer: bytes) -> None:
    """Invariant L19: what comes after the first word is not looked at."""
    _earn(hostile)
    set_up(hostile, hostile.token.functions.set_answer(answer))
    for call, sender in _moving(hostile):
        assert hostile.send(call, hostile.party(sender))["status"] == 1
    assert hostile.ledger.functions.credit(hostile.party("client").address).call() == 0
    assert hostile.pool.functions.holdings().call() == 100


def test_a_token_that_burns_all_gas_changes_nothing(hostile: Rehearsal) -> None:
    """Invariants L18, L19: whoever calls loses the gas, nobody loses tokens, and what needs no
    token goes on."""
    _earn(hostile)
    client = hostile.party("client")
    receipt = hostile.send(_opening(hostile), client)
    cid = hostile.events(receipt, "Opened")[0]["group"] << 8
    hostile.send(hostile.ledger.functions.fund(cid >> 8), hostile.party("intermediary"))
    set_up(hostile, hostile.token.functions.set_burning(True, False))
    before = _books(hostile)
    for call, sender in _moving(hostile):
        with pytest.raises(TransactionReverted):
            hostile.send(call, hostile.party(sender), gas=1_000_000)
    assert _books(hostile) == before
    lock = lock_of(hostile.secret())
    token = hostile.refund_token(Role.CLIENT, cid, lock, 7)
    call = hostile.ledger.functions.refund(
        cid, hostile.issuer.public_key, lock, 7, token, NO_AUTHORISATION
    )
    hostile.send(call, client)
    resolve(hostile, cid)


def test_a_permit_that_burns_all_its_gas_leaves_the_transfer_to_decide(hostile: Rehearsal) -> None:
    """Its failure is ignored, whatever it is; a sixty-fourth of the gas is left for the rest."""
    client = hostile.party("client")
    set_up(hostile, hostile.token.functions.set_burning(False, True))
    permit = (DEPOSIT, 2**64 - 1, bytes(65))
    assert hostile.send(_opening(hostile, permit), client, gas=15_000_000)["status"] == 1
    with pytest.raises(TransactionReverted):
        hostile.send(_opening(hostile, permit), client, gas=500_000)
    hostile.send(_opening(hostile), client, gas=500_000)


# --- Accounts that are contracts, with the real token ---------------------------------------------


class Actor:
    """A contract account on the shared chain."""

    def __init__(self, stage: Rehearsal, tokens: int = 10**6) -> None:
        self.stage = stage
        self.contract = stage.deploy_code(*compiled("HostileAccount"))
        self.address = self.contract.address
        self.act(stage.token, "deposit", value=tokens * GWEI)
        self.act(stage.token, "approve", stage.ledger.address, 2**256 - 1)

    def act(self, contract: Any, name: str, *arguments: Any, value: int = 0) -> Any:
        data = bytes.fromhex(contract.encode_abi(name, list(arguments))[2:])
        call = self.contract.functions.act(contract.address, data)
        return self.stage.send(call, self.stage.party("stranger"), value=value)

    def behave(self, mode: int, contract: Any = None, name: str = "", *arguments: Any) -> None:
        """What to do when native coin arrives."""
        target = self.address if contract is None else contract.address
        data = b"" if contract is None else bytes.fromhex(
            contract.encode_abi(name, list(arguments))[2:]
        )  # fmt: skip
        call = self.contract.functions.set_mode(mode, target, data)
        self.stage.send(call, self.stage.party("stranger"))

    def tokens(self) -> int:
        return int(self.stage.token.functions.balanceOf(self.address).call())

    def coin(self) -> int:
        return int(self.stage.w3.eth.get_balance(self.address))


@pytest.mark.parametrize("mode", [REVERTS, BURNS])
def test_an_end_user_that_takes_no_coin_stands_in_nobodys_way(stage: Rehearsal, mode: int) -> None:
    """Invariant L18: its channel ends, the intermediary is paid, and its own tokens stay its."""
    actor, ledger = Actor(stage), stage.ledger.functions
    actor.behave(mode)
    receipt = actor.act(
        stage.ledger, "open", stage.issuer.key_hash, actor.address, int(Role.CLIENT), DEPOSIT,
        FUND, 1, *stage.windows(), bytes(32), bytes(32), NO_AUTHORISATION, NO_PERMIT,
    )  # fmt: skip
    group, intermediary = stage.events(receipt, "Opened")[0]["group"], stage.party("intermediary")
    stage.send(ledger.fund(group), intermediary)
    lock, vault = lock_of(stage.secret()), ledger.vault(intermediary.address).call()
    actor.act(
        stage.ledger, "refund", group << 8, stage.issuer.public_key, lock, DEPOSIT,
        stage.refund_token(Role.CLIENT, group << 8, lock, DEPOSIT), NO_AUTHORISATION,
    )  # fmt: skip
    resolve(stage, group << 8)
    assert ledger.vault(intermediary.address).call() == vault + FUND
    stage.send(ledger.withdraw_vault(FUND), intermediary)
    before = actor.tokens()
    actor.act(stage.ledger, "withdraw")
    assert actor.tokens() == before + DEPOSIT


@pytest.mark.parametrize("mode", [REVERTS, BURNS])
def test_an_intermediary_that_takes_no_coin_stands_in_nobodys_way(
    stage: Rehearsal, mode: int
) -> None:
    """Invariant L18, the other way round; its request to close and its bond end too."""
    actor, ledger, client = Actor(stage), stage.ledger.functions, stage.party("client")
    actor.behave(mode)
    issuer = TokenIssuer(21)
    actor.act(stage.ledger, "register_key", issuer.public_key, issuer.rest_hash)
    actor.act(stage.ledger, "deposit_vault", 500_000)
    receipt = stage.send(
        ledger.open(
            issuer.key_hash, client.address, int(Role.CLIENT), DEPOSIT, FUND, 2,
            *stage.windows(), bytes(32), bytes(32), NO_AUTHORISATION,
            stage.permit(client, 2 * DEPOSIT),
        ),
        client,
    )  # fmt: skip
    group = stage.events(receipt, "Opened")[0]["group"]
    actor.act(stage.ledger, "fund", group)
    actor.act(stage.ledger, "request_close", group << 8)
    ctx, lock = ledger.context(issuer.key_hash).call(), lock_of(stage.secret())
    for index in range(2):
        cid = group << 8 | index
        token = issuer.sign(tag(TokenKind.REFUND, Role.CLIENT, ctx), cid, lock, ESCROW)
        call = ledger.refund(cid, issuer.public_key, lock, ESCROW, token, NO_AUTHORISATION)
        stage.send(call, client)
        resolve(stage, cid)
    bond = stage.parameters.close_bond
    assert ledger.credit(client.address).call() == 2 * ESCROW + bond
    stage.send(ledger.withdraw(), client)
    before = actor.tokens()
    actor.act(stage.ledger, "withdraw_vault", 500_000 - 2 * FUND - bond)
    assert actor.tokens() == before + 500_000 - 2 * FUND - bond


@pytest.mark.parametrize("mode", [REVERTS, BURNS])
def test_a_guards_payout_that_takes_no_coin(stage: Rehearsal, mode: int) -> None:
    """Invariants L18, L20: the client gets its remainder."""
    actor, ledger, client = Actor(stage), stage.ledger.functions, stage.party("client")
    actor.behave(mode)
    call = ledger.open_guard(actor.address, DEPOSIT, stage.permit(client, DEPOSIT))
    gid = stage.events(stage.send(call, client), "GuardOpened")[0]["gid"]
    stage.send(ledger.request_close_guard(gid), client)
    stage.travel(stage.now() + stage.parameters.dispute_window + 1)
    stage.send(ledger.close_guard(gid), client)
    assert ledger.credit(client.address).call() == DEPOSIT


def _backing(stage: Rehearsal) -> int:
    """Native coin of the token beyond what its units stand for."""
    supply = stage.token.functions.totalSupply().call()
    return int(stage.w3.eth.get_balance(stage.token.address)) - supply * GWEI


@pytest.mark.parametrize("mode", [REVERTS, BURNS])
def test_coin_that_is_not_taken_stays_wrapped(stage: Rehearsal, mode: int) -> None:
    """Invariants L18, L19: Token.withdraw changes nothing then, and others are not concerned."""
    actor, client = Actor(stage), stage.party("client")
    actor.behave(mode)
    before, supply = actor.tokens(), stage.token.functions.totalSupply().call()
    with pytest.raises(TransactionReverted):
        actor.act(stage.token, "withdraw", 100)
    assert (actor.tokens(), actor.coin()) == (before, 0)
    stage.send(stage.token.functions.withdraw(5), client)
    assert stage.token.functions.totalSupply().call() == supply - 5
    assert _backing(stage) == 0
    actor.behave(TAKES)
    actor.act(stage.token, "withdraw", 100)
    assert (actor.tokens(), actor.coin()) == (before - 100, 100 * GWEI)


@pytest.mark.parametrize("mode", [REENTERS, FAILS_INSIDE])
@pytest.mark.parametrize(("name", "arguments"), [("withdraw", (100,)), ("deposit", ())])
def test_coin_is_not_paid_twice(
    stage: Rehearsal, mode: int, name: str, arguments: tuple[int, ...]
) -> None:
    """Invariant L19: a receiver that comes back while it is paid finds the token locked."""
    actor = Actor(stage)
    before = actor.tokens()
    actor.behave(mode, stage.token, name, *arguments)
    if mode == FAILS_INSIDE:
        with pytest.raises(TransactionReverted):
            actor.act(stage.token, "withdraw", 100)
        assert (actor.tokens(), actor.coin()) == (before, 0)
    else:
        actor.act(stage.token, "withdraw", 100)
        assert not actor.contract.functions.entered().call()
        assert (actor.tokens(), actor.coin()) == (before - 100, 100 * GWEI)
    assert _backing(stage) == 0


def test_a_receiver_of_coin_may_move_what_is_left(stage: Rehearsal) -> None:
    """The books are final before the coin leaves: doing something then is like doing it later."""
    actor, guard = Actor(stage), stage.party("guard")
    before = actor.tokens()
    actor.behave(FAILS_INSIDE, stage.token, "transfer", guard.address, before)
    with pytest.raises(TransactionReverted):
        actor.act(stage.token, "withdraw", 100)
    actor.behave(FAILS_INSIDE, stage.token, "transfer", guard.address, before - 100)
    actor.act(stage.token, "withdraw", 100)
    assert stage.token.functions.balanceOf(guard.address).call() == before - 100
    assert (actor.tokens(), actor.coin()) == (0, 100 * GWEI)
    assert _backing(stage) == 0


def test_a_receiver_of_coin_may_use_the_ledger(stage: Rehearsal) -> None:
    """The ledger is not locked by what happens in the token: nothing of it is under way."""
    actor = Actor(stage)
    actor.behave(FAILS_INSIDE, stage.ledger, "deposit_vault", 40)
    actor.act(stage.token, "withdraw", 100)
    assert stage.ledger.functions.vault(actor.address).call() == 40
    with refused("vaults: vault too small"):
        stage.send(stage.ledger.functions.withdraw_vault(40), stage.party("stranger"))
