# SPDX-License-Identifier: BSD-3-Clause
"""docs/protocol.md says what the code does: messages, statements, transcripts, order of steps."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from monetor_chain import statements
from monetor_chain.parameters import DEMO
from monetor_chain.statements import NanoTerms, Role, TokenKind, hash_words, keccak256
from offchain.crypto import sigma, transcript
from offchain.crypto.generators import ENCODED
from offchain.crypto.issuer import IssuerKey
from offchain.protocol import (
    codec,
    guard,
    ledger as calls,
    messages as m,
    pay,
    sessions,
    wallet as wallets,
    watch_packages,
)
from offchain.protocol.errors import RefusalCode
from offchain.protocol.wallet import Wallet
from tests.anonymity.stand import Stand
from tests.crypto.cases import NAMES, make
from tests.protocol.crash_points import ends_of
from tests.protocol.test_happy_path import open_guard, pay_guard
from tests.protocol.world import MU, World

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text()
PAYMENTS = 20
NAMED = {"A": "C", "E": "payee", "R": "R", "I": "I", "L": "L"}


def section(title: str) -> str:
    """The text of a section of the page."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str, header: str) -> list[list[str]]:
    """The cells of the table whose header begins like this."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"| {header} |"):
            next(lines)
            return [[cell.strip() for cell in row.strip("|").split("|")]
                    for row in iter(lambda: next(lines, ""), "") if row.startswith("|")]
    raise AssertionError(f"no table begins with {header!r}")


@pytest.fixture(scope="module")
def issuer() -> IssuerKey:
    return IssuerKey.generate()


@pytest.fixture(scope="module")
def stand(issuer: IssuerKey) -> Stand:
    """An opening, a session of either kind, a hidden payment made and one that is void, a close."""
    stand = Stand(issuer)
    stand.open("R", deposit=0, fund=60_000)
    (to,) = stand.open("E", deposit=0, fund=60_000)
    (cid,) = stand.open("A", deposit=50_000, fund=0)
    stand.session("A", cid, PAYMENTS)
    stand.transfer("A", cid, to, 100)
    lock = wallets.idle(stand.sides["A"].records, cid).wpk
    stand.silenced = lambda heard: heard.pcmd == m.PayVerified.PCMD
    stand.transfer("A", cid, to, 100)
    stand.silenced = lambda heard: False
    stand.wait(DEMO.dispute_window)
    stand.act("E", lambda side: pay.void_payee(side.records, side.machine.user, lock))
    (other,) = stand.open("B", deposit=50_000, fund=0)
    stand.cash_out("B", other >> 8)
    return stand


# --- Messages

MESSAGES = {row[1]: row for row in rows(section("Messages"), "PCMD")}
PARTIES = {"payer": "C", "payee": "R", "guard": "Guard"}


def documented_ends(kind: type[Any]) -> tuple[str, str]:
    """Between whom a message passes, by its docstring."""
    found = ends_of(kind)
    assert found is not None, kind
    return PARTIES.get(found[0], found[0]), PARTIES.get(found[1], found[1])


def test_every_message_is_in_the_table() -> None:
    assert list(MESSAGES) == [one.__name__ for one in sorted(
        m.MESSAGES.values(), key=lambda kind: kind.PCMD)]


@pytest.mark.parametrize("kind", m.MESSAGES.values(), ids=lambda kind: kind.__name__)
def test_a_message_is_as_the_table_says(kind: type[Any]) -> None:
    pcmd, _, way, fields, _, _ = MESSAGES[kind.__name__]
    assert int(pcmd, 16) == kind.PCMD
    told = re.sub(r"\([^)]*\)", "", fields.replace("wallets: (index, nonce, wpk, balance, pt) each",
                                                   "wallets"))
    names = [] if told == "none" else [one.strip() for one in told.split(",")]
    assert names == [one.name for one in dataclasses.fields(kind)]
    if kind is not m.Refusal:
        source, target = (PARTIES.get(one.strip(), one.strip()) for one in way.split("→"))
        assert (source, target) == documented_ends(kind)


def sizes(stand: Stand) -> dict[str, set[int]]:
    """Lengths that occur, and those of the messages between client and guard."""
    found = defaultdict(set)
    for one in stand.log:
        found[type(one.message).__name__].add(len(one.payload))
    path = (bytes(32),) * 3
    for message in (
            m.GuardQuery(), m.GuardPayout(bytes(20)), m.GuardAccepted(bytes(32), 1),
            m.GuardVoucher(bytes(32), 1, 0, DEMO.n, bytes(32), bytes(32), 0, bytes(65)),
            m.GuardPayment(1, bytes(32), ()), m.GuardPayment(16, bytes(32), path)):
        found[type(message).__name__].add(len(m.pack(message)[1]))
    return found


def test_sizes_are_those_of_the_table(stand: Stand) -> None:
    found = sizes(stand)
    for name, row in MESSAGES.items():
        told = row[4].replace(",", "")
        if name == "CashOutRequest":
            fixed, each = map(int, re.findall(r"\d+", told))
            wallet = m.CashOutWallet(0, 1, 1, 1, bytes(192))
            assert [len(m.pack(m.CashOutRequest(1, (wallet,) * number))[1])
                    for number in (0, 1, 2)] == [fixed, fixed + each, fixed + 2 * each]
        else:
            assert found[name] == set(map(int, re.findall(r"\d+", told))), name


def test_replies_are_those_of_the_table(stand: Stand) -> None:
    answered = defaultdict(set)
    for one, after in zip(stand.log, stand.log[1:], strict=False):
        if one.target == "I" and not isinstance(after.message, m.Refusal):
            answered[type(one.message).__name__].add(type(after.message).__name__)
    for name, replies in answered.items():
        assert replies == {MESSAGES[name][5].split(" (")[0]}, name


def width(hint: Any) -> str:
    """How the page writes a field's width."""
    rule = hint.__metadata__[0] if hasattr(hint, "__metadata__") else None
    match rule:
        case codec.Prefixed():
            return "2 + length"
        case codec.Many():
            item = get_args(get_args(hint)[0])[0]
            each = (sum(int(width(one)) for one in get_type_hints(
                item, include_extras=True).values()) if dataclasses.is_dataclass(item)
                else int(width(item)))
            return f"2 + {each} each"
        case None:
            return "1"  # An enumeration.
    return str(rule.size)


