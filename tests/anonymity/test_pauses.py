# SPDX-License-Identifier: BSD-3-Clause
"""When a client sets a session up tells nothing of the channel: every new wallet pauses first."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from offchain.agents import client as agents
from offchain.agents.client import ClientAgent
from offchain.protocol.wallet import Idle

T_R = 30.0


@dataclass
class Clock:
    now: float = 1_000.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Waiting:
    """As much of a client agent as decides how long a wallet rests."""

    _rest: dict[int, tuple[int, float]] = field(default_factory=dict)

    def _longest_pause(self) -> float:
        return T_R

    def has_rested(self, wallet: Idle) -> bool:
        return ClientAgent._has_rested(self, wallet)  # type: ignore[arg-type]


def wallet(cid: int, nonce: int = 1) -> Idle:
    return Idle(cid, nonce, bytes(32), 10**6, bytes(192), bytes(192))


def test_a_wallet_pauses_before_its_first_session_as_before_any(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """The intermediary has just handed out the wallet token of a channel that it knows by name: a
    setup in the same second would be that channel's."""
    clock = Clock()
    monkeypatch.setattr(agents, "time", clock)
    client = Waiting()
    wallets = [wallet(cid) for cid in range(400)]
    assert not any(client.has_rested(one) for one in wallets)
    rested = []
    for step in range(1, 31):
        clock.now = 1_000.0 + T_R * step / 30
        rested.append(sum(client.has_rested(one) for one in wallets))
    # Uniform in [0, t_r]: in each of thirty slices about a thirtieth, never a half.
    assert rested[-1] == len(wallets)
    slices = [b - a for a, b in zip([0, *rested], rested, strict=False)]
    assert max(slices) < 60 and 100 < rested[14] < 300


def test_every_new_wallet_of_a_channel_pauses_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(agents, "time", clock)
    client = Waiting()
    assert not client.has_rested(wallet(1, nonce=1))
    clock.now += T_R
    assert client.has_rested(wallet(1, nonce=1))
    assert not client.has_rested(wallet(1, nonce=2))
