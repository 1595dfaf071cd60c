# SPDX-License-Identifier: BSD-3-Clause
"""The command line: which commands there are, and what happens when one fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import typer

from . import (
    audit,
    authority,
    backup,
    bench,
    chain,
    client,
    demo,
    deploy,
    experiment,
    fund,
    gas,
    govern,
    intermediary,
    relay,
    tax,
    testnet,
    verify_deployment,
    version,
    wallet,
    watcher,
)
from .failures import explain

app = typer.Typer(
    name="monetor",
    help="moneTor: pay the relays of an onion-routing network, anonymously and per cell.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

COMMANDS: tuple[tuple[str, Callable[..., Any], str], ...] = (
    ("demo", demo.run, "monetor demo --dispute relay-vanishes"),
    ("chain", chain.run, "monetor chain --speed 4"),
    ("deploy", deploy.run, "monetor deploy --network local --json"),
    (
        "verify-deployment",
        verify_deployment.run,
        "monetor verify-deployment --network local",
    ),
    (
        "fund",
        fund.run,
        "monetor fund intermediary client 0x52908400098527886E0F7030069857D2E4169EE7",
    ),
    ("audit", audit.run, "monetor audit --network local --json"),
    ("authority", authority.run, "monetor authority"),
    ("intermediary", intermediary.run, "monetor intermediary --vault 4000000"),
    ("relay", relay.run, "monetor relay exit --exit"),
    ("client", client.run, "monetor client http://127.0.0.1:8000/file --settle"),
    (
        "watcher",
        watcher.run,
        "monetor watcher --packages .monetor/for-my-watcher",
    ),
    ("backup", backup.backup, "monetor backup .monetor/agents/exit exit.backup"),
    ("restore", backup.restore, "monetor restore exit.backup .monetor/agents/exit"),
    ("wallet", wallet.run, "monetor wallet client --network local --history 50"),
    ("testnet", testnet.run, "monetor testnet --speed 4"),
    ("gas", gas.run, "monetor gas --all --json"),
    ("tax plan", tax.plan, "monetor tax plan relays.csv --policy waterfilling"),
    ("tax publish", tax.publish, "monetor tax publish relays.csv --epoch 29 --total 100000"),
    ("tax verify", tax.verify, "monetor tax verify relays.csv --epoch 29"),
    ("tax claim", tax.claim, "monetor tax claim 28=relays-28.csv 29=relays-29.csv"),
    ("tax show", tax.show, "monetor tax show --epoch 29"),
    ("tax roll-over", tax.roll_over, "monetor tax roll-over 29"),
    ("govern show", govern.show, "monetor govern show --json"),
    ("govern vote", govern.vote, "monetor govern vote price=120 delta_r=100"),
    (
        "govern authorities",
        govern.authorities,
        "monetor govern authorities authority authority2 authority3 --quorum 2",
    ),
    ("govern pause", govern.pause, "monetor govern pause --account authority2"),
    ("govern issue", govern.issue, "monetor govern issue client 1000000"),
    ("bench", bench.run, "monetor bench --json"),
    ("experiment priority", experiment.priority, "monetor experiment priority --quick"),
    ("experiment cells", experiment.cells, "monetor experiment cells --size 16"),
    ("version", version.run, "monetor version --json"),
)
"""Name, function and example of every command, in the order of the help text. A name of two words
is a command of a group."""

GROUPS = {
    "tax": "How collected tax goes back to relays: plan, publish, verify, claim.",
    "experiment": "Measurements that take a while, on networks of their own.",
    "govern": "What the authorities decide: parameters, members, pauses, issues.",
}
_groups = {
    name: typer.Typer(name=name, help=text, no_args_is_help=True) for name, text in GROUPS.items()
}

for _name, _function, _example in COMMANDS:
    _group, _, _command = _name.rpartition(" ")
    _home = _groups[_group] if _group else app
    _home.command(_command, epilog=f"Example: {_example}")(_function)
for _home in _groups.values():
    app.add_typer(_home)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; exit status 1 and one sentence for every expected failure."""
    try:
        app(None if arguments is None else list(arguments), prog_name="monetor")
    except BrokenPipeError:
        # Whoever read the output has gone; Python must not complain of that at its end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        sys.stderr.write(f"monetor: {sentence}\n")
        sys.exit(1)
    sys.exit(0)
