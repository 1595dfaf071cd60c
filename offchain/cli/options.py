# SPDX-License-Identifier: BSD-3-Clause
"""Options that several commands share, so that they are called the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEPLOYMENTS = Path(".monetor/deployments")
"""Where `monetor deploy` records what it deployed, and where the agents read it."""

AGENTS = Path(".monetor/agents")
"""Where agents live that are given no folder; each has a folder of its own below it."""

DIRECTORY_PORT = 9030
"""Where the authority listens unless told otherwise; Tor's customary directory port."""

DIRECTORY = f"http://127.0.0.1:{DIRECTORY_PORT}"

AsJson = Annotated[bool, typer.Option("--json", help="Report as JSON.")]

NetworkName = Annotated[
    str,
    typer.Option(
        "--network",
        envvar="MONETOR_NETWORK",
        help="A network of brownie-config.yaml, or the URL of a JSON-RPC endpoint.",
    ),
]

Deployments = Annotated[
    Path,
    typer.Option(
        "--deployments",
        envvar="MONETOR_DEPLOYMENTS",
        help="Folder with the records of deployed contracts.",
    ),
]

Directory = Annotated[
    str,
    typer.Option("--directory", envvar="MONETOR_DIRECTORY", help="URL of the authority."),
]

Folder = Annotated[
    Path | None,
    typer.Option(help="The agent's own folder: keys and store. [default: .monetor/agents/NAME]"),
]

Account = Annotated[
    str | None,
    typer.Option(
        help="Development account to use, on development chains only. [default: the agent's name]"
    ),
]

Keystore = Annotated[
    Path | None,
    typer.Option(
        help="Encrypted keystore with the account's key; its password is asked for, or taken "
        "from MONETOR_PASSWORD. Without it, the key is MONETOR_PRIVATE_KEY or a development one."
    ),
]

Confirmations = Annotated[
    int,
    typer.Option(
        min=0,
        envvar="MONETOR_CONFIRMATIONS",
        help="Blocks that must follow one before it is believed: more than the chain replaces.",
    ),
]

WatcherFolders = Annotated[
    list[Path] | None,
    typer.Option(
        "--watcher-folder",
        help="Leave packages for a watcher here, its --packages, and renew them; may be repeated.",
    ),
]

Host = Annotated[str, typer.Option(help="Address to listen on.")]

Intermediaries = Annotated[
    list[str] | None,
    typer.Option(
        "--intermediary",
        help="Have channels at this one, by its name or the first digits of its key's hash; may "
        "be repeated. [default: those of the store, else up to three of the directory]",
    ),
]
