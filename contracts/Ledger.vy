# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
# pragma nonreentrancy on
# pragma optimize codesize
"""
@title The moneTor ledger
@license GNU Affero General Public License v3.0 only
@notice Opens, funds, disputes and resolves groups of channels between end users and
        intermediaries, and holds everything that backs them. Account means the end user, a
        client or a relay; intermediary the other side of a channel.
@custom:security Invariants are numbered in SECURITY.md. Claims need the end user's own
        transaction or signature, since intermediaries hold the keys that sign tokens; reveal,
        refute and resolve are open to anybody.
"""

from .interfaces import IConsensus
from .interfaces import ILedgerEvents
from .modules import authorisation
from .modules import channel_groups
from .modules import guard_channels
from .modules import hash_chain
from .modules import issuer_keys
from .modules import preimages
from .modules import ps_verifier
from .modules import refusal
from .modules import settlement
from .modules import vaults

initializes: vaults
initializes: issuer_keys
initializes: preimages
initializes: channel_groups
initializes: guard_channels[vaults := vaults]

exports: (
    vaults.deposit_vault,
    vaults.withdraw_vault,
    vaults.withdraw,
    vaults.vault,
    vaults.credit,
    vaults.token,
    vaults.tax_pool,
    vaults.tax_rate_bp,
    issuer_keys.register_key,
    issuer_keys.intermediary,
    issuer_keys.context,
    preimages.reveal,
    preimages.claims,
    channel_groups.group,
    channel_groups.channel,
    guard_channels.open_guard,
    guard_channels.claim_guard,
    guard_channels.request_close_guard,
    guard_channels.close_guard,
    guard_channels.guard,
    guard_channels.consensus,
)

struct NanoClaim:
    cid: uint256
    terms: preimages.NanoTerms
    nwpk: uint256
    b_full: uint256
    rho: uint256
    signature: Bytes[65]
    k: uint256
    hc: bytes32
    path: DynArray[bytes32, hash_chain.MAX_PATH]
    auth: authorisation.Authorisation


MAX_BATCH: constant(uint256) = 16
_MAX_COUNT: constant(uint256) = 256
_TAG_LIMIT: constant(uint256) = 2**248
_BALANCE_LIMIT: constant(uint256) = 2**64
# Kinds of signed tokens, and of a posted refund.
_REFUND: constant(uint256) = 2
_CONDITIONAL: constant(uint256) = 3
_NANO: constant(uint256) = 4

_OPEN: constant(bytes32) = keccak256("open")
_RECLAIM: constant(bytes32) = keccak256("reclaim")
_REFUND_ACTION: constant(bytes32) = keccak256("refund")
_CONDITIONAL_ACTION: constant(bytes32) = keccak256("refund_conditional")
_NANO_ACTION: constant(bytes32) = keccak256("nano_refund")
_CLOSE: constant(bytes32) = keccak256("close")
_NO_ARGUMENTS: constant(bytes32) = keccak256("")


@deploy
def __init__(token: address, consensus: address, tax_pool: address, tax_rate_bp: uint256):
    """
    @param tax_rate_bp Tax rate in basis points, for ever; the one that the authorities' votes
           are checked against.
    """
    refusal._unless(tax_rate_bp <= settlement.BASIS, "ledger: tax rate")
    refusal._unless(
        staticcall IConsensus(consensus).tax_rate_bp() == tax_rate_bp,
        "ledger: tax rate differs from consensus",
    )
    vaults.__init__(token, tax_pool, tax_rate_bp)
    guard_channels.__init__(consensus)


