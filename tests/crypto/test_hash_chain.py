# SPDX-License-Identifier: BSD-3-Clause
"""Nobody counts a payment that is not proved."""

from __future__ import annotations

import secrets
import time

import pytest
from hypothesis import given, settings, strategies as st

from monetor_chain.statements import checkpoint_leaf, checkpoint_node, keccak256
from offchain.crypto.errors import CryptoError
from offchain.crypto.hash_chain import HashChain, path_length, verify_checkpoint, verify_claim

CHAIN = HashChain.generate(128)


def _claim(chain: HashChain, k: int, hc: bytes, path: tuple[bytes, ...]) -> bool:
    return verify_claim(n=chain.n, hc0=chain.hc0, root=chain.root, k=k, hc=hc, path=path)


@pytest.mark.parametrize("n", [32, 64, 1024])
def test_every_payment_can_be_claimed(n: int) -> None:
    chain = HashChain.generate(n)
    for k in range(n + 1):
        assert _claim(chain, k, chain.value(k), chain.path(k))


def test_the_longest_chain() -> None:
    chain = HashChain.generate(2**18)
    for k in (1, 15, 16, 2**17 + 5, 2**18):
        assert _claim(chain, k, chain.value(k), chain.path(k))
    assert len(chain.path(2**18)) == path_length(2**18) == 14


def test_the_seed_is_the_whole_chain() -> None:
    again = HashChain(CHAIN.n, CHAIN.seed)
    assert (again.hc0, again.root) == (CHAIN.hc0, CHAIN.root)
    assert again.value(77) == CHAIN.value(77)
    assert keccak256(CHAIN.value(78)) == CHAIN.value(77)


def test_the_root_by_hand() -> None:
    chain = HashChain.generate(32)
    leaves = [checkpoint_leaf(16, chain.value(16)), checkpoint_leaf(32, chain.value(32))]
    assert chain.root == checkpoint_node(*leaves)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 128), st.integers(0, 128))
def test_a_value_proves_its_own_count_only(k: int, other: int) -> None:
    # In particular no relay claims n with HC[16] and the path of another position.
    for path in (CHAIN.path(k), CHAIN.path(other)):
        accepted = _claim(CHAIN, k, CHAIN.value(other), path)
        proves = k == 0 or (k == other)
        assert accepted == (proves and (k == 0 or path == CHAIN.path(k)))


def test_no_checkpoint_passes_at_another_position() -> None:
    for index in range(16, 129, 16):
        for claimed in range(16, 129, 16):
            for path_of in range(16, 129, 16):
                accepted = verify_checkpoint(
                    n=128,
                    root=CHAIN.root,
                    index=claimed,
                    value=CHAIN.value(index),
                    path=CHAIN.path(path_of),
                )
                assert accepted == (index == claimed == path_of)


def test_a_shorter_or_longer_path_is_refused() -> None:
    good = CHAIN.path(32)
    # The parent of a checkpoint pair must not pass as a leaf of a shallower tree.
    parent = checkpoint_node(
        checkpoint_leaf(16, CHAIN.value(16)), checkpoint_leaf(32, CHAIN.value(32))
    )
    assert not _claim(CHAIN, 32, CHAIN.value(32), good[:-1])
    assert not _claim(CHAIN, 32, CHAIN.value(32), (*good, bytes(32)))
    assert not _claim(CHAIN, 32, CHAIN.value(32), ())
    assert not _claim(CHAIN, 16, parent, good[1:])
    assert not _claim(CHAIN, 32, CHAIN.value(32), (good[0][:-1], *good[1:]))


def test_a_root_of_another_depth_is_refused() -> None:
    # A payer may publish any root. The ledger wants log2(n / 16) siblings, so a relay that took
    # the path of a deeper tree would have counted payments that it cannot claim.
    deeper = HashChain.generate(64)
    assert deeper.path(16)
    for n in (32, 128):
        assert not verify_checkpoint(
            n=n, root=deeper.root, index=16, value=deeper.value(16), path=deeper.path(16)
        )


def test_counts_outside_the_chain_are_refused() -> None:
    top, path = CHAIN.value(128), CHAIN.path(128)
    deeper = secrets.token_bytes(32)
    for k in (-1, 129, 144, 256):
        assert not _claim(CHAIN, k, top, path)
        assert not _claim(CHAIN, k, deeper, path)


def test_no_path_below_the_first_checkpoint() -> None:
    assert _claim(CHAIN, 15, CHAIN.value(15), ())
    assert not _claim(CHAIN, 15, CHAIN.value(15), CHAIN.path(16))
    assert not _claim(CHAIN, 15, CHAIN.value(15)[:-1], ())


def test_zero_needs_no_preimage() -> None:
    assert _claim(CHAIN, 0, b"", ())
    assert _claim(CHAIN, 0, bytes(32), CHAIN.path(16))


@pytest.mark.parametrize("n", [0, 1, 16, 31, 33, 48, 2**19])
def test_lengths_that_are_no_power_of_two_in_range(n: int) -> None:
    with pytest.raises(CryptoError, match="n:"):
        HashChain(n, bytes(32))


def test_misuse_is_refused() -> None:
    with pytest.raises(CryptoError, match="seed"):
        HashChain(32, bytes(31))
    for k in (-1, 129):
        with pytest.raises(CryptoError):
            CHAIN.value(k)
        with pytest.raises(CryptoError):
            CHAIN.path(k)


def test_the_seed_is_not_shown() -> None:
    assert CHAIN.seed.hex() not in repr(CHAIN)
    assert repr(CHAIN.seed) not in repr(CHAIN)


def test_accepting_a_payment_is_one_hash() -> None:
    # A relay accepts at least 400,000 a second; a tenth of it here, for loaded machines.
    start = time.perf_counter()
    last = CHAIN.value(0)
    for _ in range(100):
        last = CHAIN.value(0)
        for k in range(1, 129):
            value = CHAIN.value(k)
            assert keccak256(value) == last
            last = value
    assert time.perf_counter() - start < 12_800 / 40_000
