# SPDX-License-Identifier: BSD-3-Clause
"""Whole units for whole weights, so that not one unit is lost."""

from __future__ import annotations

from collections.abc import Mapping


def apportion(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """`total` units divided in proportion to `weights`, by the method of largest remainders.

    Everybody gets ⌊total·w/W⌋, W the sum of the weights; what is left, fewer units than there are
    recipients, goes one by one to the largest remainders, equal ones in the order of their keys.
    So the amounts add up to `total`, each lies within one unit of its exact share, no greater
    weight gets less than a smaller one, and a weight of 0 gets nothing. They add up to nothing
    only if all weights are 0.
    """
    whole = sum(weights.values())
    if not whole:
        return dict.fromkeys(weights, 0)
    amounts, remainders = {}, []
    for key, weight in weights.items():
        amounts[key], remainder = divmod(total * weight, whole)
        remainders.append((-remainder, key))
    remainders.sort()
    for _, key in remainders[: total - sum(amounts.values())]:
        amounts[key] += 1
    return amounts
