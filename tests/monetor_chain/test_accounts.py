# SPDX-License-Identifier: BSD-3-Clause
import pytest
from eth_account import Account

from monetor_chain import accounts


def test_addresses_are_those_of_eth_account():
    for role in (*accounts.DEV_ROLES, "anything else"):
        assert accounts.dev_address(role) == Account.from_key(accounts.dev_key(role)).address


def test_every_role_has_an_account_of_its_own():
    assert len({accounts.dev_address(role) for role in accounts.DEV_ROLES}) == len(
        accounts.DEV_ROLES
    )


# ERC-55, test cases of the specification.
@pytest.mark.parametrize(
    "address",
    [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ],
)
def test_checksums(address):
    assert accounts.checksum(address.lower()) == address
    assert accounts.checksum(bytes.fromhex(address[2:])) == address


@pytest.mark.parametrize("address", [b"", bytes(19), "0x00", bytes(32)])
def test_wrong_lengths_are_refused(address):
    with pytest.raises(ValueError, match="20 bytes"):
        accounts.checksum(address)
