# SPDX-License-Identifier: BSD-3-Clause
"""Where a private key comes from: never from a settings file or a command line.

A source is written ``env:NAME`` (64 hex digits in an environment variable), ``keystore:PATH`` (an
encrypted Ethereum keystore, whose password is in the variable MONETOR_KEYSTORE_PASSWORD) or
``dev:ROLE`` (a public development account).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from .accounts import address_of, dev_key
from .errors import SettingsError

PASSWORD_VARIABLE = "MONETOR_KEYSTORE_PASSWORD"


def load_key(source: str) -> bytes:
    """The 32-byte private key that `source` names.

    Raises `SettingsError`, which never contains what was read.
    """
    kind, _, rest = source.partition(":")
    if kind == "dev" and rest:
        return dev_key(rest)
    if kind == "env" and rest:
        return _valid(_from_environment(rest), source)
    if kind == "keystore" and rest:
        return _valid(_from_keystore(Path(rest)), source)
    raise SettingsError("a key is named env:NAME, keystore:PATH or dev:ROLE")


def _from_environment(name: str) -> bytes:
    text = os.environ.get(name)
    if text is None:
        raise SettingsError(f"the environment variable {name} is not set")
    try:
        return bytes.fromhex(text.strip().removeprefix("0x"))
    except ValueError:
        # Without the cause: its message would quote the key.
        raise SettingsError(f"the environment variable {name} is not hex") from None


def _from_keystore(path: Path) -> bytes:
    # Decrypting needs eth-account, which takes a while to load.
    from eth_account import Account

    password = os.environ.get(PASSWORD_VARIABLE)
    if password is None:
        raise SettingsError(f"the environment variable {PASSWORD_VARIABLE} is not set")
    try:
        return bytes(Account.decrypt(json.loads(path.read_text(encoding="utf-8")), password))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError):
        raise SettingsError(f"{path} is no keystore, or the password is wrong") from None


def _valid(key: bytes, source: str) -> bytes:
    try:
        address_of(key)
    except ValueError:
        raise SettingsError(f"{source} holds no private key of 32 bytes") from None
    return key
