# SPDX-License-Identifier: BSD-3-Clause
"""The game of `balance_rules`: who plays, what is counted, how a play ends.

Honest parties run their real machines and look at their deadlines; the coalition has the same
machines, whose disks it may restore, whose messages it may forge and whose every claim it keeps.
The ledger is the deployed contracts. A play is a list of moves with the protocol's names; after
each one the ledger must hold exactly what it owes, and at the end nobody honest may have less
than its floor (`board.Floors`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import wraps
from itertools import chain as joined
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from monetor_chain.statements import Role
from offchain.crypto.hash_chain import HashChain
from offchain.protocol import answering, ledger as calls, messages as m, nano_pay, wallet as wallets
from offchain.protocol.errors import ProtocolError, RefusalCode
from offchain.protocol.moment import tip
from offchain.protocol.outbox import Request
from offchain.protocol.records import MemoryRecords, Table
from offchain.protocol.sessions import ClientSession, RelaySession, Session
from offchain.protocol.wallet import Idle
from tests.protocol.board import OPEN, REQUESTED, Board, Floors
from tests.protocol.world import Node

COALITIONS = ("", "C", "R", "I", "E", "CR", "CI", "RI", "CE", "RE", "IE", "CRI", "CRE", "CIE",
              "RIE")
"""Who is corrupt: clients C (who pays) and E (who is paid by Pay), relay R, intermediary I. Each
leaves somebody honest."""

DISKS = 12
"""How many old disks of a corrupt party are kept."""


@dataclass
class Tally:
    """What was played, over all runs."""

    runs: int = 0
    steps: int = 0
    moves: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(move, reason) of what honest parties or the ledger did not take."""
    coalitions: Counter[str] = field(default_factory=Counter)

    def report(self) -> str:
        """The counts, for people."""
        lines = [f"{self.steps} steps in {self.runs} runs; coalitions: {dict(self.coalitions)}"]
        lines += [f"{times:>6} {name}" for name, times in sorted(self.moves.items())]
        lines += [f"{times:>6} {name} refused: {why}"
                  for (name, why), times in sorted(self.refused.items())]
        return "\n".join(lines)


class Untaken(Exception):
    """There is nothing here on which this move could be made."""


def move(bad: str = "", honest: str = "", **arguments: st.SearchStrategy[Any]
         ) -> Callable[[Callable[..., None]], Any]:
    """A rule that is noted in the trace when it was really made.

    It is for coalitions with all of `bad` and none of `honest`.
    """

    def decorate(act: Callable[..., None]) -> Any:
        @wraps(act)
        def run(self: Balance, **chosen: Any) -> None:
            self.sound = False
            shown = ", ".join(f"{name}={value}" for name, value in chosen.items())
            self.trace.append(f"{act.__name__}({shown})")
            try:
                act(self, **chosen)
            except Untaken:
                self.trace.pop()
                self.sound = True
                return
            except ProtocolError as error:
                # What an honest machine is asked to do and does not.
                self.tally.refused[act.__name__, str(error)] += 1
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.story()}") from error
            self.tally.steps += 1
            self.tally.moves[act.__name__] += 1
            assert self.world.conserved(), f"the ledger does not hold what it owes\n{self.story()}"
            self.sound = True

        return precondition(lambda self: set(bad) <= set(self.bad)
                            and not set(honest) & set(self.bad))(rule(**arguments)(run))

    return decorate


