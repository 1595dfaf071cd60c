# SPDX-License-Identifier: BSD-3-Clause
"""A party's process that kills itself at one exact message: dying.py MESSAGE NTH MOMENT COMMAND…

MESSAGE is a message class or a call of the ledger, NTH counts it within this process. MOMENT:
`before` its commit, once it is `committed` and nothing of it has left, just after it is `sent`, or
when it is `answered`, by the intermediary or by the ledger, and nobody has noted that. The rest is
a `monetor` command. Nothing here is known to the product: its engine is replaced by a subclass.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import offchain.agents.end_user as end_user  # noqa: E402
import offchain.agents.intermediary as intermediary  # noqa: E402
from offchain.agents.engine import Engine  # noqa: E402
from offchain.cli.main import main as monetor  # noqa: E402
from offchain.protocol.messages import MESSAGES  # noqa: E402
from offchain.protocol.outbox import Request, Submit, Tell  # noqa: E402

SENT_SECONDS = 0.05
"""Enough for what was handed to a socket to leave, and for no answer to be handled."""


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def name_of(item):
    match item:
        case Request() | Tell():
            return MESSAGES[item.pcmd].__name__
        case Submit():
            return type(item.call).__name__
        case (int(pcmd), bytes()):
            return MESSAGES[pcmd].__name__
    return ""


class DyingEngine(Engine):
    """An engine that ends its process at `message`."""

    message, nth, moment_of_death = "", 0, ""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._seen = {}
        port, submit = self._port, self._port.submit

        async def watched(call, now):
            receipt = await submit(call, now)
            self._reached("answered", type(call).__name__)
            return receipt

        port.submit = watched

    def _reached(self, moment, name):
        if name != self.message or moment != self.moment_of_death:
            return
        self._seen[moment] = self._seen.get(moment, 0) + 1
        if self._seen[moment] != self.nth:
            return
        if moment == "sent":
            asyncio.get_running_loop().call_later(SENT_SECONDS, die)
        else:
            die()

    def _watched(self, action):
        def watched(records, moment, outbox):
            result = action(records, moment, outbox)
            for item in (*outbox, result):
                self._reached("before", name_of(item))
            return result

        return watched

    def _committed(self, result):
        for moment in ("committed", "sent"):
            self._reached(moment, name_of(result))
        return result

    def step(self, action):
        return self._committed(super().step(self._watched(action)))

    async def grouped(self, action):
        return self._committed(await super().grouped(self._watched(action)))

    def _deliver(self, item):
        self._reached("committed", name_of(item))
        super()._deliver(item)
        self._reached("sent", name_of(item))

    def _take_reply(self, conversation, pcmd, payload):
        asked = self.store.read().request(conversation)
        if asked is not None:
            self._reached("answered", name_of(asked))
        return super()._take_reply(conversation, pcmd, payload)


if __name__ == "__main__":
    DyingEngine.message, DyingEngine.moment_of_death = sys.argv[1], sys.argv[3]
    DyingEngine.nth = int(sys.argv[2])
    end_user.Engine = intermediary.Engine = DyingEngine
    monetor(sys.argv[4:])
