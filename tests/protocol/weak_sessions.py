# SPDX-License-Identifier: BSD-3-Clause
"""Sessions without one of I's rules, and how a coalition uses that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from monetor_chain.parameters import DEMO, TAX_RATE_BP
from monetor_chain.statements import GROUP_ORDER, Role, TokenKind, lock_of, tag
from offchain.crypto import (
    hash_chain,
    nano_close as close_proof,
    nano_setup as setup_proof,
    proofs,
    range_proof,
    sigma,
    spending,
)
from offchain.crypto.bases import NONCE, WPK
from offchain.crypto.issuer import unblind
from offchain.protocol import (
    answering,
    intermediary,
    messages as m,
    nano_close,
    nano_establish,
    nano_setup,
    pay,
    sessions,
    wallet as wallets,
)
from offchain.protocol.moment import Tip
from offchain.protocol.records import Table, key248
from offchain.protocol.sessions import ClientPhase, Leg, Phase, Session, client_session, session
from offchain.protocol.wallet import Idle, Proved
from tests.protocol import weak_ledger
from tests.protocol.board import Board, Floors
from tests.protocol.forgeries import bent, join_with
from tests.protocol.weakening import (
    Patch,
    Stopped,
    Weakening,
    at,
    cash,
    claim_of,
    closes_c,
    closes_r,
    counts,
    flow,
    handler_of,
    moves_away,
    must,
    posts,
    posts_quietly,
    proof_of,
    request_of,
    reveals,
    session_claim,
    stands,
    step,
    t_exp,
    told,
    unpatched,
)

N = DEMO.n

# --- The order of closing


def no_close_order(patch: Patch, world: Board) -> None:
    closing_count = nano_close.closing_count
    patch.setattr(nano_close, "closing_count", lambda records, current: closing_count(
        records, replace(current, relay_resolved=True)))


def close_order(world: Board) -> None:
    """C closes at nothing, and then R at what it was paid."""
    terms_hash = world.session(20)
    closes_c(world, terms_hash)
    flow(world, world.c)
    world.close_relay(terms_hash)
    cash(world, world.c)
    cash(world, world.r)


def closing_is_closed(patch: Patch, world: Board) -> None:
    closing_count = nano_close.closing_count
    patch.setattr(nano_close, "closing_count", lambda records, current: closing_count(
        records, replace(current, relay_resolved=current.phase is Phase.RELAY_CLOSING)))


def closing_taken_for_closed(world: Board) -> None:
    """R asks to close at nothing and keeps its session's secret; C closes at nothing; R claims
    every payment on the ledger."""
    terms_hash = world.session(1)
    nrt = session_claim(world.r, terms_hash)
    counts(world, terms_hash, wallets.NOTHING)
    closes_r(world, terms_hash)
    world.stop_before(m.RelayCloseReveal, world.r)
    closes_c(world, terms_hash)
    flow(world, world.c)
    cash(world, world.c)
    posts(world, world.r, at(nrt, proof_of(world, terms_hash, N)))


def no_establishing(patch: Patch, world: Board) -> None:
    def answer(records: Any, me: Any, moment: Any, message: Any) -> Any:
        found = nano_establish.answer_establish(records, me, moment, message)
        records.put(Table.SESSION, message.terms_hash, replace(
            session(records, message.terms_hash), phase=Phase.SETUP))
        return found

    step(patch, m.NanoEstablishRequest, answer)


def nrt_without_state(world: Board) -> None:
    """R has nrt_R, C closes a session that nobody has joined, R claims every payment."""
    terms_hash = world.setup()
    world.offer(terms_hash)
    world.stop_before(m.NanoEstablishReveal, world.r)
    closes_c(world, terms_hash)
    flow(world, world.c)
    cash(world, world.c)
    posts(world, world.r, at(session_claim(world.r, terms_hash), proof_of(world, terms_hash, N)))


def setting_up_is_void(patch: Patch, world: Board) -> None:
    closing_count = nano_close.closing_count

    def count(records: Any, current: Session) -> Any:
        early = current.phase is Phase.SETTING_UP
        return closing_count(records, replace(current, phase=Phase.VOID) if early else current)

    patch.setattr(nano_close, "closing_count", count)


def close_from_setting_up(world: Board) -> None:
    """C holds its old wallet's token and the new wallet's at once: it spends one, posts the other.
    """
    cid = world.c.cids()[0]
    old = claim_of(world, world.c, cid)
    terms_hash = world.start_setup(cid)
    world.stop_before(m.NanoSetupReveal, world.c)
    world.c.requests.clear()
    world.c.records.put(Table.SESSION, terms_hash, replace(
        client_session(world.c.records, terms_hash), phase=ClientPhase.READY))
    closes_c(world, terms_hash)
    flow(world, world.c)
    moves_away(world, cid)
    posts(world, world.c, old)
    stands(world, cid)


# --- Counts


def no_proof_of_k(patch: Patch, world: Board) -> None:
    patch.setattr(nano_close, "verify_claim", lambda **claim: True)


def k_unchecked(world: Board) -> None:
    """R closes at every payment and was paid none; C does not take that count."""
    terms_hash = world.session()
    counts(world, terms_hash, Proved(N, b"\x01" * 32, ()))
    closes_r(world, terms_hash)
    flow(world, world.r)
    cash(world, world.r)


def no_position(patch: Patch, world: Board) -> None:
    leaf, node = hash_chain.checkpoint_leaf, hash_chain.checkpoint_node
    patch.setattr(hash_chain, "checkpoint_leaf", lambda index, value: leaf(16, value))
    patch.setattr(hash_chain, "checkpoint_node", lambda left, right: node(
        *sorted((left, right))))


def checkpoint_without_position(world: Board) -> None:
    """R was paid 16 times and shows HC[16] for the last checkpoint; C pays for all."""
    terms_hash = world.session(16)
    best = wallets.proved(world.r.records, terms_hash)
    counts(world, terms_hash, replace(best, k=N))
    closes_r(world, terms_hash)
    flow(world, world.r)
    cash(world, world.r)


def k_in_key(patch: Patch, world: Board) -> None:
    name, _, handler = intermediary._STEPS[m.RelayCloseRequest]

    def answer(records: Any, me: Any, moment: Any, message: Any) -> Any:
        current = session(records, message.terms_hash)
        if current.phase is Phase.RELAY_CLOSING:
            records.put(Table.SESSION, message.terms_hash,
                        replace(current, phase=Phase.ESTABLISHED))
        return handler(records, me, moment, message)

    patch.setitem(intermediary._STEPS, m.RelayCloseRequest, (
        name, lambda message: message.terms_hash + message.k.to_bytes(4, "big"), answer))


def k_in_the_reply_key(world: Board) -> None:
    """R gets a token at what it was paid, then one at nothing; C closes at nothing."""
    terms_hash = world.session(20)
    saved = world.r.records.copy()
    closes_r(world, terms_hash)
    world.stop_before(m.RelayCloseReveal, world.r)
    cid = wallets.session_of(world.r.records, terms_hash).cid
    first = claim_of(world, world.r, cid)
    world.r.records, world.r.requests = saved, {}
    counts(world, terms_hash, wallets.NOTHING)
    closes_r(world, terms_hash)
    flow(world, world.r)
    world.close_client(terms_hash)
    posts(world, world.r, first)
    stands(world, cid)


def second_close_answered(patch: Patch, world: Board) -> None:
    stored, handler = answering.stored_answer, handler_of(m.ClientCloseRequest)

    def found(records: Any, name: str, key: bytes, pcmd: int, payload: bytes) -> Any:
        return None if name == "client-close" else stored(records, name, key, pcmd, payload)

    def answer(records: Any, me: Any, moment: Any, message: Any) -> Any:
        current = session(records, message.terms_hash)
        if current.client_leg is Leg.CLOSING:
            records.put(Table.SESSION, message.terms_hash, replace(current, client_leg=Leg.OPEN))
        return handler(records, me, moment, message)

    patch.setattr(answering, "stored_answer", found)
    step(patch, m.ClientCloseRequest, answer)


def second_close(world: Board) -> None:
    """C has two refund tokens under different locks, spends one wallet and posts the other."""
    terms_hash, cid = world.session(20, world.c.cids()[0]), world.c.cids()[0]
    world.close_relay(terms_hash)
    saved = world.c.records.copy()
    closes_c(world, terms_hash)
    world.stop_before(m.ClientCloseReveal, world.c)
    first = claim_of(world, world.c, cid)
    world.c.records, world.c.requests = saved, {}
    closes_c(world, terms_hash)
    flow(world, world.c)
    moves_away(world, cid)
    posts(world, world.c, first)
    stands(world, cid)


# --- Locks that are on the ledger


def ignoring_posted(patch: Patch, kind: type[Any]) -> None:
    """I answers this request as if no lock were on the ledger."""
    handler = handler_of(kind)

    def answer(records: Any, me: Any, moment: Any, message: Any) -> Any:
        posted = [(key, one) for key, one in records.scan(Table.LOCK) if one.posted]
        for key, one in posted:
            records.put(Table.LOCK, key, replace(one, posted=False))
        try:
            return handler(records, me, moment, message)
        finally:
            for key, _ in posted:
                records.put(Table.LOCK, key, replace(records.get(Table.LOCK, key), posted=True))

    step(patch, kind, answer)


def ignored_at(*kinds: type[Any]) -> Callable[[Patch, Board], None]:
    def patch_all(patch: Patch, world: Board) -> None:
        for kind in kinds:
            ignoring_posted(patch, kind)

    return patch_all


def posted_at_setup(world: Board) -> None:
    """C's old token is on the ledger for all it had, and its session pays R."""
    cid = world.c.cids()[0]
    old = claim_of(world, world.c, cid)
    terms_hash = world.start_setup(cid)
    reveal = world.stop_before(m.NanoSetupReveal, world.c)
    posts_quietly(world, world.c, old)
    must(world.ask(reveal))
    world.retry()
    world.establish(terms_hash)
    world.pay(terms_hash, N)
    world.close_relay(terms_hash)
    cash(world, world.r)


