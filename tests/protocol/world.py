# SPDX-License-Identifier: BSD-3-Clause
"""A network in memory: real machines, one real ledger, and a clock and a wire that a test controls.

Every party is a real machine over `MemoryRecords` with a durable outbox, as the store keeps it. A
step runs on a draft of the records; committing puts the outbox on the wire, and only what is
durable survives a crash. The ledger is the deployed contracts on an EVM in this process: calls
become transactions, their logs become the machines' events. Nothing is ever delivered behind the
test's back: `run` empties the wire, `travel` moves time in small steps and ticks everybody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from eth_utils import to_checksum_address

from monetor_chain import statements
from monetor_chain.errors import TransactionReverted
from monetor_chain.parameters import DEMO, TAX_RATE_BP, NetworkParameters
from monetor_chain.rehearsal import NO_AUTHORISATION, Party, Rehearsal, words
from monetor_chain.statements import Role
from offchain.crypto.encoding import evm_signature
from offchain.crypto.issuer import IssuerKey
from offchain.protocol import ledger as calls, messages as m, pay, wallet as wallets
from offchain.protocol.answering import Intermediary
from offchain.protocol.client import Client
from offchain.protocol.errors import ProtocolError, RefusalCode
from offchain.protocol.intermediary import IntermediaryMachine
from offchain.protocol.moment import Moment
from offchain.protocol.outbox import Done, Note, Outbox, Request, Submit, Tell
from offchain.protocol.records import MemoryRecords, Records, Table, dump
from offchain.protocol.relay import Relay
from offchain.protocol.wallet import EndUser, Settled

MU = DEMO.safety_margin
PRICE, DELTA_R, FEE = DEMO.price, DEMO.delta_r, DEMO.fee()
PAY_FEE = DEMO.pay_fee
TICK = MU // 4
"""How often everybody looks at its deadlines while time passes, in seconds."""
CELL_PAYLOAD = 495

CLIENT_DEPOSIT = 50_000
RELAY_FUND = 60_000
PAYEE_DEPOSIT, PAYEE_FUND = 20_000, 60_000


@dataclass
class Node:
    """One party: its machine, its disk (records and durable outbox) and what it has seen."""

    name: str
    machine: Any
    party: Party
    records: MemoryRecords = field(default_factory=MemoryRecords)
    requests: dict[bytes, Request] = field(default_factory=dict)
    submissions: dict[bytes, Submit] = field(default_factory=dict)
    heard: dict[bytes, int] = field(default_factory=dict)
    backlog: deque[tuple[list[Any], calls.Block]] = field(default_factory=deque)
    alive: bool = True
    follows: bool = True
    receiving: int = 0
    notes: list[Note] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    reverted: list[tuple[str, str]] = field(default_factory=list)
    refusals: list[RefusalCode] = field(default_factory=list)
    hoard: dict[tuple[str, bytes], Any] | None = None

    def wallet(self, cid: int) -> Any:
        return wallets.get(self.records, cid)

    def balance(self, cid: int) -> int:
        return wallets.idle(self.records, cid).balance

    def cids(self) -> list[int]:
        return [int.from_bytes(key, "big") for key, _ in self.records.scan(Table.WALLET)]

    def copy(self) -> Node:
        return replace(
            self, records=self.records.copy(), requests=dict(self.requests),
            submissions=dict(self.submissions), heard=dict(self.heard),
            backlog=deque(self.backlog), notes=list(self.notes),
            complaints=list(self.complaints), reverted=list(self.reverted),
            refusals=list(self.refusals), hoard=None if self.hoard is None else dict(self.hoard))


@dataclass(frozen=True)
class Parcel:
    """Something on the wire: a request, a reply, a word to a peer, or a transaction."""

    kind: str
    source: str
    target: str
    item: Any


@dataclass(frozen=True)
class Sent:
    """A message as it left, for counting."""

    source: str
    target: str
    session: bytes
    pcmd: int
    payload: bytes

    @property
    def cells(self) -> int:
        return max(1, -(-len(self.payload) // CELL_PAYLOAD))


class World:
    """Parties, wire, clock and ledger. `now` is the network's clock in Unix seconds."""

    def __init__(self, stage: Rehearsal, issuer: IssuerKey) -> None:
        self.stage = stage
        self.issuer = issuer
        self.key_hash: bytes = issuer.public.key_hash
        party = stage.party("intermediary")
        stage.send(stage.ledger.functions.register_key(
            issuer.public.evm_encoding(), issuer.public.rest_hash()), party)
        address = bytes.fromhex(party.address[2:])
        self.ctx = statements.context(stage.chain_id, stage.ledger.address, self.key_hash)
        self.domain = stage.domain
        self._intermediary = address
        self.me = Intermediary(issuer, party.private_key, address, self.key_hash, self.ctx,
                               stage.domain)
        self.nodes: dict[str, Node] = {}
        self.i = self._add("I", IntermediaryMachine(self.me), party)
        self.c = self._client("C", "client")
        self.e = self._client("E", "stranger")
        self.r = self._add("R", Relay(self._user("relay", Role.RELAY)), stage.party("relay"))
        self.wire: deque[Parcel] = deque()
        self.routes: dict[bytes, dict[str, str]] = {}
        self.log: list[Sent] = []
        self.sent: dict[str, int] = {}
        self.now = stage.now()
        self.parameters: dict[int, NetworkParameters] = {}
        self.fault: Callable[[Parcel], Iterable[Parcel]] = lambda parcel: (parcel,)
        self.steps = 0
        self.on_step: Callable[[], None] = lambda: None
        self._topics = {bytes(event.topic if isinstance(event.topic, bytes)
                              else bytes.fromhex(event.topic.removeprefix("0x"))): event.event_name
                        for event in stage.ledger.events}

    def _user(self, account: str, role: Role) -> EndUser:
        return EndUser(bytes.fromhex(self.stage.party(account).address[2:]), role,
                       self.issuer.public, self._intermediary, self.key_hash, self.ctx,
                       self.domain, TAX_RATE_BP)

    def _client(self, name: str, account: str) -> Node:
        party = self.stage.party(account)
        return self._add(name, Client(self._user(account, Role.CLIENT), party.private_key), party)

    def _add(self, name: str, machine: Any, party: Party) -> Node:
        node = Node(name, machine, party)
        self.nodes[name] = node
        return node

    # --- Time

    def moment(self) -> Moment:
        epoch = DEMO.epoch_at(self.now)
        older = {one: self.parameters.get(one, DEMO) for one in range(epoch - 30, epoch)}
        return Moment(self.now, epoch, self.parameters.get(epoch, DEMO), older)

    def travel(self, until: int, *, tick: int = TICK) -> None:
        """Let time pass until `until`; a block and a look at deadlines every `tick` seconds."""
        while self.now < until:
            self.now = min(self.now + tick, until)
            self.block()
            self.tick()
            self.run()

    def jump(self, until: int) -> None:
        """Be at `until` at once: one block, nobody has looked at anything meanwhile."""
        self.now = until
        self.block()

    def block(self) -> None:
        """Mine an empty block now."""
        self._next_block()
        self.stage.mine()
        self._mined([])

    def tick(self) -> None:
        """Everybody that is up looks at its deadlines and counts silence."""
        for node in self.nodes.values():
            if node.alive:
                self.look(node)

    def look(self, node: Node) -> None:
        """One party looks at its deadlines and counts silence."""
        self.act(node, node.machine.tick)
        for conversation in list(node.requests):
            if node.requests.get(conversation) is None:
                continue
            if self.now - node.heard.setdefault(conversation, self.now) > 2 * MU:
                node.heard[conversation] = self.now
                self.act(node, lambda records, moment, name=conversation:
                         node.machine.give_up(records, moment, name))
            else:
                self._ask(node, conversation)

    # --- Steps

    def act(self, node: Node, action: Callable[[Records, Moment], Any]) -> Any:
        """Run a step; commit its records with its outbox, then put the outbox on the wire."""
        draft = node.records.copy()
        result = action(draft, self.moment())
        outbox: Outbox = result[1] if isinstance(result, tuple) else result
        node.records = draft
        for item in outbox:
            self._keep(node, item)
        for item in outbox:
            self._send(node, item)
        self._collect(node)
        return result[0] if isinstance(result, tuple) else None

    def _keep(self, node: Node, item: Any) -> None:
        match item:
            case Request():
                node.requests[item.conversation] = item
                node.heard[item.conversation] = self.now
            case Done():
                node.requests.pop(item.conversation, None)
            case Submit():
                node.submissions.setdefault(item.key, item)
            case Note():
                node.notes.append(item)

    def _send(self, node: Node, item: Any) -> None:
        match item:
            case Request():
                self._ask(node, item.conversation)
            case Submit():
                self.wire.append(Parcel("submit", node.name, "L", item))
            case Tell():
                target = self.routes.get(item.session, {}).get(node.name)
                if target is not None:
                    self.wire.append(Parcel("tell", node.name, target, item))

    def _ask(self, node: Node, conversation: bytes) -> None:
        request = node.requests.get(conversation)
        waiting = (one.item for one in self.wire
                   if one.kind == "request" and one.source == node.name)
        if request is not None and request not in waiting:
            self.wire.append(Parcel("request", node.name, "I", request))

    def _collect(self, node: Node) -> None:
        if node.hoard is None:
            return
        for wallet in wallets.all_wallets(node.records):
            if dump(wallet) not in node.hoard:
                claim = wallets.claim(node.records, wallet)
                if claim is not None:
                    node.hoard[dump(wallet)] = claim

    def crash(self, node: Node) -> None:
        """Kill and restart: what was on the wire is gone, what is on disk goes out again."""
        self.wire = deque(one for one in self.wire
                          if one.source != node.name and one.target != node.name)
        self.restart(node)

    def restart(self, node: Node) -> None:
        """Deliver the durable outbox again."""
        for conversation in list(node.requests):
            self._ask(node, conversation)
        for item in list(node.submissions.values()):
            self.wire.append(Parcel("submit", node.name, "L", item))

    # --- Wire

    def run(self) -> None:
        """Deliver until the wire is empty."""
        budget = 3000
        while self.wire:
            budget -= 1
            assert budget, "the parties talk for ever"
            self.deliver()

    def deliver(self) -> None:
        """Deliver the next parcel."""
        parcel = self.wire.popleft()
        for one in self.fault(parcel):
            self._deliver(one)
            self.steps += 1
            self.on_step()

    def _deliver(self, parcel: Parcel) -> None:
        source = self.nodes[parcel.source]
        match parcel.kind:
            case "submit":
                if source.alive and self._wanted(source, parcel.item):
                    self.submit(source, parcel.item)
            case "request":
                if source.alive and self.i.alive:
                    self._answer(source, parcel.item)
            case "reply":
                target = self.nodes[parcel.target]
                if target.alive:
                    self._take_reply(target, *parcel.item)
            case "tell":
                target = self.nodes[parcel.target]
                if target.alive:
                    self._take_word(source, target, parcel.item)

    def _answer(self, source: Node, request: Request) -> None:
        pcmd, payload = self.request(request.pcmd, request.payload, source.name)
        self.wire.append(Parcel("reply", "I", source.name, (request.conversation, pcmd, payload)))

    def request(self, pcmd: int, payload: bytes, source: str = "?") -> tuple[int, bytes]:
        """Hand a request to the intermediary; its reply or refusal."""
        self.log.append(Sent(source, "I", b"", pcmd, payload))
        answer: list[tuple[int, bytes]] = []

        def handle(records: Records, moment: Moment) -> Outbox:
            reply, outbox = self.i.machine.handle(records, moment, pcmd, payload)
            answer.append(reply)
            return outbox

        try:
            self.act(self.i, handle)
        except ProtocolError as error:
            answer = [self.i.machine.refusal(error, pcmd)]
        self.log.append(Sent("I", source, b"", *answer[0]))
        return answer[0]

    def held(self, node: Node) -> Any:
        """Take everything off the wire; the one request that `node` wants answered."""
        self.wire.clear()
        (request,) = node.requests.values()
        return m.unpack(request.pcmd, request.payload)

    def stop_before(self, kind: type[Any], node: Node) -> Any:
        """Deliver until `node` wants to send a request of this type, which is held back."""
        while self.wire:
            parcel = self.wire[0]
            if (parcel.kind == "request" and parcel.source == node.name
                    and parcel.item.pcmd == kind.PCMD):
                return self.held(node)
            self.deliver()
        raise AssertionError(f"{node.name} sends no {kind.__name__}")

    def ask(self, message: Any) -> Any:
        """Send a hand-made request; the unpacked reply."""
        return m.unpack(*self.request(*m.pack(message)))

    def _take_reply(self, node: Node, conversation: bytes, pcmd: int, payload: bytes) -> None:
        message = m.unpack(pcmd, payload)
        if isinstance(message, m.Refusal):
            node.refusals.append(message.code)
        if conversation not in node.requests:
            return
        node.heard[conversation] = self.now
        try:
            asked = node.requests[conversation].pcmd
            self.act(node, lambda records, moment: node.machine.on_reply(
                records, moment, conversation, pcmd, payload, asked))
        except ProtocolError as error:
            node.complaints.append(str(error))

    def _take_word(self, source: Node, node: Node, item: Tell) -> None:
        self.log.append(Sent(source.name, node.name, item.session, item.pcmd, item.payload))
        message = m.unpack(item.pcmd, item.payload)
        machine = node.machine

        def action(records: Records, moment: Moment) -> Any:
            match message:
                case m.NanoOffer():
                    return machine.on_offer(records, moment, message)
                case m.NanoPayment():
                    machine.on_payment(records, moment, item.session, message)
                    return []
                case m.GuardVoucher():
                    return machine.on_voucher(records, moment, message)
                case m.GuardPayment():
                    machine.on_guard_payment(records, moment, item.session, message)
                    return []
                case m.PayInvoice():
                    return machine.receive(records, moment, node.receiving, message)
                case _:
                    return machine.on_message(records, moment, item.session, item.pcmd,
                                              item.payload)

        try:
            self.act(node, action)
        except ProtocolError as error:
            node.complaints.append(str(error))

    # --- Ledger

    def submit(self, node: Node, item: Submit) -> bool:
        """Mine a transaction; whether it succeeded. Its events reach everybody that follows."""
        done = self.transact(node, item.call)
        node.submissions.pop(item.key, None)
        return done

    def _wanted(self, node: Node, item: Submit) -> bool:
        """Whether a watcher still wants to send what it has decided on; everybody else does."""
        wanted = getattr(node.machine, "wanted", None)
        if wanted is None or wanted(node.records, self.moment(), item.call):
            return True
        node.submissions.pop(item.key, None)
        return False

    def transact(self, node: Node, call: Any) -> bool:
        """Mine one call of `node`'s account."""
        self._next_block()
        try:
            receipt = self.stage.send(self._function(node, call), node.party)
        except TransactionReverted as error:
            node.reverted.append((type(call).__name__, error.reason))
            self._mined([])
            return False
        self._mined([event for entry in receipt["logs"] if (event := self._event(entry))])
        return True

    def _next_block(self) -> None:
        self.now = max(self.now, self.stage.now() + 1)
        self.stage.travel(self.now)

    def _mined(self, events: list[Any]) -> None:
        block = self.stage.w3.eth.get_block("latest")
        assert block["timestamp"] == self.now
        for node in self.nodes.values():
            node.backlog.append((events, calls.Block(block["number"], block["timestamp"])))
            if node.alive and node.follows:
                self.follow(node)

    def follow(self, node: Node) -> None:
        """Let a node process every confirmed block that it has not processed."""
        while node.backlog:
            self.hear(node, *node.backlog.popleft())

    def hear(self, node: Node, events: list[Any], block: calls.Block) -> None:
        """One party processes one confirmed block."""
        def action(records: Records, moment: Moment) -> Outbox:
            outbox: Outbox = []
            for event in (*events, block):
                outbox += node.machine.on_ledger(records, moment, event)
            return outbox

        self.act(node, action)

    def _function(self, node: Node, call: Any, auth: Any = NO_AUTHORISATION) -> Any:
        on = self.stage.ledger.functions
        key = self.issuer.public.evm_encoding()
        match call:
            case calls.Authorised():
                assert call.public_key == key
                return self._function(node, call.call(), (call.not_after, call.signature))
            case calls.Open():
                permit = self.stage.permit(node.party, call.deposit * call.count)
                return on.open(call.key_hash, node.party.address, call.role, call.deposit,
                               call.fund, call.count, call.dispute_window, call.close_notice,
                               call.rho_e, call.rho_i, NO_AUTHORISATION, permit)
            case calls.Fund():
                return on.fund(call.group)
            case calls.Reclaim():
                return on.reclaim(call.group, NO_AUTHORISATION)
            case calls.Refund():
                return on.refund(call.cid, key, call.wpk, call.balance,
                                 evm_signature(call.token), auth)
            case calls.RefundConditional():
                return on.refund_conditional(
                    call.cid, key, call.wpk, call.balance, evm_signature(call.token), call.wpk_c,
                    call.t_p, call.wsk_c, auth)
            case calls.NanoRefund():
                return on.nano_refund(
                    call.cid, words(call.terms.nano_terms()), call.nwpk, call.saturated, call.rho,
                    call.nrt, call.k, call.hc, list(call.path), auth)
            case calls.Reveal():
                return on.reveal(words(call.terms.nano_terms()), call.k, call.hc, list(call.path))
            case calls.Refute():
                return on.refute(call.cid, call.secret)
            case calls.Resolve():
                return on.resolve(call.cid)
            case calls.Close():
                return on.close(call.group, call.channels, call.total, call.signature,
                                NO_AUTHORISATION)
            case calls.RequestClose():
                return on.request_close(call.cid)
            case calls.OpenGuard():
                permit = self.stage.permit(node.party, call.deposit)
                return on.open_guard(to_checksum_address(call.payout), call.deposit, permit)
            case calls.ClaimGuard():
                return on.claim_guard(
                    int.from_bytes(call.channel, "big"), call.seq, call.base, call.n, call.hc0,
                    call.root, call.expiry, call.k, call.hc, list(call.path), call.signature)
            case calls.RequestCloseGuard():
                return on.request_close_guard(int.from_bytes(call.channel, "big"))
            case calls.CloseGuard():
                return on.close_guard(int.from_bytes(call.channel, "big"))
        raise AssertionError(f"no transaction for {call!r}")

    def _event(self, entry: Any) -> Any | None:
        name = self._topics.get(bytes(entry["topics"][0]))
        if name is None or entry["address"] != self.stage.ledger.address:
            return None
        one = dict(self.stage.ledger.events[name]().process_log(entry)["args"])
        for field_name in ("gid",):
            if field_name in one:
                one["channel"] = one.pop(field_name).to_bytes(32, "big")
        match name:
            case "RefundPosted":
                return calls.RefundPosted(
                    one["cid"], calls.ClaimKind(one["kind"]), one["lock"], one["balance"],
                    one["deadline"], one["terms_hash"])
            case "Revealed":
                return calls.Revealed(one["terms_hash"], one["k_c"], one["k_r"], one["hc"],
                                      tuple(one["path"]))
            case "GuardOpened":
                return calls.GuardOpened(
                    one["channel"], bytes.fromhex(one["client"][2:]),
                    bytes.fromhex(one["payout"][2:]), one["deposit"], one["price"])
            case "GuardClaimed":
                return calls.GuardClaimed(one["channel"], one["claimed"])
        kind = getattr(calls, name, None)
        if kind is None:
            return None
        return kind(**{key: value for key, value in one.items()
                       if key in kind.__dataclass_fields__})

    # --- Money

    def wealth(self, node: Node) -> int:
        """What an account could spend: tokens, withdrawable credit and, for I, its vault."""
        on, address = self.stage.ledger.functions, node.party.address
        return int(self.stage.token.functions.balanceOf(address).call()
                   + on.credit(address).call() + on.vault(address).call())

    def tax(self) -> int:
        """What the tax pool is owed."""
        return int(self.stage.ledger.functions.credit(self.stage.pool.address).call())

    def escrowed(self) -> int:
        """What the ledger holds for unresolved channels, with bonds."""
        on = self.stage.ledger.functions
        total = 0
        for _, group in self.i.records.scan(Table.GROUP):
            view = dict(zip(("state", "account", "i", "key", "role", "deposit", "fund", "count",
                             "window", "notice", "resolved"),
                            on.group(group.group).call(), strict=True))
            if view["state"] == 1:
                total += view["deposit"] * view["count"]
            elif view["state"] in (2, 3):
                live = [index for index in range(view["count"])
                        if not view["resolved"] >> index & 1]
                total += len(live) * (view["deposit"] + view["fund"])
                for index in live:
                    channel = on.channel(group.group << 8 | index).call()
                    total += channel[2] if channel[0] == 1 else 0
        return total

    def conserved(self, guards: int = 0) -> bool:
        """Whether every unit that the ledger holds belongs to exactly one place."""
        on = self.stage.ledger.functions
        accounts = {party.address for party in self.stage.parties.values()}
        owed = sum(on.credit(address).call() + on.vault(address).call() for address in accounts)
        held = self.stage.token.functions.balanceOf(self.stage.ledger.address).call()
        return bool(held == owed + self.tax() + self.escrowed() + guards)

    def settle(self, *cids: int) -> None:
        """Close these channels (or all) with their live claims, and wait it out."""
        users = [one for one in (self.c, self.e, self.r) if one.alive]
        owned = [(node, cid) for node in users for cid in node.cids() if not cids or cid in cids]
        for node, cid in owned:
            self.act(node, lambda records, moment, node=node, cid=cid:
                     node.machine.post_claim(records, cid))
        self.run()
        end = self.now + DEMO.lifetime + DEMO.epoch + DEMO.dispute_window + 8 * MU
        while self.now < end and not all(
                isinstance(node.wallet(cid), Settled) for node, cid in owned):
            # Claims are posted: from here on the parties answer to events, not to their clocks.
            self.travel(self.now + 4 * MU, tick=4 * MU)
        for node, cid in owned:
            wallet = node.wallet(cid)
            assert isinstance(wallet, Settled), (
                f"{node.name} has a channel left in {type(wallet).__name__}: {node.reverted}")

    def stake(self, node: Node) -> int:
        """What `node` has, with its part of channels that are as they were opened."""
        total = self.wealth(node)
        on = self.stage.ledger.functions
        for _, group in self.i.records.scan(Table.GROUP):
            mine = group.fund if node is self.i else group.deposit
            owner = node is self.i or group.account == bytes.fromhex(node.party.address[2:])
            for index in range(group.count):
                if owner and on.channel(group.group << 8 | index).call()[0] in (1, 5):
                    total += mine
        return total

    # --- Protocols, played by honest parties

    def open(self, node: Node, *, deposit: int, fund: int, count: int) -> list[int]:
        """Open a group; its channel ids."""
        before = set(node.cids())
        self.act(node, lambda records, moment: node.machine.open_group(
            records, moment, deposit=deposit, fund=fund, count=count))
        self.run()
        return sorted(set(node.cids()) - before)

    def start_setup(self, cid: int, node: Node | None = None) -> bytes:
        """Begin Nano-Setup; hash(nT)."""
        node = node or self.c
        found: bytes = self.act(node, lambda records, moment: node.machine.nano_setup(
            records, moment, cid))
        return found

    def setup(self, cid: int | None = None, node: Node | None = None) -> bytes:
        """Nano-Setup; hash(nT)."""
        found = self.start_setup(self.c.cids()[0] if cid is None else cid, node)
        self.run()
        return found

    def offer(self, terms_hash: bytes, relay: Node | None = None) -> None:
        """Send the offer of a session to a relay."""
        relay = relay or self.r
        self.routes[terms_hash] = {"C": relay.name, relay.name: "C"}
        self.act(self.c, lambda records, moment: self.c.machine.nano_offer(
            records, moment, terms_hash))

    def establish(self, terms_hash: bytes, relay: Node | None = None) -> None:
        """Nano-Establish."""
        self.offer(terms_hash, relay)
        self.run()

    def session(self, payments: int = 0, cid: int | None = None) -> bytes:
        """Setup, establish and some payments; hash(nT)."""
        terms_hash = self.setup(cid)
        self.establish(terms_hash)
        self.pay(terms_hash, payments)
        return terms_hash

    def pay(self, terms_hash: bytes, times: int = 1) -> None:
        """Nano-Pay, that many times."""
        for _ in range(times):
            self.act(self.c, lambda records, moment: self.c.machine.nano_pay(
                records, moment, terms_hash))
            self.sent["C"] = self.sent.get("C", 0) + 1
            self.run()

    def close_relay(self, terms_hash: bytes) -> None:
        """Nano-Close of the relay's leg."""
        self.act(self.r, lambda records, moment: self.r.machine.nano_close(records, terms_hash))
        self.run()

    def close_client(self, terms_hash: bytes) -> None:
        """Nano-Close of the client's leg."""
        self.act(self.c, lambda records, moment: self.c.machine.nano_close(records, terms_hash))
        self.run()

    def close(self, terms_hash: bytes) -> None:
        """Both legs, the relay's first."""
        self.close_relay(terms_hash)
        self.close_client(terms_hash)

    def invoice(self, amount: int, cid: int, to: int, *, t_p: int | None = None) -> int:
        """Begin a hidden payment from C to E; the payer's lock."""
        self.e.receiving = to
        deadline = self.deadline() if t_p is None else t_p
        lock = wallets.idle(self.c.records, cid).wpk
        self.routes[pay.session_key(lock)] = {"C": "E", "E": "C"}
        self.act(self.c, lambda records, moment: self.c.machine.pay(
            records, moment, cid=cid, amount=amount, t_p=deadline))
        return lock

    def transfer(self, amount: int, cid: int | None = None, to: int | None = None) -> int:
        """A whole hidden payment from C to E; the payer's lock."""
        lock = self.invoice(amount, self.c.cids()[0] if cid is None else cid,
                            self.e.cids()[0] if to is None else to)
        for _ in range(4):
            self.run()
            self.retry()
        return lock

    def retry(self) -> None:
        """Every outstanding request goes out again."""
        for node in self.nodes.values():
            if node.alive:
                for conversation in list(node.requests):
                    self._ask(node, conversation)
        self.run()

    def deadline(self) -> int:
        """T_p, as the intermediary states it now."""
        reply = self.ask(m.PayQuery())
        assert isinstance(reply, m.PayTerms)
        return reply.t_p

    def cash_out(self, node: Node, group: int) -> None:
        """Cooperative close of a group's idle channels."""
        self.act(node, lambda records, moment: node.machine.cash_out(records, group))
        self.run()

    # --- Snapshots

    def save(self) -> Any:
        """Everything, so that `load` can bring it back."""
        return (self.stage.snapshot(),
                {name: node.copy() for name, node in self.nodes.items()}, self.now)

    def load(self, saved: Any) -> None:
        """Go back to what `save` returned."""
        snapshot, nodes, self.now = saved
        self.stage.revert(snapshot)
        for name, node in nodes.items():
            fresh = node.copy()
            for one in fresh.__dataclass_fields__:
                setattr(self.nodes[name], one, getattr(fresh, one))
        self.wire.clear()
        self.routes.clear()
        self.log.clear()
        self.sent.clear()
        self.parameters.clear()
        self.fault = lambda parcel: (parcel,)
        self.on_step = lambda: None
        self.steps = 0


W = TypeVar("W", bound=World)


def open_world(stage: Rehearsal, issuer: IssuerKey, make: Callable[[Rehearsal, IssuerKey], W]) -> W:
    """A world in which everybody has open channels."""
    world = make(stage, issuer)
    stage.enrich(stage.party("stranger"), 10**9)
    world.open(world.c, deposit=CLIENT_DEPOSIT, fund=0, count=2)
    world.open(world.r, deposit=0, fund=RELAY_FUND, count=2)
    world.open(world.e, deposit=PAYEE_DEPOSIT, fund=PAYEE_FUND, count=2)
    world.steps = 0
    return world
