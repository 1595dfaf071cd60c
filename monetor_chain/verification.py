# SPDX-License-Identifier: BSD-3-Clause
"""Check a deployment against its record, against the sources, and in its wiring.

For whoever did not deploy the contracts and is to put money into them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from .chain import Chain
from .compiler import compile_contract
from .deployment import DEFAULT_FOLDER, Deployment, bind, recorded
from .errors import ChainError
from .statements import keccak256


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `found` says what the chain holds where that helps."""

    what: str
    holds: bool
    found: str = ""


async def verify_deployment(
    chain: Chain, directory: Path | str = DEFAULT_FOLDER
) -> tuple[Check, ...]:
    """Every check of the deployment that is recorded for this chain, also those that fail.

    Code: its hash is the recorded one, and it is what these sources compile to, followed by the
    contract's immutable values. Wiring: each contract knows the others and the tax rate. Raises
    `DeploymentMissing` if there is no finished record for this chain, `DeploymentMismatch` if it
    cannot be read, `CompilationFailed`.
    """
    deployment = await recorded(chain, directory)
    checks = []
    for name, address in deployment.addresses.items():
        code = await chain.code(address)
        found = keccak256(code).hex()
        checks.append(
            Check(f"{name}: code as recorded", found == deployment.code_hashes[name], found)
        )
        artifact = await asyncio.to_thread(compile_contract, name)
        checks.append(
            Check(
                f"{name}: code of these sources",
                code.startswith(artifact.runtime) and len(code) < len(artifact.runtime) + 1_024,
                artifact.compiler,
            )
        )
    try:
        checks += await _wiring(chain, deployment)
    except ChainError as error:
        # Other code than ours may answer anything, or nothing.
        checks.append(Check("the contracts know each other", False, str(error)))
    return tuple(checks)


async def _wiring(chain: Chain, deployment: Deployment) -> list[Check]:
    contracts = bind(chain, deployment)
    ledger, pool, consensus = contracts.ledger, contracts.tax_pool, contracts.consensus
    issuer = await contracts.token.consensus()
    values: tuple[tuple[str, object, object], ...] = (
        ("Ledger: token", await ledger.token(), deployment.token),
        ("Ledger: consensus", await ledger.consensus(), deployment.consensus),
        ("Ledger: tax pool", await ledger.tax_pool(), deployment.tax_pool),
        ("Ledger: tax rate", await ledger.tax_rate_bp(), deployment.tax_rate_bp),
        ("Consensus: tax rate", await consensus.tax_rate_bp(), deployment.tax_rate_bp),
        ("TaxPool: ledger", await pool.ledger(), deployment.ledger),
        ("TaxPool: token", await pool.token(), deployment.token),
        ("TaxPool: consensus", await pool.consensus(), deployment.consensus),
    )
    checks = [Check(what, found == expected, str(found)) for what, found, expected in values]
    checks.append(
        Check(
            "Token: wraps the native coin, or is issued by these authorities",
            issuer in (None, deployment.consensus),
            "wraps" if issuer is None else issuer,
        )
    )
    return checks
