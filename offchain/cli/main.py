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
    bench,
    chain,
    client,
    demo,
    deploy,
    fund,
    gas,
    intermediary,
    relay,
    testnet,
    version,
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
        "fund",
        fund.run,
        "monetor fund intermediary client 0x52908400098527886E0F7030069857D2E4169EE7",
    ),
    ("audit", audit.run, "monetor audit --network local --json"),
    ("authority", authority.run, "monetor authority"),
    ("intermediary", intermediary.run, "monetor intermediary --vault 4000000"),
    ("relay", relay.run, "monetor relay exit --exit"),
    ("client", client.run, "monetor client http://127.0.0.1:8000/file --settle"),
    ("testnet", testnet.run, "monetor testnet --speed 4"),
    ("gas", gas.run, "monetor gas --json"),
    ("bench", bench.run, "monetor bench --json"),
    ("version", version.run, "monetor version --json"),
)
"""Name, function and example of every command, in the order of the help text."""

for _name, _function, _example in COMMANDS:
    app.command(_name, epilog=f"Example: {_example}")(_function)


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
