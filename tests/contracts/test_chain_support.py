# SPDX-License-Identifier: BSD-3-Clause
"""What the contracts demand of the chain, and what they weigh."""

from __future__ import annotations

import pytest
from eth.vm.forks.cancun import CancunVM
from eth_tester import EthereumTester, PyEVMBackend
from web3 import EthereumTesterProvider, Web3

from monetor_chain.compiler import CONTRACTS, compile_contract
from monetor_chain.rehearsal import Rehearsal, TokenIssuer
from monetor_chain.rehearsal_chain import CALL_REVERTED, InProcessChain
from monetor_chain.statements import Role

from .actions import CLOSING_MICRO, open_channel, post_refund, post_session, status
from .conftest import take_native_away
from .mocks import compiled

CODE_LIMIT = 24_576
"""EIP-170."""


@pytest.mark.parametrize("name", CONTRACTS)
def test_deployed_code_size(stage: Rehearsal, name: str) -> None:
    """Immutables included, as they are on the chain."""
    contract = {
        "Token": stage.token,
        "Consensus": stage.consensus,
        "TaxPool": stage.pool,
        "Ledger": stage.ledger,
    }[name]
    assert 0 < len(stage.w3.eth.get_code(contract.address)) <= CODE_LIMIT
    assert compile_contract(name).bytecode


@pytest.mark.parametrize(("size", "fits"), [(CODE_LIMIT, True), (CODE_LIMIT + 1, False)])
def test_the_code_limit_is_the_main_networks(stage: Rehearsal, size: int, fits: bool) -> None:
    """A constructor that returns `size` zero bytes."""
    push_size_push_0_return = bytes([0x61, *size.to_bytes(2, "big"), 0x5F, 0xF3])
    contract = stage.deploy_code([], push_size_push_0_return)
    assert (contract.address is not None) == fits


@pytest.mark.in_process
def test_a_chain_without_bls_precompiles_verifies_nothing() -> None:
    """Invariant L22: there a call to the precompile succeeds and returns nothing at all."""
    backend = PyEVMBackend(vm_configuration=((0, CancunVM),))
    w3 = Web3(EthereumTesterProvider(EthereumTester(backend=backend)))
    abi, bytecode = compiled("Arithmetic")
    sender = w3.eth.accounts[0]
    sent = w3.eth.contract(abi=abi, bytecode=bytecode).constructor().transact({"from": sender})
    address = w3.eth.wait_for_transaction_receipt(sent)["contractAddress"]
    functions = w3.eth.contract(address=address, abi=abi).functions
    issuer = TokenIssuer(1)
    token = issuer.sign(1, 2, 3, 4)
    with pytest.raises(CALL_REVERTED, match="ps_verifier: EIP-2537 missing"):
        functions.is_token(issuer.public_key, 1, 2, 3, 4, token).call({"gas": 5_000_000})
    with pytest.raises(CALL_REVERTED, match="ps_verifier: EIP-2537 missing"):
        functions.commitment(1, 2, 3).call({"gas": 5_000_000})


def test_a_failing_precompile_burns_a_bounded_amount(stage: Rehearsal) -> None:
    """Invariant L22: the precompile takes all the gas it was given, so it is given little."""
    key = bytearray(TokenIssuer(3).public_key)
    key[-1] ^= 1
    call = stage.ledger.functions.register_key(bytes(key), bytes(32))
    fields = {"from": stage.party("stranger").address, "gas": 5_000_000}
    receipt = stage.chain.transact(call, fields)
    assert not receipt["status"] and receipt["gasUsed"] < 250_000


@pytest.mark.in_process
def test_the_same_on_py_evms_own_precompiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native precompiles serve the other tests; here a refund and a session run without them."""
    take_native_away(monkeypatch)
    stage = Rehearsal(chain=InProcessChain("pure"))
    cid = open_channel(stage, Role.CLIENT, 2)
    post_refund(stage, Role.CLIENT, cid, 1_000, stage.secret())
    assert status(stage, cid) == CLOSING_MICRO
    post_session(stage, Role.CLIENT, cid + 1, stage.terms(), 1_000, 3)
