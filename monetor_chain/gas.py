# SPDX-License-Identifier: BSD-3-Clause
"""What the ledger's operations cost, measured and compared with a budget.

Every figure is the gas of a whole transaction (intrinsic gas and calldata included) sent by the
end user or intermediary concerned, with storage in the state in which a network meets it: the
vault and the tax pool's balance exist, the end user's token nonce, group and withdrawable balance
do not. Channels belong to groups of several, sessions are claimed at the number of payments that
costs most. The same state and the same randomness give the same figures in every run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .parameters import DEFAULT
from .rehearsal import NO_AUTHORISATION, NO_PERMIT, Party, Rehearsal, payment_chain, words
from .rehearsal_chain import InProcessChain, RehearsalChain
from .statements import NanoTerms, Role, lock_of, voucher_struct
from .tax_tree import TaxTree

BUDGETS: dict[str, int] = {
    "open": 130_000,
    "fund": 65_000,
    "close": 85_000,
    "refund": 225_000,
    "nano_refund_1024": 205_000,
    "nano_refund_2p18": 215_000,
    "reveal": 80_000,
    "reveal_again": 45_000,
    "refute": 65_000,
    "resolve": 95_000,
    "guard_claim": 90_000,
    "batch_claim_marginal": 150_000,
    "tax_claim_marginal": 35_000,
}
"""Gas that each operation may cost at most."""

GROUP_SIZES = (1, 16, 256)
"""Sizes of the groups whose cost is divided among their channels."""
RELAYS = 6_456
"""Entries of a distribution of tax: as many as the relays of a real consensus (Tor's of 20 July
2019), so that proofs are as long as in a network of that size."""

GROUP_SIZE = 4
DEPOSIT = 1_000_000
FUND = 2_000_000
LONG_SESSION = 2**18


def measure(new_chain: Callable[[], RehearsalChain] = InProcessChain) -> dict[str, int]:
    """Gas used by every operation named in `BUDGETS`, on chains that `new_chain` makes."""
    figures: dict[str, int] = {}
    for scenario in (
        _cooperative, _refund, _relay_session, _long_session, _batch, _guard, _tax_claims,
    ):  # fmt: skip
        stage = Rehearsal(DEFAULT, chain=new_chain())
        _warm_up(stage)
        figures.update(scenario(stage))
        stage.close()
    return {name: figures[name] for name in BUDGETS}


@dataclass(frozen=True, slots=True)
class GroupCost:
    """Gas of one group's life between `open` and a `close` of all its channels together."""

    channels: int
    open: int
    fund: int
    close: int

    @property
    def opening(self) -> float:
        """Gas per channel of both sides' opening, `open` and `fund`."""
        return (self.open + self.fund) / self.channels

    @property
    def closing(self) -> float:
        """Gas per channel of the cooperative close."""
        return self.close / self.channels


def measure_groups(
    new_chain: Callable[[], RehearsalChain] = InProcessChain,
) -> tuple[GroupCost, ...]:
    """What opening and closing cost in groups of each size in `GROUP_SIZES`."""
    costs = []
    for count in GROUP_SIZES:
        stage = Rehearsal(DEFAULT, chain=new_chain())
        _warm_up(stage)
        costs.append(GroupCost(count, **_cooperative(stage, count)))
        stage.close()
    return tuple(costs)


def worst_k(n: int) -> int:
    """The number of payments whose proof costs most: 15 links and a full path."""
    return n - 1


def _gas(stage: Rehearsal, call: object, sender: Party) -> int:
    return int(stage.send(call, sender)["gasUsed"])


def _warm_up(stage: Rehearsal) -> None:
    """Another relay was taxed before, so the pool's balance on the ledger is not new."""
    other = stage.party("stranger")
    stage.enrich(other, DEPOSIT)
    group = stage.open_group(other, Role.RELAY, 0, FUND)
    signature = stage.close_signature(group, 1, 1_000)
    stage.send(stage.ledger.functions.close(group, 1, 1_000, signature, NO_AUTHORISATION), other)


