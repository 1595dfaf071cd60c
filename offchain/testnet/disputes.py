# SPDX-License-Identifier: BSD-3-Clause
"""One party misbehaves or vanishes; the others stand up for their money on the ledger.

Each scenario runs the product's agents; what a dishonest party does beyond them (post a state it
has revoked, post too late, close low) is here, with its own records, as a real one would do it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ..agents.client import ClientAgent
from ..agents.download import Download, DownloadError
from ..agents.end_user import EndUserAgent
from ..agents.intermediary import IntermediaryAgent
from ..agents.relay import RelayAgent
from ..protocol import wallet as wallets
from ..protocol.establish import Group, GroupPhase
from ..protocol.ledger import NanoRefund
from ..protocol.moment import Moment
from ..protocol.outbox import Done, Outbox, Submit
from ..protocol.records import Records, Table, key248
from ..protocol.sessions import ClientPhase, ClientSession
from ..protocol.wallet import InSession, Posted
from .network import Network

Progress = Callable[[int, int | None], None]
DISPUTE_SPEED = 24.0
"""Speed of the dev network's clock while a session's expiry is waited for."""


@dataclass(slots=True)
class Outcome:
    """Who misbehaved, who is gone for good, and what was downloaded before."""

    dishonest: frozenset[str]
    gone: frozenset[str] = frozenset()
    download: Download | None = None
    notes: list[str] = field(default_factory=list)


Scenario = Callable[[Network, str, Progress], Awaitable[Outcome]]


async def _download(network: Network, url: str, progress: Progress) -> Download | None:
    await network.client.build_circuit()
    try:
        return await network.client.download(url, progress)
    except DownloadError as error:
        network.say(str(error))
        return None


async def _half(network: Network, url: str, progress: Progress, *, payments: int = 40) -> None:
    """Start the download and stop watching it once so many payments went to the exit."""
    await network.client.build_circuit()
    task = asyncio.create_task(network.client.download(url, progress))
    while network.client.sent("exit") < payments and not task.done():
        await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def client_vanishes(network: Network, url: str, progress: Progress) -> Outcome:
    """The client's process ends in the middle of the download and never comes back."""
    await _half(network, url, progress)
    network.say("the client vanishes; its relays close, and the intermediary asks for a close")
    await vanish(network.client)
    await asyncio.gather(*(relay.close_sessions() for relay in network.relays.values()))
    _request_closes(network, network.client.account)
    return Outcome(frozenset({"client"}), frozenset({"client"}),
                   notes=["the client's channels fall to the intermediary after the notice"])


async def relay_vanishes(network: Network, url: str, progress: Progress) -> Outcome:
    """The exit's process ends in the middle of the download and never comes back."""
    await _half(network, url, progress)
    exit_ = network.relays["exit"]
    network.say("the exit vanishes without closing; its sessions expire")
    await vanish(exit_)
    _request_closes(network, exit_.account)
    await network.chain.set_speed(DISPUTE_SPEED)
    await network.client.close_sessions(timeout=240)
    await network.relays["middle"].close_sessions()
    return Outcome(frozenset({"exit"}), frozenset({"exit"}),
                   notes=["what the exit never claimed stays with the client"])


async def intermediary_vanishes(network: Network, url: str, progress: Progress) -> Outcome:
    """The intermediary's process ends after the download; everybody claims on the ledger."""
    download = await _download(network, url, progress)
    network.say("the intermediary vanishes; relays and client claim on the ledger")
    await vanish(network.intermediary)
    await network.chain.set_speed(DISPUTE_SPEED)
    for name in ("middle", "exit"):
        await network.relays[name].close_sessions(timeout=240)
    await network.client.close_sessions(timeout=240)
    for user in (network.client, network.payee, *network.relays.values()):
        for one in user.wallets():
            _post_claim(user, wallets.channel_of(one))
    return Outcome(frozenset({"intermediary"}), frozenset({"intermediary"}), download,
                   ["every channel was closed by its owner's own token"])


async def client_posts_revoked_state(network: Network, url: str, progress: Progress) -> Outcome:
    """The client closes its sessions, then posts the state that one of them revoked."""
    download = await _download(network, url, progress)
    client = network.client
    session, one = _sessions_in(network, ClientPhase.ACTIVE)[0]
    old = wallets.claim(client.records(), InSession(one.session.cid, session))
    await client.close_sessions()
    assert isinstance(old, NanoRefund), "an open session is claimed by its nrt"
    network.say("the client posts a session's state that it has revoked; it is refuted")

    def post(records: Records, moment: Moment) -> Outbox:
        wallets.put(records, old.cid, Posted(old.cid, 0))
        return [Submit(b"claim:" + key248(old.cid), old)]

    client.engine.do(post)
    return Outcome(frozenset({"client"}), download=download,
                   notes=[f"session {session.hex()[:8]} was refuted with its secret"])


