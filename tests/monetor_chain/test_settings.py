# SPDX-License-Identifier: BSD-3-Clause
from pathlib import Path

import pytest
import yaml

from monetor_chain.embedded import CHAIN_ID
from monetor_chain.errors import SettingsError
from monetor_chain.settings import Settings

PROJECT_FILE = Path(__file__).parents[2] / "brownie-config.yaml"

# Brownie's own top-level keys, from brownie/data/default-config.yaml of eth-brownie 1.22.
BROWNIE_KEYS = {
    "project_structure", "networks", "compiler", "console", "reports", "hypothesis",
    "autofetch_sources", "dependencies", "dev_deployment_artifacts", "eager_caching",
}  # fmt: skip


def write(folder: Path, text: str) -> Path:
    path = folder / "brownie-config.yaml"
    path.write_text(text)
    return path


def test_the_project_file():
    settings = Settings.load(PROJECT_FILE)
    assert settings.compiler.version == "0.4.3"
    assert settings.compiler.evm_version == "prague"
    assert settings.network().chain_id == CHAIN_ID
    assert settings.network("local").host == "http://127.0.0.1:8545"


def test_the_project_file_has_only_what_brownie_takes():
    document = yaml.safe_load(PROJECT_FILE.read_text())
    assert set(document) <= BROWNIE_KEYS
    assert "default" not in document["networks"]
    for network in document["networks"].values():
        assert "cmd_settings" not in network


def test_networks_of_the_user_and_secrets_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("NODE_KEY", "abc")
    path = write(
        tmp_path,
        "networks:\n  default: x\n  mine:\n    host: https://node/${NODE_KEY}\n    chainid: '5'\n"
        "  other:\n    host: http://${NODE_HOST:-127.0.0.1}:1\n",
    )
    settings = Settings.load(path)
    assert settings.network("mine").host == "https://node/abc"
    assert settings.network("mine").chain_id == 5
    assert settings.network("other").host == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("compiler: [1]", "compiler"),
        ("compiler:\n  vyper:\n    version: 4", "compiler.vyper.version"),
        ("networks:\n  a:\n    host: http://h\n    chainid: x", "networks.a.chainid"),
        ("networks:\n  a:\n    host: ${NOT_SET_ANYWHERE}", "NOT_SET_ANYWHERE"),
        ("networks:\n  a:\n    host: 5", "networks.a.host"),
        ("a: [", "cannot read"),
    ],
)
def test_mistakes_are_named(tmp_path, text, word):
    with pytest.raises(SettingsError, match=word):
        Settings.load(write(tmp_path, text))


def test_an_unknown_network_lists_the_known(tmp_path):
    path = write(tmp_path, "networks:\n  one:\n    host: http://h\n")
    with pytest.raises(SettingsError, match="known: one"):
        Settings.load(path).network("two")


def test_without_a_file_the_built_in_settings_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("monetor_chain.settings._find", lambda: None)
    assert Settings.load().network().name == "embedded"
