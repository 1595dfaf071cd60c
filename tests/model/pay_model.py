# SPDX-License-Identifier: BSD-3-Clause
"""One hidden payment between two client wallets, from the invoice to the last settlement.

The payer C and the payee E have a channel each at the intermediary I. Time has four stages around
T_p. A deadline of a claim that was posted before I read the locks may pass at any time; one that
came later passes after T_p, for I chose T_p by the smallest window.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.model.checker import Label
from tests.model.session_model import (
    ASKED,
    END,
    FORFEIT,
    LATER,
    OPEN,
    OVERDUE,
    REFUTED,
    RESOLVED,
    SOON,
)
from tests.model.weakenings import Weak

EARLY, MARGIN_2, MARGIN_1, EXPIRED_T = range(4)

# --- A leg at I: the payer's is joined, then done; the payee's also claimed, voiding or voided.
APART, JOINED, CLAIMED, DONE, VOIDING, VOIDED = range(6)

# --- The payer's wallet.
IDLE, C_REQUESTED, C_HOLDING, C_REVEALED, C_RENEWED = range(5)
# --- The payee's wallet.
E_REQUESTED, E_HOLDING, E_HEARD, E_RENEWING, E_RENEWED, E_VOIDING, E_VOID_RENEWING, E_VOIDED = (
    range(1, 9))
# --- Both: refused and idle again, or on the way out.
SHOWN, CLAIM_RT0, CLAIM_CRT, CLAIM_RT1, CLAIM_RTV, ON_LEDGER = range(20, 26)
CASHING_0, CASHING_1, CASHED_0, CASHED_1 = range(26, 30)

# --- What a channel was claimed with; RT1_E on the payer's channel is for one wallet on both legs.
NOTHING, RT0, RT1, CRT, RTV, CASH_0, CASH_1, RT1_E = range(8)

W0_C, W0_E = 1, 2

BALANCE, AMOUNT, FEE = 10, 3, 1


class State(NamedTuple):
    """Everything that decides what can happen next."""

    t: int = EARLY
    pending: int = 0
    """Legs that wait at I: 1 the payer's, 2 the payee's."""
    c_leg: int = APART
    e_leg: int = APART
    twin: bool = False
    """Both legs show the payer's wallet."""
    known: int = 0
    seen_t: int = EARLY
    seen_c: int = 0
    seen_e: int = 0
    c: int = IDLE
    verified: bool = False
    told: bool = False
    """An honest payer's secret has left."""
    e: int = IDLE
    heard: bool = False
    """An honest payee has counted the payment."""
    c_signed: int = 0
    e_signed: int = 0
    c_status: int = OPEN
    c_lock: int = NOTHING
    e_status: int = OPEN
    e_lock: int = NOTHING


Moves = list[tuple[Label, State]]


