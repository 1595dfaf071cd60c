# SPDX-License-Identifier: BSD-3-Clause
"""Imports point one way, and the inner layers stay free of input and output."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

STATEMENTS = "monetor_chain.statements"

# What each layer may import of this project, besides itself. An entry stands for everything below.
ALLOWED = {
    "monetor_chain": (),
    "offchain.crypto": (STATEMENTS,),
    # The parameters are plain data that every party must read alike; they load nothing heavy.
    "offchain.protocol": ("offchain.crypto", "monetor_chain.parameters", STATEMENTS),
    "offchain.transport": (),
    "offchain.policy": (
        "offchain.protocol",
        "monetor_chain.parameters",
        "monetor_chain.tax_tree",
        STATEMENTS,
    ),
    "offchain.store": ("offchain.protocol",),
    "offchain.verification": ("offchain.crypto", "offchain.protocol"),
    "offchain.agents": (
        "offchain.crypto",
        "offchain.protocol",
        "offchain.transport",
        "offchain.policy",
        "offchain.store",
        "offchain.verification",
        "monetor_chain",
    ),
    "offchain.testnet": (
        "offchain.crypto",
        "offchain.protocol",
        "offchain.transport",
        "offchain.policy",
        "offchain.store",
        "offchain.verification",
        "offchain.agents",
        "monetor_chain",
    ),
    "offchain.experiments": (
        "offchain.crypto",
        "offchain.protocol",
        "offchain.transport",
        "offchain.policy",
        "offchain.store",
        "offchain.verification",
        "monetor_chain",
    ),
    "offchain.cli": ("offchain", "monetor_chain"),
    "scripts": ("offchain", "monetor_chain"),
}

# Sockets, clocks, disks, processes and chains.
WORLD = {
    "aiohttp", "asyncio", "datetime", "eth_tester", "http", "io", "multiprocessing", "pathlib",
    "selectors", "shutil", "signal", "socket", "socketserver", "sqlite3", "ssl", "subprocess",
    "tempfile", "threading", "time", "urllib", "web3",
}  # fmt: skip
NETWORK = {"aiohttp", "asyncio", "selectors", "socket", "ssl", "time"}

# The modules of the transport that connect its core to sockets.
TRANSPORT_DRIVERS = {
    "bandwidth_driver", "client_stream", "exit_stream", "link_driver", "memory_driver", "proxy",
    "router", "tls",
}  # fmt: skip


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> list[Path]:
    return [
        path
        for folder in ("monetor_chain", "offchain", "scripts")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Every module that the source imports anywhere, also inside functions, as absolute names."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                dotted = f"{origin}.{alias.name}"
                yield dotted if is_module(dotted) else origin


def imports_of(path: Path) -> set[str]:
    return set(imports(path.read_text(), module_name(path), path.name == "__init__.py"))


def layer_of(module: str) -> str | None:
    parts = module.split(".")
    name = ".".join(parts[:2]) if parts[0] == "offchain" else parts[0]
    return name if name in ALLOWED else None


def within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


def forbidden(module: str, imported: str) -> bool:
    """Whether this module breaks the direction by importing that one."""
    if imported.split(".")[0] not in ("monetor_chain", "offchain", "scripts", "tests"):
        return False
    layer = layer_of(module)
    if layer is None:
        return True
    return not any(within(imported, allowed) for allowed in (layer, *ALLOWED[layer]))


def test_the_rule_itself():
    assert forbidden("offchain.crypto.curve", "offchain.protocol.pay")
    assert forbidden("offchain.protocol.pay", "offchain.transport")
    assert forbidden("offchain.protocol.pay", "monetor_chain.chain")
    assert forbidden("offchain.transport.cell", "monetor_chain.statements")
    assert forbidden("offchain.experiments.bench", "offchain.agents.client")
    assert forbidden("monetor_chain.chain", "offchain.crypto")
    assert forbidden("offchain.agents.client", "tests.crypto")
    assert not forbidden("offchain.crypto.curve", "monetor_chain.statements")
    assert not forbidden("offchain.agents.client", "monetor_chain.chain")
    assert not forbidden("offchain.transport.cell", "cryptography")


def test_relative_and_nested_imports_are_seen():
    source = "from . import pay\nfrom ..crypto import curve\ndef f():\n    import web3.types\n"
    found = set(imports(source, "offchain.protocol.client", is_package=False))
    assert found == {"offchain.protocol.pay", "offchain.crypto.curve", "web3.types"}
    assert set(imports("from .pay import x", "offchain.protocol", is_package=True)) == {
        "offchain.protocol.pay"
    }


def test_every_module_belongs_to_a_layer():
    strays = [
        name
        for name in map(module_name, modules())
        if layer_of(name) is None and name != "offchain"
    ]
    assert not strays


def test_imports_point_one_way():
    broken = [
        f"{module_name(path)} imports {imported}"
        for path in modules()
        for imported in sorted(imports_of(path))
        if forbidden(module_name(path), imported)
    ]
    assert not broken, "\n".join(broken)


def test_package_roots_import_nothing():
    for package in ("monetor_chain", "offchain"):
        assert not imports_of(ROOT / package / "__init__.py")


@pytest.mark.parametrize("layer", ["crypto", "protocol", "policy"])
def test_inner_layers_know_nothing_of_the_world(layer):
    broken = [
        f"{path.relative_to(ROOT)} imports {imported}"
        for path in sorted((ROOT / "offchain" / layer).rglob("*.py"))
        for imported in sorted(imports_of(path))
        if imported.split(".")[0] in WORLD
    ]
    assert not broken, "\n".join(broken)


def test_the_core_of_the_transport_opens_no_socket():
    broken = [
        f"{path.relative_to(ROOT)} imports {imported}"
        for path in sorted((ROOT / "offchain" / "transport").rglob("*.py"))
        if path.stem not in TRANSPORT_DRIVERS
        for imported in sorted(imports_of(path))
        if imported.split(".")[0] in NETWORK
    ]
    assert not broken, "\n".join(broken)


def test_secrets_come_from_the_operating_system():
    # A rehearsal's gas, and the file that the demo serves, are the same every time.
    seeded = {
        ROOT / "monetor_chain" / "rehearsal.py",
        ROOT / "offchain" / "testnet" / "file_server.py",
    }
    broken = [
        str(path.relative_to(ROOT))
        for path in modules()
        if "random" in imports_of(path)
        and path not in seeded
        and not within(module_name(path), "offchain.experiments")
    ]
    assert not broken


@pytest.mark.parametrize(
    "module", ["monetor_chain.statements", "offchain.crypto.proofs", "offchain.protocol.client"]
)
def test_proofs_and_protocols_load_without_web3(module):
    code = (
        f"import sys, {module}\n"
        "found = {'web3', 'eth_tester', 'eth', 'vyper', 'aiohttp'} & set(sys.modules)\n"
        "sys.exit(f'loaded {sorted(found)}' if found else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