def test_widths_of_fields() -> None:
    table = {row[0]: {re.sub(r" \(two's complement\)", "", one.strip())
                      for one in row[1].split(",")}
             for row in rows(section("Messages"), "bytes")}
    used: dict[str, set[str]] = defaultdict(set)
    for kind in (*m.MESSAGES.values(), m.Terms, m.CashOutWallet):
        for name, hint in get_type_hints(kind, include_extras=True).items():
            if name in ("PCMD", "terms"):
                continue
            size = width(hint)
            if name == "k":
                name = "k (the point K)" if size == "48" else "k (a count)"
            used[size].add(name)
    assert used == table
    assert f"`terms` are {', '.join(one.name for one in dataclasses.fields(m.Terms))}: " in (
        section("Messages"))
    assert len(codec.encode(m.Terms.of(TERMS))) == 100


def test_refusal_codes() -> None:
    listed = section("Messages").split("names a `RefusalCode`:")[1].split("`NOT_YET`")[0]
    told = dict(re.findall(r"(\d+) ([a-z ]+)", listed.replace("\n", " ")))
    assert {int(number): name.strip() for number, name in told.items()} == {
        int(one): one.name.lower().replace("_", " ") for one in RefusalCode}


# --- Byte for byte

BYTES = section("Byte for byte")
TERMS = NanoTerms(-100, 86, 128, b"\x01" * 32, 1_800_000_000, b"\x02" * 32, 9)
VALUES: dict[str, Any] = {
    "first": b"\x03" * 32, "rest": b"\x04" * 32, "chain_id": 5, "ledger": 6,
    "key_hash": b"\x07" * 32, "kind": int(TokenKind.REFUND), "role": int(Role.RELAY),
    "ctx": b"\x08" * 32, "wpk_c": 9, "t_p": 10, "account": 11, "intermediary": 12,
    "deposit": 13, "fund": 14, "count": 15,
    "rho_e": b"\x10" * 32, "rho_i": b"\x11" * 32,
    **{one.name: getattr(TERMS, one.name) for one in dataclasses.fields(TERMS)}}


