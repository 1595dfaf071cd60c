# SPDX-License-Identifier: BSD-3-Clause
"""The ledger without one of its rules, and how a coalition uses that."""

from __future__ import annotations

from typing import Any

from monetor_chain.errors import TransactionReverted
from monetor_chain.parameters import DEMO
from monetor_chain.statements import Role, TokenKind, group_id, tag
from offchain.protocol import ledger as calls
from tests.protocol import weak_ledger
from tests.protocol.board import Board
from tests.protocol.weakening import (
    Stopped,
    Weakening,
    cash,
    claim_of,
    moves_away,
    posts,
    posts_quietly,
    session_claim,
    stands,
    unpatched,
)

N = DEMO.n


def no_client_delay(world: Board) -> None:
    """C claims at nothing and is paid out before R closes at every payment."""
    terms_hash = world.session(N)
    nrt = session_claim(world.c, terms_hash)
    posts_quietly(world, world.c, nrt)
    world.jump(world.now + DEMO.dispute_window + 2)
    posts(world, world.e, calls.Resolve(nrt.cid))
    world.close_relay(terms_hash)
    cash(world, world.r)


def one_deadline(world: Board) -> None:
    """C answers a request to close in its last second, with what it has spent long ago."""
    c, cid = world.c, world.c.cids()[0]
    old = claim_of(world, c, cid)
    moves_away(world, cid)
    c.alive = c.follows = False
    world.act(world.i, lambda records, moment: world.i.machine.request_close(records, cid))
    world.run()
    world.jump(world.deadline_of(cid) - 1)
    assert world.transact(c, old), c.reverted
    stands(world, cid)


def close_over_resolved(world: Board) -> None:
    """C has I's signature for both channels, lets one be paid out alone, and then both."""
    c = world.c
    first, _ = c.cids()
    claim = claim_of(world, c, first)
    world.fault = lambda parcel: (
        () if parcel.kind == "submit" and isinstance(parcel.item.call, calls.Close) else (parcel,))
    world.cash_out(c, first >> 8)
    world.fault = lambda parcel: (parcel,)
    (close,) = c.submissions.values()
    posts(world, c, claim)
    world.jump(world.deadline_of(first) + 1)
    posts(world, world.e, calls.Resolve(first))
    posts(world, c, close.call)


def tax_of_the_session(world: Board) -> None:
    """The session's rate is 20 %, the channel's, by which prices were set, is 10 %."""
    terms_hash = world.session(N)
    posts(world, world.r, session_claim(world.r, terms_hash))


def own_close(world: Board) -> None:
    """I signs a token that gives C nothing, and posts it itself."""
    cid = world.c.cids()[0]
    token = world.issuer.sign(tag=tag(TokenKind.REFUND, Role.CLIENT, world.ctx), cid=cid, nonce=0,
                              wpk=5, balance=0)
    posts(world, world.i, calls.Refund(cid, 5, 0, token))


def key_registered_again(world: Board) -> None:
    """R registers I's key under its own account; what C opens then is R's to ask back."""
    stage, public, r = world.stage, world.issuer.public, world.r.party
    on = stage.ledger.functions
    world.act(world.c, lambda records, moment: world.c.machine.open_group(
        records, moment, deposit=5_000, fund=0, count=1))
    while world.wire[0].kind != "submit":
        world.deliver()
    opening = world.wire[0].item.call

    def sends(call: Any) -> None:
        world._next_block()
        try:
            stage.send(call, r)
        except TransactionReverted as error:
            raise Stopped(error.reason) from error
        finally:
            world.forget()
            world._mined([])

    sends(on.register_key(public.evm_encoding(), public.rest_hash()))
    world.run()
    group = group_id(world.ctx, opening.account, bytes.fromhex(r.address[2:]), Role.CLIENT, 5_000,
                     0, 1, opening.rho_e, opening.rho_i)
    stage.approve(r)
    sends(on.deposit_vault(DEMO.close_bond))
    sends(on.fund(group))
    sends(on.request_close(group << 8))
    world.travel(world.now + DEMO.close_notice + 1)
    sends(on.resolve(group << 8))


CLAIMS = (
    Weakening("no client delay", unpatched, no_client_delay, "CR", "ledger: too early",
              ledger=weak_ledger.NO_CLIENT_DELAY),
    Weakening("one deadline for notice and dispute", unpatched, one_deadline, "C", "refuted",
              ledger=weak_ledger.ONE_DEADLINE),
    Weakening("group close over a resolved channel", unpatched, close_over_resolved, "C",
              "ledger: channels", "L", ledger=weak_ledger.CLOSE_RESOLVED),
    Weakening("tax rate by session", unpatched, tax_of_the_session, "", "", "I",
              ledger=weak_ledger.SESSION_TAX),
    Weakening("I's own close", unpatched, own_close, "I", "authorisation", "C",
              ledger=weak_ledger.OWN_CLOSE),
    Weakening("re-registration of I's key", unpatched, key_registered_again, "R",
              "issuer_keys: already registered", "C", ledger=weak_ledger.REGISTERED_TWICE),
)
