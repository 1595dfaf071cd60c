# SPDX-License-Identifier: BSD-3-Clause
"""`monetor chain`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

import typer

from monetor_chain.settings import Settings


class Precompiles(StrEnum):
    """Who computes on BLS12-381: a library in C, or py-evm itself."""

    NATIVE = "native"
    PURE = "pure"


def run(
    port: Annotated[
        int | None,
        typer.Option(help="0 takes any free port. [default: that of the network `embedded`]"),
    ] = None,
    speed: Annotated[float, typer.Option(help="Chain seconds per real second.")] = 1.0,
    precompiles: Annotated[
        Precompiles, typer.Option(help="EIP-2537 natively, or by py-evm itself and slowly.")
    ] = Precompiles.NATIVE,
    block_interval: Annotated[
        float, typer.Option(help="Chain seconds between blocks without transactions.")
    ] = 2.0,
    genesis_time: Annotated[
        float | None, typer.Option(help="Unix time of the first block. [default: now]")
    ] = None,
) -> None:
    """Run the embedded development chain until it is told to end.

    It lives in memory and on loopback; the first line it prints is JSON with its endpoint.
    """
    from monetor_chain.embedded import main

    arguments = ["--port", str(_default_port() if port is None else port)]
    arguments += ["--speed", repr(speed), "--precompiles", precompiles.value]
    arguments += ["--block-interval", repr(block_interval)]
    if genesis_time is not None:
        arguments += ["--genesis-time", repr(genesis_time)]
    raise typer.Exit(main(arguments))


def _default_port() -> int:
    return urlsplit(Settings.load().network().host).port or 0