def address(number: int) -> bytes:
    return number.to_bytes(20, "big")


def computed(name: str) -> bytes | int:
    """What the code makes of the values."""
    v = VALUES
    match name:
        case "`key_hash`":
            return statements.key_hash(bytes(768), v["rest"])
        case "`ctx`":
            return statements.context(v["chain_id"], address(v["ledger"]), v["key_hash"])
        case "tag of pt, rt":
            return statements.tag(TokenKind.REFUND, Role.RELAY, v["ctx"])
        case "tag of crt":
            return statements.tag(TokenKind.CONDITIONAL_REFUND, Role.RELAY, v["ctx"], v["wpk_c"],
                                  v["t_p"])
        case "group id":
            return statements.group_id(v["ctx"], address(v["account"]), address(v["intermediary"]),
                                       Role.RELAY, v["deposit"], v["fund"], v["count"],
                                       v["rho_e"], v["rho_i"])
        case "hash(nT)":
            return TERMS.hash()
    raise AssertionError(f"the page hashes {name}, which this test does not know")


HASHES = [row for row in rows(BYTES, "name") if "keccak256" not in row[1]]


def test_hashes_are_all_there() -> None:
    assert [row[0] for row in HASHES] == ["`key_hash`", "`ctx`", "tag of pt, rt", "tag of crt",
                                          "group id", "hash(nT)"]


@pytest.mark.parametrize("row", HASHES, ids=lambda row: row[0])
def test_a_hash_is_of_the_words_that_the_page_lists(row: list[str]) -> None:
    name, words, kept = row
    values = dict(VALUES)
    if name == "`key_hash`":
        values["first"] = keccak256(bytes(768))
    if name == "tag of crt":
        values["kind"] = int(TokenKind.CONDITIONAL_REFUND)
    digest = hash_words(*(values[one.strip()] for one in words.split(",")))
    number = int.from_bytes(digest, "big")
    expected: dict[str, bytes | int] = {"all 32 bytes": digest, "mod 2^248": number % 2**248,
                                        "the upper 240 bits": number >> 16}
    assert expected[kept] == computed(name)


def test_numbers_of_kinds_and_roles() -> None:
    assert "kind is 1 for pt, 2 for rt, 3 for crt; role is 1\nfor a client, 2 for a relay" in BYTES
    assert [*TokenKind] == [1, 2, 3] and [*Role] == [1, 2]


def test_hashes_of_bytes() -> None:
    told = {row[0]: row[1] for row in rows(BYTES.split("**Hashes of bytes.**")[1], "name")}
    assert told == {
        "`wpk`, `nwpk`": "keccak256(secret, 32 bytes) mod 2^248",
        "cid": "group id · 2^8 + index", "HC[i]": "keccak256(HC[i+1])",
        "leaf of checkpoint i": 'keccak256("leaf" ‖ uint32 i ‖ HC[i])',
        "node": "keccak256(left ‖ right)"}
    secret, other = b"\x21" * 32, b"\x22" * 32
    assert statements.lock_of(secret) == int.from_bytes(keccak256(secret), "big") % 2**248
    assert statements.channel_id(77, 3) == 77 * 2**8 + 3
    assert statements.checkpoint_leaf(32, secret) == keccak256(b"leaf" + b"\0\0\0\x20" + secret)
    assert statements.checkpoint_node(secret, other) == keccak256(secret + other)


