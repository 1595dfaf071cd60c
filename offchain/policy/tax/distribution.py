# SPDX-License-Identifier: BSD-3-Clause
"""One epoch's distribution: from the public inputs to the root that the authorities approve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from monetor_chain.statements import keccak256
from monetor_chain.tax_tree import TaxTree

from . import location_diverse, proportional, waterfilling
from .apportion import apportion
from .errors import PolicyError
from .facts import Relay
from .relay_list import write

POLICIES: Mapping[str, Callable[[Sequence[Relay]], dict[str, int]]] = MappingProxyType(
    {policy.NAME: policy.weights for policy in (proportional, waterfilling, location_diverse)}
)
"""Policies by their published names. What a name means never changes: another rule gets another
name, since old roots must stay recomputable."""

_WORDS = 2**256


@dataclass(frozen=True, slots=True)
class Distribution:
    """Who gets what of one epoch's tax.

    `total`: units, exactly the sum of the entries. `inputs_hash`: `keccak256(inputs(...))`.
    `entries`: (account, units), ascending by account, every account once, no amount 0; an entry's
    place is its index in the tree.
    """

    epoch: int
    policy: str
    total: int
    inputs_hash: bytes
    entries: tuple[tuple[str, int], ...]

    def tree(self) -> TaxTree:
        """The tree whose root is published and whose proofs the accounts claim with."""
        return TaxTree(self.epoch, self.entries)


def inputs(relays: Iterable[Relay], policy_name: str, epoch: int, total: int) -> bytes:
    """Everything that a distribution depends on, as ASCII text in one canonical form.

    Four lines, "moneTor tax inputs 1", "policy NAME", "epoch N", "total N", numbers in decimal,
    each ended by LF; then the relay list as `relay_list.write` gives it.
    """
    head = f"moneTor tax inputs 1\npolicy {policy_name}\nepoch {epoch}\ntotal {total}\n"
    return (head + write(relays)).encode("ascii")


def plan(relays: Iterable[Relay], policy_name: str, epoch: int, total: int) -> Distribution:
    """Divide `total` units among the relays that have an account, by the named policy.

    The policy weighs all relays of the list, for those without an account are part of the network
    too; the amounts are apportioned to the relays with an account, whole units by largest remainder
    (see `apportion`), and then summed up by account. The order of `relays` does not matter.

    Raises `PolicyError` for an unknown policy, an epoch or total outside uint256, a total of 0, a
    relay listed twice, or when the policy pays nobody on the list.
    """
    if policy_name not in POLICIES:
        raise PolicyError(f"no policy {policy_name!r}; there are {', '.join(POLICIES)}")
    if not 0 <= epoch < _WORDS:
        raise PolicyError(f"epoch {epoch} is no uint256")
    if not 0 < total < _WORDS:
        raise PolicyError(f"a total of {total} units cannot be distributed")
    listed = tuple(relays)
    encoded = inputs(listed, policy_name, epoch, total)
    weights = POLICIES[policy_name](listed)
    accounts = {relay.fingerprint: relay.account for relay in listed if relay.account is not None}
    amounts = apportion(total, {fingerprint: weights[fingerprint] for fingerprint in accounts})
    by_account: Counter[str] = Counter()
    for fingerprint, account in accounts.items():
        by_account[account] += amounts[fingerprint]
    entries = tuple(sorted((account, units) for account, units in by_account.items() if units))
    if not entries:
        raise PolicyError(f"{policy_name} pays none of the {len(listed)} relays on the list")
    return Distribution(epoch, policy_name, total, keccak256(encoded), entries)
