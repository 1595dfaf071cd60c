# SPDX-License-Identifier: BSD-3-Clause
"""The game: besides `balance_moves` what corrupt clients, relays and intermediaries forge.

A move that honest parties must refuse is built well enough to reach the rule that refuses it, and
says which reasons are right: the state of I decides which of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from monetor_chain.parameters import DEMO
from monetor_chain.statements import Role, TokenKind, lock_of, tag
from offchain.crypto.ecdsa import sign
from offchain.protocol import (
    answering,
    cash_out,
    ledger as calls,
    messages as m,
    nano_close,
    nano_setup,
    pay,
    wallet as wallets,
)
from offchain.protocol.errors import RefusalCode as Code
from offchain.protocol.moment import tip
from offchain.protocol.outbox import Tell
from offchain.protocol.records import MemoryRecords, Table
from offchain.protocol.sessions import (
    ClientPhase,
    ClientSession,
    Leg,
    Phase,
    RelayPhase,
    RelaySession,
)
from offchain.protocol.wallet import NO_SIGNATURE, InSession, Paying, Proved
from tests.protocol import forgeries
from tests.protocol.balance_machine import move
from tests.protocol.balance_moves import AT, Moves
from tests.protocol.board import CLOSING, CLOSING_SESSION, OPEN, REQUESTED
from tests.protocol.world import MU, Node

PROVEN = (m.NanoSetupRequest, m.NanoEstablishRequest, m.RelayCloseRequest, m.ClientCloseRequest,
          m.PayerRequest, m.PayeeRequest, m.PayeeVoid)
"""Requests that end in a proof."""


class Game(Moves):
    """All the moves."""

    # --- A corrupt client

    def unspent(self, at: int) -> int:
        """An idle wallet that I would let the client spend."""
        world = self.world
        return int(self.pick([
            cid for cid in self.idle(world.c)
            if not answering.is_spent(world.i.records, world.c.wallet(cid).nonce)
            and world.c.balance(cid) >= DEMO.n * DEMO.price], at))

    @move(bad="C", honest="I", at=AT)
    def reuse_nonce(self, at: int) -> None:
        """Nano-Setup of a wallet that was spent into anything."""
        idle = self.pick([one for one in self.spent("C")
                          if one.balance >= DEMO.n * DEMO.price], at)
        c = self.world.c
        message = self.forged("C", lambda records, moment: nano_setup.start(
            records, c.machine.user, moment, idle.cid), idle)
        self.refuses("reuse_nonce", message, Code.REUSED)

    @move(bad="C", honest="I", at=AT, which=AT, how=st.sampled_from(("nT", "hc0", "nwpk")))
    def reuse(self, at: int, which: int, how: str) -> None:
        """Nano-Setup with terms, payments or a lock of another session."""
        c = self.world.c
        cid = self.unspent(at)
        key = self.pick([one for one in self.at_i() if one in self.floors.chains], which)
        terms, seed = self.floors.chains[key]
        old = forgeries.HashChain(terms.n, seed)

        def start(records: MemoryRecords, moment: Any) -> Any:
            match how:
                case "nT":
                    return forgeries.setup_on(old, records, moment, c, cid)
                case "hc0":
                    twisted = forgeries.Twisted(terms.n, seed)
                    return forgeries.setup_on(twisted, records, moment, c, cid)
            found = c.records.get(Table.SESSION, key)
            self.need(isinstance(found, ClientSession))
            return forgeries.setup_with_secret(found.session.nwsk, records, moment, c, cid)

        self.refuses(f"reuse {how}", self.forged("C", start), Code.REUSED)

    @move(bad="C", honest="I", at=AT, which=st.integers(0, 60),
          what=st.sampled_from(("commitment", "com", "k", "sigma")))
    def foreign_part(self, at: int, which: int, what: str) -> None:
        """Nano-Setup with N, com, K or a token of another session."""
        c, cid = self.world.c, self.unspent(at)
        other = self.pick([m.unpack(one.pcmd, one.payload) for one in self.world.log
                           if one.pcmd in (m.NanoSetupRequest.PCMD, m.NanoEstablishRequest.PCMD)],
                          which)
        message = self.forged("C", lambda records, moment: nano_setup.start(
            records, c.machine.user, moment, cid))
        self.refuses(f"foreign {what}", replace(message, **{what: getattr(other, what)}),
                     Code.PROOF)

    @move(bad="C", honest="I", at=AT)
    def foreign_cid(self, at: int) -> None:
        """Nano-Setup of a wallet as if it were another channel's."""
        c, cid = self.world.c, self.unspent(at)
        other = next(one for one in c.cids() if one != cid)
        idle = replace(c.wallet(cid), cid=other)
        message = self.forged("C", lambda records, moment: nano_setup.start(
            records, c.machine.user, moment, other), idle)
        self.refuses("foreign_cid", message, Code.PROOF)

    @move(bad="C", honest="I", at=AT, k=st.sampled_from((0, 1, 20, DEMO.n)))
    def client_close_at(self, at: int, k: int) -> None:
        """Nano-Close of the client's leg at a count of its choice, asked for or not."""
        c = self.world.c
        key = self.pick([one for one in self.at_i()
                         if isinstance(c.records.get(Table.SESSION, one), ClientSession)], at)
        chain = self.chain(key)
        assert chain is not None

        def start(records: MemoryRecords, moment: Any) -> Any:
            mine = records.get(Table.SESSION, key)
            self.need(mine.session.nrt != NO_SIGNATURE)
            records.put(Table.SESSION, key, replace(mine, phase=ClientPhase.QUERYING, sent=DEMO.n))
            wallets.put(records, mine.session.cid, InSession(mine.session.cid, key))
            return nano_close.on_count(records, c.machine.user, key, m.ClientCloseCount(
                k, chain.value(k) if k else bytes(32), ()))

        message = self.forged("C", start)
        right = self.right_client_close(key, k)
        if right is not None:
            self.refuses("client_close_at", message, right)

    def right_client_close(self, key: bytes, k: int) -> Code | None:
        """How I must refuse a client's close; None where it may be answered."""
        records, one = self.world.i.records, self.i_session(key)
        assert one is not None
        if records.get(Table.ANSWER, b"client-close:" + key) is not None:
            return Code.REUSED
        if one.client_leg is not Leg.OPEN:
            return Code.STATE
        state = answering.lock_state(records, one.nwpk_c)
        if state.posted or state.revoked:
            return Code.LOCK
        if one.phase is Phase.SETTING_UP:
            return Code.STATE
        over = tip(records).timestamp > one.terms.t_exp
        if one.phase not in (Phase.SETUP, Phase.VOID, Phase.RELAY_CLOSED) and not (
                one.relay_resolved or over):
            return Code.NOT_YET
        if one.phase is Phase.SETUP:
            return Code.STATE
        return None if k == max(one.best.k, one.ledger.k) else Code.CLAIM

    @move(bad="C", honest="R", at=AT, k=st.sampled_from((0, 1, 2, DEMO.n + 1)),
          hashed=st.booleans())
    def wrong_payment(self, at: int, k: int, hashed: bool) -> None:
        """Nano-Pay out of order, beyond n, or with a value that is not the chain's."""
        r = self.world.r
        key = self.pick([one for one in self.sessions(r, RelayPhase.ACTIVE)
                         if one in self.floors.chains], at)
        terms = self.floors.chains[key][0]
        self.need(self.world.now < terms.t_exp - 2 * MU)
        last, chain = wallets.proved(r.records, key).k, self.chain(key)
        assert chain is not None
        number = last + 1 if hashed else k
        self.need(hashed and last < terms.n or number != last + 1)
        hc = b"\x01" * 32 if hashed else chain.value(min(number, terms.n))
        self.complains("wrong_payment", r, lambda records, moment: r.machine.on_payment(
            records, moment, key, m.NanoPayment(number, hc, ())),
            "preimage does not fit" if hashed else "does not follow")

    @move(honest="I", how=st.sampled_from(("balance", "repeated", "foreign", "spent")), at=AT)
    def wrong_cash_out(self, how: str, at: int) -> None:
        """A cash-out that shows one wallet which it must not."""
        name = self.pick([one for one in "CE" if one in self.bad], at)
        node = self.node(name)
        spent = self.pick(self.spent(name), at) if how == "spent" else None
        group = node.cids()[0] >> 8
        self.need(not cash_out.gone(self.world.i.records, group))

        def start(records: MemoryRecords, moment: Any) -> Any:
            records.delete(Table.META, b"cash-out:" + group.to_bytes(31, "big"))
            return cash_out.start(records, node.machine.user, group)

        self.need(self.idle(node) or spent)
        message = self.forged(name, start, spent)
        first = message.wallets[0]
        fresh = all(not answering.is_spent(self.world.i.records, one.nonce)
                    and answering.lock_state(self.world.i.records, one.wpk) == answering.Lock()
                    for one in message.wallets)
        self.need(fresh or how == "spent")
        wrong, code = {
            "balance": (replace(first, balance=first.balance + 1), Code.PROOF),
            "repeated": (first, Code.STATE),
            "foreign": (replace(first, index=1 - first.index), Code.PROOF),
            "spent": (first, Code.REUSED),
        }[how]
        shown = {"repeated": (first, wrong), "spent": message.wallets}.get(how, (wrong,))
        self.refuses(f"wrong_cash_out {how}", replace(message, wallets=shown), code)

    # --- A corrupt relay

    @move(bad="R", honest="I", at=AT, k=st.sampled_from((0, 1, 16, 20, DEMO.n, DEMO.n + 1)))
    def relay_close_at(self, at: int, k: int) -> None:
        """Nano-Close of the relay's leg at a count of its choice, proved as well as it can."""
        world = self.world
        r = world.r
        key = self.pick([one for one in self.at_i()
                         if isinstance(r.records.get(Table.SESSION, one), RelaySession)], at)
        mine, one = r.records.get(Table.SESSION, key), self.i_session(key)
        assert one is not None
        best, chain = wallets.proved(r.records, key), self.chain(key)
        if k == best.k:
            proof = best
        elif chain is not None and k <= DEMO.n:
            proof = Proved(k, chain.value(k), chain.path(k))
        else:
            proof = Proved(k, best.hc, best.path)
        proved = k == 0 or k == best.k or chain is not None and k <= DEMO.n

        def start(records: MemoryRecords, moment: Any) -> Any:
            self.need(mine.session.nrt != NO_SIGNATURE)
            records.put(Table.SESSION, key, replace(mine, phase=RelayPhase.ACTIVE))
            wallets.put(records, mine.session.cid, InSession(mine.session.cid, key))
            records.put(Table.PAYMENT, key, proof)
            return nano_close.start_relay(records, r.machine.user, key)

        right = self.right_relay_close(key, k, proved)
        if right is not None:
            self.refuses("relay_close_at", self.forged("R", start), right)
            return
        self.need(mine.phase is RelayPhase.ACTIVE)
        world.act(r, start)
        world.run()

    def right_relay_close(self, key: bytes, k: int, proved: bool) -> Code | None:
        """How I must refuse a relay's close; None where it may be answered."""
        records, one = self.world.i.records, self.i_session(key)
        assert one is not None
        if records.get(Table.ANSWER, b"relay-close:" + key) is not None:
            return Code.REUSED
        if one.phase is not Phase.ESTABLISHED:
            return Code.STATE
        state = answering.lock_state(records, one.nwpk_r)
        if state.posted or state.revoked:
            return Code.LOCK
        if not proved:
            return Code.CLAIM
        now = tip(records).timestamp
        if now >= one.terms.t_exp - MU and k != max(one.best.k, one.ledger_k_r):
            return Code.TOO_LATE if now > one.terms.t_exp else Code.NOT_YET
        return None

    @move(bad="R", honest="I", at=AT, which=AT)
    def join(self, at: int, which: int) -> None:
        """Nano-Establish in any session, however late, and whoever has joined it before."""
        world = self.world
        r, records = world.r, world.i.records
        key = self.pick(self.floors.chains, at)
        cid = self.pick([one for one in self.idle(r) if not answering.is_spent(
            records, r.wallet(one).nonce)], which)
        offer = m.NanoOffer(self.floors.chains[key][0], world.key_hash)

        def start(copy: MemoryRecords, moment: Any) -> Any:
            older = dict.fromkeys(range(offer.terms.epoch, moment.epoch), DEMO)
            return forgeries.join_with(r.machine.user, copy, replace(moment, older=older), cid,
                                       offer)

        one = self.i_session(key)
        if one is None:
            right = Code.UNKNOWN
        elif one.phase is not Phase.SETUP:
            right = Code.STATE
        elif tip(records).timestamp >= one.terms.t_exp - MU:
            right = Code.TOO_LATE
        else:
            world.routes[key] = {"C": "R", "R": "C"}
            world.act(r, start)
            world.run()
            return
        self.refuses("join", self.forged("R", start), right)

    @move(bad="CR", honest="I", at=AT, which=AT)
    def join_as_client(self, at: int, which: int) -> None:
        """Nano-Establish with a client's wallet: the role is in the token."""
        world = self.world
        self.need(world.c.alive, world.i.alive)
        key = world.setup(self.unspent(at))
        one = self.i_session(key)
        self.need(one is not None and one.phase is Phase.SETUP)
        cid = self.unspent(which)
        offer = m.NanoOffer(self.floors.chains[key][0], world.key_hash)
        older = dict.fromkeys(range(offer.terms.epoch, DEMO.epoch_at(world.now)), DEMO)
        message = self.forged("C", lambda records, moment: forgeries.join_with(
            world.c.machine.user, records, replace(moment, older=older), cid, offer))
        self.refuses("join_as_client", message, Code.PROOF)

    # --- A corrupt payer and payee

    def held_payment(self, at: int) -> tuple[pay.Transfer, Paying, m.PayerRequest]:
        """A payment that C has asked for and I has not joined."""
        c = self.world.c
        options = []
        for _, one in c.records.scan(Table.PAYMENT):
            wallet = c.wallet(one.cid) if isinstance(one, pay.Transfer) else None
            request = c.requests.get(pay.conversation(getattr(one, "wpk_c", 0)))
            if (isinstance(wallet, Paying) and wallet.wpk_c == one.wpk_c and request is not None
                    and request.pcmd == m.PayerRequest.PCMD
                    and self.world.would(request.pcmd, request.payload) is Code.NOT_YET):
                options.append((one, wallet, m.unpack(request.pcmd, request.payload)))
        found: tuple[pay.Transfer, Paying, m.PayerRequest] = self.pick(options, at)
        return found

    @move(bad="C", honest="I", at=AT)
    def pay_oneself(self, at: int) -> None:
        """One wallet on both legs."""
        world = self.world
        _, _, payer = self.held_payment(at)
        message = self.forged("C", lambda records, moment: forgeries.pay_oneself(
            records, moment, world.c, payer))
        world.ask(payer)
        self.refuses("pay_oneself", message, Code.REUSED)

    @move(bad="E", honest="I", at=AT,
          how=st.sampled_from(("another V", "the same V", "another T_p", "another payer")))
    def other_payment(self, at: int, how: str) -> None:
        """A payee that joins another payment than the payer made."""
        world = self.world
        transfer, _, payer = self.held_payment(at)
        to = self.pick([cid for cid in self.idle(world.e)
                        if answering.lock_state(world.i.records, world.e.wallet(cid).wpk)
                        == answering.Lock()
                        and not answering.is_spent(world.i.records, world.e.wallet(cid).nonce)],
                       at)
        room = 80_000 - world.e.balance(to)
        self.need(transfer.amount < room)
        invoice = m.PayInvoice(
            transfer.amount + (how in ("another V", "the same V")), transfer.s,
            transfer.t_p - (how == "another T_p"), transfer.wpk_c ^ (how == "another payer"))

        def start(records: MemoryRecords, moment: Any) -> Any:
            records.delete(Table.PAYMENT, invoice.wpk_c.to_bytes(31, "big"))
            return pay.on_invoice(records, world.e.machine.user, moment, to, invoice)

        message = self.forged("E", start)
        world.ask(payer)
        if how == "the same V":
            message = replace(message, v=payer.v)
        late = tip(world.i.records).timestamp >= message.t_p - 2 * MU
        code = {"another V": Code.NOT_YET, "the same V": Code.PROOF}.get(how, Code.TERMS)
        self.refuses(f"other_payment {how}", message, Code.TOO_LATE if late else code)

    @move(bad="C", honest="I", at=AT)
    def negative_payment(self, at: int) -> None:
        """ε < 0: the payer would gain what the payee's balance loses modulo the group's order."""
        world = self.world
        cid = self.unspent(at)
        self.need(answering.lock_state(world.i.records, world.c.wallet(cid).wpk)
                  == answering.Lock(), world.would(*m.pack(m.PayQuery())) is None)
        message, _ = forgeries.negative_payer(
            world, world.c, world.c.wallet(cid), -1_000, world.deadline())
        self.refuses("negative_payment", message, Code.PROOF)

    @move(bad="C", at=AT)
    def tell_secret(self, at: int) -> None:
        """A payer tells its secret when it likes, and to the payee only."""
        world = self.world
        payments = [one for _, one in world.e.records.scan(Table.PAYMENT)
                    if isinstance(one, pay.Transfer) and not one.payer]
        current = self.pick(payments, at)
        secret = next((one.wsk for one in self.idles["C"].values()
                       if one.wpk == current.wpk_c), None)
        self.need(secret, world.e.alive)
        known = len(world.e.complaints)
        world._take_word(world.c, world.e, Tell(
            pay.session_key(current.wpk_c), *m.pack(m.PaySecret(secret))))
        for why in world.e.complaints[known:]:
            self.tally.refused["tell_secret", why] += 1
        world.run()

    @move(bad="E", at=AT)
    def say_verified(self, at: int) -> None:
        """A payee says that it holds its token, and does not."""
        world = self.world
        payments = [one for _, one in world.c.records.scan(Table.PAYMENT)
                    if isinstance(one, pay.Transfer) and one.payer and not one.verified]
        current = self.pick(payments if world.c.alive else (), at)
        world._take_word(world.e, world.c, Tell(
            pay.session_key(current.wpk_c), *m.pack(m.PayVerified(current.wpk_c))))
        world.run()

    @move(bad="CE", at=AT, ask=st.booleans())
    def enforce(self, at: int, ask: bool) -> None:
        """Payer and payee together use the payer's secret, at I or on the ledger."""
        world = self.world
        options = [one for one in wallets.all_wallets(world.e.records)
                   if isinstance(one, Paying) and one.conditional != wallets.NO_TOKEN
                   and not pay.transfer(world.e.records, one.wpk_c).payer]
        wallet = self.pick(options, at)
        secret = next((one.wsk for one in self.idles["C"].values()
                       if one.wpk == wallet.wpk_c), None)
        self.need(secret)
        if ask:
            self.answer_to("enforce", m.PayeeClaim(wallet.idle.nonce, secret))
            return
        self.need(world.status(wallet.idle.cid) in (OPEN, REQUESTED))
        call = calls.RefundConditional(
            wallet.next.cid, lock_of(wallet.next.wsk), wallet.next.balance, wallet.conditional,
            wallet.wpk_c, wallet.t_p, secret)
        if world.now + 1 > wallet.t_p:
            self.reverts("enforce", world.e, call, "ledger: too late")
        else:
            self.posted(world.e, call)

    def answer_to(self, name: str, message: Any) -> None:
        reply = self.world.ask(message)
        if isinstance(reply, m.Refusal):
            self.tally.refused[name, reply.code.name] += 1
        self.world.run()

    @move(bad="E", honest="I", at=AT,
          how=st.sampled_from(("wrong secret", "own secret", "no payment", "too early")))
    def wrong_claim(self, at: int, how: str) -> None:
        """A payee claims without the payer's secret, or calls a payment void that is not."""
        world = self.world
        legs = [(int.from_bytes(key, "big"), one)
                for key, one in world.i.records.scan(Table.NONCE)
                if isinstance(one, pay.JoinedLeg) and not one.payer and one.state == pay.JOINED]
        nonce, leg = self.pick(legs, at)
        wallet = next((one for one in wallets.all_wallets(world.e.records)
                       if isinstance(one, Paying) and one.idle.nonce == nonce), None)
        self.need(wallet)
        assert wallet is not None
        if how == "too early":
            self.need(world.now <= leg.leg.t_p)
            draft = world.e.records.copy()
            draft.put(Table.META, b"tip", replace(tip(draft), timestamp=leg.leg.t_p + 1))
            message = m.unpack(*next(
                (item.pcmd, item.payload) for item in pay.void_payee(
                    draft, world.e.machine.user, wallet.wpk_c) if hasattr(item, "payload")))
            self.refuses("wrong_claim too early", message, Code.NOT_YET)
            return
        message, code = {
            "wrong secret": (m.PayeeClaim(nonce, b"\x01" * 32), Code.PROOF),
            "own secret": (m.PayeeClaim(nonce, wallet.idle.wsk), Code.PROOF),
            "no payment": (m.PayeeReveal(nonce, wallet.idle.wsk), Code.STATE),
        }[how]
        self.refuses(f"wrong_claim {how}", message, code)

    # --- Anybody corrupt

    @move(honest="I", at=AT, byte=st.integers(1, 96), bit=st.integers(0, 7))
    def mutate_proof(self, at: int, byte: int, bit: int) -> None:
        """A request that I would answer or keep waiting, with one bit of its proof flipped."""
        world = self.world
        requests = [one for name in self.bad for one in self.node(name).requests.values()
                    if m.MESSAGES[one.pcmd] in PROVEN]
        requests = [one for one in requests if world.i.records.get(
            Table.ANSWER, b"spend:" + one.payload[:31]) is None]
        request = self.pick(requests, at)
        good = world.would(request.pcmd, request.payload)
        self.need(good is None or good is Code.NOT_YET and request.pcmd in (
            m.PayerRequest.PCMD, m.PayeeRequest.PCMD))
        payload = bytearray(request.payload)
        payload[-byte] ^= 1 << bit
        name = m.MESSAGES[request.pcmd].__name__
        code = world.would(request.pcmd, bytes(payload))
        self.need(code is not Code.REUSED)
        self.tally.refused[f"mutate_proof {name}", code.name if code else "answered"] += 1
        assert code in (Code.PROOF, Code.MALFORMED), f"{name}: {code}"

    # --- A corrupt intermediary

    def outstanding(self, at: int, *kinds: type[Any]) -> tuple[Node, bytes, Any]:
        """A request of somebody honest that waits for an answer."""
        options = [(node, name, m.unpack(one.pcmd, one.payload)) for node in self.users()
                   if node.name not in self.bad and node.alive
                   for name, one in node.requests.items()
                   if not kinds or m.MESSAGES[one.pcmd] in kinds]
        found: tuple[Node, bytes, Any] = self.pick(options, at)
        return found

    def answers(self, name: str, node: Node, conversation: bytes, reply: Any, *words: str) -> None:
        """I's answer, which an honest machine must not take."""
        pcmd, payload = m.pack(reply)
        self.complains(name, node, lambda records, moment: node.machine.on_reply(
            records, moment, conversation, pcmd, payload), *words)

    @move(bad="I", at=AT, code=st.sampled_from(list(Code)))
    def refuse(self, at: int, code: Code) -> None:
        """Any refusal of anything."""
        node, conversation, request = self.outstanding(at)
        world = self.world
        world.wire.clear()
        world._take_reply(node, conversation, *m.pack(m.Refusal(code, request.PCMD)))
        world.run()

    @move(bad="I", at=AT, bit=st.integers(0, 7))
    def mutate_reply(self, at: int, bit: int) -> None:
        """A reply with one bit flipped."""
        world = self.world
        node, conversation, request = self.outstanding(
            at, m.NanoSetupRequest, m.NanoEstablishRequest, m.RelayCloseRequest,
            m.RelayCloseReveal, m.ClientCloseRequest, m.ClientCloseReveal, m.PayerReveal,
            m.PayeeClaim, m.PayeeReveal)
        self.need(world.would(*m.pack(request)) is None)
        pcmd, payload = world.request(*m.pack(request))
        self.need(pcmd != m.Refusal.PCMD)
        broken = bytearray(payload)
        broken[-2] ^= 1 << bit
        reply = m.unpack(pcmd, bytes(broken))
        self.answers(f"mutate_reply {type(reply).__name__}", node, conversation, reply,
                     "nrt", "reply", "RefundTokenReply", "WalletTokenReply")

    @move(bad="I", at=AT, k=st.sampled_from((1, 16, DEMO.n)), more=st.booleans())
    def wrong_count(self, at: int, k: int, more: bool) -> None:
        """More payments than were sent, or a count without its preimage."""
        node, conversation, request = self.outstanding(at, m.ClientCloseQuery)
        sent = node.records.get(Table.SESSION, request.terms_hash).sent
        self.need(more and sent < DEMO.n or k <= sent)
        count = m.ClientCloseCount(sent + 1 if more else k, b"\x02" * 32, ())
        self.answers("wrong_count", node, conversation, count,
                     "were sent" if more else "preimage is not")

    @move(bad="I", at=AT, what=st.sampled_from(("balance", "kind")))
    def wrong_token(self, at: int, what: str) -> None:
        """A signature on something else than was asked for."""
        node, conversation, request = self.outstanding(
            at, m.RelayCloseRequest, m.ClientCloseRequest, m.PayeeVoid)
        role = Role.RELAY if node is self.world.r else Role.CLIENT
        me, kind = self.world.me, TokenKind.PAYMENT if what == "kind" else TokenKind.REFUND
        token = me.issuer.blind_sign(request.d_rt, tag=tag(kind, role, me.ctx),
                                     balance=0 if what == "kind" else 2**32 - 1)
        self.answers("wrong_token", node, conversation, m.RefundTokenReply(token), "reply")

    @move(bad="I")
    def hide(self) -> None:
        """I does not hear of the ledger, or hears of it again."""
        i = self.world.i
        i.follows = not i.follows
        if i.follows and i.alive:
            self.world.follow(i)

    @move(bad="I", at=AT)
    def refute(self, at: int) -> None:
        """Every secret that I was ever told, against a claim of somebody honest."""
        world = self.world
        cid = self.pick([one for node in self.users() if node.name not in self.bad
                         for one in node.cids()
                         if world.status(one) in (CLOSING, CLOSING_SESSION)
                         and world.now + 1 <= world.deadline_of(one)], at)
        lock = world.stage.ledger.functions.channel(cid).call()[3]
        known = self.secrets() or [b"\x01" * 32]
        secret = next((one for one in known if lock_of(one) % 2**144 == lock), known[-1])
        self.reverts("refute", world.i, calls.Refute(cid, secret), "ledger: wrong secret")

    @move(bad="I", at=AT, how=st.sampled_from(("refund", "close", "nano_refund")))
    def own_claim(self, at: int, how: str) -> None:
        """I claims for an end user, with tokens that only it can make."""
        world = self.world
        node = self.pick([one for one in self.users() if one.name not in self.bad], at)
        cid = self.pick([one for one in node.cids() if world.status(one) == OPEN], at)
        role = Role.RELAY if node is world.r else Role.CLIENT
        token = world.me.issuer.sign(tag=tag(TokenKind.REFUND, role, world.ctx), cid=cid, nonce=0,
                                     wpk=5, balance=0)
        call: Any = calls.Refund(cid, 5, 0, token)
        if how == "close":
            digest = cash_out._digest(world.domain, world.ctx, cid >> 8, 1 << (cid & 255), 0)
            call = calls.Close(cid >> 8, 1 << (cid & 255), 0,
                               sign(digest, world.me.signing_key))
        elif how == "nano_refund":
            call = self.pick(self.own_sessions(node), at)
            self.need(world.status(call.cid) == OPEN)
        self.reverts(f"own_claim {how}", world.i, call, "authorisation: signature",
                     "authorisation: expired")

    def own_sessions(self, node: Node) -> list[Any]:
        """What a session's end user could claim; I does not know ρ, but grant it that."""
        return [wallets.claim(node.records, wallet) for wallet in wallets.all_wallets(node.records)
                if isinstance(wallet, InSession)]

    @move(bad="I", at=AT)
    def keep_back(self, at: int) -> None:
        """I does not send what it decided: no reveal, no refutation, no resolution."""
        world = self.world
        parcel = self.pick([one for one in world.wire if one.kind == "submit"
                            and one.source == "I"], at)
        world.wire.remove(parcel)
        world.i.submissions.pop(parcel.item.key, None)
