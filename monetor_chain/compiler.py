# SPDX-License-Identifier: BSD-3-Clause
"""Compile the contracts, once per content.

An artifact is looked up under a hash of everything that it depends on: all sources, the versions
of Vyper and snekmate, and the compiler settings. An installed package without sources carries
artifacts that `python -m monetor_chain.compiler FOLDER` wrote when it was built.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from .errors import CompilationFailed
from .settings import CompilerSettings, Settings
from .statements import keccak256

CONTRACTS = ("Consensus", "Token", "TaxPool", "Ledger")
"""The deployable contracts, in the order of their deployment."""

_PACKAGED = Path(__file__).resolve().parent / "artifacts"


@dataclass(frozen=True, slots=True)
class Artifact:
    """One compiled contract. `source_hash` identifies what it was made of, in hex."""

    name: str
    abi: list[dict[str, Any]]
    bytecode: bytes
    runtime: bytes
    compiler: str
    evm_version: str
    source_hash: str

    def to_json(self) -> str:
        """The artifact as a JSON object; bytes in hex."""
        fields = asdict(self) | {"bytecode": self.bytecode.hex(), "runtime": self.runtime.hex()}
        return json.dumps(fields, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Artifact:
        """Inverse of `to_json`; raises `ValueError`, `KeyError` or `TypeError` if it is none."""
        fields = json.loads(text)
        fields["bytecode"] = bytes.fromhex(fields["bytecode"])
        fields["runtime"] = bytes.fromhex(fields["runtime"])
        return cls(**fields)


def compile_contract(name: str, settings: CompilerSettings | None = None) -> Artifact:
    """The artifact of contract `name`, from the cache if nothing that it depends on has changed.

    Compiling takes seconds and blocks. Raises `CompilationFailed`.
    """
    root = source_folder()
    if root is None:
        return _packaged(name)
    chosen = settings or Settings.load().compiler
    digest = _content_hash(root, chosen)
    cached = _cache_folder() / f"{name}-{digest}.json"
    if cached.is_file():
        try:
            return Artifact.from_json(cached.read_text(encoding="utf-8"))
        except (ValueError, KeyError, TypeError):
            # A damaged entry is made anew below.
            cached.unlink(missing_ok=True)
    artifact = _compile(root, name, chosen, digest)
    _write(cached, artifact.to_json())
    return artifact


def source_folder() -> Path | None:
    """The folder `contracts/`: MONETOR_CONTRACTS or beside the package; None if there is none."""
    named = os.environ.get("MONETOR_CONTRACTS")
    if named is not None:
        folder = Path(named)
        if not (folder / "Ledger.vy").is_file():
            raise CompilationFailed(f"MONETOR_CONTRACTS: no Ledger.vy in {folder}")
        return folder.resolve()
    beside = Path(__file__).resolve().parent.parent / "contracts"
    return beside if (beside / "Ledger.vy").is_file() else None


@cache
def _packaged(name: str) -> Artifact:
    try:
        return Artifact.from_json((_PACKAGED / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CompilationFailed(f"neither source nor artifact of {name} is installed") from error


def _sources(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.rglob("*")) if path.suffix in (".vy", ".vyi"))


def _content_hash(root: Path, settings: CompilerSettings) -> str:
    parts = [package_version("vyper"), package_version("snekmate"), *asdict(settings).values()]
    for path in _sources(root):
        parts += [path.relative_to(root).as_posix(), keccak256(path.read_bytes()).hex()]
    return keccak256("\n".join(parts).encode()).hex()


def _cache_folder() -> Path:
    named = os.environ.get("MONETOR_CACHE") or os.environ.get("XDG_CACHE_HOME")
    return (Path(named) if named else Path.home() / ".cache") / "monetor" / "contracts"


def _write(path: Path, text: str) -> None:
    """Write a cache entry whole or not at all; several processes may do so at once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(temporary, path)
    except OSError:
        # Without a writable cache every start compiles again: slow, but right.
        return


def _compile(root: Path, name: str, settings: CompilerSettings, digest: str) -> Artifact:
    # Vyper takes a second to import and is needed only here.
    from vyper.compiler import (  # type: ignore[import-untyped]
        compile_from_file_input,
        input_bundle as vyper_input,
        settings as vyper_settings,
    )
    from vyper.exceptions import VyperException  # type: ignore[import-untyped]

    installed = package_version("vyper")
    if installed != settings.version:
        raise CompilationFailed(
            f"the settings ask for Vyper {settings.version}, but {installed} is installed"
        )
    search = [*(Path(entry) for entry in sys.path if Path(entry).is_dir()), root]
    bundle = vyper_input.FilesystemInputBundle(search)
    modes = vyper_settings.OptimizationLevel
    level = modes.from_string(settings.optimize) if settings.optimize else None
    try:
        source = bundle.load_file(root / f"{name}.vy")
        output = compile_from_file_input(
            source,
            input_bundle=bundle,
            output_formats=["abi", "bytecode", "bytecode_runtime"],
            settings=vyper_settings.Settings(evm_version=settings.evm_version, optimize=level),
        )
    except (VyperException, OSError, ValueError) as error:
        raise CompilationFailed(f"{name}: {error}") from error
    return Artifact(
        name=name,
        abi=output["abi"],
        bytecode=bytes.fromhex(output["bytecode"].removeprefix("0x")),
        runtime=bytes.fromhex(output["bytecode_runtime"].removeprefix("0x")),
        compiler=f"vyper {installed}",
        evm_version=settings.evm_version,
        source_hash=digest,
    )


def main(arguments: list[str] | None = None) -> int:
    """Write every contract's artifact into a folder, for packaging."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1:
        sys.stderr.write("usage: python -m monetor_chain.compiler FOLDER\n")
        return 2
    folder = Path(given[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name in CONTRACTS:
        (folder / f"{name}.json").write_text(compile_contract(name).to_json(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
