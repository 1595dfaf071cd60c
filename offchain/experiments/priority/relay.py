# SPDX-License-Identifier: BSD-3-Clause
"""One relay as a process: `python -m offchain.experiments.priority.relay '{"rate": …}'`.

It prints its address and keys as a line of JSON, serves until its standard input ends, and then
prints what share of a core it has used.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

from ...transport.bandwidth_driver import BandwidthLimit
from ...transport.exit_policy import ExitPolicy
from ...transport.identity import RouterIdentity
from ...transport.priority import Priority
from ...transport.router import OnionRouter
from ...transport.scheduler import Discipline
from .grant import GrantingHooks

BURST_SECONDS = 0.2
"""Seconds' worth of bytes that may pass at once. Little, so that the limit is felt at once."""


@dataclass(frozen=True, slots=True)
class RelaySpec:
    """`rate` is bytes a second, 0 for no limit."""

    name: str
    rate: int
    reading: bool
    discipline: str
    share: int
    alpha: int
    beta: int


async def serve(spec: RelaySpec) -> None:
    """Run until standard input ends."""
    priority = Priority(share=spec.share, alpha=spec.alpha, beta=spec.beta)
    limit = BandwidthLimit(spec.rate, spec.rate * BURST_SECONDS,
                           reading=spec.reading) if spec.rate else None
    identity = RouterIdentity.generate()
    router = OnionRouter(identity, hooks=GrantingHooks(), exit_policy=ExitPolicy.loopback_only(),
                         priority=lambda: priority, discipline=Discipline(spec.discipline),
                         limit=limit)
    port = await router.start()
    _say({"router": identity.info(spec.name, "127.0.0.1", port).to_dict()})
    started, cpu = time.monotonic(), time.process_time()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(1024):
        pass
    _say({"core": (time.process_time() - cpu) / (time.monotonic() - started)})
    await router.stop()


def _say(facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve(RelaySpec(**json.loads(sys.argv[1]))))
