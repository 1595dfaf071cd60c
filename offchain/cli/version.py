# SPDX-License-Identifier: BSD-3-Clause
"""`monetor version`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from .options import AsJson
from .report import pairs_or_json

REPORTED = ("monetor", "web3", "py-evm", "eth-tester", "vyper", "snekmate", "pyblst")
"""Packages whose versions decide what a report of a failure means."""


def run(as_json: AsJson = False) -> None:
    """Print the versions of this program and of what it stands on."""
    facts: dict[str, object] = {name: _installed(name) for name in REPORTED}
    pairs_or_json({**facts, "python": platform.python_version()}, as_json=as_json)


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
