# SPDX-License-Identifier: BSD-3-Clause
"""reveal: the preimage registry and its hash-chain predicate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from monetor_chain import statements
from monetor_chain.rehearsal import Rehearsal, payment_chain, words

from .actions import claims, refused, reveal


def _reveal(stage: Rehearsal, terms, k: int, hc: bytes, path: list[bytes]):
    return stage.send(
        stage.ledger.functions.reveal(words(terms), k, hc, path), stage.party("watcher")
    )


@pytest.mark.parametrize("n", [32, 128, 1024])
def test_every_kind_of_position(stage: Rehearsal, n: int) -> None:
    """Invariant L12: the ledger accepts exactly the chain's own proofs, at every position."""
    terms = stage.terms(n)
    for k in sorted({1, 2, 15, 16, 17, 31, 32, n // 2 + 7, n - 1, n}):
        reveal(stage, terms, k)
        assert claims(stage, terms) == (k, k)


def test_longest_chain(stage: Rehearsal) -> None:
    """Invariant L26: 2^18 payments are proven by 15 hashes and 14 siblings."""
    terms = stage.terms(2**18)
    assert len(payment_chain(terms.n).path(terms.n - 1)) == 14
    assert reveal(stage, terms, terms.n - 1)["gasUsed"] < 80_000


def test_event_lets_others_reuse_the_proof(stage: Rehearsal) -> None:
    terms = stage.terms()
    k, hc, path = payment_chain(terms.n).proof(50)
    event = stage.events(_reveal(stage, terms, k, hc, path), "Revealed")[0]
    assert event == {"terms_hash": terms.hash(), "k_c": k, "k_r": k, "hc": hc, "path": path}


def test_lower_or_equal_is_skipped_never_refused(stage: Rehearsal) -> None:
    """Invariant L12: also with a false proof and after T_exp, and nothing changes."""
    terms = stage.terms()
    reveal(stage, terms, 50)
    for k in (0, 1, 49, 50):
        receipt = _reveal(stage, terms, k, b"x" * 32, [b"y" * 32])
        assert stage.events(receipt, "Revealed") == []
    stage.travel(terms.t_exp + 1)
    reveal(stage, terms, 50)
    assert claims(stage, terms) == (50, 50)


def test_zero_is_no_information(stage: Rehearsal) -> None:
    terms = stage.terms()
    receipt = _reveal(stage, terms, 0, bytes(32), [])
    assert receipt["logs"] == [] and claims(stage, terms) == (0, 0)


def test_a_checkpoint_proves_its_own_position_only(stage: Rehearsal) -> None:
    """Invariant L12: in a tree of sorted pairs HC[16] would prove n payments."""
    terms, chain = stage.terms(), payment_chain(128)
    for k in (32, 48, 128):
        with refused("preimages: not on the chain"):
            _reveal(stage, terms, k, chain.values[16], chain.path(16))
    with refused("preimages: not on the chain"):
        _reveal(stage, terms, 128, chain.values[128], chain.path(16))


def test_sorted_pairs_are_not_accepted(stage: Rehearsal) -> None:
    """Invariant L12: siblings are ordered by position, so a root over sorted pairs does not fit
    where the two orders differ."""
    chain = payment_chain(32)
    left = statements.checkpoint_leaf(16, chain.values[16])
    right = statements.checkpoint_leaf(32, chain.values[32])
    swapped = replace(stage.terms(32), root=statements.checkpoint_node(right, left))
    for k, sibling in ((16, right), (32, left)):
        with refused("preimages: not on the chain"):
            _reveal(stage, swapped, k, chain.values[k], [sibling])


@pytest.mark.parametrize("k", [1, 15])
def test_below_the_first_checkpoint_the_path_is_empty(stage: Rehearsal, k: int) -> None:
    """Invariant L12: one predicate for everybody, so no second form of the same proof."""
    terms, chain = stage.terms(), payment_chain(128)
    with refused("preimages: not on the chain"):
        _reveal(stage, terms, k, chain.values[k], chain.path(16))


@pytest.mark.parametrize("k", [16, 100])
def test_path_length_is_fixed(stage: Rehearsal, k: int) -> None:
    """Invariant L12: an inner node must not pass for a leaf nor a leaf for an inner node."""
    terms, chain = stage.terms(), payment_chain(128)
    path = chain.path(k)
    for wrong in (path[:-1], [*path, bytes(32)], []):
        with refused("preimages: not on the chain"):
            _reveal(stage, terms, k, chain.values[k], wrong)


def test_a_deeper_tree_is_not_accepted(stage: Rehearsal) -> None:
    """Invariant L12: the depth follows from n, whatever tree the root belongs to."""
    long = payment_chain(256)
    terms = replace(stage.terms(256), n=128)
    for k in (16, 100):
        with refused("preimages: not on the chain"):
            _reveal(stage, terms, *long.proof(k))


def test_wrong_preimage_and_wrong_k(stage: Rehearsal) -> None:
    terms, chain = stage.terms(), payment_chain(128)
    for k, value in ((5, chain.values[6]), (5, chain.values[4]), (20, chain.values[21])):
        with refused("preimages: not on the chain"):
            _reveal(stage, terms, k, value, chain.path(k))
    for k in (129, 144, 2**32, 2**256 - 1):
        with refused("preimages: not on the chain"):
            _reveal(stage, terms, k, chain.values[128], chain.path(128))


@pytest.mark.parametrize(
    "changes",
    [{"delta_c": -99}, {"delta_r": 85}, {"epoch": 1}, {"t_exp": 10**9 * 3}, {"n": 64}],
    ids=str,
)
def test_entries_belong_to_exact_terms(stage: Rehearsal, changes: dict[str, int]) -> None:
    """Invariant L12: proofs for other terms leave a session's entry alone."""
    terms = stage.terms()
    other = replace(terms, **changes)
    assert other.hash() != terms.hash()
    _reveal(stage, other, *payment_chain(128).proof(3))
    assert claims(stage, terms) == (0, 0)
    assert claims(stage, other)[0] == 3
