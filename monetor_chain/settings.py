# SPDX-License-Identifier: BSD-3-Clause
"""Settings of the contracts and chains, read from brownie-config.yaml.

The file has Brownie's form and holds only keys that Brownie accepts or ignores, but the program
that reads it is this one. Under `networks` every entry with a host is a chain one can name on the
command line. `networks.default` is not used, because Brownie knows none of our networks and fails
on it: the default is the embedded chain. `${NAME}` and `${NAME:-fallback}` in a host are
replaced from the environment, so that an endpoint's access key need not stand in the file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import SettingsError

FILE_NAME = "brownie-config.yaml"
DEFAULT_NETWORK = "embedded"

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class CompilerSettings:
    """How contracts are compiled.

    `optimize` is Vyper's optimisation mode; empty, each source's own pragma decides.
    """

    version: str = "0.4.3"
    evm_version: str = "prague"
    optimize: str = ""


@dataclass(frozen=True, slots=True)
class Network:
    """A chain to connect to. `chain_id` is None if the file does not pin it."""

    name: str
    host: str
    chain_id: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The parts of the file that this project uses."""

    compiler: CompilerSettings
    networks: tuple[Network, ...]

    @classmethod
    def load(cls, path: Path | str | None = None) -> Settings:
        """Read the settings file; without `path`, the one in the working folder or beside the code.

        Without any file the built-in settings apply. Raises `SettingsError`, naming the key, for a
        file that cannot be read or has a wrong type somewhere.
        """
        source = Path(path) if path is not None else _find()
        if source is None:
            return cls(CompilerSettings(), (Network(DEFAULT_NETWORK, "http://127.0.0.1:8546"),))
        try:
            document = yaml.safe_load(source.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SettingsError(f"cannot read {source}: {error}") from error
        root = _mapping(document or {}, str(source))
        return cls(_compiler(root), _networks(root))

    def network(self, name: str = DEFAULT_NETWORK) -> Network:
        """The network called `name`; raises `SettingsError` listing the known ones."""
        for network in self.networks:
            if network.name == name:
                return network
        known = ", ".join(network.name for network in self.networks) or "none"
        raise SettingsError(f"no network {name!r} in the settings; known: {known}")


def _find() -> Path | None:
    beside = Path(__file__).resolve().parent.parent / FILE_NAME
    for candidate in (Path.cwd() / FILE_NAME, beside):
        if candidate.is_file():
            return candidate
    return None


def _mapping(value: object, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError(f"{key}: expected a mapping")
    return value


def _text(mapping: dict[str, Any], key: str, where: str, default: str) -> str:
    value = mapping.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise SettingsError(f"{where}.{key}: expected text")
    return value


def _compiler(root: dict[str, Any]) -> CompilerSettings:
    section = _mapping(root.get("compiler") or {}, "compiler")
    vyper = _mapping(section.get("vyper") or {}, "compiler.vyper")
    known = CompilerSettings()
    evm = _text(section, "evm_version", "compiler", known.evm_version)
    return CompilerSettings(
        version=_text(vyper, "version", "compiler.vyper", known.version),
        evm_version=_text(vyper, "evm_version", "compiler.vyper", evm),
        optimize=_text(vyper, "optimize", "compiler.vyper", known.optimize),
    )


def _networks(root: dict[str, Any]) -> tuple[Network, ...]:
    found = []
    for name, value in _mapping(root.get("networks") or {}, "networks").items():
        if not isinstance(value, dict) or "host" not in value:
            continue
        where = f"networks.{name}"
        chain_id = value.get("chainid")
        try:
            pinned = None if chain_id is None else int(chain_id)
        except (TypeError, ValueError) as error:
            raise SettingsError(f"{where}.chainid: expected a number") from error
        found.append(Network(str(name), _expand(_text(value, "host", where, ""), where), pinned))
    return tuple(found)


def _expand(text: str, where: str) -> str:
    def replace(match: re.Match[str]) -> str:
        value = os.environ.get(match[1], match[2])
        if value is None:
            raise SettingsError(f"{where}: environment variable {match[1]} is not set")
        return value

    return _VARIABLE.sub(replace, text)
