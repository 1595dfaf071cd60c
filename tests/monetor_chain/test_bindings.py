# SPDX-License-Identifier: BSD-3-Clause
"""Every method and event of the bindings against the contracts, over HTTP."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from dataclasses import dataclass, field, replace

import pytest

from monetor_chain import authorisations, statements
from monetor_chain.accounts import address_of, dev_address, dev_key
from monetor_chain.authorisations import sign_digest
from monetor_chain.bindings.ledger import (
    BondSettled,
    ChannelStatus,
    CloseRequested,
    Funded,
    GroupClosed,
    GroupState,
    GuardClaimed,
    GuardClosed,
    GuardCloseRequested,
    GuardOpened,
    GuardState,
    KeyRegistered,
    LedgerEvents,
    NanoClaim,
    Opened,
    PayerRevealed,
    Reclaimed,
    RefundKind,
    RefundPosted,
    Refuted,
    Resolved,
    Revealed,
    VaultChanged,
    Withdrawn,
)
from monetor_chain.chain import Chain
from monetor_chain.deployment import Contracts, bind
from monetor_chain.errors import DeploymentMismatch, RpcError, TransactionReverted
from monetor_chain.faucet import Faucet
from monetor_chain.parameters import DEMO, TAX_RATE_BP
from monetor_chain.rehearsal import TokenIssuer, commitment, payment_chain
from monetor_chain.sender import Sender
from monetor_chain.statements import NanoTerms, Role, TokenKind, keccak256, lock_of

DEPOSIT = 20_000
FUND = 30_000
FAR = 2**40
ANVIL = shutil.which("anvil")


@dataclass
class Party:
    key: bytes
    sender: Sender

    @property
    def address(self) -> str:
        return address_of(self.key)


@dataclass
class Town:
    """One intermediary with a key and a vault, a client, a relay and a watcher, all with coins."""

    chain: Chain
    contracts: Contracts
    issuer: TokenIssuer
    parties: dict[str, Party] = field(default_factory=dict)

    @property
    def ledger(self):
        return self.contracts.ledger

    @property
    def domain(self) -> bytes:
        return statements.domain_separator(self.chain.chain_id, self.ledger.address)

    @property
    def ctx(self) -> bytes:
        return statements.context(self.chain.chain_id, self.ledger.address, self.issuer.key_hash)

    def __getattr__(self, name: str) -> Party:
        try:
            return self.parties[name]
        except KeyError:
            raise AttributeError(name) from None

    async def settle(self, network, names) -> None:
        faucet = Faucet(self.chain, network.deployment)
        salt = secrets.token_hex(8)
        for name in names:
            key = dev_key(f"{name} {salt}")
            self.parties[name] = Party(key, Sender(self.chain, key))
        gifts = [faucet.fund(p.address, 10**18, 10**6) for p in self.parties.values()]
        await asyncio.gather(*gifts)

    async def open(self, role: Role, count: int = 1, funded: bool = True) -> int:
        owner = self.parties["client" if role is Role.CLIENT else "relay"]
        permit = await self.contracts.token.sign_permit(
            owner.key, self.ledger.address, count * DEPOSIT, FAR
        )
        receipt = await self.ledger.open(
            owner.sender, self.issuer.key_hash, owner.address, role, DEPOSIT, FUND, count,
            DEMO.dispute_window, DEMO.close_notice,
            secrets.token_bytes(32), secrets.token_bytes(32), permit=permit,
        )  # fmt: skip
        (opened,) = receipt.events
        if funded:
            await self.ledger.fund(self.intermediary.sender, opened.group)
        return opened.group

    def token(self, role: Role, cid: int, wpk: int, balance: int, **conditional) -> bytes:
        kind = TokenKind.CONDITIONAL_REFUND if conditional else TokenKind.REFUND
        return self.issuer.sign(
            statements.tag(kind, role, self.ctx, **conditional), cid, wpk, balance
        )

    async def terms(self) -> NanoTerms:
        now, chain = await self.chain.now(), payment_chain(DEMO.n, secrets.token_bytes(8))
        self.payments = chain
        return NanoTerms(
            DEMO.delta_c, DEMO.delta_r, DEMO.n, chain.hc0, DEMO.t_exp(now), chain.root,
            DEMO.epoch_at(now),
        )  # fmt: skip

    def claim(self, role: Role, cid: int, terms: NanoTerms, nwpk: int, b_full: int, k: int):
        rho = secrets.randbelow(statements.GROUP_ORDER)
        struct = statements.nano_refund_struct(
            self.ctx, role, terms.hash(), nwpk, keccak256(commitment(cid, b_full, rho))
        )
        signature = sign_digest(
            self.intermediary.key, statements.typed_digest(self.domain, struct)
        )
        return NanoClaim(cid, terms, nwpk, b_full, rho, signature, *self.payments.proof(k))

    async def past(self, moment: int) -> None:
        """Let the ledger's time pass `moment`."""
        await self.chain.increase_time(max(1, moment - int(await self.chain.now()) + 1))
        await self.chain.wait_past(moment)


