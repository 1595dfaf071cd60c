# SPDX-License-Identifier: BSD-3-Clause
"""A play of the session model on the real machines and the real ledger, move by move.

See `play`. An honest I sees every block at once. The machines of dishonest parties make their
messages, but do not follow the ledger, and post what they ever held. A dishonest I signs all that
it is asked for, or refuses it (`lawless`).

One payment of the model is K[1], two are K[2] real ones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from monetor_chain.parameters import DEMO, TAX_RATE_BP
from monetor_chain.rehearsal import Rehearsal
from monetor_chain.statements import lock_of
from offchain.crypto.hash_chain import HashChain
from offchain.crypto.issuer import IssuerKey
from offchain.protocol import (
    answering,
    ledger as calls,
    messages as m,
    nano_pay,
    wallet as wallets,
)
from offchain.protocol.end_user import Duty
from offchain.protocol.errors import RefusalCode
from offchain.protocol.moment import expiry
from offchain.protocol.records import Table
from offchain.protocol.sessions import ClientPhase, Deadline, Session
from offchain.protocol.wallet import Proved
from tests.model import session_model as sm
from tests.model.checker import Label
from tests.model.play import Play
from tests.model.session_model import State
from tests.protocol.world import CLIENT_DEPOSIT, DELTA_R, PRICE, RELAY_FUND, World

K = {0: 0, 1: 20, 2: DEMO.n}
"""Payments of the model → real payments, across a checkpoint and up to a full session."""

LATE_START = 45
"""How long before the first stage ends a late play begins, in seconds: then a deadline of a claim
from before T_exp − 2μ passes only after T_exp."""


def open_stage(stage: Rehearsal | None = None) -> World:
    """A world with one channel of the client's and one of the relay's."""
    world = World(stage or Rehearsal(), IssuerKey.generate())
    world.open(world.c, deposit=CLIENT_DEPOSIT, fund=0, count=1)
    world.open(world.r, deposit=0, fund=RELAY_FUND, count=1)
    return world


class SessionPlay(Play):
    """One play; `late` starts it shortly before T_exp − 2μ.

    Two for a ledger without a rule: `last_second`, in which a dishonest party that is asked to
    close answers when the notice ends; `free_lock`, in which sessions are posted with another lock.
    """

    users = "CR"

    def __init__(self, world: World, bad: frozenset[str] = frozenset(), *,
                 late: bool = False, last_second: bool = False, free_lock: bool = False) -> None:
        super().__init__(world, bad)
        self.late, self.last_second, self.free_lock = late, last_second, free_lock
        epoch = DEMO.epoch_at(world.now) + 1
        world.jump(epoch * DEMO.epoch)
        self.expiry = expiry(epoch, DEMO)
        self.locks = {sm.W0_C: world.c.wallet(self.cids["C"]).wpk,
                      sm.W0_R: world.r.wallet(self.cids["R"]).wpk}
        self.claims: dict[tuple[str, int], Any] = {}
        self.seed = b""
        self.nano_terms: Any = None
        self.tax = world.tax()
        self.untouched = world.c.records.copy()
        self.active: Any = None
        """A dishonest relay's records before it closed for the first time."""
        if "C" in bad:
            # Its terms exist from the start: it may offer or reveal them before it sets them up.
            self._start_setup()
            world.wire.clear()
        self._deafen()
        for who in bad - {"I"}:
            self._collect(who)

    # --- One move

    def possible(self, label: Label, s: State) -> bool:
        if not super().possible(label, s):
            return False
        match label:
            case ("I", "NanoSetupRequest") | ("C", "NanoSetupRequest") if (
                    label[0] == "I" or "C" in self.bad):
                # Terms are taken in their epoch only.
                return expiry(DEMO.epoch_at(self.world.now), DEMO) == self.expiry
            case ("R", "NanoEstablishRequest") if not self.bad & {"C", "R"}:
                return any(one.kind == "tell" and one.item.pcmd == m.NanoOffer.PCMD
                           for one in self.world.wire)
            case ("C", "CashOutRequest") if s.c == sm.IDLE:
                # A wallet whose set-up was refused is not shown again beside its channel.
                wallet = self.world.c.wallet(self.cids["C"])
                return not (isinstance(wallet, wallets.Idle) and wallet.shown)
        return True

    def perform(self, label: Label, before: State) -> None:
        who = label[0]
        if label[:2] == ("L", "reveal"):
            assert self.world.transact(self.world.e, calls.Reveal(
                self.nano_terms, *self._proof(K[label[2]])))
        elif who == "L":
            self._on_ledger(label)
        elif who == "I":
            self._intermediary(label)
        elif who in self.bad:
            self._dishonest(label, before)
        elif who == "C":
            self._client(label, before)
        else:
            self._relay(label, before)
        for one in self.bad - {"I"}:
            self._collect(one)

    def _intermediary(self, label: Label) -> None:
        match label:
            case (_, "refute", who):
                self._refute(who)
            case (_, "reveal", _):
                self._submit("I", calls.Reveal)
            case (_, "request_close", who):
                self._request_close(who)
            case (_, "CashOutRequest", who):
                self._request(who, m.CashOutRequest)
            case (_, "ClientCloseQuery"):
                self._request("C", m.ClientCloseQuery)
                self._reply("C", m.ClientCloseCount)
            case (_, name):
                kind = getattr(m, name)
                relay = kind in (m.NanoEstablishRequest, m.NanoEstablishReveal,
                                 m.RelayCloseRequest, m.RelayCloseReveal)
                self._request("R" if relay else "C", kind)

    def _client(self, label: Label, before: State) -> None:
        world, c = self.world, self.world.c
        match label[1]:
            case "NanoSetupRequest":
                self._start_setup()
            case "NanoOffer":
                world.offer(self.name)
            case "NanoAccepted" if "R" in self.bad:
                self._word("R", "C", m.NanoAccepted(self.name))
            case "NanoAccepted":
                self._tell("R", m.NanoAccepted)
            case "NanoPayment":
                for _ in range(K[before.sent], K[before.sent + 1]):
                    world.act(c, lambda records, moment: c.machine.nano_pay(
                        records, moment, self.name))
            case "ClientCloseQuery":
                world.act(c, lambda records, moment: c.machine.nano_close(records, self.name))
            case "Refusal":
                self._refused("C", m.ClientCloseRequest)
            case "ClientCloseCount":
                self._told("C", m.ClientCloseCount(*self._proof(K[label[2]])))
            case _:
                self._end_user(label)

    def _relay(self, label: Label, before: State) -> None:
        world, r = self.world, self.world.r
        match label[1]:
            case "NanoEstablishRequest" if "C" in self.bad:
                self._word("C", "R", m.NanoOffer(self.nano_terms, world.key_hash))
            case "NanoEstablishRequest":
                self._tell("C", m.NanoOffer)
            case "NanoPayment":
                for k in range(K[before.proved] + 1, K[before.proved + 1] + 1):
                    if "C" in self.bad:
                        self._word("C", "R", self._payment(k))
                    else:
                        self._tell("C", m.NanoPayment)
            case "RelayCloseRequest":
                world.act(r, lambda records, moment: r.machine.nano_close(records, self.name))
            case "reveal":
                world.act(r, lambda records, moment: r.machine._on_due(
                    records, moment, Deadline(Duty.REVEAL, self.name)))
                self._submit("R", calls.Reveal)
            case "Refusal":
                self._refused("R", m.NanoEstablishRequest)
            case _:
                self._end_user(label)

    def _end_user(self, label: Label) -> None:
        who, name = label[:2]
        node, cid = self.nodes[who], self.cids[who]
        match name:
            case "give up":
                self.world.act(node, lambda records, moment: node.machine.post_claim(records, cid))
            case "refund":
                self._submit(who, calls.Refund)
            case "nano_refund":
                self._submit(who, calls.NanoRefund)
            case "CashOutRequest":
                self.world.act(node, lambda records, moment: node.machine.cash_out(
                    records, cid >> 8))
            case "close":
                self._submit(who, calls.Close)
            case _ if self.i_bad:
                self._told(who, self.lawless.answer(self._open_request(who)))
            case _:
                self._reply(who, getattr(m, name))

    def _refused(self, who: str, kind: type[Any]) -> None:
        """The request is refused: by the rules, or because a dishonest I likes to."""
        if self.i_bad:
            asked = self._open_request(who)
            code = RefusalCode.CLAIM if isinstance(asked, m.ClientCloseRequest) else (
                RefusalCode.TERMS)
            self._told(who, self.lawless.refusal(asked, code))
            return
        self._request(who, kind)
        self._reply(who, m.Refusal)

    def _dishonest(self, label: Label, before: State) -> None:
        who, name, *rest = label
        node, world = self.nodes[who], self.world
        match name:
            case "refund" | "nano_refund":
                self._post(who, self.claims[who, sm.NRT if name == "nano_refund" else rest[0]])
            case "close":
                self._submit(who, calls.Close)
            case "CashOutRequest":
                if who == "C" and rest[0] == 1:
                    node.records = self.untouched.copy()
                    node.requests.clear()
                world.act(node, lambda records, moment: node.machine.cash_out(
                    records, self.cids[who] >> 8))
                self._exchange(who, m.CashOutRequest)
            case "NanoEstablishRequest":
                offer = m.NanoOffer(self.nano_terms, world.key_hash)
                world.act(node, lambda records, moment: node.machine.on_offer(
                    records, replace(moment, now=self._stage_at(sm.MARGIN_2) - 1), offer))
                self._exchange(who, m.NanoEstablishRequest)
            case "RelayCloseRequest":
                k = rest[0]
                invented = "C" not in self.bad and k > max(before.sent, before.k_c)
                best = Proved(K[k], b"\x01" * 32, ()) if invented else Proved(*self._proof(K[k]))
                self.active = self.active or node.records.copy()
                node.records = self.active.copy()
                node.requests.clear()
                world.act(node, lambda records, moment: records.put(
                    Table.PAYMENT, self.name, best)
                    or node.machine.nano_close(records, self.name))
                self._exchange(who, m.RelayCloseRequest)
            case "ClientCloseQuery":
                self._query()
            case "ClientCloseRequest":
                self._query()
                self._reply("C", m.ClientCloseCount)
                self._exchange(who, m.ClientCloseRequest)
            case _:
                self._exchange(who, getattr(m, name))

    def _post(self, who: str, call: Any) -> None:
        """A dishonest party's claim."""
        node, world = self.nodes[who], self.world
        if self.free_lock and isinstance(call, calls.NanoRefund):
            call = replace(call, nwpk=lock_of(b"\x07" * 32))
        notice = self._deadline(who) if self.last_second and (
            self._real_status(who) == sm.ASKED) else 0
        if notice:
            world.jump(notice - 1)
        assert world.transact(node, call), node.reverted
        if notice:
            world.jump(notice + 1)

    # --- Pieces of a move

    def _start_setup(self) -> None:
        world = self.world
        self.name = world.start_setup(self.cids["C"])
        world.routes[self.name] = {"C": "R", "R": "C"}
        current = world.c.records.get(Table.SESSION, self.name)
        self.seed, self.nano_terms = current.seed, current.session.terms
        self.expiry = current.session.terms.t_exp
        self.locks[sm.S_C] = lock_of(current.session.nwsk)
        if "C" in self.bad:
            # It takes every count that can be proved for one that it sent.
            world.act(world.c, lambda records, moment: records.put(
                Table.SESSION, self.name, replace(current, sent=DEMO.n)) or [])

    def _query(self) -> None:
        """Ask for the count as it is now."""
        world, c = self.world, self.world.c
        if c.records.get(Table.SESSION, self.name).phase is not ClientPhase.QUERYING:
            world.act(c, lambda records, moment: c.machine.nano_close(records, self.name))
        self._drop(lambda one: one.kind == "reply" and one.target == "C")
        self._request("C", m.ClientCloseQuery)

    def _collect(self, who: str) -> None:
        """Keep the claim that this party could post now."""
        node = self.nodes[who]
        found = wallets.claim(node.records, node.wallet(self.cids[who]))
        if isinstance(found, calls.NanoRefund):
            self.claims.setdefault((who, sm.NRT), replace(found, k=0, hc=bytes(32), path=()))
        elif isinstance(found, calls.Refund):
            old = found.wpk == self.locks[sm.W0_C if who == "C" else sm.W0_R]
            self.claims.setdefault((who, sm.RT0 if old else sm.RT1), found)

    def _exchange(self, who: str, kind: type[Any]) -> None:
        """A dishonest party's request and, unless it is refused, the reply."""
        node = self.nodes[who]
        self._request(who, kind)
        self._drop(lambda one: one.kind == "reply" and one.target == node.name
                   and one.item[1] == m.Refusal.PCMD)
        for one in [one for one in self.world.wire
                    if one.kind == "reply" and one.target == node.name]:
            self.world.wire.remove(one)
            self.world._deliver(one)
        assert not node.complaints, node.complaints

    def _chain(self) -> HashChain:
        return nano_pay.chain_of(self.seed, DEMO.n)

    def _proof(self, k: int) -> tuple[int, bytes, tuple[bytes, ...]]:
        chain = self._chain()
        return (k, chain.value(k), tuple(chain.path(k))) if k else (0, bytes(32), ())

    def _payment(self, k: int) -> m.NanoPayment:
        return m.NanoPayment(k, self._chain().value(k),
                             tuple(self._chain().path(k)) if k % 16 == 0 else ())

    # --- What the real state is, in the model's words

    def _real_phase(self, who: str) -> int:
        """An honest end user's phase: its wallet's class, and within a session the session's."""
        node, cid = self.nodes[who], self.cids[who]
        session = node.records.get(Table.SESSION, self.name) if self.name else None
        closed = sm.C_CLOSED if who == "C" else sm.R_CLOSED
        over = session is not None and session.phase == closed
        match node.wallet(cid):
            case wallets.Idle():
                return closed if over else sm.IDLE
            case (wallets.Spending() | wallets.InSession() | wallets.Closing()
                  | wallets.Renewing()):
                return int(session.phase)
            case wallets.CashingOut():
                signed = any(isinstance(one.call, calls.Close)
                             for one in node.submissions.values())
                return {(False, False): sm.CASHING_0, (False, True): sm.CASHING_1,
                        (True, False): sm.CASHED_0, (True, True): sm.CASHED_1}[signed, over]
            case wallets.Claiming() as wallet:
                found = wallets.claim(node.records, wallet)
                if isinstance(found, calls.NanoRefund):
                    return sm.CLAIM_NRT
                old = found.wpk == self.locks[sm.W0_C if who == "C" else sm.W0_R]
                return sm.CLAIM_RT0 if old else sm.CLAIM_RT1
            case _:
                return sm.ON_LEDGER

    def check(self, s: State) -> None:
        real: dict[str, Any] = {"c_status": self._real_status("C"),
                                "r_status": self._real_status("R")}
        model: dict[str, Any] = {"c_status": self._coarse("C", s.c_status),
                                 "r_status": self._coarse("R", s.r_status)}
        if self.name:
            real["k"] = self._view("k", lambda: tuple(
                self.world.stage.ledger.functions.claims(self.name).call()))
            model["k"] = (K[s.k_c], K[s.k_r])
        if "C" not in self.bad:
            real["c"], model["c"] = self._real_phase("C"), s.c
            if sm.C_OFFERED <= s.c <= sm.C_CLOSED:
                real["sent"] = self.world.c.records.get(Table.SESSION, self.name).sent
                model["sent"] = K[max(s.sent, 0)]
        if "R" not in self.bad:
            real["r"], model["r"] = self._real_phase("R"), s.r
        relay = self.world.r.records.get(Table.SESSION, self.name) if self.name else None
        if relay is not None:
            if "R" not in self.bad:
                real["proved"] = nano_pay.received(self.world.r.records, self.name)
                model["proved"] = K[s.proved]
            self.locks[sm.S_R] = lock_of(relay.session.nwsk)
        if self.i_bad:
            for bit, lock in self.locks.items():
                if ("C" if bit in (sm.W0_C, sm.S_C) else "R") not in self.bad:
                    real[f"known {bit}"] = lock in self.heard
                    model[f"known {bit}"] = bool(s.known & bit)
        else:
            self._check_intermediary(s, real, model)
        assert real == model, {one: (real[one], model[one])
                               for one in real if real[one] != model[one]}
        if s.t < sm.EXPIRED_T:
            assert self.world.now < self._stage_at(s.t + 1), "the real clock is in another stage"

    def _check_intermediary(self, s: State, real: dict[str, Any], model: dict[str, Any]) -> None:
        session = self.world.i.records.get(Table.SESSION, self.name) if self.name else None
        found = isinstance(session, Session)
        real |= {"phase": int(session.phase) if found else sm.NONE,
                 "leg": int(session.client_leg) if found else sm.LEG_OPEN,
                 "best": session.best.k if found else 0}
        model |= {"phase": s.phase, "leg": s.leg, "best": K[s.best]}
        if found:
            # A count that was on the ledger before Setup is not told again.
            told = s.seen_k >= 0
            real |= {"seen_k": session.ledger.k, "seen_k_r": session.ledger_k_r}
            model |= {"seen_k": K[max(s.seen_k, 0)], "seen_k_r": K[s.seen_k_r] if told else 0}
        # What was revoked is forgotten when no channel is left that could be claimed with it.
        over = self._real_status("C") == self._real_status("R") == sm.RESOLVED
        for bit, lock in self.locks.items():
            real[f"known {bit}"] = answering.lock_state(self.world.i.records, lock).revoked
            model[f"known {bit}"] = bool(s.known & bit) and (real[f"known {bit}"] or not over)

    def moved(self, label: Label) -> None:
        super().moved(label)
        if self.late and label == ("C" if "C" in self.bad or self.i_bad else "I",
                                   "NanoSetupRequest"):
            self.world.jump(self._stage_at(sm.MARGIN_2) - LATE_START)

    # --- Money

    def claimed(self, who: str, s: State) -> bool:
        lock = s.c_lock if who == "C" else s.r_lock
        return lock not in (sm.NOTHING, sm.CASH_0, sm.CASH_1)

    def check_money(self, s: State) -> None:
        world = self.world
        to_c, whole_c = self._paid(s.c_status, CLIENT_DEPOSIT - PRICE * K[s.c_paid]), CLIENT_DEPOSIT
        to_r, whole_r = self._paid(s.r_status, DELTA_R * K[s.r_paid]), RELAY_FUND
        tax = to_r * TAX_RATE_BP // 10_000
        bonds = self._bonds(s)
        gained = {who: world.wealth(node) - self.wealth[who]
                  for who, node in self.nodes.items()}
        over_c, over_r = s.c_status != sm.OPEN, s.r_status != sm.OPEN
        assert gained == {
            "C": (to_c if over_c else 0) + bonds["C"],
            "R": (to_r if over_r else 0) + bonds["R"],
            "I": ((whole_c - to_c if over_c else 0) + (whole_r - to_r - tax if over_r else 0)
                  - sum(bonds.values())),
        }
        assert world.tax() - self.tax == (tax if over_r else 0)
        assert world.conserved()

    @staticmethod
    def _paid(status: int, amount: int) -> int:
        return amount if status == sm.RESOLVED else 0
