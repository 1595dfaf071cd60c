# SPDX-License-Identifier: BSD-3-Clause
"""Requests to the chain through an onion proxy: its server does not see who asks."""

from __future__ import annotations

import asyncio

import pytest

from monetor_chain.chain import LEDGER_PROXY, Chain
from monetor_chain.embedded import CHAIN_ID, EmbeddedChain
from monetor_chain.errors import ChainError, ChainUnavailable
from tests.agents.socks_net import free_port, run


@pytest.mark.parametrize("scheme", ["socks5h", "socks5"])
def test_requests_leave_at_the_exit_which_resolves_the_name(monkeypatch, scheme):
    async def body(net):
        monkeypatch.setenv(LEDGER_PROXY, f"{scheme}://ledger:1@127.0.0.1:{net.socks.port}")
        chain_process.start()
        url = chain_process.url.replace("127.0.0.1", "localhost")
        async with await Chain.connect(url, CHAIN_ID) as chain:
            first = await chain.latest()
            assert (await chain.latest()).number >= first.number
        # One connection over one circuit carried everything.
        assert len(net.built) == net.socks.served == 1

    with EmbeddedChain() as chain_process:
        run(body)


def test_a_proxy_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv(LEDGER_PROXY, f"socks5h://127.0.0.1:{free_port()}")
    with pytest.raises(ChainUnavailable, match=LEDGER_PROXY):
        asyncio.run(Chain.connect("http://127.0.0.1:1"))


@pytest.mark.parametrize("proxy", ["127.0.0.1:9050", "http://127.0.0.1:8118", "socks5h://",
                                   "socks5h://127.0.0.1:port"])
def test_what_is_no_proxy_is_refused_before_anything_is_asked(monkeypatch, proxy):
    monkeypatch.setenv(LEDGER_PROXY, proxy)
    with pytest.raises(ChainError, match="socks5h://127.0.0.1:9050"):
        asyncio.run(Chain.connect("http://127.0.0.1:1"))