class PayModel:
    """The model for one coalition; `lag` as in `SessionModel`."""

    def __init__(self, bad: frozenset[str] = frozenset(), *, lag: bool = True, cash: bool = True,
                 weak: frozenset[Weak] = frozenset()) -> None:
        self.lag, self.cash, self.weak, self.bad = lag, cash, weak, bad
        self.c_bad, self.e_bad, self.i_bad = ("C" in bad, "E" in bad, "I" in bad)
        self.amount = -AMOUNT if Weak.NEGATIVE_AMOUNT in weak else AMOUNT

    def start(self) -> State:
        return State()

    def ended(self, s: State) -> bool:
        return s.t == END

    def moves(self, s: State) -> Moves:
        out: Moves = []
        if s.t == END:
            return out
        self._time(s, out)
        if self.i_bad:
            for who in "CE":
                if who not in self.bad and self._refutable(s, who):
                    out.append((("I", "refute", who), _with(s, who, REFUTED)))
        else:
            self._intermediary(s, out)
        if not self.c_bad:
            self._payer(s, out)
        elif not self.i_bad:
            self._bad_payer(s, out)
        if not self.e_bad:
            self._payee(s, out)
        elif not self.i_bad:
            self._bad_payee(s, out)
        self._deadlines(s, out)
        if not self.lag and not self.i_bad:
            return [(label, self._see(one)) for label, one in out]
        return out

    # --- Time and the ledger

    def _time(self, s: State, out: Moves) -> None:
        if s.t == EXPIRED_T:
            if self._settled(s, "C") and self._settled(s, "E"):
                out.append((("L", "end"), s._replace(t=END)))
            return
        if self.lag and not self.i_bad and s.seen_t != s.t:
            return
        if s.t == MARGIN_2 and s.told and s.e == E_HOLDING and not self.e_bad and not self.c_bad:
            return  # The payer says its secret again until it is heard.
        if s.t == MARGIN_1 and Weak.NO_CRT_CLAIM not in self.weak and s.e_status == OPEN and (
                s.e in (E_HEARD, CLAIM_CRT)):
            return  # The payee's conditional token is on the ledger when T_p comes.
        out.append((("L", "time", s.t + 1), s._replace(t=s.t + 1)))

    def _settled(self, s: State, who: str) -> bool:
        status, phase = (s.c_status, s.c) if who == "C" else (s.e_status, s.e)
        if who in self.bad:
            return self.i_bad or status >= RESOLVED
        return status >= RESOLVED or (phase == IDLE and status == OPEN)

    def _see(self, s: State) -> State:
        known = s.known
        if s.e_lock == CRT and s.e_status != OPEN:
            known |= W0_C
        return s._replace(seen_t=s.t if s.t != END else s.seen_t, known=known,
                          seen_c=_view(s.c_status), seen_e=_view(s.e_status))

    def _post(self, s: State, who: str, lock: int) -> State:
        late = s.c_leg != APART and Weak.T_P_TOO_LATE not in self.weak
        status = LATER if late else SOON
        if s.e_lock == CRT and self.i_bad:
            s = s._replace(known=s.known | W0_C)
        if who == "C":
            return s._replace(c_status=status, c_lock=lock)
        known = s.known | W0_C if lock == CRT and self.i_bad else s.known
        return s._replace(e_status=status, e_lock=lock, known=known)

    def _refutable(self, s: State, who: str) -> bool:
        status, lock, secret = ((s.c_status, s.c_lock, W0_C) if who == "C"
                                else (s.e_status, s.e_lock, W0_E))
        return status in (SOON, LATER) and lock == RT0 and bool(s.known & secret)

    def _deadlines(self, s: State, out: Moves) -> None:
        for who, status in (("C", s.c_status), ("E", s.e_status)):
            if status == SOON or (status == LATER and s.t == EXPIRED_T):
                seen = s.seen_c if who == "C" else s.seen_e
                if self.i_bad or seen == 1 and not self._refutable(self._see(s), who):
                    out.append((("L", "deadline", who), _with(s, who, OVERDUE)))
            elif status == OVERDUE:
                out.append((("L", "resolve", who), _with(s, who, RESOLVED)))
            elif status == ASKED:
                out.append((("L", "forfeit", who), _with(s, who, FORFEIT)))

    # --- The intermediary

    def _intermediary(self, s: State, out: Moves) -> None:
        if self.lag:
            seen = self._see(s)
            if seen != s:
                out.append((("I", "observe"), seen))
        for who in "CE":
            if self._refutable(s, who) and (s.seen_c if who == "C" else s.seen_e) == 1:
                out.append((("I", "refute", who), _with(s, who, REFUTED)))
        if s.t == EXPIRED_T:
            for who, status in (("C", s.c_status), ("E", s.e_status)):
                if who in self.bad and status == OPEN:
                    out.append((("I", "request_close", who), _with(s, who, ASKED)))

    def _live(self, s: State, who: str) -> bool:
        """Whether a wallet may stand on a leg: unspent, unrevoked and not on the ledger."""
        if who == "C":
            if Weak.POSTED_PAY_JOIN in self.weak:
                return not s.c_signed
            return not (s.c_signed or s.known & W0_C or s.seen_c and s.c_lock == RT0)
        if Weak.POSTED_PAYEE_JOIN in self.weak:
            return not s.e_signed
        return not (s.e_signed or s.known & W0_E or s.seen_e and s.e_lock == RT0)

    def _answer_leg(self, s: State, who: str) -> State | None:
        mine, other = (1, 2) if who == "C" else (2, 1)
        if s.c_leg != APART or s.seen_t >= MARGIN_2 or not self._live(s, who):
            return None
        if not s.pending & other:
            return s._replace(pending=s.pending | mine)
        if not (self._live(s, "C") and self._live(s, "E")):
            return None
        return self._join(s)

    def _join(self, s: State, twin: bool = False) -> State:
        """Mark both wallets. What is posted in a block that I has not read resolves after T_p."""
        c_status, e_status = s.c_status, s.e_status
        if Weak.T_P_TOO_LATE not in self.weak:
            if c_status == SOON and not s.seen_c:
                c_status = LATER
            if e_status == SOON and not s.seen_e:
                e_status = LATER
        return s._replace(pending=0, c_leg=JOINED, e_leg=JOINED, twin=twin, c_status=c_status,
                          e_status=e_status)

    def _takes_w0_c(self, s: State, ignore: bool) -> State | None:
        """I hears the payer's secret; None: with its wallet on the ledger it answers nothing."""
        if s.seen_c and s.c_lock == RT0 and not ignore:
            return None
        return s._replace(known=s.known | W0_C)

    def _answer_payer_reveal(self, s: State) -> State | None:
        if s.c_leg != JOINED:
            return None
        after = self._takes_w0_c(s, Weak.POSTED_PAYER_REVEAL in self.weak)
        if after is None:
            return s._replace(known=s.known | W0_C)
        return after._replace(c_leg=DONE)

    def _answer_claim(self, s: State) -> State | None:
        if s.e_leg != JOINED:
            return None
        after = self._takes_w0_c(s, Weak.POSTED_PAY_CLAIM in self.weak)
        if after is None:
            return s._replace(known=s.known | W0_C)
        return after._replace(e_leg=CLAIMED)

    def _answer_payee_reveal(self, s: State) -> State | None:
        if s.e_leg not in (CLAIMED, VOIDING) or s.known & W0_E:
            return None
        if s.seen_e and s.e_lock == RT0 and Weak.POSTED_PAYEE_REVEAL not in self.weak:
            return s._replace(known=s.known | W0_E)
        return s._replace(known=s.known | W0_E, e_leg=DONE if s.e_leg == CLAIMED else VOIDED)

    def _answer_void(self, s: State) -> State | None:
        passed = (s.t if Weak.VOID_BY_CLOCK in self.weak else s.seen_t) == EXPIRED_T
        if s.e_leg != JOINED or not passed:
            return None
        if s.known & W0_C and Weak.VOID_AFTER_SECRET not in self.weak:
            return None
        if s.known & W0_E or s.seen_e and s.e_lock == RT0:
            return None
        return s._replace(e_leg=VOIDING)

    def _answer_cash_out(self, s: State, who: str, which: int) -> State | None:
        if not self.cash:
            return None
        if who == "C":
            fresh = (s.c_leg == APART and not s.known & W0_C if which == 1 else s.c_leg == DONE)
            return s._replace(c_signed=which) if fresh and not (s.c_signed or s.seen_c) else None
        fresh = (s.e_leg == APART and not s.known & W0_E if which == 1
                 else s.e_leg in (DONE, VOIDED))
        return s._replace(e_signed=which) if fresh and not (s.e_signed or s.seen_e) else None

    # --- The payer

    def _payer(self, s: State, out: Moves) -> None:
        """What an honest payer does, and what I answers it."""
        c, i = s.c, not self.i_bad

        def to(label: str, phase: int, **more: object) -> None:
            out.append((("C", label), s._replace(c=phase, **more)))

        def reveal(label: str, after: State) -> None:
            """With rt' in hand and the payee's word, while it is early: the secret leaves."""
            ready = after.verified or Weak.NO_CRT_VERIFIED in self.weak
            if ready and s.t == EARLY:
                known = s.known | (W0_C if self.i_bad else 0)
                after = after._replace(c=C_REVEALED, told=True, known=known)
            out.append((("C", label), after))

        if c == IDLE and s.t == EARLY:
            to("PayerRequest", C_REQUESTED)
        elif c == C_REQUESTED:
            after = self._answer_leg(s, "C")
            if i and after is not None and after != s:
                out.append((("I", "PayerRequest"), after))
            if self.i_bad or s.c_leg != APART:
                reveal("RefundTokenReply", s._replace(c=C_HOLDING))
            if self.i_bad or s.c_leg == APART and after is None:
                to("Refusal", SHOWN)
        elif c == C_REVEALED:
            after = self._answer_payer_reveal(s)
            if i and after is not None and after != s:
                out.append((("I", "PayerReveal"), after))
            if self.i_bad or s.c_leg == DONE:
                to("WalletTokenReply", C_RENEWED)
        if c in (C_REQUESTED, C_HOLDING) and not s.verified and (
                self.e_bad or s.e == E_HOLDING):
            if c == C_HOLDING:
                reveal("PayVerified", s._replace(verified=True))
            else:
                out.append((("C", "PayVerified"), s._replace(verified=True)))
        self._end_user(s, "C", out)

    def _bad_payer(self, s: State, out: Moves) -> None:
        def ask(label: str, after: State | None, *more: int) -> None:
            if after is not None and after != s:
                out.append((("C", label, *more), after))

        ask("PayerRequest", self._answer_leg(s, "C"))
        if (Weak.SAME_WALLET in self.weak and self.e_bad and s.pending & 1
                and s.c_leg == APART and self._live(s, "C") and s.seen_t < MARGIN_2):
            ask("PayeeRequest", self._join(s, twin=True), 2)
        ask("PayerReveal", self._answer_payer_reveal(s))
        for which in (1, 2):
            ask("CashOutRequest", self._answer_cash_out(s, "C", which), which)
        if s.c_status in (OPEN, ASKED):
            out.append((("C", "refund", RT0), self._post(s, "C", RT0)))
            if s.c_leg != APART:
                out.append((("C", "refund", RT1), self._post(s, "C", RT1)))
            if s.twin and s.e_leg == CLAIMED:
                out.append((("C", "refund", RT1_E), self._post(s, "C", RT1_E)))
        if s.c_signed and s.c_status < RESOLVED:
            lock = CASH_0 if s.c_signed == 1 else CASH_1
            out.append((("C", "close"), s._replace(c_status=RESOLVED, c_lock=lock)))

    # --- The payee

    def _payee(self, s: State, out: Moves) -> None:
        """What an honest payee does, and what I answers it."""
        e, i = s.e, not self.i_bad

        def to(label: str, phase: int, **more: object) -> None:
            out.append((("E", label), s._replace(e=phase, **more)))

        def answer(label: str, after: State | None) -> None:
            if i and after is not None and after != s:
                out.append((("I", label), after))

        w0_e = s.known | (W0_E if self.i_bad else 0)
        if e == IDLE:
            if s.t == EARLY and (self.c_bad or s.c != IDLE):
                to("PayeeRequest", E_REQUESTED)
        elif e == E_REQUESTED:
            after = self._answer_leg(s, "E")
            answer("PayeeRequest", after)
            if self.i_bad or s.e_leg != APART and not s.twin:
                to("RefundTokenReply", E_HOLDING)
            if self.i_bad or (s.e_leg == APART or s.twin) and after is None:
                to("Refusal", SHOWN)
        elif e == E_HOLDING:
            in_time = s.t < MARGIN_1 or Weak.LATE_SECRET in self.weak
            if in_time and (self.c_bad or s.told):
                to("PaySecret", E_HEARD, heard=True,
                   known=s.known | (W0_C if self.i_bad else 0))
            if s.t == EXPIRED_T:
                to("PayeeVoid", E_VOIDING)
        elif e == E_HEARD:
            answer("PayeeClaim", self._answer_claim(s))
            if self.i_bad or s.e_leg == CLAIMED:
                to("RefundTokenReply", E_RENEWING, known=w0_e)
        elif e == E_RENEWING:
            answer("PayeeReveal", self._answer_payee_reveal(s))
            if self.i_bad or s.e_leg == DONE:
                to("WalletTokenReply", E_RENEWED)
        elif e == E_VOIDING:
            answer("PayeeVoid", self._answer_void(s))
            if self.i_bad or s.e_leg == VOIDING:
                to("RefundTokenReply", E_VOID_RENEWING, known=w0_e)
        elif e == E_VOID_RENEWING:
            answer("PayeeReveal", self._answer_payee_reveal(s))
            if self.i_bad or s.e_leg == VOIDED:
                to("WalletTokenReply", E_VOIDED)
        self._end_user(s, "E", out)

    def _bad_payee(self, s: State, out: Moves) -> None:
        def ask(label: str, after: State | None, *more: int) -> None:
            if after is not None and after != s:
                out.append((("E", label, *more), after))

        invited = self.c_bad or s.c != IDLE
        secret = self.c_bad or s.told
        if invited:
            ask("PayeeRequest", self._answer_leg(s, "E"))
        if secret:
            ask("PayeeClaim", self._answer_claim(s))
        if not s.twin:
            ask("PayeeReveal", self._answer_payee_reveal(s))
            ask("PayeeVoid", self._answer_void(s))
        for which in (1, 2):
            ask("CashOutRequest", self._answer_cash_out(s, "E", which), which)
        if s.e_status in (OPEN, ASKED):
            out.append((("E", "refund", RT0), self._post(s, "E", RT0)))
            if s.e_leg != APART and not s.twin:
                if secret and s.t < EXPIRED_T:
                    out.append((("E", "refund_conditional", CRT), self._post(s, "E", CRT)))
                if s.e_leg in (CLAIMED, DONE) or Weak.UNCONDITIONAL_CRT in self.weak:
                    out.append((("E", "refund", RT1), self._post(s, "E", RT1)))
                if s.e_leg in (VOIDING, VOIDED):
                    out.append((("E", "refund", RTV), self._post(s, "E", RTV)))
        if s.e_signed and s.e_status < RESOLVED:
            lock = CASH_0 if s.e_signed == 1 else CASH_1
            out.append((("E", "close"), s._replace(e_status=RESOLVED, e_lock=lock)))

    # --- What honest end users share

    def _end_user(self, s: State, who: str, out: Moves) -> None:
        phase, status = (s.c, s.c_status) if who == "C" else (s.e, s.e_status)
        renewed = (C_RENEWED,) if who == "C" else (E_RENEWED, E_VOIDED)

        def to(label: str, after: int) -> None:
            out.append(((who, label), s._replace(c=after) if who == "C" else s._replace(e=after)))

        if phase == ON_LEDGER or status != OPEN:
            return
        live = claim_of(who, s)
        if phase in (CLAIM_RT0, CLAIM_CRT, CLAIM_RT1, CLAIM_RTV):
            if live == CRT and s.t == EXPIRED_T:
                live = RT0
            after = self._post(s, who, live)
            after = after._replace(c=ON_LEDGER) if who == "C" else after._replace(e=ON_LEDGER)
            name = "refund_conditional" if live == CRT else "refund"
            out.append(((who, name, live), after))
            return
        # A payee that closes in the middle would leave the payer's secret revealed for nothing.
        if phase != IDLE and not (who == "E" and phase == E_HOLDING and s.t < MARGIN_1):
            to("give up", {RT0: CLAIM_RT0, CRT: CLAIM_CRT, RT1: CLAIM_RT1, RTV: CLAIM_RTV}[live])
        if not self.cash:
            return
        if phase in renewed:
            to("CashOutRequest", CASHING_1)
        elif phase == CASHING_1:
            signed = s.c_signed if who == "C" else s.e_signed
            if not self.i_bad and not signed:
                after_signing = self._answer_cash_out(s, who, 2)
                if after_signing is not None:
                    out.append((("I", "CashOutRequest", who), after_signing))
            if self.i_bad or signed:
                to("CashOutReply", CASHED_1)
        elif phase == CASHED_1:
            closed = (s._replace(c_status=RESOLVED, c_lock=CASH_1, c=ON_LEDGER) if who == "C"
                      else s._replace(e_status=RESOLVED, e_lock=CASH_1, e=ON_LEDGER))
            out.append(((who, "close"), closed))

    # --- What must hold

    def wrong(self, s: State) -> str | None:
        """Whose floor this end breaks."""
        if s.t != END:
            return None
        to_c, to_e = self.paid_c(s), self.paid_e(s)
        if not self.c_bad and to_c < BALANCE - (self.amount + FEE if s.told else 0):
            return "C loses"
        if not self.e_bad and to_e < BALANCE + (self.amount if s.heard else 0):
            return "E loses"
        if not self.c_bad and not self.e_bad and to_c + to_e < 2 * BALANCE - FEE:
            return "C and E lose together"
        if not self.i_bad:
            gain = 2 * BALANCE - to_c - to_e - self.owed(s)
            settled = s.c_leg == DONE or s.c_lock == RT1
            if gain < (FEE if settled else 0):
                return "I loses"
        return None

    def paid_c(self, s: State) -> int:
        """What the payer's channel paid out; untouched, it is worth its balance."""
        if s.c_status in (REFUTED, FORFEIT):
            return 0
        return {RT1: BALANCE - self.amount - FEE, RT1_E: BALANCE + self.amount,
                CASH_1: BALANCE - self.amount - FEE}.get(s.c_lock, BALANCE)

    def paid_e(self, s: State) -> int:
        """What the payee's channel paid out."""
        if s.e_status in (REFUTED, FORFEIT):
            return 0
        more = s.e_lock in (RT1, CRT) or s.e_lock == CASH_1 and (
            s.heard if not self.e_bad else s.e_leg == DONE)
        return BALANCE + (self.amount if more else 0)

    def owed(self, s: State) -> int:
        """What live wallet tokens of the coalition still entitle to; see `SessionModel.gain`."""
        owed = 0
        if self.c_bad:
            if s.c_leg == DONE and s.c_signed != 2 and s.c_lock != RT1:
                owed += BALANCE - self.amount - FEE
            elif s.c_leg == APART and not s.c_signed and s.c_lock != RT0 and not s.known & W0_C:
                owed += BALANCE
        if not self.e_bad:
            return owed
        if s.e_leg == DONE:
            return owed + (BALANCE + self.amount
                           if s.e_signed != 2 and s.e_lock not in (CRT, RT1) else 0)
        if s.e_leg == VOIDED:
            return owed + (BALANCE if s.e_signed != 2 and s.e_lock != RTV else 0)
        untouched = (s.e_leg == APART or s.twin) and not s.known & W0_E
        return owed + (BALANCE if untouched and not s.e_signed and s.e_lock != RT0 else 0)


def claim_of(who: str, s: State) -> int:
    """The one live claim of an honest end user."""
    if who == "C":
        return RT1 if s.c in (C_REVEALED, C_RENEWED, CASHING_1, CASHED_1, CLAIM_RT1) else RT0
    if s.e == CLAIM_CRT or s.e == E_HEARD and s.t < EXPIRED_T:
        return CRT
    if s.e in (E_VOID_RENEWING, E_VOIDED, CLAIM_RTV):
        return RTV
    if s.e in (E_RENEWING, E_RENEWED, CLAIM_RT1):
        return RT1
    if s.e in (CASHING_1, CASHED_1):
        return RT1 if s.heard else RTV
    return RT0


def _view(status: int) -> int:
    return 0 if status in (OPEN, ASKED) else 1 if status <= OVERDUE else 2


def _with(s: State, who: str, status: int) -> State:
    return s._replace(c_status=status) if who == "C" else s._replace(e_status=status)
