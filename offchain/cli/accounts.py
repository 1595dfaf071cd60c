# SPDX-License-Identifier: BSD-3-Clause
"""Which private key a command signs with.

On a chain whose coins are worth something a key comes from an encrypted keystore or from the
environment, never from the command line, which other users of the machine can read.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import typer

from monetor_chain.accounts import dev_address, dev_key

from .failures import UsageProblem

PRIVATE_KEY = "MONETOR_PRIVATE_KEY"
PASSWORD = "MONETOR_PASSWORD"  # noqa: S105 - the name of a variable

DEVELOPMENT_CHAINS = {1337, 29127, 31337}
"""Chain ids of Ganache, of the embedded chain, and of anvil and Hardhat."""

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


def signing_key(
    chain_id: int, account: str, keystore: Path | None = None, variable: str = PRIVATE_KEY
) -> bytes:
    """The 32-byte key: from `keystore`, else from the environment, else the public key of the
    development account called `account`, on development chains only.

    Raises `UsageProblem`.
    """
    if keystore is not None:
        return _from_keystore(keystore)
    given = os.environ.get(variable)
    if given:
        return _parsed(given, variable)
    if chain_id not in DEVELOPMENT_CHAINS:
        raise UsageProblem(
            f"chain {chain_id} is no development chain: give --keystore or set {variable}"
        )
    return dev_key(account)


def address_named(name: str) -> str:
    """The address that a name or address stands for. Raises `UsageProblem`."""
    if name.startswith("0x"):
        if not _ADDRESS.fullmatch(name):
            raise UsageProblem(f"{name} is no address: 0x and 40 hexadecimal digits are expected")
        return name
    return dev_address(name)


def _parsed(text: str, where: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip().removeprefix("0x"))
    except ValueError:
        key = b""
    if len(key) != 32:
        # The text itself may be a key with a slip in it: it is not repeated.
        raise UsageProblem(f"{where} is no private key: 64 hexadecimal digits are expected")
    return key


def _from_keystore(path: Path) -> bytes:
    from eth_account import Account

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageProblem(f"{path} is no keystore: it is not JSON") from error
    password = os.environ.get(PASSWORD)
    if password is None:
        password = typer.prompt(f"Password of {path}", hide_input=True, err=True)
    try:
        return bytes(Account.decrypt(content, password))
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise UsageProblem(f"{path}: wrong password, or no keystore") from error
