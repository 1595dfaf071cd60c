# SPDX-License-Identifier: BSD-3-Clause
"""Does a chain have the BLS12-381 precompiles? Asked before anything is deployed there."""

from __future__ import annotations

from .chain import Chain
from .errors import MissingPrecompiles, RpcError
from .precompile_probe import G1_ADD_PROBE, G1_MSM_PROBE, PAIRING_PROBE


async def require_precompiles(chain: Chain) -> None:
    """Return if G1ADD, G1MSM and PAIRING_CHECK answer as EIP-2537 says.

    Raises `MissingPrecompiles` with one sentence for the operator. A call to an address without
    code succeeds with empty output, so the answers themselves are compared.
    """
    for probe in (G1_ADD_PROBE, G1_MSM_PROBE, PAIRING_PROBE):
        try:
            output = await chain.call(probe.address, probe.input)
        except RpcError:
            output = b""
        if output != probe.output:
            raise MissingPrecompiles(
                f"chain {chain.chain_id} at {chain.url} lacks the BLS12-381 operations of EIP-2537 "
                "(Prague or later), without which the ledger cannot check a token"
            )
