# SPDX-License-Identifier: BSD-3-Clause
"""Which exceptions become a sentence, and which keep their traceback."""

from __future__ import annotations

import ast
import builtins
import errno
import importlib
import socket
from pathlib import Path

import pytest

from monetor_chain.errors import ChainUnavailable, TransactionReverted
from offchain.cli import failures, main
from offchain.cli.failures import explain
from offchain.crypto.errors import CryptoError
from offchain.protocol.errors import RefusalCode, Refused
from offchain.store import StoreError
from offchain.transport.errors import CircuitClosed

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    "error",
    [
        ChainUnavailable("no answer"),
        CryptoError("wpk: not in the subgroup"),
        Refused(RefusalCode.PROOF, "the proof is wrong"),
        StoreError("of another network"),
        CircuitClosed("the guard has gone"),
    ],
)
def test_an_error_of_a_layer_speaks_for_itself(error):
    assert explain(error) == str(error)


def test_subclasses_count():
    assert explain(TransactionReverted("vaults: empty")) == "reverted: vaults: empty"


def test_lines_become_one():
    assert explain(StoreError("a\n  b")) == "a b"


def test_a_taken_port_says_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError) as caught:
        socket.create_server(taken.getsockname())
    assert "choose another port" in explain(caught.value)


def test_a_file_is_named():
    assert explain(FileNotFoundError(errno.ENOENT, "No such file", "keys")) == "keys: No such file"


def test_a_time_out_without_words():
    assert explain(TimeoutError()) == "the other side did not answer in time"


def test_an_optional_part_that_is_not_installed():
    error = ModuleNotFoundError("No module named 'numba'", name="numba")
    assert "monetor[experiments]" in explain(error)


@pytest.mark.parametrize(
    "error", [KeyError("x"), ValueError("x"), AssertionError(), ModuleNotFoundError(name="web3")]
)
def test_a_mistake_of_the_program_is_none(error):
    assert explain(error) is None


def test_a_group_is_told_only_if_all_of_it_is_expected():
    expected = ExceptionGroup("", [StoreError("full"), ChainUnavailable("gone")])
    assert explain(expected) == "full; gone"
    assert explain(ExceptionGroup("", [StoreError("full"), KeyError("x")])) is None


def test_expected_failures_end_with_status_one(monkeypatch, capsys):
    monkeypatch.setattr(main, "app", _raising(StoreError("of another network")))
    with pytest.raises(SystemExit) as ended:
        main.main(["version"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "monetor: of another network\n"


def test_other_failures_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(main, "app", _raising(KeyError("field")))
    with pytest.raises(KeyError):
        main.main(["version"])


def _raising(error):
    def app(*_, **__):
        raise error

    return app


def test_every_named_class_exists():
    for module, name in failures.EXPECTED:
        assert issubclass(getattr(importlib.import_module(module), name), Exception)


def test_every_error_that_a_layer_defines_is_expected():
    """A new base error has to be added to `EXPECTED`, or its sentence would come as a traceback."""
    builtin = {
        name
        for name, value in vars(builtins).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    defined = set()
    for package in ("monetor_chain", "offchain"):
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                    if bases & builtin:
                        defined.add((module, node.name))
    # Raised and caught within the process of the embedded chain, and within the intermediary.
    inner = {
        ("monetor_chain.devchain.node", "Refused"),
        ("offchain.protocol.claims", "Unverified"),
        ("offchain.verification.workers", "NoVerdict"),
    }
    assert defined - inner <= set(failures.EXPECTED)
