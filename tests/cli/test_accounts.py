# SPDX-License-Identifier: BSD-3-Clause
"""Where signing keys come from, and that none is shown or used where it must not be."""

from __future__ import annotations

import json

import pytest
from eth_account import Account

from monetor_chain.accounts import dev_key
from offchain.cli import accounts
from offchain.cli.accounts import signing_key
from offchain.cli.failures import UsageProblem
from offchain.cli.networks import find

EMBEDDED = 29127
MAINNET = 1
KEY = bytes(range(1, 33))


@pytest.fixture(autouse=True)
def _no_key_in_the_environment(monkeypatch):
    monkeypatch.delenv(accounts.PRIVATE_KEY, raising=False)
    monkeypatch.delenv(accounts.PASSWORD, raising=False)


def test_development_accounts_are_for_development_chains():
    assert signing_key(EMBEDDED, "client") == dev_key("client")
    with pytest.raises(UsageProblem, match="no development chain"):
        signing_key(MAINNET, "client")


@pytest.mark.parametrize("text", [KEY.hex(), "0x" + KEY.hex(), f" {KEY.hex()}\n"])
def test_the_environment_goes_before_development_accounts(text, monkeypatch):
    monkeypatch.setenv(accounts.PRIVATE_KEY, text)
    assert signing_key(MAINNET, "client") == KEY
    assert signing_key(EMBEDDED, "client") == KEY


@pytest.mark.parametrize("text", ["secretsecret", KEY.hex()[:-1], KEY.hex() + "00"])
def test_a_malformed_key_is_refused_and_not_repeated(text, monkeypatch):
    monkeypatch.setenv(accounts.PRIVATE_KEY, text)
    with pytest.raises(UsageProblem) as caught:
        signing_key(EMBEDDED, "client")
    assert text not in str(caught.value)


def test_two_accounts_have_two_variables(monkeypatch):
    monkeypatch.setenv(accounts.PRIVATE_KEY, KEY.hex())
    assert signing_key(EMBEDDED, "client-guard", variable="OTHER") == dev_key("client-guard")


@pytest.fixture(scope="module")
def keystore(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "account.json"
    path.write_text(json.dumps(Account.encrypt(KEY, "right", iterations=2, kdf="pbkdf2")))
    return path


def test_a_keystore_goes_before_everything(keystore, monkeypatch):
    monkeypatch.setenv(accounts.PRIVATE_KEY, bytes(32).hex())
    monkeypatch.setenv(accounts.PASSWORD, "right")
    assert signing_key(MAINNET, "client", keystore) == KEY


def test_a_wrong_password(keystore, monkeypatch):
    monkeypatch.setenv(accounts.PASSWORD, "wrong")
    with pytest.raises(UsageProblem, match="wrong password"):
        signing_key(MAINNET, "client", keystore)


@pytest.mark.parametrize("content", ["not json", "{}", "[]"])
def test_a_file_that_is_no_keystore(content, tmp_path, monkeypatch):
    monkeypatch.setenv(accounts.PASSWORD, "right")
    path = tmp_path / "account.json"
    path.write_text(content)
    with pytest.raises(UsageProblem, match="no keystore"):
        signing_key(MAINNET, "client", path)


def test_a_network_by_url_pins_no_chain():
    network = find("http://127.0.0.1:8545")
    assert (network.host, network.chain_id) == ("http://127.0.0.1:8545", None)


def test_the_default_network_is_the_embedded_chain():
    assert find("embedded").chain_id == EMBEDDED
