# SPDX-License-Identifier: BSD-3-Clause
"""Lives in which every message of the protocol occurs, cut into cues.

A cue is what the people behind the parties want next. It looks at the state first, so that a life
goes on, or comes to an early end, whatever has happened before. The cues of a `prefix` only lead
to where a life becomes interesting: their messages are another life's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from monetor_chain.parameters import DEMO
from offchain.protocol import guard, ledger as calls, messages as m, pay, wallet as wallets
from offchain.protocol.errors import ProtocolError
from offchain.protocol.records import Table
from offchain.protocol.sessions import ClientPhase, ClientSession, RelayPhase, RelaySession
from offchain.protocol.wallet import Idle
from tests.protocol.crash_points import Point, Spot, ends
from tests.protocol.crash_rig import LINK, Rig
from tests.protocol.world import MU, Node, Parcel

PAYMENTS = 16
"""So many that the last one is a checkpoint."""
AMOUNT = 2_500

Cue = Callable[[Rig], None]


@dataclass(frozen=True, slots=True)
class Life:
    """Cues, and the parties that take part in them."""

    name: str
    parties: str
    cues: tuple[Cue, ...]
    prefix: int = 0


# --- Opening and cash-out


def open_client(rig: Rig) -> None:
    rig.command("C", lambda records, moment: rig.c.machine.open_group(
        records, moment, deposit=1_000, fund=0, count=2))


def open_relay(rig: Rig) -> None:
    rig.command("R", lambda records, moment: rig.r.machine.open_group(
        records, moment, deposit=700, fund=12_000, count=1))


def cash_out_new(rig: Rig) -> None:
    for node in (rig.c, rig.r):
        for group in {cid >> 8 for cid in rig.idle(node) if (node.name, cid) not in rig.known}:
            rig.command(node.name, lambda records, moment, node=node, group=group:
                        node.machine.cash_out(records, group))


def nobody_funds(rig: Rig) -> None:
    """The intermediary's vault is empty: what it would fund never comes."""
    def fault(parcel: Parcel) -> Iterable[Parcel]:
        if parcel.kind == "submit" and isinstance(parcel.item.call, calls.Fund):
            rig.i.submissions.pop(parcel.item.key, None)
            return ()
        return (parcel,)

    rig.fault = fault
    open_client(rig)


def wait_for_reclaim(rig: Rig) -> None:
    rig.wait(rig.now + 6 * MU)


# --- Sessions


def sessions(node: Node, kind: type[Any], *phases: Any) -> list[bytes]:
    return [key for key, one in node.records.scan(Table.SESSION)
            if isinstance(one, kind) and one.phase in phases]


def setup(rig: Rig) -> None:
    cid = rig.c.cids()[0]
    if isinstance(rig.c.wallet(cid), Idle):
        rig.command("C", lambda records, moment: rig.c.machine.nano_setup(records, moment, cid))


def offer(rig: Rig) -> None:
    for key in sessions(rig.c, ClientSession, ClientPhase.READY):
        rig.routes[key] = {"C": "R", "R": "C"}
        rig.command("C", lambda records, moment, key=key: rig.c.machine.nano_offer(
            records, moment, key))


def pay_session(rig: Rig) -> None:
    for _ in range(PAYMENTS):
        for key in sessions(rig.c, ClientSession, ClientPhase.ACTIVE):
            rig.command("C", lambda records, moment, key=key: rig.c.machine.nano_pay(
                records, moment, key))
        rig.run()


def close_relay(rig: Rig) -> None:
    for key in sessions(rig.r, RelaySession, RelayPhase.ACTIVE):
        rig.command("R", lambda records, moment, key=key: rig.r.machine.nano_close(records, key))


def close_client(rig: Rig) -> None:
    for key in sessions(rig.c, ClientSession, ClientPhase.READY, ClientPhase.OFFERED,
                        ClientPhase.ACTIVE):
        rig.command("C", lambda records, moment, key=key: rig.c.machine.nano_close(records, key))


SESSION = (setup, offer, pay_session)


def refused_setup(rig: Rig) -> None:
    """Around a change of epoch, the two hold different sets of parameters for the same one."""
    rig.parameters = {DEMO.epoch_at(rig.now): replace(DEMO, price=101)}
    setup(rig)
    rig.parameters = {}


