# SPDX-License-Identifier: BSD-3-Clause
"""One session from Setup to the last settlement, as a finite model.

One client C, one relay R and one intermediary I with a channel each, n payments, and the ledger L.
`bad` are the parties that do whatever they can with what they hold, together; the others keep to
the protocol. Time has four stages around T_exp. See the package's page for what is left out.

The numbers of phases are those of the real machines.
"""

from __future__ import annotations

from typing import NamedTuple

from offchain.protocol.sessions import ClientPhase as C, Leg, Phase, RelayPhase as R
from tests.model.checker import Label
from tests.model.weakenings import Weak

# --- Time: before T_exp - 2 margins, before T_exp - margin, until T_exp, after it, and the end.
EARLY, MARGIN_2, MARGIN_1, EXPIRED_T, END = range(5)

# --- The intermediary's session: 0 is none, then `Phase`.
NONE = 0
SETTING_UP, SETUP, ESTABLISHING, ESTABLISHED, RELAY_CLOSING, RELAY_CLOSED, VOID = (
    int(one) for one in Phase)
LEG_OPEN, LEG_CLOSING, LEG_CLOSED = (int(one) for one in Leg)

# --- An end user's session: 0 is none, then its phases; from 20 on, what it does with its wallet.
IDLE = 0
(C_REQUESTED, C_REVEALING, C_READY, C_OFFERED, C_ACTIVE, C_QUERYING, C_CLOSING, C_REVOKED,
 C_CLOSED) = (int(one) for one in C if one is not C.ON_LEDGER)
R_REQUESTED, R_REVEALING, R_ACTIVE, R_CLOSING, R_REVOKED, R_CLOSED = (
    int(one) for one in R if one is not R.ON_LEDGER)
CLAIM_RT0, CLAIM_NRT, CLAIM_RT1, ON_LEDGER = 20, 21, 22, 23
CASHING_0, CASHING_1, CASHED_0, CASHED_1 = 24, 25, 26, 27

# --- A channel on the ledger. SOON: the deadline may pass before T_exp; LATER: only after it.
OPEN, ASKED, SOON, LATER, OVERDUE, RESOLVED, REFUTED, FORFEIT = range(8)

# --- What a channel was claimed with. RT1 + i is the i-th token of a close.
NOTHING, RT0, NRT, NRT_FREE, CASH_0, CASH_1, RT1 = range(7)

CLAIMS = {RT0: CLAIM_RT0, NRT: CLAIM_NRT, RT1: CLAIM_RT1}
"""What an honest end user claims with → its phase while it does."""

# --- Secrets that I knows, and whether nrt_R has been given out.
W0_C, S_C, W0_R, S_R, NRT_R_OUT = 1, 2, 4, 8, 16

PRICE, DELTA_R, TAX, FEE = 10, 7, 1, 2


class State(NamedTuple):
    """Everything that decides what can happen next."""

    t: int = EARLY
    # I's record of the session.
    phase: int = NONE
    leg: int = LEG_OPEN
    best: int = 0
    known: int = 0
    """Bits of the secrets that I knows."""
    # What I has seen of the ledger: stage, k_C and k_R, and the channels (0, 1 posted, 2 over).
    seen_t: int = EARLY
    seen_k: int = 0
    seen_k_r: int = 0
    seen_c: int = 0
    seen_r: int = 0
    # The honest client; `sent` is -1 until the session is offered.
    c: int = IDLE
    c_k: int = 0
    sent: int = -1
    # The honest relay.
    r: int = IDLE
    received: int = 0
    proved: int = 0
    """What it can prove: what it has received, or more that the ledger proved to it."""
    r_k: int = 0
    """The count of its close."""
    # Counts of the refund tokens that closes were answered with, in order.
    c_tokens: tuple[int, ...] = ()
    r_tokens: tuple[int, ...] = ()
    # Cash-outs that I has signed: 0 none, 1 the old wallet, 2 the new one, 3 paid a second time.
    c_signed: int = 0
    r_signed: int = 0
    # The ledger.
    k_c: int = 0
    k_r: int = 0
    c_status: int = OPEN
    c_lock: int = NOTHING
    c_paid: int = 0
    """Payments that C's channel was settled at."""
    r_status: int = OPEN
    r_lock: int = NOTHING
    r_paid: int = 0


