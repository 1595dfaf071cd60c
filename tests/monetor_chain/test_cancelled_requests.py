# SPDX-License-Identifier: BSD-3-Clause
"""An agent that stops, or waits no longer, cancels requests to the chain: the next one is answered.

A lock that a cancelled request leaves behind would silence every agent of the process for good.
"""

from __future__ import annotations

import asyncio
import random

from monetor_chain.chain import Chain
from monetor_chain.embedded import EmbeddedChain


def test_cancelled_requests_leave_nothing_locked():
    async def work(url):
        chance = random.Random(1)
        async with await Chain.connect(url) as chain:
            for _ in range(30):
                asked = [asyncio.create_task(chain.rpc("eth_blockNumber")) for _ in range(10)]
                await asyncio.sleep(chance.uniform(0, 0.01))
                for task in asked:
                    task.cancel()
                await asyncio.gather(*asked, return_exceptions=True)
        async with asyncio.timeout(10), await Chain.connect(url) as chain:
            assert int(await chain.rpc("eth_blockNumber"), 16) >= 0

    with EmbeddedChain() as embedded:
        asyncio.run(asyncio.wait_for(work(embedded.url), 60))
