# SPDX-License-Identifier: BSD-3-Clause
"""How many Nano-Setups an intermediary answers in a second, with its disk and its workers.

Clients are left out: their messages are made before. What is measured is what an intermediary does
with the two messages of each setup, from bytes to bytes: decoding, checks, the proof, its records,
and the commit that so many setups share. Cells and links are left out too.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from monetor_chain.parameters import DEFAULT
from monetor_chain.statements import (
    NanoTerms,
    Role,
    TokenKind,
    context,
    domain_separator,
    lock_of,
    tag,
)

from ..crypto.curve import backend
from ..crypto.ecdsa import address_of, generate_private_key
from ..crypto.issuer import IssuerKey
from ..crypto.nano_setup import draft_nano_setup
from ..protocol.answering import Intermediary
from ..protocol.claims import Claim, Unverified, Verdicts
from ..protocol.intermediary import IntermediaryMachine
from ..protocol.ledger import Block
from ..protocol.messages import NanoSetupRequest, NanoSetupReveal, Refusal, Terms, pack
from ..protocol.moment import Moment, expiry
from ..store import Store
from ..verification.workers import ProofWorkers
from .stopwatch import reference_costs
from .stored import NOW

Message: TypeAlias = tuple[int, bytes]
GROUP = 16
"""Setups that share a commit, as when so many clients ask within a few milliseconds."""
_WARMING = 64
_AT_ONCE = 3
"""Groups on their way at the same time, so that workers have something to do meanwhile."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Setups per second: of the wall clock, and of processor time of all processes together.

    `cost` is the processor time of one setup in pairing checks of the same minute, `own` the part
    of it that the process with the database needs.
    """

    workers: int
    group: int
    per_second: float
    per_core: float
    cost: float
    own: float


class Load:
    """An intermediary on disk, and setups of as many clients as are asked for."""

    def __init__(self, folder: Path) -> None:
        self.issuer = IssuerKey.generate(backend())
        ctx = context(1337, bytes(20), self.issuer.public.key_hash)
        key = generate_private_key()
        self._ctx = ctx
        self._machine = IntermediaryMachine(Intermediary(
            self.issuer, key, address_of(key), self.issuer.public.key_hash, ctx,
            domain_separator(1337, bytes(20))))
        self._moment = Moment(NOW, DEFAULT.epoch_at(NOW), DEFAULT)
        self.store = Store(folder / "store.sqlite", ctx, "intermediary")
        with self.store.transaction() as records:
            self._machine.on_ledger(records, self._moment, Block(1, NOW))

    def setup(self) -> tuple[Message, Message]:
        """The two messages of a fresh client."""
        parameters, epoch = DEFAULT, self._moment.epoch
        wallet_tag = tag(TokenKind.PAYMENT, Role.CLIENT, self._ctx)
        wsk = secrets.token_bytes(32)
        cid, nonce, nwpk = (secrets.randbits(240) + 1 for _ in range(3))
        cost = parameters.n * parameters.price
        token = self.issuer.sign(tag=wallet_tag, cid=cid, nonce=nonce, wpk=lock_of(wsk),
                                 balance=cost)
        terms = NanoTerms(-parameters.price, parameters.delta_r, parameters.n,
                          secrets.token_bytes(32), expiry(epoch, parameters),
                          secrets.token_bytes(32), epoch)
        draft = draft_nano_setup(self.issuer.public, token=token, cid=cid, wpk=lock_of(wsk),
                                 balance=cost, cost=cost)
        proof = draft.finish(self._ctx, tag=wallet_tag, nonce=nonce, terms=terms, nwpk=nwpk)
        shown = draft.statement
        request = NanoSetupRequest(nonce, Terms.of(terms), nwpk, shown.com, shown.commitment,
                                   shown.sigma, shown.k, proof)
        return pack(request), pack(NanoSetupReveal(nonce, wsk, draft.secrets.r))

    def answer(self, messages: Sequence[Message], verdicts: Verdicts | None = None
               ) -> list[Message | Claim]:
        """Replies in one transaction, or the claims that have to be verified first."""
        replies: list[Message | Claim] = []
        with self.store.transaction() as records:
            for pcmd, payload in messages:
                try:
                    with records.part():
                        replies.append(self._machine.handle(
                            records, self._moment, pcmd, payload, verdicts)[0])
                except Unverified as needed:
                    replies.append(needed.claim)
        return replies

    async def serve(self, setups: Sequence[tuple[Message, Message]], group: int,
                    workers: ProofWorkers | None) -> None:
        """Answer all of them, in groups; `ValueError` if one is refused."""
        groups = iter([setups[at:at + group] for at in range(0, len(setups), group)])
        await asyncio.gather(*(self._serve(groups, workers)
                               for _ in range(1 if workers is None else _AT_ONCE)))

    async def _serve(self, groups: Iterator[Sequence[tuple[Message, Message]]],
                     workers: ProofWorkers | None) -> None:
        for members in groups:
            requests, reveals = zip(*members, strict=True)
            verdicts: dict[Claim, str] | None = None
            if workers is not None:
                claims = [one for one in self.answer(requests, {}) if isinstance(one, Claim)]
                verdicts = dict(zip(claims, await asyncio.gather(
                    *(workers.verdict(claim) for claim in claims)), strict=True))
            for replies in (self.answer(requests, verdicts), self.answer(reveals, verdicts)):
                if any(not isinstance(one, tuple) or one[0] == Refusal.PCMD for one in replies):
                    raise ValueError("an honest setup was refused")


def measure_rate(count: int = 256, *, workers: int = 0, group: int = GROUP,
                 folder: Path | None = None) -> Rate:
    """Answer `count` setups after some to warm up; the database is made in `folder`."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="monetor-rate-") as place:
        load = Load(Path(place))
        try:
            warming, setups = ([load.setup() for _ in range(size)]
                               for size in (min(_WARMING * (workers + 1), count), count))
            return asyncio.run(_measure(load, warming, setups, workers, group))
        finally:
            load.store.close()


async def _measure(load: Load, warming: Sequence[tuple[Message, Message]],
                   setups: Sequence[tuple[Message, Message]], count: int, group: int) -> Rate:
    workers = ProofWorkers(load.issuer, count) if count else None
    try:
        await load.serve(warming, group, workers)
        pids = [] if workers is None else workers.pids()
        started, own = time.perf_counter(), time.process_time()
        theirs = _processor_seconds(pids)
        await load.serve(setups, group, workers)
        wall, own = time.perf_counter() - started, time.process_time() - own
        spent = own + _processor_seconds(pids) - theirs
    finally:
        if workers is not None:
            await workers.close()
    pairing = reference_costs(load.issuer.curve, 40)["pairing_check"]
    each = spent / len(setups)
    return Rate(count, group, len(setups) / wall, 1 / each, each * 1e3 / pairing, own / spent)


def _processor_seconds(pids: Sequence[int]) -> float:
    """Processor time of other processes, as Linux counts it."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
