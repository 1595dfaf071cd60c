# SPDX-License-Identifier: BSD-3-Clause
"""Every numbered promise of contracts/SECURITY.md is named by a test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from monetor_chain.compiler import source_folder


def _promised() -> set[str]:
    root = source_folder()
    assert root is not None
    text = (root / "SECURITY.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\*\*(L\d+) ", text, re.MULTILINE))


def _tested() -> set[str]:
    named: set[str] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                doc = ast.get_docstring(node) or ""
                for first, last in re.findall(r"\bL(\d+)(?: to L(\d+))?\b", doc):
                    if not last:
                        named.add(f"L{first}")
    return named


def test_promises_and_tests_agree() -> None:
    promised = _promised()
    assert promised == {f"L{i}" for i in range(1, len(promised) + 1)}
    assert promised == _tested()