def in_town(network, work, names=("intermediary", "client", "relay", "watcher")):
    async def run():
        async with await Chain.connect(network.url) as chain:
            contracts = bind(chain, network.deployment)
            town = Town(chain, contracts, TokenIssuer(secrets.randbits(32)))
            await town.settle(network, names)
            await contracts.ledger.register_key(
                town.intermediary.sender, town.issuer.public_key, town.issuer.rest_hash
            )
            await contracts.token.approve(
                town.intermediary.sender, contracts.ledger.address, 10**6
            )
            await contracts.ledger.deposit_vault(town.intermediary.sender, 500_000)
            return await work(town)

    return asyncio.run(run())


def plain(events):
    """Events without their position."""
    return [replace(event, at=None) for event in events]


def test_a_key_is_registered_once(network):
    async def work(town):
        events = await LedgerEvents(town.ledger).since(network.deployment.block)
        (mine,) = [
            event for event in events.events
            if isinstance(event, KeyRegistered) and event.key_hash == town.issuer.key_hash
        ]  # fmt: skip
        assert mine.owner == town.intermediary.address
        assert await town.ledger.intermediary(town.issuer.key_hash) == town.intermediary.address
        assert await town.ledger.intermediary(bytes(32)) is None
        assert await town.ledger.context(town.issuer.key_hash) == town.ctx
        with pytest.raises(TransactionReverted, match="issuer_keys: already registered"):
            await town.ledger.register_key(
                town.watcher.sender, town.issuer.public_key, town.issuer.rest_hash
            )

    in_town(network, work)


def test_vaults(network):
    async def work(town):
        assert await town.ledger.vault(town.intermediary.address) == 500_000
        receipt = await town.ledger.withdraw_vault(town.intermediary.sender, 100)
        assert plain(receipt.events) == [
            VaultChanged(town.intermediary.address, 499_900, None)
        ]
        with pytest.raises(TransactionReverted, match="vaults: vault too small"):
            await town.ledger.withdraw_vault(town.intermediary.sender, 10**9)

    in_town(network, work)


