# SPDX-License-Identifier: BSD-3-Clause
import json

import pytest
from eth_account import Account

from monetor_chain.accounts import dev_key
from monetor_chain.errors import SettingsError
from monetor_chain.keys import PASSWORD_VARIABLE, load_key

KEY = bytes(range(1, 33))


def test_development_accounts():
    assert load_key("dev:client") == dev_key("client")


@pytest.mark.parametrize("prefix", ["", "0x"])
def test_a_key_from_the_environment(monkeypatch, prefix):
    monkeypatch.setenv("SOME_KEY", prefix + KEY.hex() + "\n")
    assert load_key("env:SOME_KEY") == KEY


def test_a_key_from_an_encrypted_file(monkeypatch, tmp_path):
    path = tmp_path / "key.json"
    path.write_text(json.dumps(Account.encrypt(KEY, "word", kdf="pbkdf2", iterations=1000)))
    with pytest.raises(SettingsError, match=PASSWORD_VARIABLE):
        load_key(f"keystore:{path}")
    monkeypatch.setenv(PASSWORD_VARIABLE, "word")
    assert load_key(f"keystore:{path}") == KEY
    monkeypatch.setenv(PASSWORD_VARIABLE, "another")
    with pytest.raises(SettingsError, match="password is wrong"):
        load_key(f"keystore:{path}")
    path.write_text("{}")
    with pytest.raises(SettingsError, match="no keystore"):
        load_key(f"keystore:{path}")
    with pytest.raises(SettingsError, match="cannot read"):
        load_key(f"keystore:{tmp_path}/none")


@pytest.mark.parametrize("source", ["", "dev:", "env:", KEY.hex(), "file:x", "env:NOT_SET"])
def test_unusable_sources(source):
    with pytest.raises(SettingsError):
        load_key(source)


@pytest.mark.parametrize("text", ["secret!", "00" * 32, "11" * 31, "ff" * 32])
def test_unusable_keys_are_not_quoted(monkeypatch, text):
    monkeypatch.setenv("SOME_KEY", text)
    with pytest.raises(SettingsError) as caught:
        load_key("env:SOME_KEY")
    assert text not in str(caught.value)
