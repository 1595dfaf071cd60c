# SPDX-License-Identifier: BSD-3-Clause
"""Put the contracts on a chain, once, and find them again.

What was deployed is recorded in ``<folder>/<chain id>.json``, step by step and before each
transaction leaves, so that a deployment that was killed anywhere goes on where it stopped and a
repeated one changes nothing. The record names the chain by the hash of its first block: a
development chain that was started anew has the same id and is yet another chain.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eth_abi.abi import encode as abi_encode

from .accounts import address_of, checksum
from .bindings.consensus import PARAMETERS, Consensus
from .bindings.ledger import Ledger
from .bindings.tax_pool import TaxPool
from .bindings.token import Token
from .chain import Chain
from .compiler import Artifact, compile_contract
from .eip2537 import require_precompiles
from .errors import DeploymentMismatch, DeploymentMissing, TransactionReverted, TransactionTimeout
from .parameters import DEMO, TAX_RATE_BP, NetworkParameters
from .sender import Sender
from .statements import keccak256

DEFAULT_FOLDER = Path("deployments")
_FORMAT = 1
CLAIM_EPOCHS = 90
"""For how many epochs after its publication a distribution of tax can be claimed, by default."""
_CREATION_GAS = {"Token": 3_000_000, "Consensus": 4_000_000, "TaxPool": 3_000_000}
_LEDGER_CREATION_GAS = 9_000_000
_PENDING_SECONDS = 120.0
_POLL_SECONDS = 0.2
_NOBODY = "0x" + "0" * 40
_ANYBODYS = ("Consensus", "Token")
"""Contracts that are the same whoever deploys them."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where the contracts are.

    `genesis` is the hash of the chain's first block, `block` the number of the block that holds
    the ledger's creation (no event of the ledger is older), `code_hashes` the keccak256 of each
    contract's code on the chain, hashes in hex.
    """

    chain_id: int
    genesis: str
    deployer: str
    block: int
    token: str
    consensus: str
    tax_pool: str
    ledger: str
    tax_rate_bp: int
    compiler: str
    evm_version: str
    code_hashes: Mapping[str, str]

    @property
    def addresses(self) -> dict[str, str]:
        """Where each contract is, by the contract's name."""
        return {
            "Consensus": self.consensus,
            "Token": self.token,
            "TaxPool": self.tax_pool,
            "Ledger": self.ledger,
        }


@dataclass(frozen=True, slots=True)
class Contracts:
    """The bindings of one deployment."""

    ledger: Ledger
    token: Token
    consensus: Consensus
    tax_pool: TaxPool


@dataclass(slots=True)
class _Step:
    """One transaction of a deployment: under which hashes it left, and what came of it."""

    transactions: list[str] = field(default_factory=list)
    address: str | None = None
    block: int | None = None
    code_hash: str | None = None


@dataclass(slots=True)
class _Record:
    """The file's content."""

    chain_id: int
    genesis: str
    deployer: str
    arguments: str
    tax_rate_bp: int
    compiler: str = ""
    evm_version: str = ""
    format: int = _FORMAT
    steps: dict[str, _Step] = field(default_factory=dict)
    complete: bool = False


def bind(chain: Chain, deployment: Deployment) -> Contracts:
    """Bindings of the deployed contracts over a connection."""
    return Contracts(
        ledger=Ledger(chain, deployment.ledger),
        token=Token(chain, deployment.token),
        consensus=Consensus(chain, deployment.consensus),
        tax_pool=TaxPool(chain, deployment.tax_pool),
    )


async def attach(chain: Chain, directory: Path | str = DEFAULT_FOLDER) -> Deployment:
    """The recorded deployment on this chain, with every contract's code checked.

    Raises `DeploymentMissing` if none is recorded, or none for this chain, or an unfinished one;
    `DeploymentMismatch` if the chain holds other code than the record says.
    """
    found = await recorded(chain, directory)
    for name, address in found.addresses.items():
        if keccak256(await chain.code(address)).hex() != found.code_hashes[name]:
            raise DeploymentMismatch(
                f"{name} at {address} on chain {chain.chain_id} is not what "
                f"{_path(Path(directory), chain.chain_id)} records"
            )
    return found


async def recorded(chain: Chain, directory: Path | str = DEFAULT_FOLDER) -> Deployment:
    """The recorded deployment on this chain; nothing but the chain's first block is compared.

    Raises `DeploymentMissing` if none is recorded, or none for this chain, or an unfinished one;
    `DeploymentMismatch` if the record cannot be read.
    """
    path = _path(Path(directory), chain.chain_id)
    record = _read(path)
    if record is None:
        raise DeploymentMissing(f"no deployment on chain {chain.chain_id} is recorded in {path}")
    if record.genesis != await _genesis(chain):
        raise DeploymentMissing(
            f"{path} records a deployment on another chain with the id {chain.chain_id}"
        )
    if not record.complete:
        raise DeploymentMissing(f"the deployment recorded in {path} is not finished")
    return _deployment(record)