def test_a_third_party_opens_and_reclaims_with_the_accounts_signatures(network):
    async def work(town):
        owner, ledger = town.client, town.ledger
        rho_e, rho_i = secrets.token_bytes(32), secrets.token_bytes(32)
        terms = (Role.CLIENT, DEPOSIT, FUND, 2)
        windows = (DEMO.dispute_window, DEMO.close_notice)
        given = (town.issuer.key_hash, owner.address, *terms, *windows, rho_e, rho_i)
        group = statements.group_id(
            town.ctx, owner.address, town.intermediary.address, *terms, rho_e, rho_i
        )
        arguments = authorisations.arguments_of_open(*given)
        auth = authorisations.authorise_open(owner.key, town.domain, group, arguments, FAR)
        permit = await town.contracts.token.sign_permit(
            owner.key, ledger.address, 2 * DEPOSIT, FAR
        )
        with pytest.raises(TransactionReverted, match="authorisation"):
            await ledger.open(town.watcher.sender, *given, permit=permit)
        receipt = await ledger.open(town.watcher.sender, *given, auth=auth, permit=permit)
        assert plain(receipt.events) == [
            Opened(
                group, town.issuer.key_hash, owner.address, Role.CLIENT, DEPOSIT, FUND, 2,
                DEMO.dispute_window, DEMO.close_notice, None,
            )
        ]  # fmt: skip
        view = await ledger.group(group)
        assert (view.state, view.account, view.role) == (
            GroupState.HALF_OPEN, owner.address, Role.CLIENT,
        )  # fmt: skip
        assert await ledger.group(group + 1) is None
        cid = statements.channel_id(group, 1)
        assert (await ledger.channel(cid)).status is ChannelStatus.HALF_OPEN
        assert (await ledger.channel(cid + 1)).status is ChannelStatus.NONE
        auth = authorisations.authorise_reclaim(owner.key, town.domain, group, FAR)
        receipt = await ledger.reclaim(town.watcher.sender, group, auth)
        assert plain(receipt.events) == [Reclaimed(group, 2 * DEPOSIT, None)]
        assert await ledger.credit(owner.address) == 2 * DEPOSIT
        receipt = await ledger.withdraw(owner.sender)
        assert plain(receipt.events) == [Withdrawn(owner.address, 2 * DEPOSIT, None)]
        assert await town.contracts.token.balance_of(owner.address) == 10**6

    in_town(network, work)


def test_refund_refute_and_resolve(network):
    async def work(town):
        ledger, key = town.ledger, town.issuer.public_key
        group = await town.open(Role.CLIENT, 2)
        assert (await ledger.group(group)).state is GroupState.OPEN
        first, second = (statements.channel_id(group, index) for index in (0, 1))
        secret = secrets.token_bytes(32)
        token = town.token(Role.CLIENT, first, lock_of(secret), 123)
        with pytest.raises(TransactionReverted, match="ledger: token"):
            await ledger.refund(town.client.sender, first, key, lock_of(secret), 124, token)
        receipt = await ledger.refund(
            town.client.sender, first, key, lock_of(secret), 123, token
        )
        (posted,) = receipt.events
        assert replace(posted, at=None) == RefundPosted(
            first, RefundKind.REFUND, lock_of(secret), 123,
            receipt.timestamp + DEMO.dispute_window, bytes(32), None,
        )  # fmt: skip
        view = await ledger.channel(first)
        assert view.status is ChannelStatus.CLOSING_REFUND
        assert view.deadline == posted.deadline
        receipt = await ledger.refute(town.watcher.sender, first, secret)
        assert plain(receipt.events) == [Refuted(first, secret, None)]
        assert (await ledger.channel(first)).status is ChannelStatus.RESOLVED

        token = town.token(Role.CLIENT, second, 5, 7_000)
        auth = authorisations.authorise_refund(
            town.client.key, town.domain, second, 5, 7_000, token, FAR
        )
        receipt = await ledger.refund(
            town.watcher.sender, second, key, 5, 7_000, token, auth
        )
        with pytest.raises(TransactionReverted, match="ledger: too early"):
            await ledger.resolve(town.watcher.sender, second)
        await town.past(receipt.events[0].deadline)
        receipt = await ledger.resolve(town.watcher.sender, second)
        assert plain(receipt.events) == [
            Resolved(second, 7_000, DEPOSIT + FUND - 7_000, 0, None)
        ]
        assert await ledger.credit(town.client.address) == 7_000
        assert (await ledger.group(group)).resolved == 0b11

    in_town(network, work)