def earlier_wealth(world: Board) -> tuple[int, Any]:
    """R has earned in a session before; its channel and its claim."""
    world.close(world.session(20, world.c.cids()[0]))
    cid = world.r.machine.idle_channel(world.r.records)
    for other in world.r.cids():
        if world.r.balance(other):
            cid = other
        else:
            world.r.records.delete(Table.WALLET, key248(other))
    return cid, claim_of(world, world.r, cid)


def posted_at_establish(world: Board) -> None:
    """R's old token is on the ledger while its session earns: there is one channel for both."""
    cid, old = earlier_wealth(world)
    terms_hash = world.setup(world.c.cids()[1])
    world.offer(terms_hash)
    reveal = world.stop_before(m.NanoEstablishReveal, world.r)
    posts_quietly(world, world.r, old)
    must(world.ask(reveal))
    world.retry()
    world.pay(terms_hash, N)
    nrt = session_claim(world.r, terms_hash)
    world.close(terms_hash)
    assert world.r.balance(cid) == claim_of(world, world.r, cid).balance
    for call in (nrt, claim_of(world, world.r, cid)):
        assert not world.transact(world.r, call)
    world.act(world.r, lambda records, moment: world.r.machine.cash_out(records, cid >> 8))
    world.run()


def posted_at_close_r(world: Board) -> None:
    """R's session is on the ledger at nothing, and closes with I at nothing; then everything is
    revealed."""
    terms_hash = world.session(1)
    counts(world, terms_hash, wallets.NOTHING)
    nrt = session_claim(world.r, terms_hash)
    closes_r(world, terms_hash)
    reveal = world.stop_before(m.RelayCloseReveal, world.r)
    posts_quietly(world, world.r, nrt)
    must(world.ask(reveal))
    world.retry()
    closes_c(world, terms_hash)
    flow(world, world.c)
    cash(world, world.c)
    reveals(world, world.r, terms_hash, N)