async def deploy(
    chain: Chain,
    private_key: bytes,
    parameters: NetworkParameters = DEMO,
    tax_rate_bp: int = TAX_RATE_BP,
    authorities: Sequence[str] = (),
    quorum: int | None = None,
    issued: bool = False,
    claim_epochs: int = CLAIM_EPOCHS,
    directory: Path | str = DEFAULT_FOLDER,
    fresh: bool = False,
    confirmations: int = 0,
) -> Deployment:
    """Deploy all contracts with the account of `private_key`, or find that they are there.

    Without `authorities` the deployer is the only one; `quorum` is by default more than half of
    them. The token wraps the native coin unless it is `issued` by the authorities. `claim_epochs`
    is how long relays can claim their shares of the tax. `fresh` ignores an existing record; every
    step waits for `confirmations`. An unfinished deployment can be finished by another account.
    Raises `MissingPrecompiles`, `InvalidParameters`, `DeploymentMismatch` if the record is of
    other arguments, another account or other contracts, and what `Sender.send` raises.
    """
    parameters.check(tax_rate_bp)
    await require_precompiles(chain)
    deployer = address_of(private_key)
    voters = tuple(checksum(a) for a in authorities) or (deployer,)
    votes = len(voters) // 2 + 1 if quorum is None else quorum
    arguments = _digest(parameters, tax_rate_bp, voters, votes, issued, claim_epochs)
    folder = Path(directory)
    async with _alone(folder, chain.chain_id):
        path = _path(folder, chain.chain_id)
        genesis = await _genesis(chain)
        record = None if fresh else _read(path)
        if record is None or record.genesis != genesis or await _came_to_nothing(chain, record):
            record = _Record(chain.chain_id, genesis, deployer, arguments, tax_rate_bp)
        elif record.complete and record.deployer != deployer:
            raise DeploymentMismatch(
                f"{path} records a deployment by another account, {record.deployer}; deploy "
                "afresh or into another folder"
            )
        elif record.arguments != arguments:
            raise DeploymentMismatch(
                f"{path} records a deployment with other arguments; deploy afresh or into another "
                "folder"
            )
        elif record.deployer != deployer:
            # Only its deployer can tell a pool its ledger: these two are made anew.
            record.steps = {n: s for n, s in record.steps.items() if n in _ANYBODYS}
            record.deployer = deployer
        sender = Sender(chain, private_key, confirmations=confirmations)
        work = _Work(chain, sender, path, record)
        return await work.run(parameters, tax_rate_bp, voters, votes, issued, claim_epochs)