def test_a_conditional_refund_needs_the_payers_secret(network):
    async def work(town):
        ledger, group = town.ledger, await town.open(Role.RELAY)
        cid, payer = statements.channel_id(group, 0), secrets.token_bytes(32)
        t_p = int(await town.chain.now()) + 10_000
        token = town.token(
            Role.RELAY, cid, 9, 600, wpk_client=lock_of(payer), payment_deadline=t_p
        )
        given = (cid, 9, 600, token, lock_of(payer), t_p, payer)
        auth = authorisations.authorise_refund_conditional(
            town.relay.key, town.domain, *given, FAR
        )
        receipt = await ledger.refund_conditional(
            town.watcher.sender, cid, town.issuer.public_key, *given[1:], auth
        )
        posted, revealed = plain(receipt.events)
        assert posted.kind == RefundKind.CONDITIONAL
        assert revealed == PayerRevealed(cid, lock_of(payer), payer, None)

    in_town(network, work)


def test_a_session_is_claimed_revealed_and_taxed(network):
    async def work(town):
        ledger, group, terms = town.ledger, await town.open(Role.RELAY), await town.terms()
        cid, n, price = statements.channel_id(group, 0), DEMO.n, DEMO.delta_r
        b_full = DEPOSIT + n * price
        claim = town.claim(Role.RELAY, cid, terms, 11, b_full, 20)
        given = (claim.cid, terms, 11, b_full, claim.rho, claim.signature)
        auth = authorisations.authorise_nano_refund(town.relay.key, town.domain, *given, FAR)
        receipt = await ledger.nano_refund(
            town.watcher.sender, *given, claim.k, claim.hc, claim.path, auth
        )
        by_kind = {type(event): event for event in plain(receipt.events)}
        assert by_kind[Revealed] == Revealed(
            terms.hash(), 20, 20, claim.hc, tuple(claim.path), None
        )
        assert by_kind[RefundPosted].kind == RefundKind.NANO
        assert by_kind[RefundPosted].terms_hash == terms.hash()
        assert await ledger.claims(terms.hash()) == (20, 20)
        # Anybody raises the record; a lower proof changes nothing and does not fail.
        await ledger.reveal(town.watcher.sender, terms, *town.payments.proof(35))
        again = await ledger.reveal(town.watcher.sender, terms, *town.payments.proof(3))
        assert again.events == ()
        assert await ledger.claims(terms.hash()) == (35, 35)
        await town.past(by_kind[RefundPosted].deadline)
        receipt = await ledger.resolve(town.watcher.sender, cid)
        earned = DEPOSIT + 35 * price
        due = 35 * price * TAX_RATE_BP // 10_000
        assert plain(receipt.events) == [
            Resolved(cid, earned, DEPOSIT + FUND - earned - due, due, None)
        ]
        pool = town.contracts.tax_pool
        before = await pool.holdings()
        await pool.collect(town.watcher.sender)
        assert await pool.holdings() >= before + due

    in_town(network, work)


def test_several_sessions_are_claimed_at_once(network):
    async def work(town):
        ledger, group = town.ledger, await town.open(Role.CLIENT, 2)
        claims = []
        for index in (0, 1):
            cid, terms = statements.channel_id(group, index), await town.terms()
            claims.append(town.claim(Role.CLIENT, cid, terms, 20 + index, 100, 2 + index))
        receipt = await ledger.batch_nano_refund(town.client.sender, claims)
        posted = [event for event in receipt.events if isinstance(event, RefundPosted)]
        assert [event.lock for event in posted] == [20, 21]
        # A client's dispute window begins only when the relay can prove no more.
        assert [event.deadline for event in posted] == [
            max(receipt.timestamp, claim.terms.t_exp) + DEMO.dispute_window for claim in claims
        ]

    in_town(network, work)