class Balance(RuleBasedStateMachine):
    """One play. A subclass sets the board, what `save` said of it, and the coalition `bad`."""

    world: Board
    opened: Any
    tally: Tally
    bad: str = ""

    @initialize(salt=st.integers(0, 2**32))
    def begin(self, salt: int) -> None:
        """Everybody has open channels, and the coalition begins to keep what it sees."""
        del salt
        world = self.world
        self.trace: list[str] = []
        self.sound = True
        self.floors = Floors(world, self.bad)
        self.disks: dict[str, list[MemoryRecords]] = {name: [] for name in self.bad}
        self.idles: dict[str, dict[int, Idle]] = {name: {} for name in "CER"}
        self.seen: list[Any] = []
        world.watch = self._watch
        for name in self.bad:
            world.nodes[name].hoard = {}
        for node in world.nodes.values():
            world._collect(node)
        world.fault = self._keep
        self.tally.runs += 1
        self.tally.coalitions[self.bad or "nobody"] += 1

    def _watch(self, node: Node) -> None:
        self.floors.observe(node)
        if node.name in self.idles:
            for wallet in wallets.all_wallets(node.records):
                if isinstance(wallet, Idle):
                    self.idles[node.name][wallet.nonce] = wallet
        if node.name in self.disks:
            kept = self.disks[node.name]
            kept.append(node.records.copy())
            if len(kept) > DISKS:
                # Thin out: old ones stay, with gaps.
                del kept[len(kept) // 2]

    def _keep(self, parcel: Any) -> Iterator[Any]:
        self.seen.append(parcel)
        yield parcel

    def story(self) -> str:
        """The moves so far, as a person would want to read them."""
        return f"coalition {self.bad or 'nobody'}:\n  " + "\n  ".join(self.trace)

    # --- Who and what there is

    def node(self, name: str) -> Node:
        return self.world.nodes[name]

    def is_bad(self, *names: str) -> bool:
        return all(name in self.bad for name in names)

    def need(self, *conditions: Any) -> None:
        if not all(conditions):
            raise Untaken

    def pick(self, options: Any, at: int) -> Any:
        found = list(options)
        self.need(found)
        return found[at % len(found)]

    def idle(self, node: Node) -> list[int]:
        return [cid for cid in node.cids() if isinstance(node.wallet(cid), Idle)]

    def sessions(self, node: Node, *phases: Any) -> list[bytes]:
        return [key for key, one in node.records.scan(Table.SESSION)
                if isinstance(one, ClientSession | RelaySession)
                and (not phases or one.phase in phases)]

    def at_i(self, *phases: Any) -> list[bytes]:
        """Sessions that I has in these phases."""
        return [key for key, one in self.world.i.records.scan(Table.SESSION)
                if isinstance(one, Session) and (not phases or one.phase in phases)]

    def i_session(self, terms_hash: bytes) -> Session | None:
        found = self.world.i.records.get(Table.SESSION, terms_hash)
        return found if isinstance(found, Session) else None

    def spent(self, name: str) -> list[Idle]:
        """Wallets that this party once held and I has seen spent."""
        return [one for nonce, one in self.idles[name].items()
                if answering.is_spent(self.world.i.records, nonce)]

    def chain(self, terms_hash: bytes) -> HashChain | None:
        """The hash chain of a session, if the coalition knows it."""
        if "C" not in self.bad or terms_hash not in self.floors.chains:
            return None
        terms, seed = self.floors.chains[terms_hash]
        return nano_pay.chain_of(seed, terms.n)

    def users(self) -> list[Node]:
        return [self.world.c, self.world.r, self.world.e]

    # --- What the coalition does without its machines

    def forged(self, name: str, action: Callable[[MemoryRecords, Any], Any],
               wallet: Idle | None = None) -> Any:
        """The request that a machine would make on a copy of its disk, which nobody else sees."""
        node = self.node(name)
        records = node.records.copy()
        # Whoever forges knows the time, though its machine may not have followed the ledger.
        records.put(Table.META, b"tip", tip(self.world.i.records))
        if wallet is not None:
            wallets.put(records, wallet.cid, wallet)
        outbox = action(records, self.world.moment())
        if isinstance(outbox, tuple):
            outbox = outbox[1]
        request = next(item for item in outbox if isinstance(item, Request))
        return m.unpack(request.pcmd, request.payload)

    def refuses(self, name: str, message: Any, *codes: RefusalCode) -> None:
        """An honest I does not answer, for one of these reasons."""
        reply = self.world.ask(message)
        assert isinstance(reply, m.Refusal), f"{name}: answered with {type(reply).__name__}"
        self.tally.refused[name, reply.code.name] += 1
        assert reply.code in codes, f"{name}: refused as {reply.code.name}, not {codes}"

    def reverts(self, name: str, node: Node, call: Any, *reasons: str) -> None:
        """The ledger does not take a call, for one of these reasons."""
        assert not self.world.transact(node, call), f"{name}: the ledger took it"
        why = node.reverted.pop()[1]
        self.tally.refused[name, why] += 1
        assert why in reasons, f"{name}: reverted with {why!r}"

    def complains(self, name: str, node: Node, act: Callable[[MemoryRecords, Any], Any],
                  *words: str) -> None:
        """An honest machine does not take what it is told, for one of these reasons."""
        try:
            act(node.records.copy(), self.world.moment())
        except ValueError as error:
            why = str(error)
            word = next((one for one in words if one in why), None)
            assert word is not None, f"{name}: {node.name} says {why!r}"
            self.tally.refused[name, word] += 1
            return
        raise AssertionError(f"{name}: {node.name} took it")

    # --- The end

    def teardown(self) -> None:
        try:
            # A play in which nothing was begun has no end either.
            if getattr(self, "sound", False) and self.floors.block != self.world.latest():
                self._finish()
        finally:
            self.world.load(self.opened)

    def _finish(self) -> None:
        world = self.world
        world.run()
        for name in self.bad:
            if name != "I":
                for cid in self.node(name).cids():
                    self._post_best(self.node(name), cid)
                self.node(name).hoard = None
        try:
            self.floors.settle()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from error
        assert not self.floors.stuck(), f"{self.floors.stuck()}\n{self.story()}"
        broken = self.floors.broken()
        assert not broken, f"short of the floor by {broken}\n{self.story()}"

    def _post_best(self, node: Node, cid: int) -> None:
        """The claim that is worth most, of those that would not be refuted if there is one."""
        world = self.world
        if world.status(cid) not in (OPEN, REQUESTED):
            return
        options = sorted((call for call in self.held(node) if call.cid == cid), key=self.worth)
        for call in options[:-5:-1]:
            if world.transact(node, self.sharpened(node, call)):
                self.trace.append(f"in the end {node.name} posts a {type(call).__name__}")
                return

    def held(self, node: Node) -> list[Any]:
        """Every claim that a party ever held."""
        return list((node.hoard or {}).values())

    def worth(self, call: Any) -> tuple[bool, int]:
        """(whether it stands, at most how much it pays)."""
        lock = call.nwpk if isinstance(call, calls.NanoRefund) else call.wpk
        stands = not answering.lock_state(self.world.i.records, lock).revoked
        if isinstance(call, calls.NanoRefund):
            relay = self.role(call.cid) is Role.RELAY
            return stands, call.saturated + (0 if relay else call.terms.n * -call.terms.delta_c)
        return stands, call.balance

    def role(self, cid: int) -> Role:
        return self.world.i.records.get(Table.GROUP, (cid >> 8).to_bytes(31, "big")).role

    def sharpened(self, node: Node, call: Any) -> Any:
        """A relay's session at every payment, if the coalition knows the chain and it is time."""
        if not isinstance(call, calls.NanoRefund) or node is not self.world.r:
            return call
        chain = self.chain(call.terms.nano_terms().hash())
        if chain is None:
            return call
        n = call.terms.n
        return replace(call, k=n, hc=chain.value(n), path=chain.path(n))

    def secrets(self) -> list[bytes]:
        """What I, and the corrupt end users with it, know of revealed secrets."""
        told = (m.unpack(one.pcmd, one.payload) for one in self.world.log if one.target == "I")
        found = [getattr(one, name, None) for one in told for name in ("wsk", "nwsk", "wsk_c")]
        own = joined.from_iterable(
            (one.wsk for one in self.idles[name].values()) for name in self.bad if name != "I")
        return list(dict.fromkeys([one for one in (*found, *own) if one]))