def posted_at_close_c(world: Board) -> None:
    """C's session is on the ledger, and its next wallet pays E."""
    cid = world.c.cids()[0]
    terms_hash = world.session(20, cid)
    world.close_relay(terms_hash)
    nrt = session_claim(world.c, terms_hash)
    closes_c(world, terms_hash)
    reveal = world.stop_before(m.ClientCloseReveal, world.c)
    posts_quietly(world, world.c, nrt)
    must(world.ask(reveal))
    world.retry()
    moves_away(world, cid)
    stands(world, cid)


# --- Old wallets


def relay_not_revoked(patch: Patch, world: Board) -> None:
    def answer(records: Any, me: Any, moment: Any, message: Any) -> Any:
        terms_hash = nano_setup.session_of_nonce(records, message.nonce)
        records.put(Table.SESSION, terms_hash, replace(
            session(records, terms_hash), phase=Phase.ESTABLISHED))
        return answering.Answer(m.Acknowledged())

    step(patch, m.NanoEstablishReveal, answer)


def old_relay_wallet(world: Board) -> None:
    """R posts what it had before a session that earned it more: a channel pays one of them."""
    cid, old = earlier_wealth(world)
    terms_hash = world.session(N, world.c.cids()[1])
    world.close_relay(terms_hash)
    world.close_client(terms_hash)
    posts(world, world.r, old)
    stands(world, cid)