def test_points() -> None:
    for label in statements.GENERATOR_LABELS[:1]:
        assert f"`{label.decode()}`" in BYTES.replace("\n", " ")
    assert f"`{statements.GENERATOR_DST.decode()}`" in BYTES and len(ENCODED) == 3


def test_signed_statements() -> None:
    types = {row[1].strip("`") for row in rows(BYTES, "signed by")}
    assert types == {one.decode() for one in (
        statements.NANO_REFUND_TYPE, statements.CLOSE_TYPE, statements.AUTHORISATION_TYPE,
        statements.VOUCHER_TYPE, b"WatchPackage(bytes body)")}
    assert keccak256(b"WatchPackage(bytes body)") == watch_packages._TYPE
    assert f"name `{statements.EIP712_NAME}`, version\n`{statements.EIP712_VERSION}`" in BYTES


def listed(cell: str) -> list[str]:
    """A cell's names; "x 0–3" are four of them."""
    found = []
    for one in cell.split(", "):
        many = re.fullmatch(r"(.*) 0–3", one)
        found += [f"{many[1]} {j}" for j in range(4)] if many else [one]
    return found


@dataclasses.dataclass
class Proved:
    """What a verifier computed with: items, equations, secrets."""

    protocol: str
    step: str
    role: Role
    items: list[str]
    equations: int
    secrets: list[str]


def verified(name: str, issuer: IssuerKey) -> Proved:
    """An honest proof, as its verifier reads it."""
    found: list[Proved] = []
    real = sigma.verify

    def verify(one: transcript.Transcript, equations: Any, proof: bytes) -> None:
        items = []
        for item in one._items:
            size = int.from_bytes(item[:4], "big")
            data = item[4 + size + 4:]
            assert len(data) == int.from_bytes(item[4 + size:8 + size], "big")
            items.append((item[4:4 + size].decode(), data))
        assert [key for key, _ in items[:5]] == ["label", "protocol", "step", "role", "ctx"]
        assert items[0][1].decode() in BYTES.replace("\n", " ")
        found.append(Proved(items[1][1].decode(), items[2][1].decode(), Role(items[3][1][0]),
                            [key for key, _ in items[5:]], len(equations),
                            list(sigma._secret_names(equations))))
        real(one, equations, proof)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sigma, "verify", verify)
        make(name, issuer).verify(issuer)
    return found[0]


def test_transcripts(issuer: IssuerKey) -> None:
    table = {(row[0], row[1].split(", ")[0]): row for row in rows(BYTES, "proof")}
    met = set()
    for name in NAMES:
        proof = verified(name, issuer)
        row = table[proof.protocol, proof.step]
        met.add((proof.protocol, proof.step))
        role = row[1].split(", ")[1]
        assert role == "E's" or role == proof.role.name.lower()
        assert listed(row[2]) == proof.items
        assert len(listed(row[3])) == proof.equations
        assert listed(row[4]) == proof.secrets
    assert met == set(table)


def test_the_challenge_is_as_the_page_says() -> None:
    one = transcript.Transcript("p", "s", Role.CLIENT, bytes(32))
    one.public("x", -1)
    items = (("label", b"moneTor sigma protocol, version 1"), ("protocol", b"p"), ("step", b"s"),
             ("role", b"\x01"), ("ctx", bytes(32)), ("x", b"\xff" * 32), ("announcement", b"abc"))
    seed = keccak256(b"".join(
        len(name).to_bytes(4, "big") + name.encode() + len(data).to_bytes(4, "big") + data
        for name, data in items))
    wide = keccak256(seed + b"\x00") + keccak256(seed + b"\x01")
    assert one.challenge([b"abc"]) == int.from_bytes(wide, "big") % statements.GROUP_ORDER


# --- States


