# SPDX-License-Identifier: BSD-3-Clause
"""Which chain the tests of the contracts run on."""

from __future__ import annotations

import shutil

import pytest

CHAINS = ("in-process", "pure", "anvil")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--chain",
        choices=CHAINS,
        default="in-process",
        help="for tests/contracts: py-evm with native precompiles or its own, or anvil",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("chain") == "anvil" and shutil.which("anvil") is None:
        raise pytest.UsageError(
            "anvil is not on the PATH: install it with `npm install @foundry-rs/anvil`"
            " and put node_modules/.bin on the PATH"
        )


def pytest_runtest_setup(item: pytest.Item) -> None:
    chain = item.config.getoption("chain")
    if chain != "in-process" and item.get_closest_marker("in_process"):
        pytest.skip(f"about py-evm in this process with native precompiles, not about {chain}")