# --- Time


def by_the_clock(patch: Patch, world: Board) -> None:
    patch.setattr(nano_close, "tip", lambda records: Tip(0, world.now))


def expiry_by_wall_clock(world: Board) -> None:
    """By I's clock T_exp has passed; the blocks before it, with R's count, are still to come."""
    terms_hash = world.session(1)
    end = t_exp(world, terms_hash)
    world.jump(end - 6)
    world.i.follows = False
    world.jump(end - 3)
    try:
        reveals(world, world.r, terms_hash, N)
        world.jump(end + 1)
        closes_c(world, terms_hash)
        flow(world, world.c)
    finally:
        world.i.follows = True
        world.follow(world.i)
    cash(world, world.c)
    posts(world, world.r, session_claim(world.r, terms_hash))


def establishing_late(patch: Patch, world: Board) -> None:
    def answer(records: Any, me: Any, moment: Any, message: Any) -> Any:
        with bent(nano_establish, "tip", lambda records: Tip(0, 0)):
            return nano_establish.answer_establish(records, me, moment, message)

    step(patch, m.NanoEstablishRequest, answer)


def late_establish(world: Board) -> None:
    """R joins after T_exp: what it may close at is what the ledger binds C's leg to as well."""
    terms_hash, cid = world.setup(), world.r.machine.idle_channel(world.r.records)
    offer = m.NanoOffer(client_session(world.c.records, terms_hash).session.terms, world.key_hash)
    reveals(world, world.c, terms_hash, 5)
    world.jump(t_exp(world, terms_hash) + 1)
    reveals(world, world.c, terms_hash, N)
    older = dict.fromkeys(range(offer.terms.epoch, world.moment().epoch), DEMO)
    world.act(world.r, lambda records, moment: join_with(
        world.r.machine.user, records, replace(moment, older=older), cid, offer))
    flow(world, world.r)
    counts(world, terms_hash, proof_of(world, terms_hash, 5))
    closes_r(world, terms_hash)
    flow(world, world.r)
    closes_c(world, terms_hash)
    flow(world, world.c)
    cash(world, world.c)
    cash(world, world.r)


def closing_late(patch: Patch, world: Board) -> None:
    def answer(records: Any, me: Any, moment: Any, message: Any) -> Any:
        with bent(nano_close, "tip", lambda records: Tip(0, 0)):
            return nano_close.answer_relay_close(records, me, moment, message)

    step(patch, m.RelayCloseRequest, answer)


def late_relay_close(world: Board) -> None:
    """After T_exp C closes at nothing, as it may; then R closes at every payment."""
    terms_hash = world.session(N)
    world.jump(t_exp(world, terms_hash) + 1)
    closes_c(world, terms_hash)
    flow(world, world.c)
    closes_r(world, terms_hash)
    flow(world, world.r)
    cash(world, world.r)


def no_t_exp(world: Board) -> None:
    """As `late_relay_close`, but R claims on the ledger."""
    terms_hash = world.session(N)
    world.jump(t_exp(world, terms_hash) + 1)
    closes_c(world, terms_hash)
    flow(world, world.c)
    cash(world, world.r)
    if world.stage.ledger.functions.claims(terms_hash).call()[1] == 0:
        raise Stopped("k_R stays 0")


# --- Proofs


