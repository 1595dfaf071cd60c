# SPDX-License-Identifier: BSD-3-Clause
"""The tree of a distribution against the rule written out, and against snekmate's own module."""

from __future__ import annotations

from math import ceil, log2

import pytest
from eth_abi import encode
from eth_tester import EthereumTester, PyEVMBackend
from eth_utils import keccak
from hypothesis import HealthCheck, assume, given, settings, strategies as st
from web3 import EthereumTesterProvider, Web3

from monetor_chain.precompiles import prague_vm
from monetor_chain.tax_tree import TaxTree, leaf, node, verify
from tests.contracts.mocks import compiled

RELAXED = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TOP = 2**256 - 1

addresses = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
numbers = st.one_of(st.integers(0, 5), st.integers(0, TOP))
entry_lists = st.lists(st.tuples(addresses, numbers), min_size=1, max_size=40)


def written_leaf(epoch, index, account, amount):
    """The contract's expression, through another encoder and another keccak."""
    words = encode(["uint256", "uint256", "address", "uint256"], [epoch, index, account, amount])
    return keccak(keccak(words))


def walk(proof, start):
    """snekmate: `a` first only if it is the smaller number."""
    computed = start
    for other in proof:
        first = int.from_bytes(computed) < int.from_bytes(other)
        computed = keccak(computed + other if first else other + computed)
    return computed


@RELAXED
@given(numbers, entry_lists)
def test_every_entry_is_proved(epoch, entries):
    tree = TaxTree(epoch, entries)
    assert len(tree) == len(entries)
    for index, (account, amount) in enumerate(entries):
        proof = tree.proof(index)
        assert walk(proof, written_leaf(epoch, index, account, amount)) == tree.root
        assert verify(tree.root, proof, epoch, index, account, amount)
        assert len(proof) <= ceil(log2(len(entries)))


@RELAXED
@given(numbers, entry_lists, st.data())
def test_nothing_else_is_proved(epoch, entries, data):
    """Another epoch, index, account or amount fails, with the entry's proof and any other."""
    tree = TaxTree(epoch, entries)
    index = data.draw(st.integers(0, len(entries) - 1), label="index")
    account, amount = entries[index]
    claim = (
        data.draw(st.one_of(st.just(epoch), numbers), label="epoch"),
        data.draw(st.one_of(st.just(index), st.integers(0, 50)), label="index"),
        data.draw(st.one_of(st.just(account), addresses), label="account"),
        data.draw(st.one_of(st.just(amount), numbers), label="amount"),
    )
    true = claim[0] == epoch and claim[1] < len(entries) and claim[2:] == entries[claim[1]]
    assume(not true)
    for proof in (tree.proof(index), tree.proof(data.draw(st.integers(0, len(entries) - 1))), ()):
        assert walk(proof, written_leaf(*claim)) != tree.root
        assert not verify(tree.root, proof, *claim)


@RELAXED
@given(entry_lists, st.data())
def test_a_proof_of_another_entry_or_a_changed_one_fails(entries, data):
    tree = TaxTree(3, entries)
    index = data.draw(st.integers(0, len(entries) - 1))
    proof = list(tree.proof(index))
    if proof:
        assert not verify(tree.root, proof[:-1], 3, index, *entries[index])
        at = data.draw(st.integers(0, len(proof) - 1))
        proof[at] = bytes([proof[at][0] ^ 1]) + proof[at][1:]
    else:
        proof = [bytes(32)]
    assert not verify(tree.root, proof, 3, index, *entries[index])


def test_the_shape_for_three_entries():
    """An odd node moves up unhashed; a pair is hashed with the smaller child first."""
    entries = [("0x" + "11" * 20, 1), ("0x" + "22" * 20, 2), ("0x" + "33" * 20, 3)]
    one, two, three = (written_leaf(9, i, *entry) for i, entry in enumerate(entries))
    pair = keccak(min(one, two) + max(one, two))
    tree = TaxTree(9, entries)
    assert tree.root == keccak(min(pair, three) + max(pair, three))
    assert tree.proof(2) == (pair,)
    assert tree.proof(0) == (two, three)