def test_states() -> None:
    told = {one.strip() for row in rows(section("States"), "wallet of E")
            for one in row[0].split(",")}
    assert told == {one.__name__ for one in get_args(Wallet)}
    phases = {row[0]: row[1] for row in rows(section("States"), "session at")}
    for name, kind in (("C", sessions.ClientPhase), ("R", sessions.RelayPhase)):
        assert re.split(r" → |; or ", phases[name]) == [
            one.name.lower().replace("_", " ") for one in kind]
    own = phases["I"].split(". Client leg: ")
    assert re.split(r" → |; or ", own[0]) == [
        one.name.lower().replace("_", " ") for one in sessions.Phase]
    assert own[1].split(" → ") == [one.name.lower() for one in sessions.Leg]


# --- Figures

Arrow = tuple[str, str, str]


def figures() -> dict[str, list[list[Arrow]]]:
    """The arrows of every figure, by the bold word or heading that it stands under."""
    found: dict[str, list[list[Arrow]]] = defaultdict(list)
    title, inside = "", False
    for line in PAGE.splitlines():
        if match := re.match(r"\*\*([^*]+?)\.?\*\*|## (.*)", line):
            title = (match[1] or match[2]).strip(". ")
        if line == "```mermaid":
            inside = True
            found[title].append([])
        elif line == "```":
            inside = False
        elif inside and (match := re.match(r"\s+(\w+)(-?->>)(\w+): (\w+)", line)):
            if match[2] == "->>":
                found[title][-1].append((match[1], match[3], match[4]))
            else:
                assert hasattr(calls, match[4]) and match[1] == "L", f"no event {match[4]}"
    return found


FIGURES = figures()
CALLS = {re.sub(r"(?<!^)(?=[A-Z])", "_", one.__name__).lower(): one
         for one in get_args(calls.LedgerCall)}


def test_every_protocol_has_its_figure() -> None:
    assert list(FIGURES) == [
        "Establish, Init-E, Init-I", "Nano-Setup", "Nano-Establish", "Nano-Pay", "Nano-Close, R",
        "Nano-Close, C", "Pay", "Cash-out", "Dispute", "Guard channel"]


def test_figures_name_messages_and_calls_between_the_right_parties() -> None:
    for title, arrows in FIGURES.items():
        for source, target, name in (arrow for one in arrows for arrow in one):
            if target == "L":
                assert name in CALLS, f"{title}: the ledger has no {name}"
                continue
            ways = {(source, target), tuple(PARTIES.get(one, one) for one in (source, target)),
                    tuple("E" if one not in "I" else one for one in (source, target))}
            kind = getattr(m, name)
            assert kind is m.Refusal or documented_ends(kind) in ways, f"{title}: {name}"


def played(title: str, issuer: IssuerKey) -> list[Arrow]:
    """What passes when honest parties do this."""
    stand = Stand(issuer)
    stand.open("R", deposit=0, fund=60_000)
    (to,) = stand.open("E", deposit=0, fund=60_000)
    (cid,) = stand.open("A", deposit=50_000, fund=0)
    names = dict(NAMED)

    def since(action: Any) -> list[Arrow]:
        start = len(stand.trace)
        action()
        return [(names[source], names[target],
                 re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() if target == "L" else name)
                for source, target, name in stand.trace[start:]]

    match title:
        case "Establish, Init-E, Init-I":
            names["A"] = "E"
            return since(lambda: stand.open("A", deposit=50_000, fund=0))
        case "Pay":
            names["A"] = "payer"
            return since(lambda: stand.transfer("A", cid, to, 100))
        case "Cash-out":
            names["A"] = "E"
            return since(lambda: stand.cash_out("A", cid >> 8))
    setup = since(lambda: stand.setup("A", cid))
    terms_hash = next(key for key in stand._routes if len(key) == 32)
    offer = since(lambda: stand.act("A", lambda side: side.machine.nano_offer(
        side.records, stand.moment, terms_hash)))
    paying = since(lambda: [stand.act("A", lambda side: side.machine.nano_pay(
        side.records, stand.moment, terms_hash)) for _ in range(2)])
    relay = since(lambda: stand.act("R", lambda side: side.machine.nano_close(
        side.records, terms_hash)))
    client = since(lambda: stand.close("A", terms_hash))
    return {"Nano-Setup": setup, "Nano-Establish": offer, "Nano-Pay": paying,
            "Nano-Close, R": relay, "Nano-Close, C": client}[title]


