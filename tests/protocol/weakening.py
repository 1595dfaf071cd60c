# SPDX-License-Identifier: BSD-3-Clause
"""What a weakening is, and the pieces that its plays are made of.

A weakening leaves one rule out of the real code, in a test only. Its play is run twice: with the
rule, which must stop it for the reason named; and without, where somebody honest has less than its
floor at the end, or, for the few rules that others cover, nobody has and something else is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from offchain.protocol import (
    establish,
    intermediary,
    ledger as calls,
    messages as m,
    nano_pay,
    wallet as wallets,
)
from offchain.protocol.errors import ProtocolError
from offchain.protocol.outbox import Request
from offchain.protocol.records import Table
from offchain.protocol.sessions import client_session
from offchain.protocol.wallet import Idle, InSession, Proved
from tests.protocol.board import CLOSING, CLOSING_SESSION, OPEN, Board, Floors
from tests.protocol.world import Node

Patch = pytest.MonkeyPatch
MOVED = 40_000
"""What a coalition moves out of a channel by Pay before it posts what that channel was."""


@dataclass(frozen=True)
class Weakening:
    """One rule left out.

    `play` raises `Stopped` where somebody honest or the ledger does not go along; `stop` is what
    stops it while the rule stands. `bad` plays. `loser` is who then loses without the rule, ""
    for nobody. `ledger` is the switch of `weak_ledger`, 0 for none.
    """

    name: str
    patch: Callable[[Patch, Board], None]
    play: Callable[[Board], None]
    bad: str
    stop: str
    loser: str = "I"
    ledger: int = 0
    lost: Callable[[Board, Floors], dict[str, int]] | None = None
    """How to see a loss that is none of a floor."""


class Stopped(Exception):
    """The play cannot go on."""


def unpatched(patch: Patch, world: Board) -> None:
    """The rule is the ledger's."""


def must(reply: Any) -> Any:
    """A reply that is no refusal."""
    if isinstance(reply, m.Refusal):
        raise Stopped(reply.code.name)
    return reply


def flow(world: Board, node: Node) -> None:
    """Deliver everything; `node` is refused nothing."""
    before = len(node.refusals)
    world.run()
    if len(node.refusals) > before:
        raise Stopped(node.refusals[-1].name)


def posts(world: Board, node: Node, call: Any) -> None:
    """A transaction that is taken."""
    if not world.transact(node, call):
        raise Stopped(node.reverted[-1][1])
    world.run()


def posts_quietly(world: Board, node: Node, call: Any) -> None:
    """As `posts`, and the machine that plays on hears nothing of it."""
    node.follows = False
    try:
        posts(world, node, call)
    finally:
        node.backlog.clear()
        node.follows = True


def stands(world: Board, cid: int) -> None:
    """What was posted on this channel is not refuted."""
    world.run()
    if world.status(cid) not in (CLOSING, CLOSING_SESSION):
        raise Stopped("refuted")


def cash(world: Board, node: Node) -> None:
    """Post what a party's machine holds on each open channel that is not as it was opened."""
    for cid in node.cids():
        wallet = node.wallet(cid)
        call = wallets.claim(node.records, wallet)
        if world.status(cid) == OPEN and call is not None and (
                not isinstance(wallet, Idle) or wallet.shown or getattr(call, "balance", 0)
                != establish.group_of(node.records, cid).deposit):
            posts(world, node, call)


def claim_of(world: Board, node: Node, cid: int) -> Any:
    """The live claim of a channel now."""
    return wallets.claim(node.records, node.wallet(cid))


def session_claim(node: Node, terms_hash: bytes) -> Any:
    """nrt of a party's session, at what it can prove."""
    session = wallets.session_of(node.records, terms_hash)
    return wallets.claim(node.records, InSession(session.cid, terms_hash))


def chain_of(world: Board, terms_hash: bytes) -> Any:
    """The hash chain of a session of C's."""
    current = client_session(world.c.records, terms_hash)
    return nano_pay.chain_of(current.seed, current.session.terms.n)


def proof_of(world: Board, terms_hash: bytes, k: int) -> Proved:
    """k payments of C's session, proved."""
    chain = chain_of(world, terms_hash)
    return Proved(k, chain.value(k), chain.path(k)) if k else wallets.NOTHING


def at(call: Any, proof: Proved) -> Any:
    """A session's claim at another count."""
    return replace(call, k=proof.k, hc=proof.hc, path=proof.path)


def counts(world: Board, terms_hash: bytes, proof: Proved) -> None:
    """R takes this for what it was paid."""
    world.act(world.r, lambda records, moment: records.put(
        Table.PAYMENT, terms_hash, proof) or [])


def closes_r(world: Board, terms_hash: bytes) -> None:
    """Nano-Close of the relay's leg begins."""
    world.act(world.r, lambda records, moment: world.r.machine.nano_close(records, terms_hash))


def closes_c(world: Board, terms_hash: bytes) -> None:
    """Nano-Close of the client's leg begins."""
    world.act(world.c, lambda records, moment: world.c.machine.nano_close(records, terms_hash))


def t_exp(world: Board, terms_hash: bytes) -> int:
    """T_exp of a session of C's."""
    return client_session(world.c.records, terms_hash).session.terms.t_exp


def reveals(world: Board, node: Node, terms_hash: bytes, k: int) -> None:
    """k payments of C's session on the ledger."""
    proof = proof_of(world, terms_hash, k)
    posts(world, node, calls.Reveal(client_session(world.c.records, terms_hash).session.terms,
                                    proof.k, proof.hc, proof.path))


def moves_away(world: Board, cid: int) -> None:
    """C pays most of a channel to E, so that what the channel was is worth more than it is."""
    world.transfer(MOVED, cid, world.e.cids()[0])


def step(patch: Patch, kind: type[Any], handler: Callable[..., Any]) -> None:
    """I answers this request with another handler."""
    name, key_of, _ = intermediary._STEPS[kind]
    patch.setitem(intermediary._STEPS, kind, (name, key_of, handler))


def handler_of(kind: type[Any]) -> Callable[..., Any]:
    """How I answers this request."""
    return intermediary._STEPS[kind][2]


def request_of(outbox: Any) -> Any:
    """The request in an outbox."""
    return next(m.unpack(one.pcmd, one.payload) for one in outbox if isinstance(one, Request))


def told(node: Node, world: Board, conversation: bytes, reply: Any) -> None:
    """A party takes a reply that was fetched by hand."""
    world.act(node, lambda records, moment: node.machine.on_reply(
        records, moment, conversation, *m.pack(reply)))


def _cash_rest(floors: Floors, node: Node) -> None:
    """The coalition forgets no channel: what it forfeits would hide what somebody loses."""
    world = floors.world
    for cid in node.cids():
        call = wallets.claim(node.records, node.wallet(cid))
        if world.status(cid) == OPEN and call is not None and not floors.untouched(node, cid):
            world.transact(node, call)
    world.run()


def run(world: Board, one: Weakening) -> tuple[str | None, dict[str, int]]:
    """(what stopped the play, who is short of its floor) when all is settled."""
    floors = Floors(world, one.bad)
    why = None
    try:
        one.play(world)
    except Stopped as stopped:
        why = str(stopped)
    except ProtocolError as error:
        why = str(error)
    for name in one.bad:
        if name != "I":
            _cash_rest(floors, world.nodes[name])
        world.nodes[name].alive = False
        world.nodes[name].requests.clear()
        world.nodes[name].submissions.clear()
    world.wire.clear()
    floors.settle(everything=False)
    return why, floors.broken() if one.lost is None else one.lost(world, floors)