def test_a_cooperative_close_of_some_channels(network):
    async def work(town):
        ledger, group = town.ledger, await town.open(Role.CLIENT, 3)
        struct = statements.close_struct(town.ctx, group, 0b101, 900)
        signature = sign_digest(
            town.intermediary.key, statements.typed_digest(town.domain, struct)
        )
        auth = authorisations.authorise_close(
            town.client.key, town.domain, group, 0b101, 900, signature, FAR
        )
        receipt = await ledger.close(
            town.watcher.sender, group, 0b101, 900, signature, auth
        )
        assert plain(receipt.events) == [
            GroupClosed(group, 0b101, 900, 2 * (DEPOSIT + FUND) - 900, 0, None)
        ]
        view = await ledger.group(group)
        assert (view.state, view.resolved) == (GroupState.PARTLY_RESOLVED, 0b101)

    in_town(network, work)


def test_a_request_to_close_is_answered(network):
    async def work(town):
        ledger, group = town.ledger, await town.open(Role.CLIENT)
        cid = statements.channel_id(group, 0)
        receipt = await ledger.request_close(town.intermediary.sender, cid)
        deadline = receipt.timestamp + DEMO.close_notice
        assert plain(receipt.events) == [CloseRequested(cid, deadline, DEMO.close_bond, None)]
        assert (await ledger.channel(cid)).status is ChannelStatus.REQUESTED
        token = town.token(Role.CLIENT, cid, 5, 50)
        receipt = await ledger.refund(
            town.client.sender, cid, town.issuer.public_key, 5, 50, token
        )
        assert BondSettled(cid, True, DEMO.close_bond, None) in plain(
            receipt.events
        )

    in_town(network, work)


def test_a_guard_channel_from_opening_to_end(network):
    async def work(town):
        ledger, payout = town.ledger, dev_address(secrets.token_hex(8))
        permit = await town.contracts.token.sign_permit(
            town.client.key, ledger.address, 5_000, FAR
        )
        receipt = await ledger.open_guard(town.client.sender, payout, 5_000, permit)
        (opened,) = receipt.events
        assert replace(opened, at=None) == GuardOpened(
            opened.gid, town.client.address, payout, 5_000, DEMO.price, DEMO.dispute_window, None
        )
        gid, chain = opened.gid, payment_chain(DEMO.n, secrets.token_bytes(8))
        voucher = (gid, 1, 300, DEMO.n, chain.hc0, chain.root, FAR)
        digest = statements.typed_digest(town.domain, statements.voucher_struct(*voucher))
        receipt = await ledger.claim_guard(
            town.watcher.sender, *voucher, *chain.proof(18), sign_digest(town.client.key, digest)
        )
        claimed = 300 + 18 * DEMO.price
        share = claimed * 10_000 // (10_000 + TAX_RATE_BP)
        assert plain(receipt.events) == [
            GuardClaimed(gid, claimed, share, claimed - share, None)
        ]
        assert await ledger.credit(payout) == share
        receipt = await ledger.request_close_guard(town.client.sender, gid)
        deadline = receipt.timestamp + DEMO.dispute_window
        assert plain(receipt.events) == [GuardCloseRequested(gid, deadline, None)]
        view = await ledger.guard(gid)
        assert (view.state, view.claimed, view.deadline) == (
            GuardState.CLOSING, claimed, deadline,
        )  # fmt: skip
        await town.past(deadline)
        receipt = await ledger.close_guard(town.watcher.sender, gid)
        assert plain(receipt.events) == [GuardClosed(gid, 5_000 - claimed, None)]
        assert (await ledger.guard(gid)).state is GuardState.CLOSED
        assert await ledger.guard(gid + 1) is None

    in_town(network, work)


