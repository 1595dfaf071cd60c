# SPDX-License-Identifier: BSD-3-Clause
"""Tax from the pool to relays, by the commands that authorities and relays use."""

from __future__ import annotations

import asyncio
import json

import pytest

from monetor_chain.accounts import dev_address
from monetor_chain.bindings.token import Token
from monetor_chain.chain import Chain
from monetor_chain.deployment import attach
from monetor_chain.faucet import fund

from .test_chain_commands import chain, monetor
from .test_govern import start_of_epoch

assert chain  # the fixture
AUTHORITIES = ("authority", "authority2", "authority3")
TAX = 10_000
HEADER = "fingerprint,account,bandwidth,guard,exit,location\n"


def relay_list(**bandwidths):
    rows = [
        f"{index:040X},{dev_address(name)},{bandwidth},1,1,10.{index}"
        for index, (name, bandwidth) in enumerate(bandwidths.items())
    ]
    return HEADER + "\n".join(rows) + "\n"


@pytest.fixture(scope="module")
def place(chain, tmp_path_factory):
    """A network whose pool holds 10,000 units, and the relay list of an epoch."""
    folder = tmp_path_factory.mktemp("tax")
    voters = [option for name in AUTHORITIES for option in ("--authority", name)]
    done = monetor("deploy", "--network", chain["rpc"], *voters, "--claim-epochs", "2", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "relays.csv").write_text(relay_list(exit=600, middle=300, guard=100))

    async def give():
        async with await Chain.connect(chain["rpc"]) as connection:
            deployment = await attach(connection, folder / ".monetor" / "deployments")
            await fund(connection, deployment, deployment.tax_pool, wei=0, tokens=TAX)

    asyncio.run(give())
    return folder


@pytest.fixture
def say(chain, place):
    def run(*arguments, fails=False):
        done = monetor("tax", *arguments, "--network", chain["rpc"], "--json", cwd=place)
        assert (done.returncode != 0) == fails, done.stderr + done.stdout
        if fails and done.stderr:
            assert done.stderr.count("\n") == 1
            return done.stderr
        return json.loads(done.stdout)

    return run


def balance(chain, place, name):
    async def look():
        async with await Chain.connect(chain["rpc"]) as connection:
            deployment = await attach(connection, place / ".monetor" / "deployments")
            return await Token(connection, deployment.token).balance_of(dev_address(name))

    return asyncio.run(look())


def test_tax_reaches_the_relays(chain, place, say):
    start_of_epoch(chain)
    planned = say("plan", "relays.csv")
    assert planned["total"] == TAX
    assert planned["entries"] == {
        dev_address("exit").lower(): 6_000,
        dev_address("middle").lower(): 3_000,
        dev_address("guard").lower(): 1_000,
    }
    epoch = planned["epoch"]
    terms = ("--epoch", str(epoch), "--total", str(TAX))
    assert "is published" in say("verify", "relays.csv", "--epoch", str(epoch), fails=True)
    assert say("publish", "relays.csv", *terms)["published"] is False
    second = say("publish", "relays.csv", *terms, "--account", "authority2")
    assert second["published"] is True
    assert second["root"] == planned["root"]
    assert "distributed before" in say("publish", "relays.csv", *terms, fails=True)

    checked = say("verify", "relays.csv", "--epoch", str(epoch))
    assert checked["verified"] and checked["computed_root"] == planned["root"]
    (place / "other.csv").write_text(relay_list(exit=600, middle=300, guard=101))
    other = say("verify", "other.csv", "--epoch", str(epoch), fails=True)
    assert other["verified"] is False and other["computed_root"] != other["published_root"]

    claim = ("claim", f"{epoch}=relays.csv")
    assert say(*claim)["claimed"] == 6_000
    assert balance(chain, place, "exit") == 6_000
    assert say(*claim) == {
        "account": dev_address("exit"), "claimed": 0, "epochs": [], "paid_before": 1,
    }  # fmt: skip
    assert say(*claim, "--for", "middle", "--account", "watcher")["claimed"] == 3_000
    assert balance(chain, place, "middle") == 3_000
    assert "has no share" in say(*claim, "--for", "client", fails=True)
    said = say("claim", f"{epoch}=other.csv", fails=True)
    assert "is not the one that its distribution was computed from" in said

    assert "still to be claimed" in say("roll-over", str(epoch), fails=True)
    for _ in range(3):
        start_of_epoch(chain)
    assert say("roll-over", str(epoch))["rolled_over"] == 1_000
    shown = say("show", "--epoch", str(epoch))
    assert (shown["available"], shown["reserved"], shown["claimed"]) == (1_000, 0, TAX)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n", "line 1"),
        (HEADER + "zz,,1,0,0,10.1\n", "column fingerprint"),
        (relay_list(exit=0), "pays none"),
        (b"\xff\xfe", "not UTF-8"),
    ],
    ids=["header", "fingerprint", "nobody", "bytes"],
)
def test_bad_lists_are_refused_in_one_sentence(place, say, text, says):
    bad = place / "bad.csv"
    bad.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = say("plan", "bad.csv", "--epoch", "1", "--total", "5", fails=True)
    assert says in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("plan", "nowhere.csv"), "nowhere.csv"),
        (("plan", "relays.csv", "--policy", "favourites"), "no policy 'favourites'"),
        (("claim", "relays.csv"), "EPOCH=RELAYS"),
        (("claim", "1=relays.csv"), "no distribution of epoch 1"),
        (("roll-over", "1"), "no such distribution"),
        (("publish", "relays.csv", "--account", "client"), "authorities only"),
    ],
    ids=str,
)
def test_refusals_are_one_sentence(say, arguments, says):
    assert says in say(*arguments, fails=True)


