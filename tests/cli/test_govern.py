# SPDX-License-Identifier: BSD-3-Clause
"""Authorities at work from the command line, and a deployment checked by a stranger."""

from __future__ import annotations

import asyncio
import json

import pytest

from monetor_chain.accounts import dev_address
from monetor_chain.chain import Chain

from .test_chain_commands import chain, monetor

assert chain  # the fixture
AUTHORITIES = ("authority", "authority2", "authority3")


@pytest.fixture(scope="module")
def place(chain, tmp_path_factory):
    """A folder with a network of three authorities whose token they issue."""
    folder = tmp_path_factory.mktemp("govern")
    voters = [option for name in AUTHORITIES for option in ("--authority", name)]
    done = monetor("deploy", "--network", chain["rpc"], "--issued", *voters, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def say(chain, place):
    """Runs one command against the network; what it reports, or its refusal."""

    def run(*arguments, fails=False):
        done = monetor(*arguments, "--network", chain["rpc"], "--json", cwd=place)
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else json.loads(done.stdout)

    return run


def start_of_epoch(chain):
    """Approvals count within one epoch only: begin one."""

    async def wait():
        async with await Chain.connect(chain["rpc"]) as connection:
            now = (await connection.latest()).timestamp
            await connection.increase_time(60 - now % 60 + 1)

    asyncio.run(wait())


def test_a_vote_takes_a_quorum(chain, say):
    start_of_epoch(chain)
    before = say("govern", "show")
    assert before["authorities"] == [dev_address(name) for name in AUTHORITIES]
    assert say("govern", "vote", "price=120", "pay_fee=7")["next_epoch_changes"] == {}
    after = say("govern", "vote", "price=120", "pay_fee=7", "--account", "authority3")
    assert after["next_epoch_changes"] == {"price": 120, "pay_fee": 7}
    assert after["price"] == before["price"] == 100
    start_of_epoch(chain)
    assert say("govern", "show")["price"] == 120


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("vote", "price=90"), "the fee price - delta_r - tax must be positive"),
        (("vote", "prize=120"), "no parameter is called prize"),
        (("vote", "price=-5"), "NAME=VALUE"),
        (("vote", "price=120", "--account", "client"), "authorities only"),
        (("pause", "--account", "client"), "authorities only"),
        (("issue", "0x12", "5"), "no address"),
    ],
    ids=str,
)
def test_refusals_are_one_sentence(say, arguments, says):
    said = say("govern", *arguments, fails=True)
    assert says in said and said.count("\n") == 1


def test_pausing_and_going_on(chain, say):
    start_of_epoch(chain)
    assert say("govern", "pause")["openings_paused"] is False
    assert say("govern", "pause", "--account", "authority2")["openings_paused"] is True
    say("govern", "pause", "--end")
    assert say("govern", "pause", "--end", "--account", "authority3")["openings_paused"] is False


def test_issuing(chain, say):
    start_of_epoch(chain)
    assert say("govern", "issue", "client", "500")["balance"] == 0
    assert say("govern", "issue", "client", "500", "--account", "authority2") == {
        "receiver": dev_address("client"), "balance": 500, "total_supply": 500,
    }  # fmt: skip


def test_changing_the_authorities(chain, say):
    start_of_epoch(chain)
    twice = ("authorities", "authority", "authority")
    say("govern", *twice)
    # The set is judged by the approval that completes the quorum.
    assert "consensus: authority" in say("govern", *twice, "--account", "authority2", fails=True)
    new = ("authority", "authority2", "authority4")
    say("govern", "authorities", *new)
    after = say("govern", "authorities", *new, "--account", "authority2")
    assert after["authorities"] == [dev_address(name) for name in new] and after["quorum"] == 2


def test_a_stranger_checks_the_deployment(say, chain, place):
    checks = say("verify-deployment")
    assert len(checks) > 10 and all(check["holds"] for check in checks)
    record = place / ".monetor" / "deployments" / f"{chain['chain_id']}.json"
    original = record.read_text()
    content = json.loads(original)
    content["steps"]["Ledger"]["code_hash"] = "00" * 32
    try:
        record.write_text(json.dumps(content))
        done = monetor("verify-deployment", "--network", chain["rpc"], cwd=place)
        assert done.returncode == 1 and "FAILS  Ledger: code as recorded" in done.stdout
    finally:
        record.write_text(original)
