# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
# pragma nonreentrancy on
"""
@title Intermediaries' registered keys
@license GNU Affero General Public License v3.0 only
@notice A key is registered once, by the account whose vault backs it, and never changes. A
        rotation is another registration, used by new channels only.
"""

from ..interfaces import ILedgerEvents
from . import ps_verifier
from . import refusal

# Registered keys have the indices 1, 2, ...; 0 means none. They are stored in 32 bits elsewhere,
# which nobody can pay to exhaust.
key_count: public(uint256)
_owners: HashMap[bytes32, uint256]  # key hash -> owner | index << 160
_hashes: HashMap[uint256, bytes32]  # index -> key hash
_digests: HashMap[uint256, bytes32]  # index -> keccak256 of the encoded X, Y0..Y4


@external
def register_key(public_key: Bytes[768], rest_hash: bytes32) -> bytes32:
    """
    @notice Registers X, Y0..Y4 for the caller.
    @param public_key The six points in EIP-2537 encoding.
    @param rest_hash keccak256 of the part of the key that only users need.
    @return The key hash, keccak256(keccak256(public_key) || rest_hash).
    """
    ps_verifier._check_key(public_key)
    digest: bytes32 = keccak256(public_key)
    key_hash: bytes32 = keccak256(concat(digest, rest_hash))
    refusal._unless(self._owners[key_hash] == 0, "issuer_keys: already registered")
    index: uint256 = self.key_count + 1
    self.key_count = index
    self._owners[key_hash] = convert(msg.sender, uint256) | (index << 160)
    self._hashes[index] = key_hash
    self._digests[index] = digest
    log ILedgerEvents.KeyRegistered(key_hash=key_hash, owner=msg.sender, index=index)
    return key_hash


@external
@view
def intermediary(key_hash: bytes32) -> address:
    """
    @return The account that registered the key, the zero address if nobody did.
    """
    return self._owner_of(key_hash)[0]


@external
@view
def context(key_hash: bytes32) -> bytes32:
    """
    @return ctx, which every token and signed statement under the key contains.
    """
    return self._context(key_hash)


@internal
@view
def _owner_of(key_hash: bytes32) -> (address, uint256):
    """
    @return Owner and index of a key, both zero if it is not registered.
    """
    entry: uint256 = self._owners[key_hash]
    return convert(entry & convert(max_value(uint160), uint256), address), entry >> 160


@internal
@view
def _context(key_hash: bytes32) -> bytes32:
    return keccak256(abi_encode(chain.id, self, key_hash))


@internal
@view
def _context_of(index: uint256) -> bytes32:
    return self._context(self._hashes[index])


@internal
@view
def _is_key(index: uint256, public_key: Bytes[768]) -> bool:
    """
    @notice Whether `public_key` is the encoding registered under `index`.
    """
    return keccak256(public_key) == self._digests[index]