def range_on_balance(patch: Patch, world: Board) -> None:
    patch.setattr(setup_proof, "_relation", weak_setup_relation)


def weak_setup_relation(bases: Any, points: Any, digits: Any, cost: int, secret: int = 0) -> Any:
    """B is in range instead of B − n·price."""
    held = range_proof.value(setup_proof._REMAINDER)
    spend = spending.spend_equations(bases, points, balance=held, saturated=held - cost)
    return [*spend, *range_proof.equations(bases, setup_proof._REMAINDER, digits, secret)]


def poor_setup(world: Board, idle: Idle) -> tuple[m.NanoSetupRequest, Any, Any]:
    """Nano-Setup of a wallet that does not cover n payments; with its chain, and r of com."""
    user, moment = world.c.machine.user, world.moment()
    chain = hash_chain.HashChain.generate(N)
    epoch = DEMO.epoch_at(world.now)
    terms = nano_setup.NanoTerms(
        -DEMO.price, DEMO.delta_r, N, chain.hc0, nano_setup.expiry(epoch, moment.parameters),
        chain.root, epoch)
    nwpk, cost = lock_of(b"\x03" * 32), N * DEMO.price
    with bent(spending, "check_amount", lambda *_: None):
        prepared = spending.prepare_spend(
            user.issuer, token=idle.pt, cid=idle.cid, wpk=idle.wpk, balance=idle.balance,
            saturated=(idle.balance - cost) % GROUP_ORDER)
    digits = range_proof.blind_digits(user.issuer, setup_proof._REMAINDER, idle.balance)
    transcript = setup_proof._transcript(
        user.ctx, prepared.statement, digits.encoded,
        tag(TokenKind.PAYMENT, Role.CLIENT, user.ctx), idle.nonce, terms, nwpk)
    equations = weak_setup_relation(setup_proof.bases_of(user.issuer), prepared.points,
                                    digits.points, cost)
    proof = digits.encoded + sigma.prove(transcript, equations,
                                         {**prepared.witness, **digits.witness})
    shown = prepared.statement
    return m.NanoSetupRequest(idle.nonce, m.Terms.of(terms), nwpk, shown.com, shown.commitment,
                              shown.sigma, shown.k, proof), chain, prepared.secrets.r


def poor_client(world: Board) -> None:
    """A wallet of 5,000 buys payments of 12,800, and is left alone then."""
    (cid,) = world.open(world.c, deposit=5_000, fund=0, count=1)
    idle = world.c.wallet(cid)
    request, chain, r = poor_setup(world, idle)
    must(world.ask(request))
    must(world.ask(m.NanoSetupReveal(idle.nonce, idle.wsk, r)))
    terms_hash = request.terms.nano_terms().hash()
    world.act(world.r, lambda records, moment: world.r.machine.on_offer(
        records, moment, m.NanoOffer(request.terms, world.key_hash)))
    flow(world, world.r)
    counts(world, terms_hash, Proved(N, chain.value(N), chain.path(N)))
    closes_r(world, terms_hash)
    flow(world, world.r)
    cash(world, world.r)


DIFFERENCE = "difference of the locks"
OTHER_SECRET = b"\x04" * 32


def weak_locks(bases: Any, d_rt: Any, quotient: Any, others: Any) -> Any:
    """The lock of D_pt is any."""
    first, _ = REQUEST_EQUATIONS(bases, d_rt, quotient, others)
    terms = ((bases.g2, sigma.secret(proofs.T_PT) - sigma.secret(proofs.T_RT)),
             (bases.request(NONCE), sigma.secret(proofs.NEW_NONCE)),
             (bases.request(WPK), sigma.secret(DIFFERENCE)))
    return [first, sigma.Equation(bases.group2, sigma.Base(quotient), terms)]


REQUEST_EQUATIONS, PREPARE_REQUEST = proofs.request_equations, proofs.prepare_request