@external
def open(
    key_hash: bytes32,
    account: address,
    role: uint256,
    deposit: uint256,
    fund: uint256,
    count: uint256,
    dispute_window: uint256,
    close_notice: uint256,
    rho_e: bytes32,
    rho_i: bytes32,
    auth: authorisation.Authorisation,
    permit: vaults.Permit,
) -> uint256:
    """
    @notice Init-E: opens a group of `count` channels and takes count * deposit from `account`.
    @param deposit The account's stake in each channel.
    @param fund The intermediary's stake in each channel, which `fund` adds later.
    @param dispute_window The window that the account expects to be pinned, in seconds.
    @param close_notice The notice that it expects to be pinned, in seconds.
    @param permit A token permit; an empty signature if the ledger already has an allowance.
    @return The group's id.
    """
    terms: IConsensus.ChannelTerms = staticcall IConsensus(guard_channels.consensus).channel_terms()
    intermediary: address = empty(address)
    key_index: uint256 = 0
    intermediary, key_index = issuer_keys._owner_of(key_hash)
    refusal._unless(not terms.paused, "ledger: openings are paused")
    refusal._unless(key_index != 0, "ledger: unknown key")
    refusal._unless(
        account != empty(address)
        and (role == settlement.CLIENT or role == settlement.RELAY)
        and max(deposit, fund) <= terms.deposit_max
        and max(deposit, fund) > 0
        and count > 0
        and count <= _MAX_COUNT,
        "ledger: terms",
    )
    # The windows are pinned for life, so the account must know which: a vote may have changed
    # them since it signed.
    refusal._unless(
        dispute_window == terms.dispute_window and close_notice == terms.close_notice,
        "ledger: windows",
    )
    arguments: bytes32 = keccak256(
        abi_encode(
            key_hash,
            account,
            role,
            deposit,
            fund,
            count,
            dispute_window,
            close_notice,
            rho_e,
            rho_i,
        )
    )
    group_id: uint256 = convert(
        keccak256(
            abi_encode(
                issuer_keys._context(key_hash),
                account,
                intermediary,
                role,
                deposit,
                fund,
                count,
                rho_e,
                rho_i,
            )
        ),
        uint256,
    ) >> 16
    refusal._unless(not channel_groups._exists(group_id), "ledger: group exists")
    authorisation._demand(account, _OPEN, group_id, arguments, auth)
    channel_groups._create(
        group_id,
        channel_groups.Group(
            account=account,
            deposit=deposit,
            fund=fund,
            count=count,
            role=role,
            state=channel_groups.HALF_OPEN,
            requested=False,
            pin=0,
            intermediary=intermediary,
            key_index=key_index,
            dispute_window=dispute_window,
            close_notice=close_notice,
        ),
    )
    log ILedgerEvents.Opened(
        group=group_id,
        key_hash=key_hash,
        account=account,
        role=role,
        deposit=deposit,
        fund=fund,
        count=count,
        dispute_window=dispute_window,
        close_notice=close_notice,
    )
    vaults._permit(account, permit)
    vaults._pull(account, count * deposit)
    return group_id


@external
def fund(group_id: uint256):
    """
    @notice Init-I: the intermediary adds exactly the agreed funds from its vault.
    """
    g: channel_groups.Group = channel_groups._group(group_id)
    refusal._unless(msg.sender == g.intermediary, "ledger: intermediary only")
    refusal._unless(g.state == channel_groups.HALF_OPEN, "ledger: not half-open")
    vaults._take(g.intermediary, g.count * g.fund)
    g.state = channel_groups.OPEN
    channel_groups._store_head(group_id, g)
    log ILedgerEvents.Funded(group=group_id)


@external
def reclaim(group_id: uint256, auth: authorisation.Authorisation):
    """
    @notice Returns the deposits of a group that the intermediary has not funded.
    """
    g: channel_groups.Group = channel_groups._group(group_id)
    refusal._unless(g.state == channel_groups.HALF_OPEN, "ledger: not half-open")
    authorisation._demand(g.account, _RECLAIM, group_id, _NO_ARGUMENTS, auth)
    g.state = channel_groups.ENDED
    channel_groups._store_head(group_id, g)
    vaults._credit(g.account, g.count * g.deposit)
    log ILedgerEvents.Reclaimed(group=group_id, amount=g.count * g.deposit)


