# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
# pragma nonreentrancy on
"""
@title The pool of collected tax
@license GNU Affero General Public License v3.0 only
@notice The ledger credits tax to this contract; `collect` pulls it. Per epoch a quorum of the
        authorities publishes one distribution: the Merkle root of who gets how much, with the
        name of the policy and the hash of its inputs, from which anybody can compute the root
        again. Relays claim; what nobody has claimed in time goes back into the pool.
@custom:security A distribution reserves its total out of what the pool holds, so distributions
        never compete for money, and a root that promises more than its total fails its last
        claimants alone. Leaves are hashed twice, so that no inner node passes for one. Claims pay
        the account in the leaf, whoever submits them.
"""

from snekmate.utils import merkle_proof_verification
from .interfaces import IConsensus
from .interfaces import ILedger
from .interfaces import IToken
from .modules import approvals

initializes: approvals

struct Distribution:
    root: bytes32
    total: uint256
    claimed: uint256
    last_epoch: uint256
    policy: String[32]
    inputs_hash: bytes32


struct Claim:
    epoch: uint256
    index: uint256
    amount: uint256
    proof: DynArray[bytes32, MAX_PROOF]


event LedgerSet:
    ledger: indexed(address)


event TaxCollected:
    amount: uint256


event DistributionApproved:
    epoch: indexed(uint256)
    authority: indexed(address)
    root: bytes32


event Distributed:
    epoch: indexed(uint256)
    root: bytes32
    total: uint256
    last_epoch: uint256
    policy: String[32]
    inputs_hash: bytes32


event TaxClaimed:
    epoch: indexed(uint256)
    account: indexed(address)
    index: uint256
    amount: uint256


event RolledOver:
    epoch: indexed(uint256)
    amount: uint256


MAX_PROOF: constant(uint256) = 24
MAX_CLAIMS: constant(uint256) = 64
MAX_CLAIM_EPOCHS: constant(uint256) = 3_660
_AMOUNT: constant(uint256) = 2**96 - 1

token: public(immutable(address))
consensus: public(immutable(address))
claim_epochs: public(immutable(uint256))
_epoch_length: immutable(uint256)
_deployer: immutable(address)

ledger: public(address)
# What published distributions still owe.
reserved: public(uint256)
_roots: HashMap[uint256, bytes32]
# total | claimed << 96 | last epoch << 192; a distribution that was rolled over has claimed = total.
_sums: HashMap[uint256, uint256]
_policies: HashMap[uint256, String[32]]
_inputs: HashMap[uint256, bytes32]
# Epoch -> index // 256 -> bit of each index that was paid.
_paid: HashMap[uint256, HashMap[uint256, uint256]]


@deploy
def __init__(token_: address, consensus_: address, claim_epochs_: uint256):
    """
    @param claim_epochs_ For how many epochs after its publication a distribution can be claimed.
    """
    assert token_.is_contract, "tax_pool: token has no code"
    assert claim_epochs_ > 0 and claim_epochs_ <= MAX_CLAIM_EPOCHS, "tax_pool: claim epochs"
    token = token_
    consensus = consensus_
    claim_epochs = claim_epochs_
    _epoch_length = staticcall IConsensus(consensus_).epoch_length()
    _deployer = msg.sender


@external
def set_ledger(ledger_: address):
    """
    @notice Names the ledger, once and for ever. The ledger is deployed after its pool, so the
            constructor cannot know it.
    """
    assert msg.sender == _deployer, "tax_pool: deployer only"
    assert self.ledger == empty(address), "tax_pool: ledger is set"
    assert ledger_.is_contract, "tax_pool: ledger has no code"
    # A slip would strand the tax for ever.
    assert staticcall ILedger(ledger_).tax_pool() == self, "tax_pool: ledger of another pool"
    self.ledger = ledger_
    log LedgerSet(ledger=ledger_)


@external
def collect() -> uint256:
    """
    @notice Pulls the tax that the ledger has credited. Anybody may call it.
    @return The amount.
    """
    amount: uint256 = extcall ILedger(self.ledger).withdraw()
    log TaxCollected(amount=amount)
    return amount


