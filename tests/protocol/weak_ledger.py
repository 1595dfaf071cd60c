# SPDX-License-Identifier: BSD-3-Clause
"""A copy of the ledger with a switch for each rule that a test leaves out, one at a time.

It is made out of the contracts' text when a test needs it; the product has no such switch. With
every switch off it behaves as the ledger does.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from monetor_chain.compiler import compile_contract, source_folder
from monetor_chain.rehearsal import Rehearsal
from offchain.crypto.issuer import IssuerKey
from tests.protocol.board import Board, furnish

(NO_T_EXP, NO_CLIENT_DELAY, NO_POSITION, ONE_DEADLINE, CLOSE_RESOLVED, SESSION_TAX, OWN_CLOSE,
 NWPK_UNBOUND, REGISTERED_TWICE) = range(1, 10)

LEDGER, PREIMAGES, KEYS = "Ledger.vy", "modules/preimages.vy", "modules/issuer_keys.vy"

EDITS: tuple[tuple[str, str, str], ...] = (
    (PREIMAGES, "_entries: HashMap[bytes32, uint256]\n",
     """_entries: HashMap[bytes32, uint256]
weak: uint256


@external
def weaken(rule: uint256):
    self.weak = rule


@internal
@pure
def _unplaced(
    root: bytes32, k: uint256, hc: bytes32, path: DynArray[bytes32, hash_chain.MAX_PATH]
) -> bool:
    node: bytes32 = hc
    for i: uint256 in range(k & 15, bound=16):
        node = keccak256(node)
    node = keccak256(concat(b"leaf", convert(convert(16, uint32), bytes4), node))
    for sibling: bytes32 in path:
        if convert(node, uint256) < convert(sibling, uint256):
            node = keccak256(concat(node, sibling))
        else:
            node = keccak256(concat(sibling, node))
    return node == root
"""),
    (PREIMAGES, "        hash_chain._proves(terms.n, terms.hc0, terms.root, k, hc, path),\n",
     f"""        hash_chain._proves(terms.n, terms.hc0, terms.root, k, hc, path)
        or (self.weak == {NO_POSITION} and self._unplaced(terms.root, k, hc, path)),
"""),
    (PREIMAGES, "    if block.timestamp <= terms.t_exp:\n",
     f"    if block.timestamp <= terms.t_exp or self.weak == {NO_T_EXP}:\n"),
    (LEDGER, "    if g.role == settlement.CLIENT:\n        start =",
     f"    if g.role == settlement.CLIENT and preimages.weak != {NO_CLIENT_DELAY}:\n"
     "        start ="),
    (LEDGER, "    channel_groups._store_channel(cid, status, deadline, balance, lock)\n",
     f"""    end: uint256 = deadline
    if g.requested and preimages.weak == {ONE_DEADLINE}:
        end = (channel_groups._channel(cid)).deadline
    channel_groups._store_channel(cid, status, end, balance, lock)
"""),
    (LEDGER, "        and not channel_groups._is_resolved(g, group_id, channels),\n",
     f"        and (preimages.weak == {CLOSE_RESOLVED}\n"
     "        or not channel_groups._is_resolved(g, group_id, channels)),\n"),
    (LEDGER, """            g.role, g.deposit, g.fund, claim, vaults.tax_rate_bp
        )
    channel_groups._mark""",
     f"""            g.role,
            g.deposit,
            g.fund,
            claim,
            2_000 if preimages.weak == {SESSION_TAX} else vaults.tax_rate_bp,
        )
    channel_groups._mark"""),
    (LEDGER, """    authorisation._demand(
        g.account,
        _REFUND_ACTION,
        cid,
        keccak256(abi_encode(cid, wpk, balance, keccak256(token))),
        auth,
    )
""",
     f"""    if preimages.weak != {OWN_CLOSE} or msg.sender != g.intermediary:
        authorisation._demand(
            g.account,
            _REFUND_ACTION,
            cid,
            keccak256(abi_encode(cid, wpk, balance, keccak256(token))),
            auth,
        )
"""),
    (LEDGER, """            terms_hash,
            claim.nwpk,
            ps_verifier""",
     f"""            terms_hash,
            7 if preimages.weak == {NWPK_UNBOUND} else claim.nwpk,
            ps_verifier"""),
    (LEDGER, "    preimages.reveal,\n", "    preimages.reveal,\n    preimages.weaken,\n"),
    (LEDGER, "    issuer_keys.register_key,\n",
     "    issuer_keys.register_key,\n    issuer_keys.weaken_keys,\n"),
    (KEYS, "key_count: public(uint256)\n",
     """key_count: public(uint256)
_twice: bool


@external
def weaken_keys(twice: bool):
    self._twice = twice


"""),
    (KEYS, "refusal._unless(self._owners[key_hash] == 0,",
     "refusal._unless(self._twice or self._owners[key_hash] == 0,"),
)


class WeakRehearsal(Rehearsal):
    """A rehearsal whose ledger has the switches."""

    sources: Path

    def deploy(self, name: str, *arguments: object) -> Any:
        if name != "Ledger":
            return super().deploy(name, *arguments)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MONETOR_CONTRACTS", str(self.sources))
            artifact = compile_contract(name)
        return self.deploy_code(artifact.abi, artifact.bytecode, *arguments)


def write_sources(folder: Path) -> Path:
    """The contracts with their switches."""
    root = source_folder()
    assert root is not None
    copy = folder / "contracts"
    shutil.copytree(root, copy)
    for source, old, new in EDITS:
        path = copy / source
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{source} has changed: {old!r}"
        path.write_text(text.replace(old, new), encoding="utf-8")
    return copy


def open_weak_board(folder: Path) -> Board:
    """A board on the ledger with switches."""
    stage = type("Stage", (WeakRehearsal,), {"sources": write_sources(folder)})()
    return furnish(Board(stage, IssuerKey.generate()), 2)


def weaken(board: Board, rule: int) -> None:
    """Leave one rule out."""
    on, deployer = board.stage.ledger.functions, board.stage.party("deployer")
    call = on.weaken_keys(True) if rule == REGISTERED_TWICE else on.weaken(rule)
    board.stage.send(call, deployer)
    board.now = board.stage.now()
