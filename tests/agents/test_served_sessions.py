# SPDX-License-Identifier: BSD-3-Clause
"""Which sessions a relay counts as those of a circuit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from offchain.agents.relay import RelayAgent, ServedCircuit
from offchain.policy.credit import Credit
from offchain.protocol.sessions import RelayPhase, RelaySession

ONE, OTHER = bytes(32), bytes([1]) * 32


class Premium:
    def __init__(self):
        self.over = []

    def ended(self, session):
        self.over.append(session)


@pytest.mark.parametrize("phase", list(RelayPhase))
def test_a_session_that_the_machine_has_closed_makes_room_for_others(phase, monkeypatch):
    """On a circuit that lives longer than its sessions."""
    agent = RelayAgent.__new__(RelayAgent)
    session = RelaySession(None, phase)
    monkeypatch.setattr(agent, "records", lambda: SimpleNamespace(get=lambda table, key: session))
    agent.engine = SimpleNamespace(do=lambda action: None)
    agent._circuit_of = {ONE: (None, False), OTHER: (None, False)}
    served = ServedCircuit(None, Credit(1, 1), Premium(), [OTHER, ONE])
    agent._look_after(served, ONE)
    over = phase > RelayPhase.ACTIVE
    assert served.sessions == [OTHER] + [ONE] * (not over)
    assert served.premium.over == [ONE] * over
    assert (ONE in agent._circuit_of) is not over
