# SPDX-License-Identifier: BSD-3-Clause
"""A play of the payment model on the real machines and the real ledger, move by move.

See `play`. An honest payer and payee are the real machines. Dishonest ones have theirs make the
first request, and send and post by hand what they hold: to each request they know the reply, for
an identical one gets the same. A dishonest I signs all that it is asked for (`lawless`).

T_p lies so far from the start that a claim posted at once is paid out before it, and both legs
come only when I takes it: `BEGIN` seconds after the start.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from monetor_chain.parameters import DEMO
from monetor_chain.rehearsal import Rehearsal
from monetor_chain.statements import Role, TokenKind, lock_of, tag
from offchain.crypto.errors import CryptoError
from offchain.crypto.issuer import IssuerKey, rerandomise, unblind
from offchain.protocol import answering, ledger as calls, messages as m, pay, wallet as wallets
from offchain.protocol.end_user import Duty
from offchain.protocol.errors import RefusalCode
from offchain.protocol.establish import refund_token, wallet_token
from offchain.protocol.moment import Tip
from offchain.protocol.records import Table, key248
from offchain.protocol.sessions import Deadline
from offchain.protocol.wallet import NO_TOKEN, Idle, Next
from tests.model import pay_model as pm, session_model as sm
from tests.model.checker import Label
from tests.model.pay_model import State
from tests.model.play import Play
from tests.protocol.forgeries import bent
from tests.protocol.weakening import request_of
from tests.protocol.world import (
    CLIENT_DEPOSIT,
    MU,
    PAY_FEE,
    PAYEE_DEPOSIT,
    PAYEE_FUND,
    World,
)

AMOUNT = 9_000
"""What the model's amount is, in base units."""
BEGIN = 4 * MU + MU // 2
"""How long after the start of a play the legs can come, in seconds."""
UNKNOWN = bytes(32)

WORDS: dict[Label, tuple[str, type[Any]]] = {
    ("E", "PayeeRequest"): ("C", m.PayInvoice),
    ("C", "PayVerified"): ("E", m.PayVerified),
    ("E", "PaySecret"): ("C", m.PaySecret),
}
"""Move → whose word it takes, and which."""
FIRST = {("C", "PayerRequest"), ("E", "PayeeRequest")}


def open_pay_stage() -> World:
    """A world with one channel of the payer's and one of the payee's."""
    world = World(Rehearsal(), IssuerKey.generate())
    world.stage.enrich(world.stage.party("stranger"), 10**9)
    world.open(world.c, deposit=CLIENT_DEPOSIT, fund=0, count=1)
    world.open(world.e, deposit=PAYEE_DEPOSIT, fund=PAYEE_FUND, count=1)
    return world