def two_locks(pk: Any, *, wpk: int, nonce: int, others: Any) -> Any:
    """Requests whose second one has the lock of `OTHER_SECRET`."""
    made = PREPARE_REQUEST(pk, wpk=wpk, nonce=nonce, others=others)
    curve, difference = pk.curve, (lock_of(OTHER_SECRET) - wpk) % GROUP_ORDER
    quotient = curve.add_g2(made.quotient, curve.mul_g2(pk.request_base(WPK), difference))
    return replace(made, quotient=quotient, request=proofs.TokenRequest(
        made.request.d_rt, curve.encode_g2(curve.add_g2(made.d_rt, quotient))),
        witness={**made.witness, DIFFERENCE: difference})


def locks_differ(patch: Patch, world: Board) -> None:
    verify = nano_close.verify_nano_close

    def weak(*given: Any, **named: Any) -> None:
        if named["role"] is not Role.CLIENT:
            verify(*given, **named)
            return
        with bent(close_proof, "request_equations", weak_locks):
            verify(*given, **named)

    patch.setattr(nano_close, "verify_nano_close", weak)


def different_locks(world: Board) -> None:
    """C's next wallet is revoked with one secret when it is spent, its token stands with another.
    """
    cid = world.c.cids()[0]
    terms_hash = world.session(20, cid)
    world.close_relay(terms_hash)
    closes_c(world, terms_hash)
    with bent(close_proof, "request_equations", weak_locks), bent(
            close_proof, "prepare_request", two_locks):
        user = world.c.machine.user
        count = must(world.ask(world.held(world.c)))
        world.c.requests.clear()
        outbox: list[Any] = []

        def take(records: Any, moment: Any) -> Any:
            outbox.extend(nano_close.on_count(records, user, terms_hash, count))
            return []

        world.act(world.c, take)
    told(world.c, world, b"session:" + terms_hash, must(world.ask(request_of(outbox))))
    first, new = claim_of(world, world.c, cid), world.c.wallet(cid).next
    reply = must(world.ask(world.held(world.c)))
    pt = unblind(user.issuer, reply.pt, new.t_pt,
                 tag=tag(TokenKind.PAYMENT, Role.CLIENT, user.ctx), cid=cid, nonce=new.nonce,
                 wpk=lock_of(OTHER_SECRET), balance=new.balance)
    world.c.requests.clear()
    wallets.put(world.c.records, cid, Idle(cid, new.nonce, OTHER_SECRET, new.balance, pt,
                                           first.token))
    moves_away(world, cid)
    posts(world, world.c, first)
    stands(world, cid)


def lock_not_signed(patch: Patch, world: Board) -> None:
    real = sessions.nano_refund_struct
    patch.setattr(sessions, "nano_refund_struct", lambda ctx, role, terms_hash, nwpk, commitment:
                  real(ctx, role, terms_hash, 7, commitment))


def nwpk_unbound(world: Board) -> None:
    """A session that is over is posted with a lock whose secret nobody was told."""
    cid = world.c.cids()[0]
    terms_hash = world.session(20, cid)
    nrt = session_claim(world.c, terms_hash)
    world.close(terms_hash)
    moves_away(world, cid)
    posts(world, world.c, replace(nrt, nwpk=lock_of(b"\x07" * 32)))
    stands(world, cid)


def role_from_sign(patch: Patch, world: Board) -> None:
    class Signed:
        """Roles as the sign of the adjustment of a relay's close says."""

        CLIENT, RELAY = Role.CLIENT, Role.CLIENT

    close, reveal = handler_of(m.RelayCloseRequest), handler_of(m.RelayCloseReveal)

    def signed(handler: Callable[..., Any], k: Callable[[Any, Any], int]) -> Callable[..., Any]:
        def answer(records: Any, me: Any, moment: Any, message: Any) -> Any:
            # The adjustment −δ_R·(n − k) of a relay that was paid for everything is not negative.
            if k(records, message) < N:
                return handler(records, me, moment, message)
            with bent(nano_close, "Role", Signed):
                return handler(records, me, moment, message)

        return answer

    step(patch, m.RelayCloseRequest, signed(close, lambda records, message: message.k))
    step(patch, m.RelayCloseReveal, signed(reveal, lambda records, message: session(
        records, message.terms_hash).best.k))