def the_intermediary_is_silent(rig: Rig) -> None:
    """From here on it acts on the ledger only."""
    rig.cut.add("I")
    rig.wait(rig.deadlines())


def claim_session(rig: Rig) -> None:
    for key in sessions(rig.c, ClientSession, ClientPhase.ACTIVE):
        rig.command("C", lambda records, moment, key=key: rig.c.machine.claim_session(
            records, key))


def wait_for_the_dispute(rig: Rig) -> None:
    rig.wait(rig.deadlines())


def keep_an_old_claim(rig: Rig) -> None:
    rig.facts["old"] = wallets.claim(rig.c.records, rig.c.wallet(rig.c.cids()[0]))
    rig.facts["dishonest"] = "C"


def post_the_old_claim(rig: Rig) -> None:
    """The client posts the state before its session, which it has revoked."""
    if rig.channel(rig.c.cids()[0]) == 5:
        rig.transact(rig.c, rig.facts["old"])


def request_close(rig: Rig) -> None:
    for cid in (*rig.c.cids(), rig.r.cids()[0]):
        if rig.channel(cid) == 5:
            rig.facts["bonds"] = rig.facts.get("bonds", 0) + DEMO.close_bond
            rig.command("I", lambda records, moment, cid=cid: rig.i.machine.request_close(
                records, cid))


# --- Hidden payments


def ask_terms(rig: Rig) -> None:
    rig.facts["amount"] = AMOUNT
    rig.command("C", lambda records, moment: rig.c.machine.pay_query())


def hidden_payment(rig: Rig) -> None:
    terms = [one.detail for one in rig.c.notes if one.what == "pay-terms"]
    cid, rig.e.receiving = rig.c.cids()[0], rig.e.cids()[0]
    wallet = rig.c.wallet(cid)
    if not terms or not isinstance(wallet, Idle):
        return
    rig.routes[pay.session_key(wallet.wpk)] = {"C": "E", "E": "C"}
    rig.command("C", lambda records, moment: rig.c.machine.pay(
        records, moment, cid=cid, amount=AMOUNT, t_p=int(terms[-1])))


def lose(rig: Rig, kind: type[Any]) -> None:
    """From here on no message of this kind arrives."""
    rig.fault = lambda parcel: () if parcel.kind in ("tell", "request") and (
        parcel.item.pcmd == kind.PCMD) else (parcel,)


def claims_are_not_answered(rig: Rig) -> None:
    lose(rig, m.PayeeClaim)


def nobody_hears_that_it_verifies(rig: Rig) -> None:
    lose(rig, m.PayVerified)


def wait_for_payment(rig: Rig) -> None:
    if sessions_of_payment(rig):
        rig.wait(rig.deadlines())


def sessions_of_payment(rig: Rig) -> bool:
    return any(isinstance(one, pay.Transfer) for node in (rig.c, rig.e)
               for _, one in node.records.scan(Table.PAYMENT))


# --- Guard channels


def ask_payout(rig: Rig) -> None:
    rig.routes[LINK] = {"C": "R", "R": "C"}
    rig.command("C", lambda records, moment: guard.query(LINK))


def channels(rig: Rig) -> list[bytes]:
    found = [one.channel for key, one in rig.c.records.scan(Table.GUARD)
             if isinstance(one, guard.PaidGuard) and key == one.channel
             and one.seq != guard.NO_VOUCHERS]
    for channel in found:
        rig.routes[channel] = {"C": "R", "R": "C"}
    return found


def hand_voucher(rig: Rig) -> None:
    for channel in channels(rig):
        for _ in range(2):
            if not guard.paid_guard(rig.c.records, channel).accepted:
                rig.command("C", lambda records, moment, channel=channel:
                            rig.c.machine.guard_voucher(records, channel))
                rig.run()


def pay_guard(rig: Rig) -> None:
    for channel in channels(rig):
        for _ in range(PAYMENTS + 1):
            if guard.guard_left(rig.c.records, rig.moment(), channel):
                rig.command("C", lambda records, moment, channel=channel: guard.pay_guard(
                    records, moment, channel))
            rig.run()


