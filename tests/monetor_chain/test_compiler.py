# SPDX-License-Identifier: BSD-3-Clause
import shutil
from pathlib import Path

import pytest

from monetor_chain import compiler
from monetor_chain.errors import CompilationFailed
from monetor_chain.settings import CompilerSettings

CONTRACTS = Path(__file__).parents[2] / "contracts"


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A copy of the contracts with an empty cache beside it."""
    copy = tmp_path / "contracts"
    shutil.copytree(CONTRACTS, copy)
    monkeypatch.setenv("MONETOR_CONTRACTS", str(copy))
    monkeypatch.setenv("MONETOR_CACHE", str(tmp_path / "cache"))
    return copy


def forbid_compiling(monkeypatch):
    def refuse(*arguments: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(compiler, "_compile", refuse)


def test_a_second_compilation_comes_from_the_cache(sources, monkeypatch):
    first = compiler.compile_contract("TaxPool")
    assert first.bytecode
    assert first.runtime in first.bytecode
    forbid_compiling(monkeypatch)
    assert compiler.compile_contract("TaxPool") == first


@pytest.mark.parametrize("changed", ["TaxPool.vy", "modules/vaults.vy", "interfaces/IToken.vyi"])
def test_any_change_of_a_source_or_of_the_settings_compiles_again(sources, monkeypatch, changed):
    compiler.compile_contract("TaxPool")
    path = sources / changed
    path.write_text(path.read_text() + "\n# a remark\n")
    forbid_compiling(monkeypatch)
    with pytest.raises(AssertionError, match="compiled again"):
        compiler.compile_contract("TaxPool")


def test_other_settings_make_another_artifact(sources, monkeypatch):
    compiler.compile_contract("TaxPool")
    forbid_compiling(monkeypatch)
    with pytest.raises(AssertionError, match="compiled again"):
        compiler.compile_contract("TaxPool", CompilerSettings(evm_version="cancun"))


def test_a_damaged_cache_entry_is_made_anew(sources, tmp_path):
    first = compiler.compile_contract("TaxPool")
    (entry,) = (tmp_path / "cache" / "monetor" / "contracts").glob("*.json")
    entry.write_text(entry.read_text()[:100])
    assert compiler.compile_contract("TaxPool") == first


def test_mistakes_are_reported_with_the_contract(sources):
    (sources / "TaxPool.vy").write_text("this is no Vyper\n")
    with pytest.raises(CompilationFailed, match="TaxPool"):
        compiler.compile_contract("TaxPool")
    with pytest.raises(CompilationFailed, match="Nothing"):
        compiler.compile_contract("Nothing")


def test_another_compiler_version_is_refused(sources):
    with pytest.raises(CompilationFailed, match=r"0\.4\.0"):
        compiler.compile_contract("TaxPool", CompilerSettings(version="0.4.0"))


def test_packaged_artifacts_serve_without_sources(sources, tmp_path, monkeypatch):
    made = compiler.compile_contract("TaxPool")
    packaged = tmp_path / "artifacts"
    packaged.mkdir()
    (packaged / "TaxPool.json").write_text(made.to_json())
    monkeypatch.setattr(compiler, "_PACKAGED", packaged)
    monkeypatch.setattr(compiler, "source_folder", lambda: None)
    compiler._packaged.cache_clear()
    assert compiler.compile_contract("TaxPool") == made
    with pytest.raises(CompilationFailed, match="Ledger"):
        compiler.compile_contract("Ledger")