class PayPlay(Play):
    """One play of a hidden payment. `later`: T_p is so many seconds beyond what I takes."""

    users = "CE"

    def __init__(self, world: World, bad: frozenset[str] = frozenset(), *, later: int = 0,
                 crashing: bool = False) -> None:
        super().__init__(world, bad, crashing=crashing)
        self.start = world.now
        self.expiry = self.start + BEGIN + DEMO.dispute_window - MU + later
        self.old: dict[str, Idle] = {who: self.nodes[who].wallet(self.cids[who]) for who in "CE"}
        self.lock = self.old["C"].wpk
        self.name = pay.session_key(self.lock)
        world.routes[self.name] = {"C": "E", "E": "C"}
        self.asked_first: dict[str, Any] = {}
        """A dishonest party's leg."""
        self.bill: Any = None
        self.new: dict[str, Next] = {}
        """The wallet that a dishonest party's leg leads to; a payee's void one is "void"."""
        self.void: Any = None
        self.closes: dict[str, calls.Close] = {}
        if "C" in bad:
            # It may tell the payee of the payment before it asks for it.
            with bent(pay, "_require_near", lambda *_: None):
                self._invoice()
            self.asked_first["C"] = self._open_request("C")
            self.new["C"] = world.c.wallet(self.cids["C"]).next
            world.wire.clear()
        self._deafen()

    # --- One move

    def possible(self, label: Label, s: State) -> bool:
        if not super().possible(label, s):
            return False
        source, kind = WORDS.get(label[:2], ("", None))
        if not self.crashing or kind is None or source in self.bad:
            return True
        # A word that is lost is said again only as long as it can move the payment on.
        records = self.nodes[source].records.copy()
        return records.get(Table.PAYMENT, key248(self.lock)) is not None and any(
            one.pcmd == kind.PCMD
            for one in pay.tell_again(records, self.world.moment(), self.lock))

    def perform(self, label: Label, before: State) -> None:
        if label[:2] in FIRST:
            self._begin()
        match label:
            case ("L", *_):
                self._on_ledger(label)
            case ("I", "refute", who):
                self._refute(who)
            case ("I", "request_close", who):
                self._request_close(who)
            case ("I", "CashOutRequest", who):
                self._request(who, m.CashOutRequest)
            case ("I", name):
                self._request("C" if name.startswith("Payer") else "E", getattr(m, name))
            case (who, *_) if who in self.bad:
                self._dishonest(label, before)
            case (who, "give up"):
                node = self.nodes[who]
                self.world.act(node, lambda records, moment: node.machine.post_claim(
                    records, self.cids[who]))
            case (who, "refund", _):
                if before.e == pm.CLAIM_CRT and who == "E":
                    self._claim_again()
                self._submit(who, calls.Refund)
            case (who, "refund_conditional", _):
                self._submit(who, calls.RefundConditional)
            case (who, "close"):
                self._submit(who, calls.Close)
            case (who, "CashOutRequest"):
                node = self.nodes[who]
                self.world.act(node, lambda records, moment: node.machine.cash_out(
                    records, self.cids[who] >> 8))
            case (who, "Refusal"):
                self._refused(who)
            case (who, "RefundTokenReply" | "WalletTokenReply" | "CashOutReply" as name):
                self._taken(who, getattr(m, name))
            case _:
                self._say(label)

    def _begin(self) -> None:
        if self.world.now < self.start + BEGIN:
            self.world.jump(self.start + BEGIN)

    def _invoice(self) -> None:
        self.world.invoice(AMOUNT, self.cids["C"], self.cids["E"], t_p=self.expiry)
        current = pay.transfer(self.world.c.records, self.lock)
        self.bill = m.PayInvoice(current.amount, current.s, current.t_p, current.wpk_c)

    def _say(self, label: Label) -> None:
        """What payer and payee begin, and what they tell each other."""
        world = self.world
        match label:
            case ("C", "PayerRequest"):
                self._invoice()
            case ("E", "PayeeRequest"):
                world.e.receiving = self.cids["E"]
                self._heard(label, self.bill)
            case ("C", "PayVerified"):
                self._heard(label, m.PayVerified(self.lock))
            case ("E", "PaySecret"):
                self._heard(label, m.PaySecret(self.old["C"].wsk))
            case ("E", "PayeeVoid"):
                world.act(world.e, lambda records, moment: world.e.machine._on_due(
                    records, moment, Deadline(Duty.PAY, self.name)))
            case _:
                raise AssertionError(f"no such move: {label}")

    def _heard(self, label: Label, made: Any) -> None:
        """A word arrives: as the machine sent it, or as a dishonest party makes it."""
        source, kind = WORDS[label[:2]]
        target = label[0]
        if source in self.bad:
            self._word(source, target, made)
            return
        if self.crashing:
            node = self.nodes[source]
            self.world.act(node, lambda records, moment: node.machine._on_due(
                records, moment, Deadline(Duty.TELL, self.name)))
        self._tell(source, kind)
        assert not self.nodes[target].complaints, self.nodes[target].complaints

    def _refused(self, who: str) -> None:
        if self.i_bad:
            self._told(who, self.lawless.refusal(self._open_request(who), RefusalCode.TERMS))
            return
        self._forget_waiting(who)
        self._request(who, type(self._open_request(who)))
        self._reply(who, m.Refusal)

    def _taken(self, who: str, kind: type[Any]) -> None:
        """A reply arrives; a request that was told to wait goes out again for it."""
        if self.i_bad:
            self._told(who, self.lawless.answer(self._open_request(who)))
            return
        self._forget_waiting(who)
        if not any(one.kind == "reply" and one.target == who and one.item[1] == kind.PCMD
                   for one in self.world.wire):
            self._request(who, type(self._open_request(who)))
        self._reply(who, kind)

    def _forget_waiting(self, who: str) -> None:
        self._drop(lambda one: one.kind == "reply" and one.target == who
                   and one.item[1] == m.Refusal.PCMD)

    def _claim_again(self) -> None:
        """The conditional token has come too late: the claim behind it goes out instead."""
        e = self.world.e
        self._drop(lambda one: one.kind == "submit" and one.source == "E")
        e.submissions.clear()
        self.world.act(e, lambda records, moment: e.machine.post_claim(records, self.cids["E"]))

    # --- Dishonest parties

    def _dishonest(self, label: Label, before: State) -> None:
        who, name, *rest = label
        match name:
            case "PayerRequest" | "PayeeRequest":
                if who == "E" and who not in self.asked_first:
                    self._join()
                self._ask(self.asked_first[who], waits=True)
            case "PayeeVoid":
                self._ask(self._void_request())
            case "refund":
                self._post(who, self._refund(who, rest[0]))
            case "refund_conditional":
                self._post(who, self._conditional())
            case "CashOutRequest":
                self._cash_out(who, self.old[who] if rest[0] == 1 else self._renewed(who))
            case "close":
                self._post(who, self.closes[who])
            case _:
                self._ask(self._made(name), refused=True)

    def _ask(self, message: Any, *, waits: bool = False, refused: bool = False) -> Any:
        """A dishonest party's request; whether it is answered is for `check` to see."""
        reply = self.world.ask(message)
        if isinstance(reply, m.Refusal):
            allowed = {RefusalCode.NOT_YET} if waits else {RefusalCode.LOCK} if refused else set()
            assert reply.code in allowed, f"{type(message).__name__}: {reply.code.name}"
        return reply

    def _made(self, name: str) -> Any:
        match name:
            case "PayerReveal":
                return m.PayerReveal(self.old["C"].nonce, self.old["C"].wsk)
            case "PayeeClaim":
                return m.PayeeClaim(self.old["E"].nonce, self.old["C"].wsk)
            case "PayeeReveal":
                return m.PayeeReveal(self.old["E"].nonce, self.old["E"].wsk)
        raise AssertionError(f"nobody makes a {name}")

    def _join(self) -> None:
        """The payee's leg, by its machine."""
        e = self.world.e
        with bent(pay, "_require_near", lambda *_: None):
            self.world.act(e, lambda records, moment: e.machine.receive(
                records, replace(moment, now=self.start), self.cids["E"], self.bill))
        self.asked_first["E"] = self._open_request("E")
        self.new["E"] = e.wallet(self.cids["E"]).next
        self._drop(lambda one: one.source == "E")

    def _void_request(self) -> m.PayeeVoid:
        if self.void is None:
            e, records = self.world.e, self.world.e.records.copy()
            with bent(pay, "tip", lambda records: Tip(0, self.expiry + 1)):
                self.void = request_of(pay.void_payee(records, e.machine.user, self.lock))
            self.new["void"] = wallets.get(records, self.cids["E"]).next
        return self.void  # type: ignore[no-any-return]

    def _leg(self, who: str) -> Any:
        """I's reply to a leg that is joined."""
        return self._ask(self.asked_first[who])

    def _is_void(self) -> bool:
        return self.void is not None and self._e_leg() in (pm.VOIDING, pm.DONE)

    def _refund(self, who: str, lock: int) -> calls.Refund:
        if lock == pm.RT0:
            old = self.old[who]
            return calls.Refund(old.cid, old.wpk, old.balance, rerandomise(old.rt))
        if lock == pm.RTV:
            new, reply = self.new["void"], self._ask(self._void_request())
        elif who == "C":
            new, reply = self.new["C"], self._leg("C")
        elif self._e_leg() == pm.JOINED:
            # What the leg was answered with: a conditional token, unless I gives a plain one.
            new, reply = self.new["E"], self._leg("E")
        else:
            new, reply = self.new["E"], self._ask(self._made("PayeeClaim"))
        try:
            rt = refund_token(self.nodes[who].machine.user, new, reply.rt)
        except CryptoError as error:
            raise AssertionError(f"no refund token: {error}") from error
        return calls.Refund(new.cid, lock_of(new.wsk), new.balance, rerandomise(rt))

    def _conditional(self) -> calls.RefundConditional:
        new, user = self.new["E"], self.world.e.machine.user
        crt = unblind(user.issuer, self._leg("E").rt, new.t_rt, tag=tag(
            TokenKind.CONDITIONAL_REFUND, Role.CLIENT, user.ctx, self.lock, self.expiry),
            cid=new.cid, nonce=0, wpk=lock_of(new.wsk), balance=new.balance)
        return calls.RefundConditional(
            new.cid, lock_of(new.wsk), new.balance, rerandomise(crt), self.lock, self.expiry,
            self.old["C"].wsk)

    def _renewed(self, who: str) -> Idle:
        """The wallet after the payment."""
        new = self.new["void" if who == "E" and self._is_void() else who]
        reply = self._ask(self._made("PayerReveal" if who == "C" else "PayeeReveal"))
        pt = wallet_token(self.nodes[who].machine.user, new, reply.pt)
        return Idle(new.cid, new.nonce, new.wsk, new.balance, pt, NO_TOKEN)

    def _cash_out(self, who: str, idle: Idle) -> None:
        group, index = idle.cid >> 8, idle.cid & 0xFF
        reply = self._ask(m.CashOutRequest(group, (m.CashOutWallet(
            index, idle.nonce, idle.wpk, idle.balance, rerandomise(idle.pt)),)))
        self.closes[who] = calls.Close(group, 1 << index, idle.balance, reply.signature)

    def _post(self, who: str, call: Any) -> None:
        node = self.nodes[who]
        assert self.world.transact(node, call), node.reverted

    # --- What the real state is, in the model's words

    def _phase(self, who: str) -> int:
        node, cid = self.nodes[who], self.cids[who]
        transfer = node.records.get(Table.PAYMENT, key248(self.lock))
        wallet = node.wallet(cid)
        balance = getattr(getattr(wallet, "next", wallet), "balance", None)
        void = who == "E" and balance == self.old["E"].balance
        match wallet:
            case Idle() if transfer is None:
                return pm.SHOWN if wallet.shown else pm.IDLE
            case Idle() if who == "C":
                return pm.C_RENEWED
            case Idle():
                return pm.E_VOIDED if void else pm.E_RENEWED
            case wallets.Paying() if wallet.conditional == NO_TOKEN:
                return pm.C_REQUESTED if who == "C" else pm.E_REQUESTED
            case wallets.Paying() if who == "C":
                return pm.C_HOLDING
            case wallets.Paying():
                return pm.E_HOLDING if wallet.wsk_c == UNKNOWN else pm.E_HEARD
            case wallets.Renewing() if who == "C":
                return pm.C_REVEALED
            case wallets.Renewing():
                return pm.E_VOID_RENEWING if void else pm.E_RENEWING
            case wallets.Voiding():
                return pm.E_VOIDING
            case wallets.CashingOut():
                signed = any(isinstance(one.call, calls.Close)
                             for one in node.submissions.values())
                return pm.CASHED_1 if signed else pm.CASHING_1
            case wallets.Claiming():
                return self._claiming(who, wallets.claim(node.records, wallet))
        return pm.ON_LEDGER

    def _claiming(self, who: str, call: Any) -> int:
        if isinstance(call, calls.RefundConditional):
            return pm.CLAIM_CRT
        if call.wpk == self.old[who].wpk:
            return pm.CLAIM_RT0
        void = who == "E" and call.balance == self.old["E"].balance
        return pm.CLAIM_RTV if void else pm.CLAIM_RT1

    def _joined(self, who: str) -> int:
        found = self.world.i.records.get(Table.NONCE, key248(self.old[who].nonce))
        return found.state if isinstance(found, pay.JoinedLeg) else 0

    def _e_leg(self) -> int:
        """A void leg that is finished is DONE to I as well."""
        return {0: pm.APART, pay.JOINED: pm.JOINED, pay.CLAIMED: pm.CLAIMED, pay.DONE: pm.DONE,
                pay.VOIDING: pm.VOIDING}[self._joined("E")]

    def check(self, s: State) -> None:
        real: dict[str, Any] = {}
        model: dict[str, Any] = {}
        for who, status in (("C", s.c_status), ("E", s.e_status)):
            real[f"{who} status"] = self._real_status(who)
            model[f"{who} status"] = self._coarse(who, status)
            if who not in self.bad:
                real[f"{who} phase"] = self._phase(who)
                phase = s.c if who == "C" else s.e
                late = phase == pm.CLAIM_CRT and s.t == pm.EXPIRED_T
                model[f"{who} phase"] = pm.CLAIM_RT0 if late else phase
        if "C" not in self.bad:
            transfer = self.world.c.records.get(Table.PAYMENT, key248(self.lock))
            real["told"] = transfer is not None and transfer.secret != UNKNOWN
            model["told"] = s.told
            if transfer is not None and not s.told:
                real["verified"], model["verified"] = transfer.verified, s.verified
        if self.i_bad:
            self._check_heard(s, real, model)
        else:
            self._check_intermediary(s, real, model)
        assert real == model, {one: (real[one], model[one])
                               for one in real if real[one] != model[one]}
        if s.t < sm.EXPIRED_T:
            assert self.world.now < self._stage_at(s.t + 1), "the real clock is in another stage"

    def _check_heard(self, s: State, real: dict[str, Any], model: dict[str, Any]) -> None:
        for who, bit in (("C", pm.W0_C), ("E", pm.W0_E)):
            if who not in self.bad:
                real[f"known {who}"] = self.old[who].wpk in self.heard
                model[f"known {who}"] = bool(s.known & bit)

    def _check_intermediary(self, s: State, real: dict[str, Any], model: dict[str, Any]) -> None:
        records = self.world.i.records
        waiting = [bool(list(records.scan(Table.CHANNEL, start, start + b"\xff")))
                   for start in (b"pay:payer:", b"pay:payee:")]
        real["pending"], model["pending"] = waiting, [bool(s.pending & 1), bool(s.pending & 2)]
        real["c_leg"] = {0: pm.APART, pay.JOINED: pm.JOINED, pay.DONE: pm.DONE}[self._joined("C")]
        real["e_leg"] = self._e_leg()
        model["c_leg"] = s.c_leg
        model["e_leg"] = pm.DONE if s.e_leg == pm.VOIDED else s.e_leg
        # What was revoked is forgotten when no channel is left that could be claimed with it.
        over = self._real_status("C") == self._real_status("E") == sm.RESOLVED
        for who, bit in (("C", pm.W0_C), ("E", pm.W0_E)):
            known = answering.lock_state(records, self.old[who].wpk).revoked
            real[f"known {who}"] = known
            model[f"known {who}"] = bool(s.known & bit) and (known or not over)

    # --- Money

    def claimed(self, who: str, s: State) -> bool:
        lock = s.c_lock if who == "C" else s.e_lock
        return lock not in (pm.NOTHING, pm.CASH_0, pm.CASH_1)

    def check_money(self, s: State) -> None:
        world = self.world
        whole = {"C": CLIENT_DEPOSIT, "E": PAYEE_DEPOSIT + PAYEE_FUND}
        paid = {"C": self._paid_c(s), "E": self._paid_e(s)}
        bonds = self._bonds(s)
        gained = {who: world.wealth(node) - self.wealth[who] for who, node in self.nodes.items()}
        over = [who for who in "CE" if self.status_of(who, s) != pm.OPEN]
        assert gained == {
            **{who: (paid[who] if who in over else 0) + bonds[who] for who in "CE"},
            "I": sum(whole[who] - paid[who] for who in over) - sum(bonds.values()),
        }
        assert world.conserved()

    def _paid_c(self, s: State) -> int:
        if s.c_status in (pm.REFUTED, pm.FORFEIT):
            return 0
        less = AMOUNT + PAY_FEE if s.c_lock in (pm.RT1, pm.CASH_1) and not (
            s.c_lock == pm.CASH_1 and s.c_signed == 1) else 0
        return CLIENT_DEPOSIT - less

    def _paid_e(self, s: State) -> int:
        if s.e_status in (pm.REFUTED, pm.FORFEIT):
            return 0
        more = s.e_lock in (pm.RT1, pm.CRT) or s.e_lock == pm.CASH_1 and (
            s.e_leg == pm.DONE if not self.i_bad else s.heard)
        return PAYEE_DEPOSIT + (AMOUNT if more else 0)