@external
def distribute(
    epoch: uint256, root: bytes32, total: uint256, policy: String[32], inputs_hash: bytes32
):
    """
    @notice Approves the distribution of an epoch that is over; with the quorum's last approval it
            is published and can be claimed.
    @param root Root of the tree with sorted pairs over keccak256(keccak256(abi_encode(epoch,
           index, account, amount))).
    @param total What is set aside for it, out of what the pool holds and owes to nobody.
    @param policy Published name of the policy.
    @param inputs_hash Hash of what the policy was applied to.
    """
    standing: IConsensus.Standing = staticcall IConsensus(consensus).standing(msg.sender)
    assert epoch < standing.epoch, "tax_pool: the epoch is not over"
    assert self._sums[epoch] == 0, "tax_pool: distributed before"
    assert (
        root != empty(bytes32) and total > 0 and len(policy) > 0
    ), "tax_pool: nothing to distribute"
    assert total <= _AMOUNT, "tax_pool: too much for one distribution"
    decision: bytes32 = keccak256(
        abi_encode("distribution", epoch, root, total, policy, inputs_hash)
    )
    complete: bool = approvals._approve(standing, decision)
    log DistributionApproved(epoch=epoch, authority=msg.sender, root=root)
    if not complete:
        return
    assert total <= self._available(), "tax_pool: more than is available"
    last_epoch: uint256 = standing.epoch + claim_epochs
    self.reserved += total
    self._roots[epoch] = root
    self._sums[epoch] = total | (last_epoch << 192)
    self._policies[epoch] = policy
    self._inputs[epoch] = inputs_hash
    log Distributed(
        epoch=epoch,
        root=root,
        total=total,
        last_epoch=last_epoch,
        policy=policy,
        inputs_hash=inputs_hash,
    )


@external
def claim(account: address, claims: DynArray[Claim, MAX_CLAIMS]) -> uint256:
    """
    @notice Pays `account` its shares of several epochs. Anybody may submit; a share that was paid
            before is passed over, so that nobody can make a claim fail by submitting part of it.
    @return The amount paid.
    """
    amount: uint256 = 0
    for i: uint256 in range(len(claims), bound=MAX_CLAIMS):
        amount += self._take(account, claims[i])
    if amount > 0:
        self.reserved -= amount
        assert extcall IToken(token).transfer(
            account, amount, default_return_value=True
        ), "tax_pool: transfer failed"
    return amount


@external
def roll_over(epoch: uint256) -> uint256:
    """
    @notice Returns what nobody has claimed in time to the pool. Anybody may call it.
    @return The amount that can be distributed again.
    """
    sums: uint256 = self._sums[epoch]
    assert sums != 0, "tax_pool: no such distribution"
    assert self._current() > sums >> 192, "tax_pool: still to be claimed"
    total: uint256 = sums & _AMOUNT
    rest: uint256 = total - ((sums >> 96) & _AMOUNT)
    assert rest > 0, "tax_pool: nothing left"
    self._sums[epoch] = total | (total << 96) | ((sums >> 192) << 192)
    self.reserved -= rest
    log RolledOver(epoch=epoch, amount=rest)
    return rest


@external
@view
def holdings() -> uint256:
    """
    @return Tax held, in units, owed or not.
    """
    return staticcall IToken(token).balanceOf(self)


@external
@view
def available() -> uint256:
    """
    @return Tax held that no distribution has set aside.
    """
    return self._available()


@external
@view
def distribution(epoch: uint256) -> Distribution:
    """
    @return The distribution of `epoch`; total 0 if there is none. `claimed` contains what was
            rolled over.
    """
    sums: uint256 = self._sums[epoch]
    return Distribution(
        root=self._roots[epoch],
        total=sums & _AMOUNT,
        claimed=(sums >> 96) & _AMOUNT,
        last_epoch=sums >> 192,
        policy=self._policies[epoch],
        inputs_hash=self._inputs[epoch],
    )


@external
@view
def is_paid(epoch: uint256, index: uint256) -> bool:
    """
    @return Whether the share with this index was paid.
    """
    return (self._paid[epoch][index >> 8] >> (index & 255)) & 1 == 1


@internal
def _take(account: address, c: Claim) -> uint256:
    """
    @notice Checks one share and marks it as paid.
    @return Its amount, 0 if it was paid before.
    """
    word: uint256 = self._paid[c.epoch][c.index >> 8]
    bit: uint256 = 1 << (c.index & 255)
    if word & bit != 0:
        return 0
    sums: uint256 = self._sums[c.epoch]
    assert sums != 0, "tax_pool: no such distribution"
    assert self._current() <= sums >> 192, "tax_pool: too late"
    leaf: bytes32 = keccak256(keccak256(abi_encode(c.epoch, c.index, account, c.amount)))
    assert merkle_proof_verification._verify(
        c.proof, self._roots[c.epoch], leaf
    ), "tax_pool: not in the distribution"
    claimed: uint256 = ((sums >> 96) & _AMOUNT) + c.amount
    assert claimed <= sums & _AMOUNT, "tax_pool: more than the total"
    self._paid[c.epoch][c.index >> 8] = word | bit
    self._sums[c.epoch] = (sums & _AMOUNT) | (claimed << 96) | ((sums >> 192) << 192)
    log TaxClaimed(epoch=c.epoch, account=account, index=c.index, amount=c.amount)
    return c.amount


@internal
@view
def _available() -> uint256:
    return staticcall IToken(token).balanceOf(self) - self.reserved


@internal
@view
def _current() -> uint256:
    return block.timestamp // _epoch_length