@external
def refund(
    cid: uint256,
    public_key: Bytes[768],
    wpk: uint256,
    balance: uint256,
    token: Bytes[512],
    auth: authorisation.Authorisation,
):
    """
    @notice Closes a channel at the balance that a refund token states.
    @param token The signature (s1, s2) in EIP-2537 encoding.
    """
    g: channel_groups.Group = self._claimable(cid)
    authorisation._demand(
        g.account,
        _REFUND_ACTION,
        cid,
        keccak256(abi_encode(cid, wpk, balance, keccak256(token))),
        auth,
    )
    self._post_token(g, cid, _REFUND, 0, 0, public_key, wpk, balance, token)


@external
def refund_conditional(
    cid: uint256,
    public_key: Bytes[768],
    wpk: uint256,
    balance: uint256,
    token: Bytes[512],
    wpk_c: uint256,
    t_p: uint256,
    wsk_c: bytes32,
    auth: authorisation.Authorisation,
):
    """
    @notice Closes a payee's channel with a token that the payer's revealed secret makes valid.
    @param wpk_c The payer's lock.
    @param t_p Last second at which the ledger takes the token.
    @param wsk_c The payer's secret, which opens its lock.
    """
    g: channel_groups.Group = self._claimable(cid)
    authorisation._demand(
        g.account,
        _CONDITIONAL_ACTION,
        cid,
        keccak256(abi_encode(cid, wpk, balance, keccak256(token), wpk_c, t_p, wsk_c)),
        auth,
    )
    refusal._unless(block.timestamp <= t_p, "ledger: too late")
    refusal._unless(self._lock_of(wsk_c) == wpk_c, "ledger: wrong secret")
    self._post_token(g, cid, _CONDITIONAL, wpk_c, t_p, public_key, wpk, balance, token)
    log ILedgerEvents.PayerRevealed(cid=cid, lock=wpk_c, secret=wsk_c)


@external
def nano_refund(
    cid: uint256,
    terms: preimages.NanoTerms,
    nwpk: uint256,
    b_full: uint256,
    rho: uint256,
    signature: Bytes[65],
    k: uint256,
    hc: bytes32,
    path: DynArray[bytes32, hash_chain.MAX_PATH],
    auth: authorisation.Authorisation,
):
    """
    @notice Closes a channel that is in a session, at `k` proven payments or more.
    @param nwpk The session's lock.
    @param b_full The balance after all n payments, which the intermediary's commitment hides.
    @param rho The commitment's randomness.
    @param signature The intermediary's signature on the session.
    """
    self._post_session(
        NanoClaim(
            cid=cid,
            terms=terms,
            nwpk=nwpk,
            b_full=b_full,
            rho=rho,
            signature=signature,
            k=k,
            hc=hc,
            path=path,
            auth=auth,
        )
    )


@external
def batch_nano_refund(batch: DynArray[NanoClaim, MAX_BATCH]):
    """
    @notice `nano_refund` for several channels, all or none.
    """
    for i: uint256 in range(len(batch), bound=MAX_BATCH):
        self._post_session(batch[i])


@external
def request_close(cid: uint256):
    """
    @notice The intermediary asks the account to close, and stakes the bond that pays for the
            answer.
    """
    g: channel_groups.Group = channel_groups._live(cid)
    refusal._unless(msg.sender == g.intermediary, "ledger: intermediary only")
    c: channel_groups.Channel = channel_groups._channel(cid)
    refusal._unless(c.status == channel_groups.UNTOUCHED, "ledger: not open")
    terms: IConsensus.ChannelTerms = staticcall IConsensus(guard_channels.consensus).channel_terms()
    vaults._take(g.intermediary, terms.close_bond)
    deadline: uint256 = block.timestamp + g.close_notice
    channel_groups._store_channel(
        cid, channel_groups.REQUESTED, deadline, terms.close_bond, 0
    )
    channel_groups._requests[cid >> 8] |= 1 << (cid & 255)
    if not g.requested:
        g.requested = True
        channel_groups._store_head(cid >> 8, g)
    log ILedgerEvents.CloseRequested(cid=cid, deadline=deadline, bond=terms.close_bond)


