# SPDX-License-Identifier: BSD-3-Clause
"""`monetor audit` on an embedded chain with a short history."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monetor_chain import statements
from monetor_chain.abi import EventDecoder
from monetor_chain.accounts import dev_address, dev_key
from monetor_chain.authorisations import sign_digest
from monetor_chain.bindings import ledger as bindings
from monetor_chain.bindings.token import FUNCTIONS as TOKEN
from monetor_chain.chain import Chain
from monetor_chain.deployment import attach, bind, deploy
from monetor_chain.embedded import EmbeddedChain
from monetor_chain.errors import Reorganised
from monetor_chain.parameters import DEMO
from monetor_chain.rehearsal import TokenIssuer
from monetor_chain.sender import Sender
from monetor_chain.statements import Role, TokenKind, lock_of
from offchain.cli import main

DEPOSIT, FUND, VAULT = 20_000, 30_000, 500_000
STRAY, IN_GUARD = 11, 700


@dataclass
class Place:
    url: str
    folder: Path

    def audit(self, *arguments):
        given = ["audit", "--network", self.url, "--deployments", str(self.folder), *arguments]
        return CliRunner().invoke(main.app, given)


async def history(chain, deployment):
    """A half-open, an open, a partly resolved and a reclaimed group, and a direct channel."""
    contracts = bind(chain, deployment)
    ledger, token, issuer = contracts.ledger, contracts.token, TokenIssuer(1)
    senders = {name: Sender(chain, dev_key(name)) for name in ("intermediary", "client", "exit")}
    for sender in senders.values():
        await token.deposit(sender, 10**6)
        await token.approve(sender, ledger.address, 2**256 - 1)
    intermediary, client, relay = senders.values()
    await ledger.register_key(intermediary, issuer.public_key, issuer.rest_hash)
    await ledger.deposit_vault(intermediary, VAULT)
    ctx = statements.context(chain.chain_id, ledger.address, issuer.key_hash)

    async def open_group(sender, role, count, nonce):
        receipt = await ledger.open(
            sender, issuer.key_hash, sender.address, role, DEPOSIT, FUND, count,
            DEMO.dispute_window, DEMO.close_notice, bytes(32), nonce.to_bytes(32, "big"),
        )  # fmt: skip
        return receipt.events[0].group

    await open_group(client, Role.CLIENT, 2, 1)
    await ledger.reclaim(client, await open_group(client, Role.CLIENT, 1, 2))
    await ledger.fund(intermediary, await open_group(client, Role.CLIENT, 3, 3))
    group = await open_group(relay, Role.RELAY, 4, 4)
    await ledger.fund(intermediary, group)
    lock = lock_of(bytes(32))
    tag = statements.tag(TokenKind.REFUND, Role.RELAY, ctx)
    refund = issuer.sign(tag, group << 8, lock, DEPOSIT + 1_000)
    await ledger.refund(
        relay, group << 8, issuer.public_key, lock, DEPOSIT + 1_000, refund
    )
    await ledger.request_close(intermediary, group << 8 | 1)
    domain = statements.domain_separator(chain.chain_id, ledger.address)
    struct = statements.close_struct(ctx, group, 0b1000, DEPOSIT + 10_000)
    signature = sign_digest(
        dev_key("intermediary"), statements.typed_digest(domain, struct)
    )
    await ledger.close(relay, group, 0b1000, DEPOSIT + 10_000, signature)
    await ledger.open_guard(client, dev_address("guard"), IN_GUARD)
    await token.transfer(client, ledger.address, STRAY)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deployments")

    async def put(url):
        async with await Chain.connect(url) as chain:
            await history(chain, await deploy(chain, dev_key("deployer"), directory=folder))

    with EmbeddedChain(speed=0.0) as embedded:
        asyncio.run(put(embedded.url))
        yield Place(embedded.url, folder)


def test_the_books_in_json(place):
    done = place.audit("--json")
    assert done.exit_code == 0, done.output
    books = json.loads(done.stdout)
    assert books["disagreements"] == []
    assert books["groups"] == {"half_open": 1, "open": 1, "partly_resolved": 1, "ended": 1}
    assert books["channels"] == {
        "half_open": 2, "open": 4, "requested": 1, "closing_refund": 1, "closing_session": 0,
        "resolved": 2,
    }  # fmt: skip
    assert books["direct_channels"] == {"open": 1, "closing": 0, "closed": 0}
    tax = 10_000 // 10
    escrow = 2 * DEPOSIT + 6 * (DEPOSIT + FUND)
    to_relay = DEPOSIT + 10_000
    assert books["held"] == {
        "escrow": escrow,
        "bonds": DEMO.close_bond,
        "guards": IN_GUARD,
        "vaults": VAULT - 7 * FUND - DEMO.close_bond + (DEPOSIT + FUND - to_relay - tax),
        "credits": DEPOSIT + to_relay + tax,
        "tax_pool": tax,
    }
    assert books["owed"] == sum(books["held"].values()) - tax
    assert books["balance"] - books["owed"] == books["surplus"] == STRAY


def test_the_books_for_people(place):
    done = place.audit()
    assert done.exit_code == 0
    assert "everything agrees" in done.output
    for line in ("groups partly resolved", "channels requested", "surplus, sent by mistake"):
        assert line in done.output


def test_the_newest_blocks_can_be_left_out(place):
    before = json.loads(place.audit("--json").stdout)
    after = json.loads(place.audit("--json", "--confirmations", "1").stdout)
    # The stray transfer came last.
    assert (after["block"], after["surplus"]) == (before["block"] - 1, 0)


def lying(monkeypatch, change):
    """Every answer of the chain goes through `change(method, params, answer)`."""
    ask = Chain.rpc

    async def changed(chain, method, *params):
        return change(method, params, await ask(chain, method, *params))

    monkeypatch.setattr(Chain, "rpc", changed)


def test_what_a_hidden_opening_brought_in_is_a_surplus(place, monkeypatch):
    """No view that the log names tells of it."""

    def without_the_last(method, params, answer):
        return answer[:-1] if method == "eth_getLogs" else answer

    lying(monkeypatch, without_the_last)
    assert json.loads(place.audit("--json").stdout)["surplus"] == STRAY + IN_GUARD


@pytest.mark.parametrize(
    ("hidden", "kinds"),
    [("GroupClosed", ("vaults", "credits", "groups", "channels")), ("RefundPosted", ("channels",))],
)
def test_a_hidden_event_is_found_out(place, monkeypatch, hidden, kinds):
    topics = EventDecoder(bindings.EVENT_CLASSES).topics
    (topic,) = [topic for topic, event in topics.items() if event.__name__ == hidden]

    def without_it(method, params, answer):
        if method == "eth_getLogs":
            return [log for log in answer if log["topics"][0] != topic]
        return answer

    lying(monkeypatch, without_it)
    done = place.audit("--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)["disagreements"]
    assert found and all(any(one.startswith(kind) for kind in kinds) for one in found)
    people = place.audit()
    assert people.exit_code == 1 and found[0] in people.output


def test_a_ledger_that_holds_too_little(place, monkeypatch):
    selector = "0x" + TOKEN["balanceOf"].selector.hex()

    def less(method, params, answer):
        if method == "eth_call" and params[0]["data"].startswith(selector):
            return "0x" + (int(answer, 16) - STRAY - 3).to_bytes(32, "big").hex()
        return answer

    lying(monkeypatch, less)
    done = place.audit("--json")
    assert done.exit_code == 1
    books = json.loads(done.stdout)
    assert books["surplus"] == -3
    (sentence,) = books["disagreements"]
    assert "3 less than it owes" in sentence


def test_a_log_that_contradicts_itself_is_one_sentence(place, monkeypatch):
    def without_the_first(method, params, answer):
        return answer[1:] if method == "eth_getLogs" else answer

    lying(monkeypatch, without_the_first)
    done = place.audit()
    assert done.exit_code == 1
    assert "does not follow from the events before it" in str(done.exception)


def once_the_log_is_read(monkeypatch, happen):
    """Before the first call after it, `happen` happens on the chain."""
    ask, read, done = Chain.rpc, [], []

    async def changed(chain, method, *params):
        if method == "eth_call" and read and not done:
            done.append(method)
            await happen(chain)
        answer = await ask(chain, method, *params)
        if method == "eth_getLogs":
            read.append(method)
        return answer

    monkeypatch.setattr(Chain, "rpc", changed)


@pytest.fixture
def snapshot(place):
    """The chain before its newest block, an empty one; what is done to the chain is undone."""

    async def take():
        async with await Chain.connect(place.url) as chain:
            below, taken = await chain.snapshot(), await chain.snapshot()
            await chain.mine()
            return below, taken

    async def undo(below):
        async with await Chain.connect(place.url) as chain:
            await chain.revert(below)

    below, taken = asyncio.run(take())
    yield taken
    asyncio.run(undo(below))


def test_a_chain_that_goes_on_does_not_disturb(place, monkeypatch, snapshot):
    """Log, views and balance are those of one block."""

    async def go_on(chain):
        deployment = await attach(chain, place.folder)
        await bind(chain, deployment).ledger.withdraw(Sender(chain, dev_key("client")))

    once_the_log_is_read(monkeypatch, go_on)
    assert place.audit().exit_code == 0


def test_a_block_that_is_replaced_meanwhile_is_noticed(place, monkeypatch, snapshot):
    async def exchange(chain):
        await chain.revert(snapshot)
        await chain.mine()

    once_the_log_is_read(monkeypatch, exchange)
    assert isinstance(place.audit().exception, Reorganised)