def test_one_entry_is_its_own_root():
    tree = TaxTree(1, [("0x" + "11" * 20, 5)])
    assert tree.root == written_leaf(1, 0, "0x" + "11" * 20, 5)
    assert tree.proof(0) == ()


def test_a_node_is_no_leaf():
    """A leaf hashes 32 bytes that are a hash themselves, a node 64: neither is the other."""
    account = "0x" + "11" * 20
    once = keccak(encode(["uint256"] * 2 + ["address", "uint256"], [0, 0, account, 0]))
    assert leaf(0, 0, account, 0) == keccak(once) != once
    assert node(b"\1" * 32, b"\2" * 32) == node(b"\2" * 32, b"\1" * 32)
    assert node(b"\1" * 32, b"\2" * 32) == keccak(b"\1" * 32 + b"\2" * 32)


@pytest.mark.parametrize(
    "arguments",
    [(-1, 0, 1), (0, -1, 1), (0, 0, -1), (2**256, 0, 1), (0, 2**256, 1), (0, 0, 2**256)],
)
def test_numbers_outside_a_word_are_refused(arguments):
    """A negative amount would encode as a huge one."""
    epoch, index, amount = arguments
    with pytest.raises(ValueError, match="no uint256"):
        leaf(epoch, index, "0x" + "11" * 20, amount)


def test_bad_calls_are_refused():
    with pytest.raises(ValueError, match="at least one entry"):
        TaxTree(1, [])
    with pytest.raises(ValueError, match="20 bytes"):
        TaxTree(1, [("0x1234", 1)])
    tree = TaxTree(1, [("0x" + "11" * 20, 5)] * 3)
    for index in (-1, 3):
        with pytest.raises(IndexError, match="3 entries"):
            tree.proof(index)


# --- snekmate -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def snekmate():
    """A contract that does nothing but call snekmate's module, on a chain in this process."""
    backend = PyEVMBackend(vm_configuration=((0, prague_vm("native")),))
    w3 = Web3(EthereumTesterProvider(EthereumTester(backend=backend)))
    abi, bytecode = compiled("MerkleProof")
    sent = w3.eth.contract(abi=abi, bytecode=bytecode).constructor().transact()
    address = w3.eth.wait_for_transaction_receipt(sent)["contractAddress"]
    return w3.eth.contract(address=address, abi=abi)


def checksummed(account):
    return Web3.to_checksum_address(account)


@settings(RELAXED, max_examples=10)
@given(numbers, st.lists(st.tuples(addresses, numbers), min_size=1, max_size=9))
def test_snekmate_accepts_every_proof_and_no_other_claim(snekmate, epoch, entries):
    stranger = "0x" + "ab" * 20
    assume(stranger not in dict(entries))
    tree = TaxTree(epoch, entries)
    for index, (account, amount) in enumerate(entries):
        claim = (epoch, index, checksummed(account), amount)
        assert snekmate.functions.leaf(*claim).call() == leaf(epoch, index, account, amount)
        proof = tree.proof(index)
        assert snekmate.functions.verify(tree.root, proof, *claim).call()
        for wrong in (
            (epoch ^ 1, *claim[1:]),
            (epoch, len(entries) + index, *claim[2:]),
            (*claim[:2], checksummed(stranger), amount),
            (*claim[:3], amount ^ 1),
        ):
            assert not snekmate.functions.verify(tree.root, proof, *wrong).call()


def test_snekmate_accepts_a_large_distribution(snekmate):
    entries = [(keccak(i.to_bytes(2))[:20], i) for i in range(1_001)]
    tree = TaxTree(4, entries)
    for index in (0, 1, 511, 512, 999, 1_000):
        account, amount = entries[index]
        proof = tree.proof(index)
        assert len(proof) <= 10
        claim = (4, index, checksummed(account), amount)
        assert snekmate.functions.verify(tree.root, proof, *claim).call()