@external
def refute(cid: uint256, secret: bytes32):
    """
    @notice Shows that a posted state was revoked: everything goes to the intermediary.
    @param secret The wallet secret behind the posted lock.
    """
    g: channel_groups.Group = channel_groups._live(cid)
    c: channel_groups.Channel = channel_groups._channel(cid)
    refusal._unless(self._is_closing(c.status), "ledger: not closing")
    refusal._unless(block.timestamp <= c.deadline, "ledger: too late")
    refusal._unless(
        convert(keccak256(secret), uint256) & channel_groups.LOCK_MASK == c.lock,
        "ledger: wrong secret",
    )
    channel_groups._mark_resolved(g, cid >> 8, 1 << (cid & 255))
    channel_groups._forget(cid)
    vaults._put(g.intermediary, g.deposit + g.fund)
    log ILedgerEvents.Refuted(cid=cid, secret=secret)


@external
def resolve(cid: uint256):
    """
    @notice Divides a channel's escrow after its deadline.
    """
    g: channel_groups.Group = channel_groups._live(cid)
    c: channel_groups.Channel = channel_groups._channel(cid)
    refusal._unless(c.status != channel_groups.UNTOUCHED, "ledger: not closing")
    refusal._unless(block.timestamp > c.deadline, "ledger: too early")
    to_account: uint256 = 0
    to_intermediary: uint256 = g.deposit + g.fund
    tax: uint256 = 0
    bond: uint256 = 0
    if c.status == channel_groups.REQUESTED:
        # Nobody answered within the notice: the intermediary gets escrow and bond.
        bond = c.balance
        log ILedgerEvents.BondSettled(cid=cid, answered=False, amount=bond)
    else:
        claim: uint256 = c.balance
        if c.status == channel_groups.CLOSING_NANO:
            claim = self._session_claim(g.role, c.balance, channel_groups._sessions[cid])
        to_account, to_intermediary, tax = settlement._divide(
            g.role, g.deposit, g.fund, claim, vaults.tax_rate_bp
        )
    channel_groups._mark_resolved(g, cid >> 8, 1 << (cid & 255))
    channel_groups._forget(cid)
    self._pay(g, to_account, to_intermediary + bond, tax)
    log ILedgerEvents.Resolved(
        cid=cid, to_account=to_account, to_intermediary=to_intermediary, tax=tax
    )


@external
def close(
    group_id: uint256,
    channels: uint256,
    total: uint256,
    signature: Bytes[65],
    auth: authorisation.Authorisation,
):
    """
    @notice Cash-out: both sides agree that the account gets `total` for the covered channels.
    @param channels Bitmap of the covered channels, bit i for index i.
    @param signature The intermediary's signature.
    """
    g: channel_groups.Group = channel_groups._group(group_id)
    authorisation._demand(
        g.account,
        _CLOSE,
        group_id,
        keccak256(abi_encode(group_id, channels, total, keccak256(signature))),
        auth,
    )
    refusal._unless(g.state != channel_groups.HALF_OPEN, "ledger: not funded")
    refusal._unless(
        channels != 0
        and channels & ~channel_groups._all(g.count) == 0
        and not channel_groups._is_resolved(g, group_id, channels),
        "ledger: channels",
    )
    authorisation._check(
        authorisation._close(
            issuer_keys._context_of(g.key_index), group_id, channels, total
        ),
        signature,
        g.intermediary,
    )
    covered: uint256 = g.count
    if channels != channel_groups._all(g.count):
        covered = self._population(channels)
    deposit: uint256 = covered * g.deposit
    fund: uint256 = covered * g.fund
    refusal._unless(
        total <= settlement._cap(g.role, deposit, fund, vaults.tax_rate_bp),
        "ledger: total above the cap",
    )
    to_account: uint256 = 0
    to_intermediary: uint256 = 0
    tax: uint256 = 0
    to_account, to_intermediary, tax = settlement._divide(
        g.role, deposit, fund, total, vaults.tax_rate_bp
    )
    if g.requested:
        self._return_bonds(g, group_id, channels)
    channel_groups._mark_resolved(g, group_id, channels)
    self._pay(g, to_account, to_intermediary, tax)
    log ILedgerEvents.GroupClosed(
        group=group_id,
        channels=channels,
        total=total,
        to_intermediary=to_intermediary,
        tax=tax,
    )