def roll_over(rig: Rig) -> None:
    for channel in channels(rig):
        rig.command("C", lambda records, moment, channel=channel:
                    rig.c.machine.guard_roll_over(records, moment, channel))


def close_guard(rig: Rig) -> None:
    for channel in channels(rig):
        rig.command("C", lambda records, moment, channel=channel:
                    rig.c.machine.close_guard(records, channel))


def wait_for_the_rest(rig: Rig) -> None:
    rig.wait(rig.now + DEMO.dispute_window + 2 * MU)


def wait_for_expiry(rig: Rig) -> None:
    for channel in channels(rig):
        rig.wait(guard.paid_guard(rig.c.records, channel).expiry - MU)


LIVES = (
    Life("opening", "CI", (open_client, cash_out_new)),
    Life("relay's opening", "RI", (open_relay, cash_out_new)),
    Life("not funded", "CI", (nobody_funds, wait_for_reclaim)),
    Life("session", "CRI", (*SESSION, close_relay, close_client)),
    Life("client closes first", "CRI", (*SESSION, close_client, close_relay), 3),
    Life("void session", "CI", (setup, close_client), 1),
    Life("refused setup", "CI", (refused_setup,)),
    Life("silent intermediary", "CRI", (*SESSION, the_intermediary_is_silent), 3),
    Life("client claims", "CRI", (
        *SESSION, claim_session, close_relay, wait_for_the_dispute), 3),
    Life("revoked claim", "RI", (
        keep_an_old_claim, *SESSION, close_relay, close_client, post_the_old_claim), 6),
    Life("request to close", "CRI", (*SESSION, request_close, wait_for_the_dispute), 3),
    Life("hidden payment", "CEI", (ask_terms, hidden_payment)),
    Life("claimed payment", "CEI", (
        ask_terms, claims_are_not_answered, hidden_payment, wait_for_payment), 3),
    Life("void payment", "CEI", (
        ask_terms, nobody_hears_that_it_verifies, hidden_payment, wait_for_payment), 3),
    Life("guard channel", "CR", (
        ask_payout, hand_voucher, pay_guard, roll_over, pay_guard, close_guard,
        wait_for_the_rest)),
    Life("guard's voucher expires", "CR", (
        ask_payout, hand_voucher, pay_guard, wait_for_expiry), 3),
)


def play(rig: Rig, life: Life, start: int = 0, stop: int | None = None) -> None:
    """Play cues `start` to `stop` of a life."""
    for number in range(start, len(life.cues) if stop is None else stop):
        rig.life, rig.cue = life.name, number
        life.cues[number](rig)
        rig.run()
        for _ in range(3):
            rig.retry()
        if rig._delayed:
            rig.wait(rig.now + MU)


def occurrences(rig: Rig, base: list[Any], lives: Iterable[Life] = LIVES
                ) -> dict[str, list[tuple[Spot, bool]]]:
    """Where in each life its messages occur, and whether they arrive; the lives are played once,
    without trouble. `base` holds the state from which they start."""
    found = {}
    for life in lives:
        rig.load(base[0])
        base[0] = rig.save()
        play(rig, life)
        found[life.name] = [(spot, spot in rig.arrived) for spot in ends(
            spot for spot in rig.trace if spot.cue >= life.prefix)]
    rig.load(base[0])
    base[0] = rig.save()
    return found


def run(rig: Rig, life: Life, wanted: Iterable[Point]) -> Iterator[tuple[Point, str]]:
    """Play a life once for each point, from the cue in which it lies; every point with what was
    wrong, if anything. The rig stands at the life's beginning."""
    by_cue: dict[int, list[Point]] = defaultdict(list)
    for point in wanted:
        by_cue[point.spot.cue].append(point)
    for cue in range(max(by_cue, default=-1) + 1):
        here = rig.save()
        for point in by_cue[cue]:
            rig.point = point
            try:
                play(rig, life, cue)
                rig.finish()
                rig.check()
            except (AssertionError, ProtocolError) as error:
                yield point, f"{type(error).__name__}: {error}"
            else:
                yield point, "" if rig.struck else "the message does not occur"
            rig.load(here)
            here = rig.save()
        play(rig, life, cue, cue + 1)
