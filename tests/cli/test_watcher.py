# SPDX-License-Identifier: BSD-3-Clause
"""`monetor watcher` says in one sentence what keeps it from starting."""

from __future__ import annotations

from typer.testing import CliRunner

from offchain.cli import main
from tests.end_to_end.conftest import monetor


def test_a_package_that_is_not_there_is_named(tmp_path):
    result = CliRunner().invoke(main.app, ["watcher", "--for", str(tmp_path / "a.watch")])
    assert result.exit_code == 2 and "--for" in result.output


def test_without_a_chain_it_ends_with_one_sentence(tmp_path):
    status, out, err = monetor("watcher", "--network", "http://127.0.0.1:9", "--folder",
                               tmp_path / "watcher", seconds=60)
    assert (status, out) == (1, "")
    assert err.startswith("monetor: no answer from the chain") and err.count("\n") == 1