def role_by_sign(world: Board) -> None:
    """A relay that was paid n times comes out with a client's wallet, and pays it away untaxed."""
    r, e = world.r, world.e
    terms_hash = world.session(N)
    cid = wallets.session_of(r.records, terms_hash).cid
    r.machine.user = replace(r.machine.user, role=Role.CLIENT)
    try:
        closes_r(world, terms_hash)
        flow(world, r)
        amount = r.balance(cid) - DEMO.pay_fee
        outbox: list[Any] = []
        secret = r.wallet(cid).wsk
        world.act(r, lambda records, moment: outbox.extend(pay.start_payer(
            records, r.machine.user, moment, cid=cid, amount=amount, t_p=world.deadline())[1])
            or [])
    finally:
        r.machine.user = replace(r.machine.user, role=Role.RELAY)
    payer = request_of(outbox)
    current = pay.transfer(r.records, payer.wpk)
    to = e.cids()[0]
    world.act(e, lambda records, moment: e.machine.receive(records, moment, to, m.PayInvoice(
        amount, current.s, current.t_p, payer.wpk)))
    payee = world.held(e)
    world.ask(payer)
    told(e, world, pay.conversation(payer.wpk), must(world.ask(payee)))
    world.act(e, lambda records, moment: e.machine.on_message(
        records, moment, pay.session_key(payer.wpk), *m.pack(m.PaySecret(secret))))
    flow(world, e)
    cash(world, e)


def untaxed(world: Board, floors: Floors) -> dict[str, int]:
    """The pool, if relay and friend together earned something and it got nothing."""
    gain = sum(world.stake(world.nodes[name]) - floors.start[name] for name in "RE")
    due = gain * TAX_RATE_BP // 10_000
    return {**floors.broken(), **({"T": due} if gain > 0 and world.tax() < due else {})}


SESSIONS = (
    Weakening("close order", no_close_order, close_order, "CR", "NOT_YET"),
    Weakening("role by sign", role_from_sign, role_by_sign, "RE", "PROOF", "T", lost=untaxed),
    Weakening("k unchecked", no_proof_of_k, k_unchecked, "R", "CLAIM"),
    Weakening("nwpk unbound", lock_not_signed, nwpk_unbound, "C", "authorisation: signature",
              ledger=weak_ledger.NWPK_UNBOUND),
    Weakening("second close with a new commitment", second_close_answered, second_close, "C",
              "REUSED"),
    Weakening("posted lock ignored: Setup", ignored_at(m.NanoSetupReveal), posted_at_setup, "CR",
              "LOCK"),
    Weakening("posted lock ignored: Establish", ignored_at(m.NanoEstablishReveal),
              posted_at_establish, "R", "LOCK", ""),
    Weakening("posted lock ignored: Close R", ignored_at(m.RelayCloseReveal), posted_at_close_r,
              "CR", "LOCK"),
    Weakening("posted lock ignored: Close C", ignored_at(m.ClientCloseReveal), posted_at_close_c,
              "C", "LOCK"),
    Weakening("no T_exp", unpatched, no_t_exp, "R", "k_R stays 0", ledger=weak_ledger.NO_T_EXP),
    Weakening("T_exp by wall clock", by_the_clock, expiry_by_wall_clock, "CR", "NOT_YET"),
    Weakening("relay wallet not revoked", relay_not_revoked, old_relay_wallet, "R", "refuted", ""),
    Weakening("nrt_R without the state establishing", no_establishing, nrt_without_state, "CR",
              "NOT_YET"),
    Weakening("relay_closing taken for relay_closed", closing_is_closed, closing_taken_for_closed,
              "CR", "NOT_YET"),
    Weakening("late Establish", establishing_late, late_establish, "CR", "TOO_LATE", ""),
    Weakening("late relay close", closing_late, late_relay_close, "R", "TOO_LATE"),
    Weakening("range on B instead of B − n·price", range_on_balance, poor_client, "CR", "PROOF"),
    Weakening("different wpk' in the two requests", locks_differ, different_locks, "C", "PROOF"),
    Weakening("checkpoint without position", no_position, checkpoint_without_position, "R",
              "CLAIM", "C", ledger=weak_ledger.NO_POSITION),
    Weakening("Close-C from setting_up", setting_up_is_void, close_from_setting_up, "C", "STATE"),
    Weakening("k in the reply key", k_in_key, k_in_the_reply_key, "R", "REUSED"),
)
