# SPDX-License-Identifier: BSD-3-Clause
"""Every rule is needed: without it, some test fails.

Each mutant takes one rule out of a copy of the contracts and must make the named tests fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from monetor_chain.compiler import source_folder

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Mutant:
    """`old`, which occurs exactly once in `source`, becomes `new`."""

    name: str
    source: str
    old: str
    new: str
    tests: str


LEDGER = "Ledger.vy"
GROUPS = "modules/channel_groups.vy"
PREIMAGES = "modules/preimages.vy"
CHAIN = "modules/hash_chain.vy"
PS = "modules/ps_verifier.vy"
SIGNED = "modules/authorisation.vy"
SHARES = "modules/settlement.vy"
VAULTS = "modules/vaults.vy"
GUARD = "modules/guard_channels.vy"
KEYS = "modules/issuer_keys.vy"
VOTES = "Consensus.vy"
QUORUM = "modules/approvals.vy"
POOL = "TaxPool.vy"
TOKEN = "Token.vy"

MUTANTS = (
    Mutant(
        "key registered twice", KEYS,
        'refusal._unless(self._owners[key_hash] == 0, "issuer_keys: already registered")', "pass",
        "registration",
    ),
    Mutant(
        "identity in a key", PS,
        'refusal._unless(keccak256(point) != _IDENTITY_G1, "ps_verifier: identity")', "pass",
        "registration",
    ),
    Mutant(
        "key not checked for the subgroup", PS,
        "        self._multiply(concat(point, convert(1, bytes32)))\n", "", "registration",
    ),
    Mutant(
        "identity in a token", PS,
        "if keccak256(s1) == _IDENTITY_G2:", "if s1 == b\"\":", "tokens",
    ),
    Mutant(
        "scalars not bounded", PS,
        "if max(max(tag, cid), max(wpk, balance)) >= ORDER:", "if False:", "settlement",
    ),
    Mutant(
        "missing precompile taken for success", PS,
        'refusal._unless(len(result) == 128, "ps_verifier: EIP-2537 missing")',
        "pass", "chain_support",
    ),
    Mutant(
        "precompile gets all the gas", PS,
        "_MSM_GAS: constant(uint256) = 60_000", "_MSM_GAS: constant(uint256) = 4_000_000",
        "chain_support",
    ),
    Mutant(
        "any key verifies a refund", LEDGER,
        "issuer_keys._is_key(g.key_index, public_key) and ps_verifier", "ps_verifier", "tokens",
    ),
    Mutant(
        "role not in the tag", LEDGER,
        "digest: bytes32 = keccak256(abi_encode(kind, g.role, ctx))",
        "digest: bytes32 = keccak256(abi_encode(kind, convert(1, uint256), ctx))", "disputes",
    ),
    Mutant(
        "lock and balance not bounded", LEDGER,
        "refusal._unless(wpk < _TAG_LIMIT and balance < _BALANCE_LIMIT,", "refusal._unless(True,",
        "tokens",
    ),
    Mutant(
        "group id reused", LEDGER,
        'refusal._unless(not channel_groups._exists(group_id), "ledger: group exists")',
        "pass", "opening",
    ),
    Mutant(
        "anybody funds", LEDGER,
        """    refusal._unless(msg.sender == g.intermediary, "ledger: intermediary only")
    refusal._unless(g.state""",
        "    refusal._unless(g.state", "opening",
    ),
    Mutant(
        "funded twice", LEDGER,
        """    refusal._unless(g.state == channel_groups.HALF_OPEN, "ledger: not half-open")
    vaults""",
        "    vaults", "opening",
    ),
    Mutant(
        "funds from an empty vault", VAULTS,
        'refusal._unless(balance >= amount, "vaults: vault too small")', "pass", "opening",
    ),
    Mutant(
        "reclaim of a funded group", LEDGER,
        """    refusal._unless(g.state == channel_groups.HALF_OPEN, "ledger: not half-open")
    authorisation""",
        "    authorisation", "opening",
    ),
    Mutant(
        "claims on half-open channels", GROUPS,
        'refusal._unless(g.state != HALF_OPEN, "channel_groups: not funded")', "pass", "opening",
    ),
    Mutant(
        "channels beyond the group", GROUPS,
        'refusal._unless(cid & _BYTE < g.count, "channel_groups: no such channel")',
        "pass", "opening",
    ),
    Mutant(
        "authorisation not demanded", SIGNED,
        "    if msg.sender == account:\n", "    if msg.sender != empty(address):\n",
        "authorisation",
    ),
    Mutant(
        "authorisation never expires", SIGNED,
        'refusal._unless(block.timestamp <= authorisation.not_after, "authorisation: expired")',
        "pass", "authorisation",
    ),
    Mutant(
        "action not signed", SIGNED,
        "_AUTHORISATION_TYPE, action, identifier, arguments,",
        "_AUTHORISATION_TYPE, keccak256(\"refund\"), identifier, arguments,", "authorisation",
    ),
    Mutant(
        "zero address passes for a signer", SIGNED,
        "recovered != empty(address) and recovered == signer,",
        "recovered == empty(address) or recovered == signer,",
        "sessions",
    ),
    Mutant(
        "malleable signatures", SIGNED,
        "if (v == 27 or v == 28) and s <= _HALF_ORDER:", "if v == 27 or v == 28:", "sessions",
    ),
    Mutant(
        "conditional refund after its deadline", LEDGER,
        'refusal._unless(block.timestamp <= t_p, "ledger: too late")', "pass", "conditional",
    ),
    Mutant(
        "conditional refund without the payer's secret", LEDGER,
        'refusal._unless(self._lock_of(wsk_c) == wpk_c, "ledger: wrong secret")',
        "pass", "conditional",
    ),
    Mutant(
        "condition not in the tag", LEDGER,
        "digest = keccak256(abi_encode(kind, g.role, ctx, wpk_c, t_p))", "pass", "conditional",
    ),
    Mutant(
        "second claim while closing", LEDGER,
        """        c.status == channel_groups.UNTOUCHED or (
            c.status == channel_groups.REQUESTED and block.timestamp <= c.deadline
        ),
""",
        "        True,\n", "disputes",
    ),
    Mutant(
        "claim after the notice", LEDGER,
        "c.status == channel_groups.REQUESTED and block.timestamp <= c.deadline",
        "c.status == channel_groups.REQUESTED", "disputes",
    ),
    Mutant(
        "one deadline for notice and dispute", LEDGER,
        "channel_groups._store_channel(cid, status, deadline, balance, lock)",
        """end: uint256 = deadline
    if g.requested:
        old: channel_groups.Channel = channel_groups._channel(cid)
        end = old.deadline
    channel_groups._store_channel(cid, status, end, balance, lock)""",
        "disputes",
    ),
    Mutant(
        "refute after the deadline", LEDGER,
        'refusal._unless(block.timestamp <= c.deadline, "ledger: too late")', "pass", "disputes",
    ),
    Mutant(
        "refute with any secret", LEDGER,
        "        convert(keccak256(secret), uint256) & channel_groups.LOCK_MASK == c.lock,\n",
        "        True,\n", "disputes",
    ),
    Mutant(
        "refute of a request", LEDGER,
        'refusal._unless(self._is_closing(c.status), "ledger: not closing")', "pass", "disputes",
    ),
    Mutant(
        "resolve at the deadline", LEDGER,
        'refusal._unless(block.timestamp > c.deadline, "ledger: too early")',
        'refusal._unless(block.timestamp >= c.deadline, "ledger: too early")', "disputes",
    ),
    Mutant(
        "resolve of an open channel", LEDGER,
        """    refusal._unless(c.status != channel_groups.UNTOUCHED, "ledger: not closing")
    refusal._unless(block""",
        "    refusal._unless(block", "disputes",
    ),
    Mutant(
        "resolved channels live on", GROUPS,
        "        not self._is_resolved(g, group_id, 1 << (cid & _BYTE)),\n", "        True,\n",
        "disputes",
    ),
    Mutant(
        "no delay for the client", LEDGER,
        "start = max(start, claim.terms.t_exp)", "pass", "sessions",
    ),
    Mutant(
        "k_R after T_exp", PREIMAGES,
        "if block.timestamp <= terms.t_exp:", "if True:", "sessions",
    ),
    Mutant(
        "k_R only before the last second", PREIMAGES,
        "if block.timestamp <= terms.t_exp:", "if block.timestamp < terms.t_exp:", "sessions",
    ),
    Mutant(
        "lower k refused", PREIMAGES,
        """    if entry != 0 and k <= entry & _WORD:
        return""",
        """    if entry != 0 and k <= entry & _WORD:
        raise "lower\"""",
        "registry",
    ),
    Mutant(
        "lower k taken", PREIMAGES,
        """    if entry != 0 and k <= entry & _WORD:
        return
""",
        "", "registry",
    ),
    Mutant(
        "proof unchecked", PREIMAGES,
        "        hash_chain._proves(terms.n, terms.hc0, terms.root, k, hc, path),\n",
        "        True,\n", "registry",
    ),
    Mutant("k above n", CHAIN, "    if k > n:\n        return False\n", "", "registry"),
    Mutant(
        "checkpoint without position", CHAIN,
        "        if position & 1 == 0:\n",
        "        if convert(node, uint256) < convert(sibling, uint256):\n", "registry",
    ),
    Mutant(
        "leaf without index", CHAIN,
        "convert(convert(checkpoint, uint32), bytes4)", "convert(convert(16, uint32), bytes4)",
        "registry",
    ),
    Mutant(
        "path of any length", CHAIN,
        "    if n // STRIDE != 1 << len(path):\n        return False\n", "", "registry",
    ),
    Mutant(
        "path below the first checkpoint", CHAIN,
        "return len(path) == 0 and node == hc0", "return node == hc0", "registry",
    ),
    Mutant(
        "a copied claim fails the claim",
        LEDGER,
        "if channel_groups._sessions[claim.cid] == terms_hash:",
        "if False:",
        "authorisation",
    ),
    Mutant(
        "a repeated claim proves nothing",
        LEDGER,
        "terms_hash, claim.k, claim.hc, claim.path, False)",
        "terms_hash, 0, claim.hc, claim.path, False)",
        "authorisation",
    ),
    Mutant(
        "terms not bounded", PREIMAGES, "and terms.t_exp <= _TIME_LIMIT", "", "sessions"
    ),
    Mutant(
        "role not in a session's statement", LEDGER,
        """            issuer_keys._context_of(g.key_index),
            g.role,
            terms_hash,""",
        """            issuer_keys._context_of(g.key_index),
            convert(2, uint256),
            terms_hash,""",
        "sessions",
    ),
    Mutant(
        "lock not bound to a session", SIGNED,
        "abi_encode(_NANO_REFUND_TYPE, ctx, role, terms_hash, nwpk, commitment)",
        "abi_encode(_NANO_REFUND_TYPE, ctx, role, terms_hash, convert(7, uint256), commitment)",
        "sessions",
    ),
    Mutant(
        "client settles at k_R", LEDGER,
        "    k: uint256 = k_c\n", "    k: uint256 = k_r\n", "sessions",
    ),
    Mutant(
        "relay settles at k_C", LEDGER,
        "    if role == settlement.RELAY:\n        k = k_r\n", "", "sessions",
    ),
    Mutant(
        "session numbers of two ranges", LEDGER,
        " and claim.rho < ps_verifier.ORDER,", ",", "sessions",
    ),
    Mutant(
        "close over resolved channels", LEDGER,
        "        and not channel_groups._is_resolved(g, group_id, channels),\n",
        "        and True,\n", "cash_out",
    ),
    Mutant(
        "close over foreign channels", LEDGER,
        "        and channels & ~channel_groups._all(g.count) == 0\n", "", "cash_out",
    ),
    Mutant(
        "total not bounded", LEDGER,
        "        total <= settlement._cap(g.role, deposit, fund, vaults.tax_rate_bp),\n",
        "        True,\n", "cash_out",
    ),
    Mutant(
        "close without I's signature", LEDGER,
        "        signature,\n        g.intermediary,\n    )\n    covered",
        "        auth.signature,\n        g.account,\n    )\n    covered", "cash_out",
    ),
    Mutant(
        "bonds forgotten at a close", LEDGER,
        "        self._return_bonds(g, group_id, channels)\n", "        pass\n", "cash_out",
    ),
    Mutant(
        "bonds of all channels at a close", LEDGER,
        "channels & channel_groups._requests[group_id]", "channel_groups._requests[group_id]",
        "cash_out",
    ),
    Mutant(
        "bonds looked for in every channel", LEDGER,
        "channels & channel_groups._requests[group_id]", "channels", "audit",
    ),
    Mutant(
        "anybody requests a close", LEDGER,
        """    refusal._unless(msg.sender == g.intermediary, "ledger: intermediary only")
    c:""",
        "    c:", "disputes",
    ),
    Mutant(
        "request without a bond", LEDGER,
        "    vaults._take(g.intermediary, terms.close_bond)\n", "", "disputes",
    ),
    Mutant(
        "bond not paid for an answer", LEDGER,
        "            vaults._credit(g.account, c.balance)\n", "            pass\n", "disputes",
    ),
    Mutant(
        "tax rounded up", SHARES,
        "tax = (to_account - deposit) * rate // BASIS",
        "tax = ((to_account - deposit) * rate + BASIS - 1) // BASIS", "settlement",
    ),
    Mutant(
        "tax on the principal", SHARES,
        "tax = (to_account - deposit) * rate // BASIS", "tax = to_account * rate // BASIS",
        "disputes",
    ),
    Mutant(
        "no room for the tax", SHARES,
        "return deposit + fund * BASIS // (BASIS + rate)", "return deposit + fund", "settlement",
    ),
    Mutant(
        "credit paid twice", VAULTS, "    self.credit[msg.sender] = 0\n", "", "money",
    ),
    Mutant(
        "fee of the token ignored", VAULTS,
        'refusal._unless(after >= before + amount, "vaults: token kept a fee")', "pass", "money",
    ),
    Mutant(
        "false of the token ignored", VAULTS,
        "transferFrom(owner, self, amount, default_return_value=True),",
        "transferFrom(owner, self, amount, default_return_value=True) or True,",
        "money",
    ),
    Mutant("no lock", VAULTS, "# pragma nonreentrancy on\n", "", "money"),
    Mutant(
        "a used permit blocks", VAULTS,
        "        revert_on_failure=False,\n    )\n",
        "        revert_on_failure=False,\n    )\n    assert success\n", "opening",
    ),
    Mutant(
        "guard claims above the deposit", GUARD,
        "base <= g.deposit and base + k * g.price <= g.deposit,", "True,", "guard",
    ),
    Mutant(
        "guard claims not monotone", GUARD,
        "    if claimed <= g.claimed:\n        return\n", "", "guard",
    ),
    Mutant(
        "guard claims at any time", GUARD,
        'refusal._unless(block.timestamp <= last, "guard_channels: too late")', "pass", "guard",
    ),
    Mutant(
        "guard closes at once", GUARD,
        "g.state == GUARD_CLOSING and block.timestamp > g.deadline", "g.state == GUARD_CLOSING",
        "guard",
    ),
    Mutant(
        "anybody requests a guard's close", GUARD,
        "msg.sender == g.client and g.state == GUARD_OPEN", "g.state == GUARD_OPEN", "guard",
    ),
    Mutant(
        "guard shares per claim", GUARD,
        """    to_payout: uint256 = settlement._guard_share(
        claimed, vaults.tax_rate_bp
    ) - settlement._guard_share(g.claimed, vaults.tax_rate_bp)
""",
        """    to_payout: uint256 = settlement._guard_share(claimed - g.claimed, vaults.tax_rate_bp)
""",
        "guard",
    ),
    Mutant(
        "window follows the vote", LEDGER,
        "        block.timestamp + g.dispute_window,\n",
        """        block.timestamp
        + (staticcall IConsensus(guard_channels.consensus).channel_terms()).dispute_window,
""",
        "consensus",
    ),
    Mutant(
        "votes at once", VOTES,
        "    if word >> _SINCE > self._current():\n        word = self._sets[last - 1][0]\n", "",
        "consensus",
    ),
    Mutant(
        "medians not checked", VOTES,
        "problem = self._problem(medians, epoch_length, tax_rate_bp)", 'problem = ""', "consensus",
    ),
    Mutant("no quorum", VOTES, "votes < quorum and not pending", "False", "audit"),
    Mutant("no quorum for what was agreed", VOTES, "if votes >= quorum:", "if True:", "audit"),
    Mutant(
        "agreed sets outlive their members", VOTES,
        "        self._tally(self._current() + 1)\n", "", "audit",
    ),
    Mutant(
        "lower of two middle votes", VOTES,
        "max(low, min(high, self._lane(in_force, lane)))", "sorted[(len(sorted) - 1) // 2]",
        "audit",
    ),
    Mutant(
        "anybody votes", VOTES,
        'assert self._seats[self.set_number][msg.sender] != 0, "consensus: authorities only"',
        "pass",
        "consensus",
    ),
    Mutant(
        "withdrawn set stays", VOTES,
        "        if pending:\n            self._head -= 1\n", "", "consensus",
    ),
    Mutant(
        "silent authorities do not count", VOTES,
        "            ballot = in_force\n        else:\n            votes += 1\n",
        "            continue\n        votes += 1\n", "consensus",
    ),
    Mutant(
        "authorities changed by half", VOTES,
        "assert quorum_ * 2 > len(members) and", "assert quorum_ * 2 >= len(members) and",
        "consensus",
    ),
    Mutant(
        "one seat twice", VOTES,
        "member != empty(address) and self._seats[number][member] == 0",
        "member != empty(address)", "consensus",
    ),
    Mutant(
        "one approval decides", QUORUM, "return count == standing.quorum", "return True",
        "consensus",
    ),
    Mutant(
        "approvals counted twice", QUORUM,
        'refusal._unless(approved & mine == 0, "approvals: approved before")', "pass", "consensus",
    ),
    Mutant(
        "anybody approves", QUORUM,
        'refusal._unless(standing.seat != 0, "approvals: authorities only")\n',
        "if standing.seat == 0:\n        return True\n", "consensus",
    ),
    Mutant(
        "approvals outlive their set", QUORUM,
        "abi_encode(standing.set_number, standing.epoch, decision)",
        "abi_encode(convert(0, uint256), standing.epoch, decision)", "consensus",
    ),
    Mutant(
        "approvals outlive their epoch", QUORUM,
        "abi_encode(standing.set_number, standing.epoch, decision)",
        "abi_encode(standing.set_number, decision)", "consensus",
    ),
    Mutant(
        "pauses share their ballots", VOTES,
        'abi_encode("pause", paused_, self._pause_count)', 'abi_encode("pause", paused_)',
        "consensus",
    ),
    Mutant(
        "openings go on in a pause", LEDGER,
        'refusal._unless(not terms.paused, "ledger: openings are paused")', "pass", "consensus",
    ),
    Mutant(
        "guard openings go on in a pause", GUARD,
        'refusal._unless(not terms.paused, "guard_channels: openings are paused")', "pass",
        "consensus",
    ),
    Mutant(
        "windows without the account's consent", LEDGER,
        "dispute_window == terms.dispute_window and close_notice == terms.close_notice,",
        "True,", "opening",
    ),
    Mutant(
        "issues repeated", TOKEN,
        'assert number == self.issue_count, "token: not the next issue"', "pass", "token",
    ),
    Mutant("issues by one", TOKEN, "    if complete:\n", "    if True:\n", "token"),
    Mutant(
        "totals beyond their place", POOL,
        'assert total <= _AMOUNT, "tax_pool: too much for one distribution"', "pass", "audit",
    ),
    Mutant(
        "distribution of a running epoch", POOL,
        'assert epoch < standing.epoch, "tax_pool: the epoch is not over"', "pass", "tax_pool",
    ),
    Mutant(
        "a ledger that pays another pool", POOL,
        'assert staticcall ILedger(ledger_).tax_pool() == self, "tax_pool: ledger of another pool"',
        "pass", "tax_pool",
    ),
    Mutant(
        "distributed twice", POOL,
        'assert self._sums[epoch] == 0, "tax_pool: distributed before"', "pass", "tax_pool",
    ),
    Mutant(
        "more than is available", POOL,
        'assert total <= self._available(), "tax_pool: more than is available"', "pass",
        "tax_pool",
    ),
    Mutant(
        "inputs not approved", POOL,
        'abi_encode("distribution", epoch, root, total, policy, inputs_hash)',
        'abi_encode("distribution", epoch, root, total, policy)', "tax_pool",
    ),
    Mutant(
        "shares paid twice", POOL, "    if word & bit != 0:\n        return 0\n", "", "tax_pool"
    ),
    Mutant(
        "account not in the leaf", POOL,
        "abi_encode(c.epoch, c.index, account, c.amount)",
        "abi_encode(c.epoch, c.index, c.amount)", "tax_pool",
    ),
    Mutant(
        "proof of a share unchecked", POOL,
        "    assert merkle_proof_verification._verify(\n"
        "        c.proof, self._roots[c.epoch], leaf\n    ),",
        "    assert leaf != empty(bytes32),", "tax_pool",
    ),
    Mutant(
        "claims beyond the total", POOL,
        'assert claimed <= sums & _AMOUNT, "tax_pool: more than the total"', "pass", "tax_pool",
    ),
    Mutant(
        "claims after the last epoch", POOL,
        'assert self._current() <= sums >> 192, "tax_pool: too late"', "pass", "tax_pool",
    ),
    Mutant(
        "rolled over too early", POOL,
        'assert self._current() > sums >> 192, "tax_pool: still to be claimed"', "pass",
        "tax_pool",
    ),
    Mutant(
        "rolled over twice", POOL,
        "    self._sums[epoch] = total | (total << 96) | ((sums >> 192) << 192)\n", "",
        "tax_pool",
    ),
    Mutant(
        "tax rate of its own", LEDGER,
        "        staticcall IConsensus(consensus).tax_rate_bp() == tax_rate_bp,\n",
        "        True,\n", "consensus",
    ),
)  # fmt: skip


@pytest.mark.in_process
@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_without_the_rule_a_test_fails(mutant: Mutant, tmp_path: Path) -> None:
    root = source_folder()
    assert root is not None
    copy = tmp_path / "contracts"
    shutil.copytree(root, copy)
    path = copy / mutant.source
    text = path.read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1, "the mutant no longer fits the source"
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, str(FOLDER / f"test_{mutant.tests}.py")],
        env={**os.environ, "MONETOR_CONTRACTS": str(copy), "MONETOR_CACHE": str(tmp_path)},
        cwd=FOLDER.parent.parent,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 1, result.stdout[-2_000:]
    # A mutant that does not compile or deploy would prove nothing.
    assert "CompilationFailed" not in result.stdout
    assert "FAILED" in result.stdout
