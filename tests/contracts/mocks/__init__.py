# SPDX-License-Identifier: BSD-3-Clause
"""Contracts for tests only, and how to compile them."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

from monetor_chain.compiler import source_folder


@cache
def compiled(name: str) -> tuple[Any, Any]:
    """(abi, bytecode) of a contract in this folder."""
    from vyper.compiler import compile_from_file_input
    from vyper.compiler.input_bundle import FilesystemInputBundle

    root = source_folder()
    assert root is not None, "the contracts' sources are needed"
    # As the project's own compiler does: snekmate is found on the Python path.
    installed = [Path(entry) for entry in sys.path if Path(entry).is_dir()]
    bundle = FilesystemInputBundle([*installed, root, Path(__file__).parent])
    source = bundle.load_file(Path(__file__).parent / f"{name}.vy")
    output = compile_from_file_input(
        source, input_bundle=bundle, output_formats=["abi", "bytecode"]
    )
    return output["abi"], output["bytecode"]