Moves = list[tuple[Label, State]]


class SessionModel:
    """The model for one coalition.

    `lag`: I sees the ledger late, by up to a margin. `funds`: how many payments C's wallet covers.
    `cash`: cooperative closes are part of the play.
    """

    def __init__(self, bad: frozenset[str] = frozenset(), *, n: int = 2, lag: bool = True,
                 cash: bool = True, funds: int | None = None,
                 weak: frozenset[Weak] = frozenset()) -> None:
        self.n, self.lag, self.cash, self.weak = n, lag, cash, weak
        self.funds = n if funds is None else funds
        self.bad = bad
        self.c_bad, self.r_bad, self.i_bad = ("C" in bad, "R" in bad, "I" in bad)

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
            self._bad_intermediary(s, out)
        else:
            self._intermediary(s, out)
        if not self.c_bad:
            self._client(s, out)
        elif not self.i_bad:
            self._bad_client(s, out)
        if not self.r_bad:
            self._relay(s, out)
        elif not self.i_bad:
            self._bad_relay(s, out)
        self._registry(s, out)
        self._deadlines(s, out)
        if not self.lag and not self.i_bad:
            return [(label, self._see(one)) for label, one in out]
        return out

    # --- Time and the ledger

    def _time(self, s: State, out: Moves) -> None:
        if s.t == EXPIRED_T:
            if self._settled(s, "C") and self._settled(s, "R"):
                out.append((("L", "end"), s._replace(t=END)))
            return
        if self.lag and not self.i_bad and s.seen_t != s.t:
            return  # I looks at the ledger at least once in a stage.
        if s.t == MARGIN_1 and not self.r_bad and Weak.NO_REVEAL not in self.weak and (
                s.r in (R_ACTIVE, R_CLOSING, CLAIM_NRT) and s.k_r < s.received):
            return  # R's count is on the ledger when T_exp comes.
        out.append((("L", "time", s.t + 1), s._replace(t=s.t + 1)))

    def _settled(self, s: State, who: str) -> bool:
        status, phase = (s.c_status, s.c) if who == "C" else (s.r_status, s.r)
        if who in self.bad:
            return self.i_bad or status >= RESOLVED
        return status >= RESOLVED or (phase == IDLE and status == OPEN)

    def _see(self, s: State) -> State:
        """I's view once it has processed every block."""
        seen_k = s.seen_k
        if s.phase == NONE or s.k_c > abs(seen_k):
            # A count that was seen before Setup is not told again.
            seen_k = s.k_c
        return s._replace(
            seen_t=s.t if s.t != END else s.seen_t, seen_k=seen_k, seen_k_r=s.k_r,
            seen_c=_view(s.c_status), seen_r=_view(s.r_status))

    def _post(self, s: State, who: str, lock: int) -> State:
        """A claim enters the ledger; its deadline depends on when and what."""
        micro = who == "R" or lock not in (NRT, NRT_FREE) or Weak.NO_CLIENT_DELAY in self.weak
        status = SOON if s.t == EARLY and micro else LATER
        before = s.c_status if who == "C" else s.r_status
        if before == ASKED and Weak.ONE_DEADLINE in self.weak:
            status = OVERDUE
        if who == "C":
            return s._replace(c_status=status, c_lock=lock)
        return s._replace(r_status=status, r_lock=lock)

    def _reveal(self, s: State, k: int) -> State:
        """The registry: k_C always, k_R until T_exp. A relay that is being paid takes the proof
        over."""
        if k <= s.k_c:
            return s
        in_time = s.t < EXPIRED_T or Weak.NO_T_EXP in self.weak
        learns = in_time and not self.r_bad and s.r == R_ACTIVE and k > s.proved
        return s._replace(k_c=k, k_r=k if in_time else s.k_r, proved=k if learns else s.proved)

    def _preimages(self, s: State) -> int:
        """The largest count that the coalition can prove."""
        if self.c_bad:
            return self.n
        found = 0
        if self.r_bad:
            found = max(found, s.sent)
        if self.i_bad:
            found = max(found, s.best)
        found = max(found, s.k_c)
        return self.n if found and Weak.POSITION in self.weak else found

    def _registry(self, s: State, out: Moves) -> None:
        if self.bad:
            for k in range(s.k_c + 1, self._preimages(s) + 1):
                out.append((("L", "reveal", k), self._reveal(s, k)))

    def _refutable(self, s: State, who: str) -> bool:
        if who == "C":
            secret = {RT0: W0_C, NRT: S_C}.get(s.c_lock, 0)
            return s.c_status in (SOON, LATER) and bool(s.known & secret)
        secret = {RT0: W0_R, NRT: S_R}.get(s.r_lock, 0)
        return s.r_status in (SOON, LATER) and bool(s.known & secret)

    def _deadlines(self, s: State, out: Moves) -> None:
        for who, status, lock in (("C", s.c_status, s.c_lock), ("R", s.r_status, s.r_lock)):
            if status == SOON or (status == LATER and s.t == EXPIRED_T):
                if not self._duty(s, who, lock):
                    out.append((("L", "deadline", who), _with(s, who, status=OVERDUE)))
            elif status == OVERDUE:
                out.append((("L", "resolve", who), self._resolve(s, who, lock)))
            elif status == ASKED and who in self.bad:
                out.append((("L", "forfeit", who), _with(s, who, status=FORFEIT)))

    def _duty(self, s: State, who: str, lock: int) -> bool:
        """Whether an honest I has something to do before this channel's deadline."""
        if self.i_bad:
            return False
        if (s.seen_c if who == "C" else s.seen_r) != 1:
            return True
        if self._refutable(s, who):
            return True
        return who == "C" and lock == NRT and s.best > s.k_c and self._provable(s)

    def _provable(self, s: State) -> bool:
        """Whether I can prove its best count; without the check of a close, perhaps not."""
        return (Weak.K_UNCHECKED not in self.weak or not self.r_bad
                or s.best <= self._preimages(s))

    def _resolve(self, s: State, who: str, lock: int) -> State:
        if lock in (RT0, CASH_0):
            paid = 0
        elif lock in (NRT, NRT_FREE):
            paid = s.k_c if who == "C" else s.k_r
        else:
            tokens = s.c_tokens if who == "C" else s.r_tokens
            if who not in self.bad:
                tokens = (s.c_k,) if who == "C" else (s.r_k,)
            paid = tokens[-1 if lock == CASH_1 else lock - RT1]
        return _with(s, who, status=RESOLVED, paid=paid)

    def _close(self, s: State, who: str, lock: int) -> State:
        """The cooperative close."""
        after = self._resolve(s, who, lock)
        return after._replace(c_lock=lock) if who == "C" else after._replace(r_lock=lock)

    # --- The intermediary

    def _intermediary(self, s: State, out: Moves) -> None:
        if self.lag:
            seen = self._see(s)
            if seen != s:
                out.append((("I", "observe"), seen))
        for who in "CR":
            if self._refutable(s, who) and (s.seen_c if who == "C" else s.seen_r) == 1:
                out.append((("I", "refute", who), _with(s, who, status=REFUTED)))
        if (s.c_lock == NRT and s.seen_c == 1 and s.best > max(s.k_c, s.seen_k)
                and self._provable(s)):
            out.append((("I", "reveal", s.best), self._reveal(s, s.best)))
        if s.t == EXPIRED_T:
            for who, status in (("C", s.c_status), ("R", s.r_status)):
                if who in self.bad and status == OPEN:
                    out.append((("I", "request_close", who), _with(s, who, status=ASKED)))

    def _answer_setup(self, s: State) -> State | None:
        if s.phase != NONE or s.t != EARLY or s.c_signed:
            return None
        if self.funds < self.n and Weak.NO_RANGE not in self.weak:
            return None
        if s.seen_k and Weak.REVEALED_BEFORE_SETUP not in self.weak:
            return None
        return s._replace(phase=SETTING_UP, seen_k=-s.seen_k)

    def _answer_setup_reveal(self, s: State) -> State | None:
        if s.phase != SETTING_UP:
            return None
        if s.seen_c and s.c_lock == RT0 and Weak.POSTED_SETUP not in self.weak:
            return s._replace(known=s.known | W0_C)
        return s._replace(phase=SETUP, known=s.known | W0_C)

    def _answer_establish(self, s: State) -> State | None:
        if s.phase != SETUP or s.r_signed or s.known & NRT_R_OUT:
            return None
        if s.seen_t >= MARGIN_1 and Weak.LATE_ESTABLISH not in self.weak:
            return None
        after = s._replace(known=s.known | NRT_R_OUT)
        if Weak.NRT_WITHOUT_STATE in self.weak:
            return after
        if Weak.RELAY_NOT_REVOKED in self.weak:
            return after._replace(phase=ESTABLISHED)
        return after._replace(phase=ESTABLISHING)

    def _answer_establish_reveal(self, s: State) -> State | None:
        if s.phase != ESTABLISHING:
            return None
        if s.seen_r and s.r_lock == RT0 and Weak.POSTED_ESTABLISH not in self.weak:
            return s._replace(known=s.known | W0_R)
        return s._replace(phase=ESTABLISHED, known=s.known | W0_R)

    def _answer_relay_close(self, s: State, k: int, proved: int) -> State | None:
        again = s.phase == RELAY_CLOSING and (
            Weak.SECOND_CLOSE in self.weak
            or Weak.K_IN_KEY in self.weak and k not in s.r_tokens)
        if s.phase != ESTABLISHED and not again or len(s.r_tokens) > 1:
            return None
        if s.seen_r and s.r_lock in (NRT, NRT_FREE) and Weak.POSTED_CLOSE_R not in self.weak:
            return None
        if k > proved and Weak.K_UNCHECKED not in self.weak:
            return None
        if (s.seen_t >= MARGIN_1 and k != max(s.best, s.seen_k_r)
                and Weak.LATE_RELAY_CLOSE not in self.weak):
            return None
        return s._replace(phase=RELAY_CLOSING, best=k, r_tokens=(*s.r_tokens, k))

    def _answer_relay_reveal(self, s: State) -> State | None:
        if s.phase != RELAY_CLOSING:
            return None
        if s.seen_r and s.r_lock in (NRT, NRT_FREE) and Weak.POSTED_CLOSE_R not in self.weak:
            return s._replace(known=s.known | S_R)
        return s._replace(phase=RELAY_CLOSED, known=s.known | S_R)

    def _count(self, s: State) -> int | None:
        """k*, or None while the client's leg may not close."""
        if s.leg == LEG_CLOSED or s.known & S_C:
            return None
        if s.seen_c and s.c_lock in (NRT, NRT_FREE) and Weak.POSTED_CLOSE_C not in self.weak:
            return None
        if s.phase == NONE or (
                s.phase == SETTING_UP and Weak.CLOSE_FROM_SETTING_UP not in self.weak):
            return None
        expired = (s.t if Weak.WALL_CLOCK in self.weak else s.seen_t) == EXPIRED_T
        over = s.seen_r == 2 and s.r_lock in (NRT, NRT_FREE)
        if (s.phase in (SETTING_UP, SETUP, VOID, RELAY_CLOSED) or over or expired
                or Weak.CLOSE_ORDER in self.weak
                or s.phase == RELAY_CLOSING and Weak.CLOSING_AS_CLOSED in self.weak):
            return max(s.best, s.seen_k)
        return None

    def _answer_query(self, s: State) -> State:
        return s._replace(phase=VOID) if s.phase == SETUP else s

    def _answer_client_close(self, s: State, k: int) -> State | None:
        again = s.leg == LEG_CLOSING and (
            Weak.SECOND_CLOSE in self.weak
            or Weak.K_IN_KEY in self.weak and k not in s.c_tokens)
        if s.leg != LEG_OPEN and not again or len(s.c_tokens) > 1:
            return None
        if s.phase == SETUP or self._count(s) != k:
            return None
        return s._replace(leg=LEG_CLOSING, c_tokens=(*s.c_tokens, k))

    def _answer_client_reveal(self, s: State) -> State | None:
        if s.leg != LEG_CLOSING or s.known & S_C:
            return None
        if s.seen_c and s.c_lock in (NRT, NRT_FREE) and Weak.POSTED_CLOSE_C not in self.weak:
            return s._replace(known=s.known | S_C)
        return s._replace(leg=LEG_CLOSED, known=s.known | S_C)

    def _answer_cash_out(self, s: State, who: str, which: int) -> State | None:
        """Sign the close of an idle wallet: 1 the one before the session, 2 the one after it."""
        if not self.cash:
            return None
        if who == "C":
            if s.c_signed or s.seen_c:
                return None
            fresh = s.phase == NONE if which == 1 else s.leg == LEG_CLOSED
            return s._replace(c_signed=which) if fresh else None
        if s.r_signed or s.seen_r:
            return None
        fresh = not s.known & NRT_R_OUT if which == 1 else s.phase == RELAY_CLOSED
        return s._replace(r_signed=which) if fresh else None

    def _bad_intermediary(self, s: State, out: Moves) -> None:
        for who in "CR":
            if who in self.bad:
                continue
            if self._refutable(s, who):
                out.append((("I", "refute", who), _with(s, who, status=REFUTED)))
            status = s.c_status if who == "C" else s.r_status
            if status == OPEN:
                out.append((("I", "request_close", who), self._asked(s, who)))
            if status == OPEN and Weak.OWN_CLOSE in self.weak:
                out.append((("I", "refund", who), _with(s, who, status=FORFEIT)))

    @staticmethod
    def _asked(s: State, who: str) -> State:
        """An honest end user whose close is asked for gives up what it does, and claims."""
        phase = s.c if who == "C" else s.r
        if phase not in CLAIMS.values():
            phase = CLAIMS[claim_of(who, phase)]
        after = _with(s, who, status=ASKED)
        return after._replace(c=phase) if who == "C" else after._replace(r=phase)

    # --- The client

    def _client(self, s: State, out: Moves) -> None:
        """What an honest client does, and what I answers it."""
        c, i = s.c, not self.i_bad

        def to(label: str, phase: int, **more: int) -> None:
            out.append((("C", label), s._replace(c=phase, **more)))

        def answer(label: str, after: State | None) -> None:
            if i and after is not None:
                out.append((("I", label), after))

        if c == IDLE:
            if s.t == EARLY and self.funds >= self.n:
                early = W0_C if Weak.EARLY_SECRET in self.weak and self.i_bad else 0
                to("NanoSetupRequest", C_REQUESTED, known=s.known | early)
        elif c == C_REQUESTED:
            answer("NanoSetupRequest", self._answer_setup(s))
            if self.i_bad or s.phase != NONE:
                to("NanoRefundReply", C_REVEALING,
                   known=s.known | (W0_C if self.i_bad else 0))
            if self.i_bad:
                to("Refusal", IDLE)
        elif c == C_REVEALING:
            answer("NanoSetupReveal", self._answer_setup_reveal(s))
            if self.i_bad or s.phase >= SETUP:
                to("Acknowledged", C_READY)
        elif c == C_READY:
            if s.t == EARLY:
                to("NanoOffer", C_OFFERED, sent=0)
        elif c == C_OFFERED:
            if self.r_bad or s.r in (R_ACTIVE, R_CLOSING, R_REVOKED, R_CLOSED):
                to("NanoAccepted", C_ACTIVE)
        elif c == C_ACTIVE:
            if s.t == EARLY and s.sent < self.n:
                to("NanoPayment", C_ACTIVE, sent=s.sent + 1)
        elif c == C_QUERYING:
            if i:
                k = self._count(s)
                if k is not None and (k <= max(s.sent, 0) or Weak.ANY_COUNT in self.weak):
                    out.append((("I", "ClientCloseQuery"),
                                self._answer_query(s)._replace(c=C_CLOSING, c_k=k)))
            else:
                most = self._preimages(s)
                if Weak.ANY_COUNT not in self.weak:
                    most = min(most, max(s.sent, 0))
                else:
                    most = self.n
                for k in range(most + 1):
                    out.append((("C", "ClientCloseCount", k),
                                s._replace(c=C_CLOSING, c_k=k)))
        elif c == C_CLOSING:
            if i and s.leg == LEG_OPEN:
                k = self._count(s)
                if k is not None and k != s.c_k:
                    to("Refusal", C_QUERYING)
                elif k is not None:
                    answer("ClientCloseRequest", self._answer_client_close(s, k))
            if self.i_bad:
                to("Refusal", C_QUERYING)
            if self.i_bad or s.leg == LEG_CLOSING:
                to("RefundTokenReply", C_REVOKED, known=s.known | (S_C if self.i_bad else 0))
        elif c == C_REVOKED:
            answer("ClientCloseReveal", self._answer_client_reveal(s))
            if self.i_bad or s.leg == LEG_CLOSED:
                to("WalletTokenReply", C_CLOSED)
        if c in (C_READY, C_OFFERED, C_ACTIVE):
            to("ClientCloseQuery", C_QUERYING)
        self._end_user(s, "C", out)

    def _bad_client(self, s: State, out: Moves) -> None:
        """What a client can make of an honest I, and of the ledger."""

        def ask(label: str, after: State | None, *more: int) -> None:
            if after is not None and after != s:
                out.append((("C", label, *more), after))

        ask("NanoSetupRequest", self._answer_setup(s))
        ask("NanoSetupReveal", self._answer_setup_reveal(s))
        k = self._count(s)
        if k is not None:
            ask("ClientCloseQuery", self._answer_query(s))
            ask("ClientCloseRequest", self._answer_client_close(s, k), k)
        ask("ClientCloseReveal", self._answer_client_reveal(s))
        for which in (1, 2):
            ask("CashOutRequest", self._answer_cash_out(s, "C", which), which)
        if s.c_status in (OPEN, ASKED):
            out.append((("C", "refund", RT0), self._post(s, "C", RT0)))
            if s.phase != NONE:
                lock = NRT_FREE if Weak.NWPK_UNBOUND in self.weak else NRT
                out.append((("C", "nano_refund", 0), self._post(s, "C", lock)))
            for at in range(len(s.c_tokens)):
                out.append((("C", "refund", RT1 + at), self._post(s, "C", RT1 + at)))
        self._signed_close(s, "C", s.c_status, s.c_signed, out)

    def _signed_close(self, s: State, who: str, status: int, signed: int, out: Moves) -> None:
        if signed not in (1, 2):
            return
        if status < RESOLVED:
            out.append(((who, "close"), self._close(s, who, CASH_0 if signed == 1 else CASH_1)))
        elif Weak.GROUP_CLOSE_RESOLVED in self.weak:
            out.append(((who, "close"), s._replace(c_signed=3) if who == "C"
                        else s._replace(r_signed=3)))

    # --- The relay

    def _relay(self, s: State, out: Moves) -> None:
        """What an honest relay does, and what I answers it."""
        r, i = s.r, not self.i_bad

        def to(label: str, phase: int, **more: int) -> None:
            out.append((("R", label), s._replace(r=phase, **more)))

        def answer(label: str, after: State | None) -> None:
            if i and after is not None:
                out.append((("I", label), after))

        if r == IDLE:
            if s.t == EARLY and (self.c_bad or s.sent >= 0):
                early = W0_R if Weak.EARLY_SECRET in self.weak and self.i_bad else 0
                to("NanoEstablishRequest", R_REQUESTED, known=s.known | early)
        elif r == R_REQUESTED:
            after = self._answer_establish(s)
            answer("NanoEstablishRequest", after)
            if self.i_bad or s.known & NRT_R_OUT:
                to("NanoRefundReply", R_REVEALING,
                   known=s.known | (W0_R if self.i_bad else 0))
            elif after is None:
                to("Refusal", IDLE, proved=0)
            if self.i_bad:
                to("Refusal", IDLE, proved=0)
        elif r == R_REVEALING:
            answer("NanoEstablishReveal", self._answer_establish_reveal(s))
            if self.i_bad or s.phase >= ESTABLISHED:
                to("Acknowledged", R_ACTIVE)
        elif r == R_ACTIVE:
            in_time = s.t == EARLY or Weak.LATE_PAYMENT in self.weak
            if in_time and s.proved < (self.n if self.c_bad else s.sent):
                to("NanoPayment", R_ACTIVE, received=s.proved + 1, proved=s.proved + 1)
            to("RelayCloseRequest", R_CLOSING, r_k=s.proved,
               best=max(s.best, s.proved) if self.i_bad else s.best)
        elif r == R_CLOSING:
            answer("RelayCloseRequest", self._answer_relay_close(s, s.r_k, s.r_k))
            if self.i_bad or s.phase == RELAY_CLOSING:
                to("RefundTokenReply", R_REVOKED, known=s.known | (S_R if self.i_bad else 0))
        elif r == R_REVOKED:
            answer("RelayCloseReveal", self._answer_relay_reveal(s))
            if self.i_bad or s.phase == RELAY_CLOSED:
                to("WalletTokenReply", R_CLOSED)
        if (r in (R_ACTIVE, R_CLOSING) and s.t == MARGIN_1 and s.received > s.k_c
                and Weak.NO_REVEAL not in self.weak):
            out.append((("R", "reveal", s.received), self._reveal(s, s.received)))
        self._end_user(s, "R", out)

    def _bad_relay(self, s: State, out: Moves) -> None:
        """What a relay can make of an honest I, and of the ledger."""

        def ask(label: str, after: State | None, *more: int) -> None:
            if after is not None and after != s:
                out.append((("R", label, *more), after))

        if self.c_bad or s.sent >= 0:
            ask("NanoEstablishRequest", self._answer_establish(s))
            ask("NanoEstablishReveal", self._answer_establish_reveal(s))
            proved = self._preimages(s)
            for k in range(self.n + 1):
                ask("RelayCloseRequest", self._answer_relay_close(s, k, proved), k)
            ask("RelayCloseReveal", self._answer_relay_reveal(s))
        for which in (1, 2):
            ask("CashOutRequest", self._answer_cash_out(s, "R", which), which)
        if s.r_status in (OPEN, ASKED):
            out.append((("R", "refund", RT0), self._post(s, "R", RT0)))
            if s.known & NRT_R_OUT:
                lock = NRT_FREE if Weak.NWPK_UNBOUND in self.weak else NRT
                out.append((("R", "nano_refund", 0), self._post(s, "R", lock)))
            for at in range(len(s.r_tokens)):
                out.append((("R", "refund", RT1 + at), self._post(s, "R", RT1 + at)))
        self._signed_close(s, "R", s.r_status, s.r_signed, out)

    # --- What honest end users share

    def _end_user(self, s: State, who: str, out: Moves) -> None:
        """Give up and claim, at any time; or cash out an idle wallet."""
        phase, status = (s.c, s.c_status) if who == "C" else (s.r, s.r_status)
        closed = C_CLOSED if who == "C" else R_CLOSED

        def to(label: str, after: int) -> None:
            out.append(((who, label), s._replace(c=after) if who == "C" else s._replace(r=after)))

        if phase == ON_LEDGER or status not in (OPEN, ASKED):
            return
        if phase in CLAIMS.values():
            lock = {after: lock for lock, after in CLAIMS.items()}[phase]
            after = self._post(s, who, lock)
            if who == "R" and lock == NRT:
                after = self._reveal(after, s.received)
            after = after._replace(c=ON_LEDGER) if who == "C" else after._replace(r=ON_LEDGER)
            name = "nano_refund" if lock == NRT else "refund"
            out.append(((who, name, lock), after))
            return
        live = claim_of(who, phase)
        if phase != IDLE:
            to("give up", CLAIMS[live])
        if not self.cash:
            return
        if phase in (IDLE, closed):
            if phase == closed or who == "C":
                to("CashOutRequest", CASHING_0 if phase == IDLE else CASHING_1)
        elif phase in (CASHING_0, CASHING_1):
            signed = s.c_signed if who == "C" else s.r_signed
            which = 1 if phase == CASHING_0 else 2
            if not self.i_bad and not signed:
                after_signing = self._answer_cash_out(s, who, which)
                if after_signing is not None:
                    out.append((("I", "CashOutRequest", who), after_signing))
            if self.i_bad or signed:
                to("CashOutReply", CASHED_0 if phase == CASHING_0 else CASHED_1)
        elif phase in (CASHED_0, CASHED_1):
            after = self._close(s, who, CASH_0 if phase == CASHED_0 else CASH_1)
            after = after._replace(c=ON_LEDGER) if who == "C" else after._replace(r=ON_LEDGER)
            out.append(((who, "close"), after))

    # --- What must hold

    def wrong(self, s: State) -> str | None:
        """Whose floor this end breaks. Before the end nobody has lost anything yet."""
        if 3 in (s.c_signed, s.r_signed):
            return "L pays a channel twice"
        if s.t != END:
            return None
        if not self.c_bad and s.c_status != OPEN and (
                s.c_status in (REFUTED, FORFEIT) or s.c_paid > max(s.sent, 0)):
            return "C loses"
        if not self.r_bad and s.r_status != OPEN and (
                s.r_status in (REFUTED, FORFEIT) or s.r_paid < s.received):
            return "R loses"
        if not self.i_bad and self.gain(s) < FEE * self.relayed(s):
            return "I loses"
        return None

    def relayed(self, s: State) -> int:
        """Payments that the relay was settled at."""
        return s.r_paid if s.r_status == RESOLVED else 0

    def gain(self, s: State) -> int:
        """What I has beyond its deposits, less what clients' live wallet tokens still entitle to.

        A wallet token names its channel to nobody: while its lock is neither revoked nor posted a
        hidden payment moves its balance to another channel, also when its own is paid out.
        """
        owed = 0
        if self.c_bad:
            if s.leg == LEG_CLOSED and s.c_signed != 2 and (
                    s.c_lock != RT1 + len(s.c_tokens) - 1 or Weak.DIFFERENT_WPK in self.weak):
                owed = PRICE * (self.funds - s.c_tokens[-1])
            elif s.phase == NONE and s.c_signed != 1 and s.c_lock != RT0:
                owed = PRICE * self.funds
        return self.escrowed_gain(s) - owed

    def escrowed_gain(self, s: State) -> int:
        """What the two channels alone leave I beyond its deposits."""
        whole = PRICE * self.funds
        to_client = 0
        if s.c_status == OPEN:
            to_client = whole
        elif s.c_status == RESOLVED:
            to_client = max(0, whole - PRICE * s.c_paid)
        return whole - to_client - (DELTA_R + TAX) * self.relayed(s)


def claim_of(who: str, phase: int) -> int:
    """The one live claim of an honest end user."""
    revoked = C_REVOKED if who == "C" else R_REVOKED
    if phase in (IDLE, C_REQUESTED, CASHING_0, CASHED_0):
        return RT0
    return NRT if phase < revoked else RT1


def _view(status: int) -> int:
    return 0 if status in (OPEN, ASKED) else 1 if status <= OVERDUE else 2


def _with(s: State, who: str, *, status: int, paid: int | None = None) -> State:
    if who == "C":
        return s._replace(c_status=status, c_paid=s.c_paid if paid is None else paid)
    return s._replace(r_status=status, r_paid=s.r_paid if paid is None else paid)
