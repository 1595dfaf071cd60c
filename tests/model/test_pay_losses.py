# SPDX-License-Identifier: BSD-3-Clause
"""Losses that the payment model finds with a rule left out, on real machines without that rule.

As `test_losses`. Here payer and payee may lose too.
"""

from __future__ import annotations

from typing import Any

import pytest

from offchain.protocol import messages as m, pay
from offchain.protocol.moment import tip
from tests.model.checker import Trace
from tests.model.losses import Loss, Patch, by_the_clock, shortest_loss, stopped_at
from tests.model.pay_model import BALANCE, PayModel
from tests.model.pay_replay import PayPlay
from tests.model.play import replay
from tests.model.weakenings import Weak
from tests.protocol.weak_payments import no_waiting, ordinary_token
from tests.protocol.weak_sessions import ignored_at
from tests.protocol.world import CLIENT_DEPOSIT, MU, PAY_FEE, PAYEE_DEPOSIT, PAYEE_FUND, World

MUCH_LATER = 5 * MU


def far_deadlines(patch: Patch, world: World) -> None:
    """I takes a T_p so late that what is posted now is paid out before it."""
    patch.setattr(pay, "latest_deadline", lambda records, moment: (
        tip(records).timestamp + pay.smallest_window(records) - MU + MUCH_LATER))


LOSSES: dict[Weak, Loss] = {
    Weak.POSTED_PAY_JOIN: Loss(ignored_at(m.PayerRequest, m.PayeeRequest), "PayerRequest", "CE"),
    Weak.POSTED_PAY_CLAIM: Loss(ignored_at(m.PayeeClaim), "PayeeClaim", "CE"),
    Weak.T_P_TOO_LATE: Loss(far_deadlines, "PayerRequest", "CE"),
    Weak.UNCONDITIONAL_CRT: Loss(ordinary_token, "refund", "E"),
    Weak.NO_CRT_VERIFIED: Loss(no_waiting, "RefundTokenReply", "I"),
}
EVERY_LOSS = [pytest.param(one, id=one.name.lower()) for one in LOSSES]


def loss(weak: Weak) -> tuple[PayModel, Trace]:
    """A shortest play after which the two channels alone leave I with less than its deposits, or
    payer and payee with less than theirs and the fee."""
    model = PayModel(frozenset(LOSSES[weak].bad), lag=False, cash=False, weak=frozenset([weak]))

    def lost(s: Any) -> bool:
        if model.i_bad:
            return model.wrong(s) is not None
        return model.paid_c(s) + model.paid_e(s) > 2 * BALANCE

    return model, shortest_loss(model, lost)


def played(world: World, weak: Weak) -> PayPlay:
    """A play of this loss."""
    later = MUCH_LATER if weak is Weak.T_P_TOO_LATE else 0
    return PayPlay(world, frozenset(LOSSES[weak].bad), later=later)


@pytest.mark.long
@pytest.mark.parametrize("weak", EVERY_LOSS)
def test_somebody_really_loses_without_this_rule(
        pay_world: World, monkeypatch: Patch, weak: Weak) -> None:
    world = pay_world
    model, trace = loss(weak)
    with monkeypatch.context() as patch:
        LOSSES[weak].patch(patch, world)
        play = played(world, weak)
        replay(play, model, by_the_clock(trace.labels))
    gained = {who: world.wealth(node) - play.wealth[who] for who, node in play.nodes.items()}
    if model.i_bad:
        # E's channel is as it was.
        assert gained["C"] + PAY_FEE < CLIENT_DEPOSIT and gained["E"] == 0
    else:
        assert gained["I"] < PAYEE_FUND
        assert gained["C"] + gained["E"] > CLIENT_DEPOSIT + PAYEE_DEPOSIT


@pytest.mark.long
@pytest.mark.parametrize("weak", EVERY_LOSS)
def test_with_the_rule_the_play_is_stopped(pay_world: World, weak: Weak) -> None:
    model, trace = loss(weak)
    assert stopped_at(played(pay_world, weak), model, trace) == LOSSES[weak].stop