@internal
@view
def _claimable(cid: uint256) -> channel_groups.Group:
    """
    @notice Loads the group of a channel that the account may close now: open, or requested
            with the notice still running.
    """
    g: channel_groups.Group = channel_groups._live(cid)
    c: channel_groups.Channel = channel_groups._channel(cid)
    refusal._unless(
        c.status == channel_groups.UNTOUCHED or (
            c.status == channel_groups.REQUESTED and block.timestamp <= c.deadline
        ),
        "ledger: not open",
    )
    return g


@internal
def _post_token(
    g: channel_groups.Group,
    cid: uint256,
    kind: uint256,
    wpk_c: uint256,
    t_p: uint256,
    public_key: Bytes[768],
    wpk: uint256,
    balance: uint256,
    token: Bytes[512],
):
    """
    @notice Checks a token of the given kind and starts the dispute window.
    """
    refusal._unless(wpk < _TAG_LIMIT and balance < _BALANCE_LIMIT, "ledger: out of range")
    ctx: bytes32 = issuer_keys._context_of(g.key_index)
    digest: bytes32 = keccak256(abi_encode(kind, g.role, ctx))
    if kind == _CONDITIONAL:
        digest = keccak256(abi_encode(kind, g.role, ctx, wpk_c, t_p))
    tag: uint256 = convert(digest, uint256) % _TAG_LIMIT
    refusal._unless(
        issuer_keys._is_key(g.key_index, public_key) and ps_verifier._is_token(
            public_key, tag, cid, wpk, balance, token
        ),
        "ledger: token",
    )
    self._start_closing(
        g,
        cid,
        channel_groups.CLOSING_MICRO,
        kind,
        wpk,
        balance,
        block.timestamp + g.dispute_window,
        empty(bytes32),
    )


@internal
def _post_session(claim: NanoClaim):
    """
    @notice Checks the intermediary's statement on a session, records the preimage and starts
            the dispute window. A client's window opens only when the session has expired, for
            until then the relay may still prove payments.
    """
    terms_hash: bytes32 = keccak256(abi_encode(claim.terms))
    if channel_groups._sessions[claim.cid] == terms_hash:
        # Somebody has submitted the same claim first, perhaps with fewer payments, which the
        # account's authorisation leaves open. What this one proves counts all the same.
        channel_groups._live(claim.cid)
        preimages._record(claim.terms, terms_hash, claim.k, claim.hc, claim.path, False)
        return
    g: channel_groups.Group = self._claimable(claim.cid)
    authorisation._demand(
        g.account,
        _NANO_ACTION,
        claim.cid,
        keccak256(
            abi_encode(
                claim.cid,
                terms_hash,
                claim.nwpk,
                claim.b_full,
                claim.rho,
                keccak256(claim.signature),
            )
        ),
        claim.auth,
    )
    refusal._unless(
        claim.nwpk < _TAG_LIMIT and claim.b_full < _BALANCE_LIMIT and claim.rho < ps_verifier.ORDER,
        "ledger: out of range",
    )
    authorisation._check(
        authorisation._nano_refund(
            issuer_keys._context_of(g.key_index),
            g.role,
            terms_hash,
            claim.nwpk,
            ps_verifier._commitment(claim.cid, claim.b_full, claim.rho),
        ),
        claim.signature,
        g.intermediary,
    )
    preimages._record(claim.terms, terms_hash, claim.k, claim.hc, claim.path, True)
    start: uint256 = block.timestamp
    if g.role == settlement.CLIENT:
        start = max(start, claim.terms.t_exp)
    channel_groups._sessions[claim.cid] = terms_hash
    self._start_closing(
        g,
        claim.cid,
        channel_groups.CLOSING_NANO,
        _NANO,
        claim.nwpk,
        claim.b_full,
        start + g.dispute_window,
        terms_hash,
    )


