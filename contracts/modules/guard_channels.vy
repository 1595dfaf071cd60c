# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
# pragma nonreentrancy on
"""
@title Direct channels between a client and its guard
@license GNU Affero General Public License v3.0 only
@notice The client deposits, signs vouchers that each commit to a hash chain, and reveals one
        preimage per payment. The guard's payout address is named at opening and is the only one
        that a claim can pay, so anybody may submit claims.
"""

from ..interfaces import IConsensus
from ..interfaces import ILedgerEvents
from . import authorisation
from . import hash_chain
from . import refusal
from . import settlement
from . import vaults

uses: vaults

struct GuardView:
    state: uint256
    client: address
    payout: address
    deposit: uint256
    claimed: uint256
    price: uint256
    dispute_window: uint256
    deadline: uint256


GUARD_OPEN: constant(uint256) = 1
GUARD_CLOSING: constant(uint256) = 2
GUARD_CLOSED: constant(uint256) = 3

_ADDRESS: constant(uint256) = 2**160 - 1
_WORD: constant(uint256) = 2**32 - 1

consensus: public(immutable(address))

guard_count: public(uint256)
# client | deposit << 160 | deadline << 192 | state << 240
_clients: HashMap[uint256, uint256]
# payout | claimed << 160 | price << 192 | dispute window << 224
_payouts: HashMap[uint256, uint256]


@deploy
def __init__(consensus_: address):
    consensus = consensus_


@external
def open_guard(payout: address, deposit: uint256, permit: vaults.Permit) -> uint256:
    """
    @notice Opens a channel from the caller to a guard.
    @param payout The address that the guard named for this channel.
    @param permit A token permit; an empty signature if the ledger already has an allowance.
    @return The channel's id.
    """
    terms: IConsensus.ChannelTerms = staticcall IConsensus(consensus).channel_terms()
    refusal._unless(not terms.paused, "guard_channels: openings are paused")
    refusal._unless(
        payout != empty(address) and deposit > 0 and deposit <= terms.deposit_max,
        "guard_channels: terms",
    )
    count: uint256 = self.guard_count
    self.guard_count = count + 1
    gid: uint256 = convert(
        keccak256(abi_encode(chain.id, self, msg.sender, payout, deposit, count)), uint256
    )
    self._clients[gid] = (
        convert(msg.sender, uint256) | (deposit << 160) | (GUARD_OPEN << 240)
    )
    self._payouts[gid] = (
        convert(payout, uint256) | (terms.price << 192) | (terms.dispute_window << 224)
    )
    log ILedgerEvents.GuardOpened(
        gid=gid,
        client=msg.sender,
        payout=payout,
        deposit=deposit,
        price=terms.price,
        dispute_window=terms.dispute_window,
    )
    vaults._permit(msg.sender, permit)
    vaults._pull(msg.sender, deposit)
    return gid


@external
def claim_guard(
    gid: uint256,
    seq: uint256,
    base: uint256,
    n: uint256,
    hc0: bytes32,
    root: bytes32,
    expiry: uint256,
    k: uint256,
    hc: bytes32,
    path: DynArray[bytes32, hash_chain.MAX_PATH],
    signature: Bytes[65],
):
    """
    @notice Credits the guard for base + k * price, less what was claimed before. A smaller claim
            than the largest one does nothing.
    """
    g: GuardView = self._guard(gid)
    last: uint256 = 0
    if g.state == GUARD_OPEN:
        last = expiry
    elif g.state == GUARD_CLOSING:
        last = g.deadline
    refusal._unless(block.timestamp <= last, "guard_channels: too late")
    authorisation._check(
        authorisation._voucher(gid, seq, base, n, hc0, root, expiry), signature, g.client
    )
    refusal._unless(
        hash_chain._is_length(n) and hash_chain._proves(n, hc0, root, k, hc, path),
        "guard_channels: not on the chain",
    )
    refusal._unless(
        base <= g.deposit and base + k * g.price <= g.deposit,
        "guard_channels: above deposit",
    )
    claimed: uint256 = base + k * g.price
    if claimed <= g.claimed:
        return
    # Shares follow from the cumulated sum, so that splitting a claim changes no rounding.
    to_payout: uint256 = settlement._guard_share(
        claimed, vaults.tax_rate_bp
    ) - settlement._guard_share(g.claimed, vaults.tax_rate_bp)
    tax: uint256 = claimed - g.claimed - to_payout
    self._payouts[gid] = (
        convert(g.payout, uint256)
        | (claimed << 160)
        | (g.price << 192)
        | (g.dispute_window << 224)
    )
    vaults._credit(g.payout, to_payout)
    vaults._credit(vaults.tax_pool, tax)
    log ILedgerEvents.GuardClaimed(gid=gid, claimed=claimed, to_payout=to_payout, tax=tax)


@external
def request_close_guard(gid: uint256):
    """
    @notice The client asks for the remainder; the guard has the dispute window to claim.
    """
    g: GuardView = self._guard(gid)
    refusal._unless(
        msg.sender == g.client and g.state == GUARD_OPEN,
        "guard_channels: not the client's open one",
    )
    deadline: uint256 = block.timestamp + g.dispute_window
    self._clients[gid] = (
        convert(g.client, uint256)
        | (g.deposit << 160)
        | (deadline << 192)
        | (GUARD_CLOSING << 240)
    )
    log ILedgerEvents.GuardCloseRequested(gid=gid, deadline=deadline)


@external
def close_guard(gid: uint256):
    """
    @notice Credits the client with what the guard has not claimed. Anybody may call it.
    """
    g: GuardView = self._guard(gid)
    refusal._unless(
        g.state == GUARD_CLOSING and block.timestamp > g.deadline,
        "guard_channels: too early",
    )
    self._clients[gid] = (
        convert(g.client, uint256)
        | (g.deposit << 160)
        | (g.deadline << 192)
        | (GUARD_CLOSED << 240)
    )
    vaults._credit(g.client, g.deposit - g.claimed)
    log ILedgerEvents.GuardClosed(gid=gid, to_client=g.deposit - g.claimed)


@external
@view
def guard(gid: uint256) -> GuardView:
    """
    @return The guard channel's record; state 0 if there is none, 1 open, 2 closing, 3 closed.
    """
    if self._clients[gid] == 0:
        return empty(GuardView)
    return self._guard(gid)


@internal
@view
def _guard(gid: uint256) -> GuardView:
    head: uint256 = self._clients[gid]
    refusal._unless(head != 0, "guard_channels: no such channel")
    terms: uint256 = self._payouts[gid]
    return GuardView(
        state=head >> 240,
        client=convert(head & _ADDRESS, address),
        payout=convert(terms & _ADDRESS, address),
        deposit=(head >> 160) & _WORD,
        claimed=(terms >> 160) & _WORD,
        price=(terms >> 192) & _WORD,
        dispute_window=terms >> 224,
        deadline=(head >> 192) & (2**48 - 1),
    )