class _Work:
    """One run of a deployment; every step asks first whether it is done."""

    def __init__(self, chain: Chain, sender: Sender, path: Path, record: _Record) -> None:
        self._chain = chain
        self._sender = sender
        self._path = path
        self._record = record

    async def run(
        self,
        parameters: NetworkParameters,
        tax_rate_bp: int,
        authorities: tuple[str, ...],
        quorum: int,
        issued: bool,
        claim_epochs: int,
    ) -> Deployment:
        """All steps in their order."""
        consensus = await self._create(
            "Consensus",
            abi_encode(
                ["address[]", "uint256", "uint256", PARAMETERS],
                [authorities, quorum, tax_rate_bp, parameters.words()],
            ),
        )
        token = await self._create(
            "Token", abi_encode(["address"], [consensus if issued else _NOBODY])
        )
        pool = await self._create(
            "TaxPool",
            abi_encode(["address", "address", "uint256"], [token, consensus, claim_epochs]),
        )
        ledger = await self._create(
            "Ledger",
            abi_encode(
                ["address", "address", "address", "uint256"], [token, consensus, pool, tax_rate_bp]
            ),
        )
        await self._name_ledger(TaxPool(self._chain, pool), ledger)
        if not self._record.complete:
            self._record.complete = True
            self._save()
        return _deployment(self._record)

    async def _create(self, name: str, arguments: bytes) -> str:
        artifact = await asyncio.to_thread(compile_contract, name)
        step = self._record.steps.setdefault(name, _Step())
        if step.address is None:
            await self._finish_pending(step)
        if step.address is None:
            self._record.compiler = artifact.compiler
            self._record.evm_version = artifact.evm_version
            receipt = await self._sender.send(
                None,
                artifact.bytecode + arguments,
                gas=_CREATION_GAS.get(name, _LEDGER_CREATION_GAS),
                announce=lambda hash_: self._note(step, hash_),
            )
            step.address, step.block = receipt.contract, receipt.block
        return await self._check(name, step, artifact)

    async def _check(self, name: str, step: _Step, artifact: Artifact) -> str:
        """Compare what is on the chain with what was compiled, and record it the first time."""
        if step.address is None:
            raise DeploymentMismatch(f"the creation of {name} made no contract")
        code = await self._chain.code(step.address)
        # A contract's immutable values follow its code.
        if not code.startswith(artifact.runtime):
            raise DeploymentMismatch(
                f"{name} at {step.address} on chain {self._chain.chain_id} was made of other "
                "sources than the present ones; deploy afresh or into another folder"
            )
        code_hash = keccak256(code).hex()
        if step.code_hash is None:
            step.code_hash = code_hash
            self._save()
        return step.address

    async def _name_ledger(self, pool: TaxPool, ledger: str) -> None:
        named = await pool.ledger()
        if int(named, 16) == 0:
            try:
                await pool.set_ledger(self._sender, ledger)
            except TransactionReverted:
                # An interrupted run's transaction may have been mined in the meantime.
                if await pool.ledger() != ledger:
                    raise
        elif named != ledger:
            raise DeploymentMismatch(f"the tax pool at {pool.address} serves another ledger")

    async def _finish_pending(self, step: _Step) -> None:
        """See whether a transaction of an interrupted run was mined, or still will be."""
        deadline = time.monotonic() + _PENDING_SECONDS
        waiting = list(step.transactions)
        while waiting:
            for hash_ in list(waiting):
                receipt = await self._chain.rpc("eth_getTransactionReceipt", hash_)
                if receipt is not None and receipt.get("blockNumber") is not None:
                    waiting.remove(hash_)
                    if int(receipt["status"], 16) == 1:
                        step.address = checksum(receipt["contractAddress"])
                        step.block = int(receipt["blockNumber"], 16)
                        return
                elif await self._chain.rpc("eth_getTransactionByHash", hash_) is None:
                    waiting.remove(hash_)
            if waiting and time.monotonic() > deadline:
                raise TransactionTimeout("a transaction of an earlier run is still not mined")
            if waiting:
                await asyncio.sleep(_POLL_SECONDS)

    def _note(self, step: _Step, transaction: bytes) -> None:
        step.transactions.append("0x" + transaction.hex())
        self._save()

    def _save(self) -> None:
        temporary = self._path.with_suffix(".partial")
        with open(temporary, "w", encoding="utf-8") as stream:
            json.dump(asdict(self._record), stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, self._path)


@asynccontextmanager
async def _alone(folder: Path, chain_id: int) -> AsyncIterator[None]:
    """Keep other processes from deploying into the same folder at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f".{chain_id}.lock", "w", encoding="utf-8") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield


async def _came_to_nothing(chain: Chain, record: _Record) -> bool:
    """Whether no transaction of an earlier run reached the chain, so that nothing holds us to it.

    An account without coin for gas leaves such a record.
    """
    for step in record.steps.values():
        if step.address is not None:
            return False
        for hash_ in step.transactions:
            if await chain.rpc("eth_getTransactionByHash", hash_) is not None:
                return False
    return True


def _path(folder: Path, chain_id: int) -> Path:
    return folder / f"{chain_id}.json"


def _read(path: Path) -> _Record | None:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != _FORMAT:
            raise DeploymentMismatch(f"{path} was written by another version of this program")
        steps = {name: _Step(**step) for name, step in document.pop("steps").items()}
        return _Record(**document, steps=steps)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeploymentMismatch(f"{path} cannot be read: {error}") from error


def _deployment(record: _Record) -> Deployment:
    addresses = {name: step.address or "" for name, step in record.steps.items()}
    return Deployment(
        chain_id=record.chain_id,
        genesis=record.genesis,
        deployer=record.deployer,
        block=record.steps["Ledger"].block or 0,
        token=addresses["Token"],
        consensus=addresses["Consensus"],
        tax_pool=addresses["TaxPool"],
        ledger=addresses["Ledger"],
        tax_rate_bp=record.tax_rate_bp,
        compiler=record.compiler,
        evm_version=record.evm_version,
        code_hashes={name: step.code_hash or "" for name, step in record.steps.items()},
    )


def _digest(
    parameters: NetworkParameters,
    tax_rate_bp: int,
    authorities: Sequence[str],
    quorum: int,
    issued: bool,
    claim_epochs: int,
) -> str:
    words = [*parameters.words(), tax_rate_bp, quorum, *authorities, issued, claim_epochs]
    return keccak256(json.dumps(words).encode()).hex()


async def _genesis(chain: Chain) -> str:
    return (await chain.block(0)).hash.hex()
