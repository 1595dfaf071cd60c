# SPDX-License-Identifier: BSD-3-Clause
"""How an adversary might tell that an act is of the same user as the acts before it.

A detector gives evidence that `act` follows the labelled `history` of a user: the more, the
likelier. Exact ones look for a relation that random values do not have (up to chance of 2^-40 or
less), so any evidence at all is a leak; soft ones measure a likeness, which random values have too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from monetor_chain.statements import GROUP_ORDER, keccak256
from offchain.crypto.bases import BALANCE, CID, NONCE, WPK
from offchain.crypto.curve import G1, G2, G2_BYTES, decode_g1, decode_g2
from offchain.crypto.generators import commit_point
from offchain.crypto.issuer import IssuerKey
from offchain.crypto.range_proof import DIGITS
from offchain.protocol import ledger as calls, messages as m
from tests.anonymity.acts import Act, Memory, Reader

CLOSE_BITS = 40
"""So many equal leading bits of two values are no chance."""
SIGMAS = 4.5
"""A bit whose frequency differs so much between two users counts as biased."""


@dataclass
class User:
    """What is known of a user whose acts are labelled: from the opening of its channel on."""

    cid: int = 0
    balance: int = 0
    """By the deposit, and the counts and amounts that the adversary knows or has chosen."""
    acts: list[Act] = field(default_factory=list)
    points: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """Values computed from acts that were this user's, by detector."""
    bits: dict[Any, list[int]] = field(default_factory=dict)
    numbers: dict[Any, int] = field(default_factory=dict)
    """Of each shape, how many acts; `bits` has how often each bit was set in them."""

    @property
    def last(self) -> Act:
        return self.acts[-1]

    def copy(self) -> User:
        """The same knowledge, to suppose something with."""
        return User(self.cid, self.balance, list(self.acts),
                    defaultdict(set, {name: set(found) for name, found in self.points.items()}),
                    dict(self.bits), dict(self.numbers))


Evidence = Callable[["Adversary", User, Act], float]


@dataclass(frozen=True)
class Detector:
    """Evidence, and whether any of it is a proof."""

    name: str
    evidence: Evidence
    exact: bool


DETECTORS: list[Detector] = []


def detector(name: str, *, exact: bool) -> Callable[[Evidence], Evidence]:
    def add(evidence: Evidence) -> Evidence:
        DETECTORS.append(Detector(name, evidence, exact))
        return evidence

    return add