def call_name(kind: type[Any]) -> str:
    """nano_refund of NanoRefund."""
    return next(name for name, one in CALLS.items() if one is kind)


@dataclasses.dataclass
class Ledger:
    """Words between client and relay, and transactions on the deployed contracts, in order."""

    world: World
    names: dict[str, str]
    called: list[tuple[int, Arrow]]

    @classmethod
    def watch(cls, world: World, patch: pytest.MonkeyPatch, **names: str) -> Ledger:
        real, watching = world.transact, cls(world, names, [])
        world.log.clear()

        def transact(node: Any, call: Any) -> bool:
            arrow = names.get(node.name, node.name), "L", call_name(type(call))
            watching.called.append((len(world.log), arrow))
            return real(node, call)

        patch.setattr(world, "transact", transact)
        return watching

    def arrows(self) -> list[Arrow]:
        words = [(at, (self.names.get(one.source, one.source),
                       self.names.get(one.target, one.target), m.MESSAGES[one.pcmd].__name__))
                 for at, one in enumerate(self.world.log) if "I" not in (one.source, one.target)]
        return [arrow for _, arrow in sorted([*self.called, *words], key=lambda one: one[0])]


def test_the_figure_of_a_dispute(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    terms_hash = world.session(17)
    watching = Ledger.watch(world, monkeypatch)
    world.i.alive = False
    world.act(world.c, lambda records, moment: world.c.machine.claim_session(records, terms_hash))
    world.run()
    world.travel(world.now + DEMO.epoch + DEMO.lifetime + DEMO.dispute_window + 6 * MU,
                 tick=MU // 2)
    assert watching.arrows() == FIGURES["Dispute"][0]


def test_the_figure_of_a_revoked_state(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cid = world.c.cids()[0]
    old = wallets.claim(world.c.records, world.c.wallet(cid))
    world.setup(cid)
    watching = Ledger.watch(world, monkeypatch, C="E")
    world.transact(world.c, old)
    world.run()
    assert watching.arrows() == FIGURES["Dispute"][1]


def test_the_figure_of_a_request_to_close(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cid = world.c.cids()[0]
    watching = Ledger.watch(world, monkeypatch, C="E")
    world.act(world.i, lambda records, moment: world.i.machine.request_close(records, cid))
    world.run()
    world.travel(world.now + DEMO.dispute_window + MU)
    assert watching.arrows() == FIGURES["Dispute"][2]


def test_the_figure_of_a_guard_channel(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    watching = Ledger.watch(world, monkeypatch, R="guard")
    channel = open_guard(world)
    pay_guard(world, channel, 1)
    world.travel(guard.paid_guard(world.c.records, channel).expiry - MU, tick=MU)
    world.act(world.c, lambda records, moment: world.c.machine.close_guard(records, channel))
    world.run()
    world.travel(world.now + DEMO.dispute_window + MU)
    # The rig names the payout address by hand.
    query = [("C", "guard", "GuardQuery"), ("guard", "C", "GuardPayout")]
    assert [query + watching.arrows()] == FIGURES["Guard channel"]


@pytest.mark.parametrize("title", [one for one in FIGURES
                                   if one not in ("Dispute", "Guard channel")])
def test_a_figure_is_what_passes(title: str, issuer: IssuerKey) -> None:
    (figure,) = FIGURES[title]
    assert figure == played(title, issuer)