@internal
def _start_closing(
    g: channel_groups.Group,
    cid: uint256,
    status: uint256,
    kind: uint256,
    lock: uint256,
    balance: uint256,
    deadline: uint256,
    terms_hash: bytes32,
):
    """
    @notice Enters the dispute window; an answered request earns the account the bond.
    """
    if g.requested:
        c: channel_groups.Channel = channel_groups._channel(cid)
        if c.status == channel_groups.REQUESTED:
            vaults._credit(g.account, c.balance)
            log ILedgerEvents.BondSettled(cid=cid, answered=True, amount=c.balance)
    channel_groups._store_channel(cid, status, deadline, balance, lock)
    log ILedgerEvents.RefundPosted(
        cid=cid,
        kind=kind,
        lock=lock,
        balance=balance,
        deadline=deadline,
        terms_hash=terms_hash,
    )


@internal
def _return_bonds(g: channel_groups.Group, group_id: uint256, channels: uint256):
    """
    @notice Gives the intermediary back the bonds of covered channels that nobody answered for.
    """
    requested: uint256 = channels & channel_groups._requests[group_id]
    for index: uint256 in range(g.count, bound=_MAX_COUNT):
        if requested & (1 << index) == 0:
            continue
        cid: uint256 = group_id << 8 | index
        c: channel_groups.Channel = channel_groups._channel(cid)
        if c.status == channel_groups.REQUESTED:
            vaults._put(g.intermediary, c.balance)
            log ILedgerEvents.BondSettled(cid=cid, answered=False, amount=c.balance)


@internal
def _pay(g: channel_groups.Group, to_account: uint256, to_intermediary: uint256, tax: uint256):
    vaults._credit(g.account, to_account)
    vaults._put(g.intermediary, to_intermediary)
    vaults._credit(vaults.tax_pool, tax)


@internal
@view
def _session_claim(role: uint256, saturated: uint256, terms_hash: bytes32) -> uint256:
    """
    @notice What a session's outcome on the registry owes to the account.
    """
    k_c: uint256 = 0
    k_r: uint256 = 0
    n: uint256 = 0
    price: uint256 = 0
    delta_r: uint256 = 0
    k_c, k_r, n, price, delta_r = preimages._outcome(terms_hash)
    k: uint256 = k_c
    if role == settlement.RELAY:
        k = k_r
    return settlement._session_claim(role, saturated, n, k, price, delta_r)


@internal
@pure
def _is_closing(status: uint256) -> bool:
    return status == channel_groups.CLOSING_MICRO or status == channel_groups.CLOSING_NANO


@internal
@pure
def _lock_of(secret: bytes32) -> uint256:
    return convert(keccak256(secret), uint256) % _TAG_LIMIT


@internal
@pure
def _population(bitmap: uint256) -> uint256:
    """
    @return The number of set bits.
    """
    rest: uint256 = bitmap
    count: uint256 = 0
    for i: uint256 in range(_MAX_COUNT):
        if rest == 0:
            break
        rest &= rest - 1
        count += 1
    return count