async def client_refunds_low(network: Network, url: str, progress: Progress) -> Outcome:
    """The client closes its exit's session on the ledger as if it had paid nothing."""
    download = await _download(network, url, progress)
    client = network.client
    network.say("the client claims its sessions on the ledger with no payment in them")
    for key, _ in _sessions_in(network, ClientPhase.ACTIVE):
        _claim_session(client, key)
    await client.leave_circuits()
    await asyncio.gather(*(relay.close_sessions() for relay in network.relays.values()))
    await client.close_sessions()
    return Outcome(frozenset({"client"}), download=download,
                   notes=["the intermediary revealed what the relays had proved"])


async def relay_posts_late(network: Network, url: str, progress: Progress) -> Outcome:
    """The exit sleeps over the expiry of its session, then claims its payments."""
    await _half(network, url, progress)
    exit_ = network.relays["exit"]
    network.say("the exit sleeps until its session has expired, and claims afterwards")
    assert isinstance(exit_, SleepyRelay), "every relay of a test network can sleep"
    await exit_.sleep()
    await network.chain.set_speed(DISPUTE_SPEED)
    await network.client.close_sessions(timeout=240)
    await network.relays["middle"].close_sessions()
    await exit_.engine.start()
    return Outcome(frozenset({"exit"}),
                   notes=["payments that were not on the ledger by the expiry do not count"])


class SleepyRelay(RelayAgent):
    """A relay that can stop looking after its money while it goes on forwarding cells."""

    asleep = False

    async def sleep(self) -> None:
        """Do nothing more for its sessions until its engine is started again."""
        self.asleep = True
        await self.engine.tasks.stop()

    def _close(self, terms_hash: bytes) -> None:
        if not self.asleep:
            super()._close(terms_hash)


async def vanish(agent: ClientAgent | RelayAgent | IntermediaryAgent) -> None:
    """End an agent's work and sockets at once, as if its machine had burnt; only this program
    still reads its store, for the account statement."""
    await agent.engine.halt()
    if not isinstance(agent, ClientAgent):
        await agent.stop_serving()
    if not isinstance(agent, IntermediaryAgent):
        await agent.proxy.close()


def _sessions_in(network: Network, phase: ClientPhase) -> list[tuple[bytes, ClientSession]]:
    return [(key, one) for key, one in network.client.records().scan(Table.SESSION)
            if isinstance(one, ClientSession) and one.phase is phase and one.sent]


def _post_claim(user: EndUserAgent, cid: int) -> None:
    user.engine.do(lambda records, moment: user.engine.machine.post_claim(records, cid))


def _claim_session(client: ClientAgent, terms_hash: bytes) -> None:
    client.engine.do(lambda records, moment: [
        *client.machine.claim_session(records, terms_hash), Done(b"session:" + terms_hash)])


def _request_close(agent: IntermediaryAgent, cid: int) -> None:
    agent.engine.do(lambda records, moment: agent.engine.machine.request_close(records, cid))


def _request_closes(network: Network, account: bytes) -> None:
    agent = network.intermediary
    for _, group in agent.engine.store.read().scan(Table.GROUP):
        if isinstance(group, Group) and group.account == account and (
                group.phase is GroupPhase.OPEN):
            for index in range(group.count):
                _request_close(agent, group.group << 8 | index)


async def wait_for_resolution(network: Network, timeout: float) -> None:
    """Wait until no channel of any group holds anything on the ledger any more."""
    async with asyncio.timeout(timeout):
        while True:
            held = int(await network.contracts.token.balance_of(network.deployment.ledger))
            if held == await network.owed_by_ledger() + await network.open_guard_escrow():
                return
            await asyncio.sleep(0.25)


DISPUTES: dict[str, Scenario] = {
    "client-vanishes": client_vanishes,
    "relay-vanishes": relay_vanishes,
    "intermediary-vanishes": intermediary_vanishes,
    "client-posts-revoked-state": client_posts_revoked_state,
    "relay-posts-late": relay_posts_late,
    "client-refunds-low": client_refunds_low,
}
"""Name → scenario, for `monetor demo --dispute`."""