def test_the_authorities_change_the_parameters_for_the_next_epoch(network):
    async def work():
        async with await Chain.connect(network.url) as chain:
            consensus = bind(chain, network.deployment).consensus
            wanted = replace(DEMO, pay_fee=6)

            async def vote(role: str, epoch: int) -> None:
                await consensus.vote(Sender(chain, dev_key(role)), wanted, epoch)

            for _ in range(3):
                epoch = await consensus.current_epoch() + 1
                try:
                    await asyncio.gather(vote("authority", epoch), vote("authority2", epoch))
                    break
                except TransactionReverted as error:  # an epoch began between the two
                    assert "next epoch" in error.reason
            assert await consensus.parameters(epoch) == wanted
            assert await consensus.parameters(epoch - 1) == DEMO
            assert await consensus.parameters(0) in (DEMO, wanted)
            # Back to the first set, which other tests expect.
            back = {
                role: Sender(chain, dev_key(role)) for role in ("authority", "authority2")
            }
            for _ in range(3):
                epoch = await consensus.current_epoch() + 1
                try:
                    await asyncio.gather(
                        *(consensus.vote(sender, DEMO, epoch) for sender in back.values())
                    )
                    break
                except TransactionReverted as error:
                    assert "next epoch" in error.reason
            await chain.increase_time(2 * DEMO.epoch)
            assert await consensus.parameters() == DEMO

    asyncio.run(work())


# --- Following the log ----------------------------------------------------------------------------


def test_events_come_whole_in_order_and_once(network):
    async def work(town):
        start = (await town.chain.latest()).number
        follower = LedgerEvents(town.ledger).follow(start, poll=0.02)
        groups = [await town.open(Role.CLIENT) for _ in range(3)]
        mine: list[object] = []
        last = start
        async for batch in follower:
            assert batch.block.number > last
            for event in batch.events:
                assert last < event.at.block <= batch.block.number
            mine += [
                event for event in batch.events
                if isinstance(event, Opened | Funded) and event.group in groups
            ]  # fmt: skip
            last = batch.block.number
            if len(mine) == 6:
                break
        assert [type(event) for event in mine] == [Opened, Funded] * 3
        assert [event.at for event in mine] == sorted(event.at for event in mine)
        again = await LedgerEvents(town.ledger).since(start)
        assert [e for e in again.events if isinstance(e, Opened) and e.group in groups] == mine[::2]

    in_town(network, work)


def test_unconfirmed_events_are_withheld(network):
    async def work(town):
        receipt = await town.ledger.withdraw_vault(town.intermediary.sender, 1)
        for _ in range(2):
            await town.chain.mine()
        careful = LedgerEvents(town.ledger, confirmations=10_000)
        assert (await careful.since(-1)).block.number == 0
        early = LedgerEvents(town.ledger, confirmations=2)
        batch = await early.since(receipt.block - 1)
        assert receipt.events[0] in batch.events
        assert (await town.chain.latest()).number >= batch.block.number + 2

    in_town(network, work)


def test_an_endpoint_with_a_small_range_is_asked_in_pieces(network, monkeypatch):
    async def work(town):
        everything = await LedgerEvents(town.ledger).since(-1)
        asked = []
        ask = town.chain.rpc

        async def limited(method, *params):
            if method == "eth_getLogs":
                first, last = (int(params[0][key], 16) for key in ("fromBlock", "toBlock"))
                asked.append(last - first + 1)
                if last - first >= 20:
                    raise RpcError("block range is too large")
            return await ask(method, *params)

        monkeypatch.setattr(town.chain, "rpc", limited)
        pieces = await LedgerEvents(town.ledger).since(-1)
        assert pieces.events[: len(everything.events)] == everything.events
        assert min(asked) <= 20 < max(asked)

    in_town(network, work)


def test_anvil_is_tried_too():
    if ANVIL is None:
        pytest.skip("no anvil on the PATH: these tests ran on the embedded chain only")


def test_an_address_without_the_contract_is_noticed(network):
    async def work():
        async with await Chain.connect(network.url) as chain:
            ledger = type(bind(chain, network.deployment).ledger)(chain, dev_address("nobody"))
            with pytest.raises(DeploymentMismatch, match="tax_rate_bp"):
                await ledger.tax_rate_bp()

    asyncio.run(work())