class Adversary:
    """The intermediary with its secret key and the randomness of its own replies."""

    def __init__(self, key: IssuerKey, memory: Memory, *, statistics: bool = True) -> None:
        """`statistics`: whether it keeps count of every bit of every act."""
        self.statistics = statistics
        self.key, self.memory, self.reader = key, memory, Reader(key)
        self.curve = key.curve
        self.users: list[User] = []
        self.biased: dict[tuple[int, Any], list[tuple[int, int]]] = {}
        self._known: dict[tuple[int, int, int, int], dict[str, set[bytes]]] = {}

    # Y_i and Y~_i to a power, over the discrete logarithms that it knows.

    def g1(self, **messages: int) -> G1:
        return self.curve.mul_g1(self.curve.g1, self._log(**messages))

    def g2(self, **messages: int) -> G2:
        return self.curve.mul_g2(self.curve.g2, self._log(**messages))

    def _log(self, *, t: int = 0, cid: int = 0, nonce: int = 0, wpk: int = 0, balance: int = 0
             ) -> int:
        y = self.key.y
        return (t + y[CID] * cid + y[NONCE] * nonce + y[WPK] * wpk
                + y[BALANCE] * balance) % GROUP_ORDER

    def less1(self, point: bytes, taken: G1) -> bytes:
        """point / taken, encoded."""
        return self.curve.encode_g1(self.curve.add_g1(
            decode_g1(self.curve, point, "point", identity=True), self.curve.neg_g1(taken)))

    def less2(self, point: bytes, taken: G2) -> bytes:
        """point / taken, encoded."""
        return self.curve.encode_g2(self.curve.add_g2(
            decode_g2(self.curve, point, "point", identity=True), self.curve.neg_g2(taken)))

    def trivial(self, encoded: bytes) -> bool:
        """Whether a blinding is g^0 or g^1, or P3^0 or P3^1."""
        curve = self.curve
        if len(encoded) == G2_BYTES:
            return encoded in (curve.encode_g2(curve.mul_g2(curve.g2, 0)),
                               curve.encode_g2(curve.g2))
        return encoded in (curve.encode_g1(curve.mul_g1(curve.g1, 0)), curve.encode_g1(curve.g1),
                           curve.encode_g1(commit_point(curve, 0, 0, 1)))

    def learn(self, user: User, act: Act) -> None:
        """The act was this user's."""
        if self.statistics:
            learn_bits(user, act)
        self.suppose(user, act)

    def suppose(self, user: User, act: Act) -> None:
        """Let the act be this user's, as far as the next one is concerned."""
        for name, found in self.blindings(user, act).items():
            user.points[name] |= found
        user.acts.append(act)
        close = act.first(m.ClientCloseRequest)
        if close and act.terms:
            user.balance += act.terms.delta_c * close.k
        user.balance -= act.amount

    def blindings(self, user: User, act: Act) -> dict[str, set[bytes]]:
        """What would be left of the act's commitments if it was this user's: its blindings.

        A blinding that recurs, or is none, gives the user away.
        """
        key = user.cid, user.balance, id(user.last) if user.acts else 0, id(act)
        if key not in self._known:
            self._known[key] = self._blindings(user, act)
        return self._known[key]

    def forget(self) -> None:
        """Acts that are not looked at again, and what was made of all acts so far."""
        self._known.clear()
        self.biased.clear()

    def _blindings(self, user: User, act: Act) -> dict[str, set[bytes]]:
        found: dict[str, set[bytes]] = defaultdict(set)
        setup, paid = act.first(m.NanoSetupRequest), act.first(m.PayerRequest)
        before = user.last.asked if user.acts else None
        if before is not None and act.wpk is not None and act.shown is not None:
            # The request before, with the lock that is known now.
            hidden = ({} if isinstance(before, m.EstablishRequest)
                      else {"cid": user.cid, "balance": user.balance})
            found["opened requests"].add(self.less2(before.d_rt, self.g2(wpk=act.wpk, **hidden)))
            if act.nonce is not None:
                found["opened requests"].add(self.less2(
                    before.d_pt, self.g2(wpk=act.wpk, nonce=act.nonce, **hidden)))
        if act.token is not None and user.acts:
            # Under whatever randomness it was issued, and with which it is shown.
            reply = user.last.rt if isinstance(act.shown, calls.Refund) else user.last.pt
            if reply is not None and reply in self.memory.u:
                sigma1 = decode_g2(self.curve, act.token[:G2_BYTES], "sigma1")
                inverse = pow(self.memory.u[reply], -1, GROUP_ORDER)
                found["re-randomisers"].add(self.curve.encode_g2(
                    self.curve.mul_g2(sigma1, inverse)))
        if setup is not None and act.wpk is not None and act.terms is not None:
            left = user.balance + act.terms.delta_c * act.terms.n
            found["token commitments"].add(self.less1(setup.k, self.g1(
                cid=user.cid, wpk=act.wpk, balance=user.balance)))
            found["session commitments"].add(self.less1(
                setup.commitment, commit_point(self.curve, user.cid, left)))
            for j, v in enumerate(act.digits):
                digit = left // 256**j % 256
                found[f"digits {j}"].add(self.curve.encode_g1(self.curve.mul_g1(
                    decode_g1(self.curve, v, "V"), self.key.digit_secret + digit)))
        if paid is not None:
            found["token commitments"].add(self.less1(paid.k, self.g1(
                cid=user.cid, balance=user.balance)))
        for message in act.messages:
            proof = self.reader.proof_of(message) if hasattr(message, "proof") else None
            for name, value in self._values(user, act, message).items():
                if proof is not None and name in proof.responses:
                    mask = (proof.responses[name] - proof.challenge * value) % GROUP_ORDER
                    found["masks"].add(mask.to_bytes(32, "big"))
        return found

    @staticmethod
    def _values(user: User, act: Act, message: Any) -> dict[str, int]:
        """Secrets of a proof whose values are known if the act is this user's."""
        values = {"cid": user.cid}
        if isinstance(message, m.NanoSetupRequest) and act.wpk is not None and act.terms:
            left = user.balance + act.terms.delta_c * act.terms.n
            values |= {"wpk": act.wpk} | {f"balance after the session digit {j}":
                                          left // 256**j % 256 for j in range(DIGITS)}
        if isinstance(message, m.ClientCloseRequest) and act.terms:
            values["saturated balance"] = user.balance + act.terms.delta_c * act.terms.n
        return values


# --- Values


@detector("equal values", exact=True)
def equal_values(adversary: Adversary, user: User, act: Act) -> float:
    """Pieces that occurred before. What names its channel in clear shares that with the opening.
    """
    before = user.acts if act.cid is None else user.acts[1:]
    return sum(len(act.pieces & one.pieces) for one in before)


@detector("near values", exact=True)
def near_values(adversary: Adversary, user: User, act: Act) -> float:
    """Values of one field whose difference is small, as of a counter."""
    hits = 0
    for name, found in act.numbers.items():
        for one in user.acts[-3:]:
            hits += sum(0 < abs(a - b) < 1 << 248 - CLOSE_BITS - 8
                        for a in found for b in one.numbers.get(name, ()))
    return hits


@detector("hash chains", exact=True)
def hash_chains(adversary: Adversary, user: User, act: Act) -> float:
    """A chain that is grown out of an earlier session's public values."""
    if act.terms is None:
        return 0
    hits = 0
    for one in user.acts[-3:]:
        if one.terms is not None:
            for value in (one.terms.hc0, one.terms.root):
                for _ in range(act.terms.n + 2):
                    value = keccak256(value)
                    hits += value == act.terms.hc0
    return hits


# --- Group elements


def recurring(name: str) -> Evidence:
    def evidence(adversary: Adversary, user: User, act: Act) -> float:
        found = adversary.blindings(user, act)
        hits = 0
        for kind, points in found.items():
            if kind.startswith(name):
                hits += sum(one in user.points[kind] or not any(one) or
                            (len(one) != 32 and adversary.trivial(one)) for one in points)
        return hits

    return evidence


for _name in ("opened requests", "re-randomisers", "token commitments", "session commitments",
              "digits", "masks"):
    detector(_name, exact=True)(recurring(_name))


@detector("request quotients", exact=True)
def request_quotients(adversary: Adversary, user: User, act: Act) -> float:
    """D_pt / D_rt of the act before is Y~2 to the nonce of this one, and nothing else."""
    before = user.last.asked
    if before is None or act.nonce is None:
        return 0
    quotient = adversary.less2(before.d_pt, decode_g2(adversary.curve, before.d_rt, "D_rt"))
    return quotient == adversary.curve.encode_g2(adversary.g2(nonce=act.nonce))


@detector("pairings", exact=True)
def pairings(adversary: Adversary, user: User, act: Act) -> float:
    """K and the request before are blinded alike: e(K Y2^nonce, g2) = e(g1, D_pt)."""
    before, setup = user.last.asked, act.first(m.NanoSetupRequest)
    if before is None or setup is None or isinstance(before, m.EstablishRequest):
        return 0
    curve = adversary.curve
    k = decode_g1(curve, setup.k, "K")
    with_nonce = curve.add_g1(k, adversary.g1(nonce=setup.nonce))
    return sum(curve.pairing_equal(one, curve.g2, curve.g1, decode_g2(curve, d, "D"))
               for one, d in ((with_nonce, before.d_pt), (k, before.d_rt)))


# --- Everything else


@detector("expiry", exact=True)
def expiry(adversary: Adversary, user: User, act: Act) -> float:
    """Whether the session's expiry lies in its epoch as the user's others do, and not all."""
    if act.terms is None:
        return 0
    own = {one.terms.t_exp - one.terms.epoch * 60 for one in user.acts if one.terms}
    return (act.terms.t_exp - act.terms.epoch * 60) in own


@detector("lengths", exact=True)
def lengths(adversary: Adversary, user: User, act: Act) -> float:
    """Whether the act has the same messages, lengths and order as one of the user's."""
    return act.shape in {one.shape for one in user.acts}


@detector("moments", exact=False)
def moments(adversary: Adversary, user: User, act: Act) -> float:
    """How alike the pace is."""
    return max((-abs(sum(act.gaps) - sum(one.gaps)) for one in user.acts[1:]
                if one.shape == act.shape), default=0)


@detector("counts", exact=False)
def counts(adversary: Adversary, user: User, act: Act) -> float:
    """How near the number of payments is to the user's last."""
    return max((-abs(act.count - one.count) for one in user.acts[-1:] if one.terms and act.terms),
               default=0)


@detector("likeness", exact=False)
def likeness(adversary: Adversary, user: User, act: Act) -> float:
    """In how many bits the values are those of the user's last act of this kind."""
    for one in reversed(user.acts):
        shared = set(act.numbers) & set(one.numbers)
        if act.shape == one.shape and shared:
            return -sum((a ^ b).bit_count() for name in shared for a, b in zip(
                act.numbers[name], one.numbers[name], strict=False))
    return 0


def _bits(act: Act) -> str:
    data = b"".join(one.payload for one in act.heard
                    if one.target in "IR" and one.pcmd != m.NanoPayment.PCMD)
    return f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}"


