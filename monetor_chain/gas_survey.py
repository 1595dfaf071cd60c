# SPDX-License-Identifier: BSD-3-Clause
"""What every other call of the four contracts costs, beside the operations of `gas`.

Whole transactions on a chain in this process, each in a typical state: accounts, vault and credits
exist, a parameter vote or a distribution is the first of its epoch. Same figures in every run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from . import statements
from .parameters import DEFAULT, TAX_RATE_BP
from .rehearsal import (
    NO_AUTHORISATION,
    NO_PERMIT,
    Party,
    Rehearsal,
    TokenIssuer,
    payment_chain,
)
from .rehearsal_chain import InProcessChain, RehearsalChain
from .statements import Role, TokenKind, lock_of, voucher_struct
from .tax_tree import TaxTree

DEPOSIT = 1_000_000
FUND = 2_000_000


def survey(new_chain: Callable[[], RehearsalChain] = InProcessChain) -> dict[str, int]:
    """Gas by "Contract.function", on chains that `new_chain` makes."""
    figures: dict[str, int] = {}
    for scenario in (_keys_and_vaults, _endings, _guards, _tokens, _authorities, _tax):
        stage = Rehearsal(DEFAULT, chain=new_chain())
        figures.update(scenario(stage))
        stage.close()
    return figures


def _gas(stage: Rehearsal, call: Any, sender: Party, **options: Any) -> int:
    return int(stage.send(call, sender, **options)["gasUsed"])


def _keys_and_vaults(stage: Rehearsal) -> dict[str, int]:
    ledger, intermediary = stage.ledger.functions, stage.party("intermediary")
    key = TokenIssuer(2)
    return {
        "Ledger.register_key": _gas(
            stage, ledger.register_key(key.public_key, key.rest_hash), intermediary
        ),
        "Ledger.deposit_vault": _gas(stage, ledger.deposit_vault(1_000), intermediary),
        "Ledger.withdraw_vault": _gas(stage, ledger.withdraw_vault(1_000), intermediary),
    }


def _endings(stage: Rehearsal) -> dict[str, int]:
    ledger, client = stage.ledger.functions, stage.party("client")
    intermediary, watcher = stage.party("intermediary"), stage.party("watcher")
    half = stage.open_group(client, Role.CLIENT, DEPOSIT, FUND, 2, funded=False)
    figures = {"Ledger.reclaim": _gas(stage, ledger.reclaim(half, NO_AUTHORISATION), client)}
    cid = stage.open_group(client, Role.CLIENT, DEPOSIT, FUND, 4) << 8
    figures["Ledger.request_close"] = _gas(stage, ledger.request_close(cid), intermediary)

    secret, payer = stage.secret(), stage.secret()
    t_p = stage.now() + 10_000
    tag = statements.tag(
        TokenKind.CONDITIONAL_REFUND, Role.CLIENT, stage.ctx, lock_of(payer), t_p
    )
    token = stage.issuer.sign(tag, cid + 1, lock_of(secret), DEPOSIT)
    conditional = ledger.refund_conditional(
        cid + 1, stage.issuer.public_key, lock_of(secret), DEPOSIT, token, lock_of(payer), t_p,
        payer, NO_AUTHORISATION,
    )  # fmt: skip
    figures["Ledger.refund_conditional"] = _gas(stage, conditional, client)
    stage.travel(stage.now() + DEFAULT.close_notice + 1)
    figures["Ledger.resolve of a request"] = _gas(stage, ledger.resolve(cid), watcher)
    figures["Ledger.resolve of a refund"] = _gas(stage, ledger.resolve(cid + 1), watcher)
    figures["Ledger.withdraw"] = _gas(stage, ledger.withdraw(), client)
    return figures


def _guards(stage: Rehearsal) -> dict[str, int]:
    ledger, client, guard = stage.ledger.functions, stage.party("client"), stage.party("guard")
    stage.approve(client)
    opening = stage.send(ledger.open_guard(guard.address, DEPOSIT, NO_PERMIT), client)
    gid = int(stage.events(opening, "GuardOpened")[0]["gid"])
    figures = {"Ledger.open_guard": int(opening["gasUsed"])}
    chain = payment_chain(1024)
    voucher = (gid, 1, 0, chain.n, chain.hc0, chain.root, stage.now() + 10_000)
    signature = client.sign(stage.digest(voucher_struct(*voucher)))
    stage.send(ledger.claim_guard(*voucher, *chain.proof(9), signature), guard)
    figures["Ledger.request_close_guard"] = _gas(stage, ledger.request_close_guard(gid), client)
    stage.travel(stage.now() + DEFAULT.dispute_window + 1)
    figures["Ledger.close_guard"] = _gas(stage, ledger.close_guard(gid), client)
    return figures


def _tokens(stage: Rehearsal) -> dict[str, int]:
    client, token = stage.party("client"), stage.token.functions
    figures = {
        "Token.deposit": _gas(stage, token.deposit(), client, value=10**9),
        "Token.withdraw": _gas(stage, token.withdraw(1), client),
        "Token.transfer": _gas(stage, token.transfer(stage.party("relay").address, 1), client),
        "Token.approve": _gas(stage, token.approve(stage.ledger.address, 5), client),
    }
    relay = stage.party("relay")
    stage.send(token.approve(relay.address, 5), client)
    figures["Token.transferFrom"] = _gas(
        stage, token.transferFrom(client.address, relay.address, 1), relay
    )
    value, deadline, signature = stage.permit(client, 5)
    figures["Token.permit"] = _gas(
        stage,
        token.permit(
            client.address, stage.ledger.address, value, deadline,
            signature[64], signature[:32], signature[32:64],
        ),
        relay,
    )  # fmt: skip
    issued = stage.deploy("Token", stage.consensus.address).functions
    for seat in (1, 2):
        figures["Token.issue"] = _gas(
            stage, issued.issue(client.address, 10, 0), stage.party(f"authority_{seat}")
        )
    figures["Token.burn"] = _gas(stage, issued.burn(1), client)
    return figures


def _authorities(stage: Rehearsal) -> dict[str, int]:
    """The last approval of a quorum of two of three, which carries the decision out."""
    consensus = stage.consensus.functions
    members = [stage.party(name).address for name in ("authority_1", "authority_2", "stranger")]
    epoch = stage.now() // DEFAULT.epoch + 1
    calls = {
        "Consensus.vote": consensus.vote(epoch, replace(DEFAULT, price=120).words()),
        "Consensus.set_paused": consensus.set_paused(True),
        "Consensus.change_authorities": consensus.change_authorities(members, 2),
    }
    return {
        name: [_gas(stage, call, stage.party(f"authority_{seat}")) for seat in (1, 2)][-1]
        for name, call in calls.items()
    }


def _tax(stage: Rehearsal) -> dict[str, int]:
    pool, relay, watcher = stage.pool.functions, stage.party("relay"), stage.party("watcher")
    group = stage.open_group(relay, Role.RELAY, DEPOSIT, FUND)
    total = DEPOSIT + FUND // 2
    signature = stage.close_signature(group, 1, total)
    stage.send(stage.ledger.functions.close(group, 1, total, signature, NO_AUTHORISATION), relay)
    figures = {"TaxPool.collect": _gas(stage, pool.collect(), watcher)}
    epoch = stage.now() // DEFAULT.epoch - 1
    tree = TaxTree(epoch, [(relay.address, 60), (watcher.address, 40)])
    distribute = pool.distribute(epoch, tree.root, 100, "bandwidth-proportional", stage.secret())
    for seat in (1, 2):
        figures["TaxPool.distribute"] = _gas(stage, distribute, stage.party(f"authority_{seat}"))
    share = (epoch, 0, 60, list(tree.proof(0)))
    figures["TaxPool.claim"] = _gas(stage, pool.claim(relay.address, [share]), relay)
    other = stage.deploy("TaxPool", stage.token.address, stage.consensus.address, 90)
    addresses = (stage.token.address, stage.consensus.address, other.address)
    ledger = stage.deploy("Ledger", *addresses, TAX_RATE_BP)
    figures["TaxPool.set_ledger"] = _gas(
        stage, other.functions.set_ledger(ledger.address), stage.party("deployer")
    )
    last = pool.distribution(epoch).call()[3]
    stage.travel((last + 1) * DEFAULT.epoch)
    figures["TaxPool.roll_over"] = _gas(stage, pool.roll_over(epoch), watcher)
    return figures
