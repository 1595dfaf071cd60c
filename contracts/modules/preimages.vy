# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
# pragma nonreentrancy on
"""
@title The preimage registry
@license GNU Affero General Public License v3.0 only
@notice Per session terms, the largest number of payments proven: k_c at any time, k_r while the
        terms had not expired. Both legs of a session settle from the same entry, so a relay's
        claim binds the client's leg without a race.
@custom:security A proof that is not above the stored one is skipped, never reverted: otherwise
        whoever submits a larger or equal one first could make somebody else's claim fail.
"""

from ..interfaces import ILedgerEvents
from . import hash_chain
from . import refusal

struct NanoTerms:
    delta_c: int256
    delta_r: uint256
    n: uint256
    hc0: bytes32
    t_exp: uint256
    root: bytes32
    epoch: uint256


_WORD: constant(uint256) = 2**32 - 1
# Leaves room for a window below 2^32 within the 40 bits of a stored deadline.
_TIME_LIMIT: constant(uint256) = 2**39

# k_c | k_r << 32 | n << 64 | price << 96 | delta_r << 128; zero means never seen.
_entries: HashMap[bytes32, uint256]


@external
def reveal(
    terms: NanoTerms, k: uint256, hc: bytes32, path: DynArray[bytes32, hash_chain.MAX_PATH]
):
    """
    @notice Records that `k` payments of a session were made. Anybody may.
    @param hc HC[k].
    @param path Siblings of the checkpoint at or below k, leaf to root; empty for k < 16.
    """
    self._record(terms, keccak256(abi_encode(terms)), k, hc, path, False)


@external
@view
def claims(terms_hash: bytes32) -> (uint256, uint256):
    """
    @return k_c and k_r of a session.
    """
    entry: uint256 = self._entries[terms_hash]
    return entry & _WORD, (entry >> 32) & _WORD


@internal
def _record(
    terms: NanoTerms,
    terms_hash: bytes32,
    k: uint256,
    hc: bytes32,
    path: DynArray[bytes32, hash_chain.MAX_PATH],
    keep: bool,
):
    """
    @notice Raises the registry's entry to `k` if that is more than it holds.
    @param keep Whether to store the terms' numbers even when k adds nothing.
    """
    entry: uint256 = self._entries[terms_hash]
    if entry != 0 and k <= entry & _WORD:
        return
    if k == 0 and not keep:
        return
    refusal._unless(
        (
            hash_chain._is_length(terms.n)
            and terms.delta_c <= 0
            and terms.delta_c >= -convert(_WORD, int256)
            and terms.delta_r <= _WORD
            and terms.t_exp <= _TIME_LIMIT
        ),
        "preimages: terms",
    )
    refusal._unless(
        hash_chain._proves(terms.n, terms.hc0, terms.root, k, hc, path),
        "preimages: not on the chain",
    )
    k_r: uint256 = (entry >> 32) & _WORD
    if block.timestamp <= terms.t_exp:
        k_r = k
    self._entries[terms_hash] = (
        k
        | (k_r << 32)
        | (terms.n << 64)
        | (convert(-terms.delta_c, uint256) << 96)
        | (terms.delta_r << 128)
    )
    if k > 0:
        log ILedgerEvents.Revealed(terms_hash=terms_hash, k_c=k, k_r=k_r, hc=hc, path=path)


@internal
@view
def _outcome(terms_hash: bytes32) -> (uint256, uint256, uint256, uint256, uint256):
    """
    @return k_c, k_r, n, price, delta_r of a recorded session.
    """
    entry: uint256 = self._entries[terms_hash]
    return (
        entry & _WORD,
        (entry >> 32) & _WORD,
        (entry >> 64) & _WORD,
        (entry >> 96) & _WORD,
        entry >> 128,
    )