def learn_bits(user: User, act: Act) -> None:
    bits = _bits(act)
    key = act.shape, len(bits)
    known = user.bits.get(key, [0] * len(bits))
    user.bits[key] = [count + (bit == "1") for count, bit in zip(known, bits, strict=True)]
    user.numbers[key] = user.numbers.get(key, 0) + 1


def biased_bits(adversary: Adversary, user: User, key: Any) -> list[tuple[int, int]]:
    """(place, difference) of the bits that have been one thing for this user, and another for the
    other one, more often than chance makes them."""
    other = next((one for one in adversary.users if one is not user and one.cid != user.cid), None)
    if other is None or key not in user.bits or key not in other.bits:
        return []
    mine, number, theirs, there = user.bits[key], user.numbers[key], other.bits[key], (
        other.numbers[key])
    threshold = SIGMAS * (number * there * (number + there) / 4) ** 0.5
    return [(at, a * there - b * number) for at, (a, b) in enumerate(zip(
        mine, theirs, strict=True)) if abs(a * there - b * number) > threshold]


@detector("learned bits", exact=False)
def learned_bits(adversary: Adversary, user: User, act: Act) -> float:
    """Whether bits that have been one thing for this user and another for others agree."""
    bits = _bits(act)
    key = act.shape, len(bits)
    if (user.cid, key) not in adversary.biased:
        adversary.biased[user.cid, key] = biased_bits(adversary, user, key)
    known = adversary.biased[user.cid, key]
    return sum(difference if bits[at] == "1" else -difference for at, difference in known)