def _cooperative(stage: Rehearsal, count: int = GROUP_SIZE) -> dict[str, int]:
    ledger, relay = stage.ledger.functions, stage.party("relay")
    permit = stage.permit(relay, count * DEPOSIT)
    opening = stage.send(
        ledger.open(
            stage.issuer.key_hash,
            relay.address,
            Role.RELAY,
            DEPOSIT,
            FUND,
            count,
            *stage.windows(),
            stage.secret(),
            stage.secret(),
            NO_AUTHORISATION,
            permit,
        ),
        relay,
    )
    group = int(stage.events(opening, "Opened")[0]["group"])
    funding = _gas(stage, ledger.fund(group), stage.party("intermediary"))
    channels = 2**count - 1
    total = count * (DEPOSIT + FUND // 2)
    signature = stage.close_signature(group, channels, total)
    closing = ledger.close(group, channels, total, signature, NO_AUTHORISATION)
    return {
        "open": int(opening["gasUsed"]),
        "fund": funding,
        "close": _gas(stage, closing, relay),
    }


def _refund(stage: Rehearsal) -> dict[str, int]:
    client = stage.party("client")
    cid = stage.open_group(client, Role.CLIENT, DEPOSIT, 0, GROUP_SIZE) << 8
    secret = stage.secret()
    token = stage.refund_token(Role.CLIENT, cid, lock_of(secret), DEPOSIT // 2)
    call = stage.ledger.functions.refund(
        cid, stage.issuer.public_key, lock_of(secret), DEPOSIT // 2, token, NO_AUTHORISATION
    )
    posting = _gas(stage, call, client)
    refuting = stage.ledger.functions.refute(cid, secret)
    return {"refund": posting, "refute": _gas(stage, refuting, stage.party("intermediary"))}


def _relay_session(stage: Rehearsal) -> dict[str, int]:
    relay, watcher = stage.party("relay"), stage.party("watcher")
    cid = stage.open_group(relay, Role.RELAY, DEPOSIT, FUND, GROUP_SIZE) << 8
    terms = stage.terms(1024)
    b_full = DEPOSIT + terms.n * terms.delta_r
    claim = stage.nano_claim(Role.RELAY, cid, terms, stage.secret(), b_full, worst_k(terms.n))
    posting = _gas(stage, stage.ledger.functions.nano_refund(*claim), relay)
    stage.travel(stage.ledger.functions.channel(cid).call()[1] + 1)
    resolving = _gas(stage, stage.ledger.functions.resolve(cid), watcher)

    other = replace(terms, epoch=terms.epoch + 1, t_exp=stage.now() + 1_000)
    earlier = worst_k(other.n) - 16
    figures = {
        name: _gas(stage, _revealing(stage, other, k), watcher)
        for name, k in (("reveal", earlier), ("reveal_again", worst_k(other.n)))
    }
    return {"nano_refund_1024": posting, "resolve": resolving, **figures}


def _revealing(stage: Rehearsal, terms: NanoTerms, k: int) -> object:
    return stage.ledger.functions.reveal(words(terms), *payment_chain(terms.n).proof(k))


def _long_session(stage: Rehearsal) -> dict[str, int]:
    relay = stage.party("relay")
    fund = 2 * 86 * LONG_SESSION
    cid = stage.open_group(relay, Role.RELAY, DEPOSIT, fund, GROUP_SIZE) << 8
    terms = stage.terms(LONG_SESSION)
    claim = stage.nano_claim(
        Role.RELAY,
        cid,
        terms,
        stage.secret(),
        DEPOSIT + terms.n * terms.delta_r,
        worst_k(terms.n),
    )
    return {"nano_refund_2p18": _gas(stage, stage.ledger.functions.nano_refund(*claim), relay)}


def _batch(stage: Rehearsal) -> dict[str, int]:
    relay = stage.party("relay")
    group = stage.open_group(relay, Role.RELAY, DEPOSIT, FUND, 8)

    def cost(indices: range) -> int:
        claims = []
        for index in indices:
            # Sessions of one relay differ in their terms; here in the chain's expiry alone.
            terms = stage.terms(1024, t_exp=stage.now() + 10_000 + index)
            b_full = DEPOSIT + terms.n * terms.delta_r
            claims.append(
                stage.nano_claim(
                    Role.RELAY,
                    group << 8 | index,
                    terms,
                    stage.secret(),
                    b_full,
                    worst_k(terms.n),
                )
            )
        return _gas(stage, stage.ledger.functions.batch_nano_refund(claims), relay)

    two, four = cost(range(2)), cost(range(2, 6))
    return {"batch_claim_marginal": (four - two + 1) // 2}


def _guard(stage: Rehearsal) -> dict[str, int]:
    client, guard = stage.party("client"), stage.party("guard")
    stage.approve(client)
    opening = stage.send(
        stage.ledger.functions.open_guard(guard.address, DEPOSIT, NO_PERMIT), client
    )
    gid = int(stage.events(opening, "GuardOpened")[0]["gid"])
    chain = payment_chain(1024)
    voucher = (gid, 1, 0, chain.n, chain.hc0, chain.root, stage.now() + 10_000)
    signature = client.sign(stage.digest(voucher_struct(*voucher)))
    call: Callable[..., object] = stage.ledger.functions.claim_guard
    return {
        "guard_claim": _gas(stage, call(*voucher, *chain.proof(worst_k(chain.n)), signature), guard)
    }


def _tax_claims(stage: Rehearsal) -> dict[str, int]:
    """A relay's claim of its shares of several epochs, each among as many as a network has relays.

    Of the 256 shares that share a word of storage another one was claimed before: only one relay
    in 256 is the first, and it pays 17,100 more for each epoch.
    """
    rich, relay = stage.party("client"), stage.party("relay")
    neighbour = stage.party("stranger")
    epochs = 6
    stage.enrich(rich, epochs * RELAYS)
    stage.send(stage.token.functions.transfer(stage.pool.address, epochs * RELAYS), rich)
    first = stage.now() // stage.parameters.epoch - epochs
    entries = [(relay.address, 1), (neighbour.address, 1)]
    entries += [(f"0x{i:040x}", 1) for i in range(2, RELAYS)]
    shares = []
    for epoch in range(first, first + epochs):
        tree = TaxTree(epoch, entries)
        distribute = stage.pool.functions.distribute(
            epoch, tree.root, RELAYS, "bandwidth-proportional", stage.secret()
        )
        for authority in ("authority_1", "authority_2"):
            stage.send(distribute, stage.party(authority))
        other = [(epoch, 1, 1, list(tree.proof(1)))]
        stage.send(stage.pool.functions.claim(neighbour.address, other), neighbour)
        shares.append((epoch, 0, 1, list(tree.proof(0))))

    def cost(some: list[tuple[int, int, int, list[bytes]]]) -> int:
        return _gas(stage, stage.pool.functions.claim(relay.address, some), relay)

    two, four = cost(shares[:2]), cost(shares[2:])
    return {"tax_claim_marginal": (four - two + 1) // 2}
