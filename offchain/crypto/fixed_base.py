# SPDX-License-Identifier: BSD-3-Clause
"""Faster multiplication of points that are multiplied again and again.

The bases of an intermediary's proofs never change, so tables of their multiples pay off: with the
bytes of k at hand, k times a point is a sum of 32 table entries, 40 % of the price of a
multiplication (Brickell, Gordon, McCurley and Wilson, EUROCRYPT 1992). A table costs as much as 90
multiplications, so a base gets one only once it has been used as often. It takes 1.5 MB in G1 and
2.7 MB in G2. Digits of more bits save hardly anything more: their tables outgrow the caches.

The time of a table sum depends on its scalar, as all arithmetic on Python's integers does: an
attacker who measures single operations of this process is outside the model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeVar

from monetor_chain.statements import GROUP_ORDER

USES_BEFORE_TABLE = 90
KEPT_BASES = 32
"""Some intermediaries' keys and all generators; older ones lose their tables."""
_DIGITS = 256
_ROWS = -(-GROUP_ORDER.bit_length() // 8)


class Point(Protocol):
    """What a table needs of a point. Addition must handle equal and opposite points."""

    def __add__(self, other: Self, /) -> Self: ...


P = TypeVar("P", bound=Point)


class FixedBase(Generic[P]):
    """One point that is expected to be multiplied often."""

    __slots__ = ("_rows", "_uses", "point")

    def __init__(self, point: P) -> None:
        self.point = point
        self._uses = 0
        self._rows: list[list[P | None]] = []

    @property
    def tabled(self) -> bool:
        """Whether the table is there."""
        return bool(self._rows)

    def multiply(self, scalar: int) -> P | None:
        """`scalar` times the point; None if it is not worth a table yet, or the sum is empty."""
        if not self._rows:
            self._uses += 1
            if self._uses <= USES_BEFORE_TABLE:
                return None
            self._rows = _table(self.point)
        total: P | None = None
        digits = (scalar % GROUP_ORDER).to_bytes(_ROWS, "little")
        for row, digit in zip(self._rows, digits, strict=True):
            entry = row[digit]
            if entry is not None:
                total = entry if total is None else total + entry
        return total


def _table(point: P) -> list[list[P | None]]:
    """Row i holds 0 to 255 times 256^i times the point; None stands for 0 times."""
    rows: list[list[P | None]] = []
    for _ in range(_ROWS):
        multiple = point
        row = [None, point]
        for _ in range(_DIGITS - 2):
            multiple = multiple + point
            row.append(multiple)
        rows.append(row)
        point = multiple + point
    return rows


class FixedBases(Generic[P]):
    """The points of a group that are expected to be multiplied often, with their tables."""

    def __init__(self, multiply: Callable[[P, int], P]) -> None:
        """`multiply` is the library's own multiplication by a scalar below the group order."""
        self._multiply = multiply
        self._bases: OrderedDict[int, FixedBase[P]] = OrderedDict()

    def expect(self, point: P) -> None:
        """`point` will be multiplied often; of all such points, the latest used are kept."""
        # Found again by identity: to compare points costs more than a table saves. The entry
        # keeps its point alive, so no other can take its identity.
        self._bases.setdefault(id(point), FixedBase(point))
        self._bases.move_to_end(id(point))
        if len(self._bases) > KEPT_BASES:
            self._bases.popitem(last=False)

    def multiply(self, point: P, scalar: int) -> P:
        """`scalar` times `point`."""
        base = self._bases.get(id(point))
        if base is None:
            return self._multiply(point, scalar % GROUP_ORDER)
        self._bases.move_to_end(id(point))
        found = base.multiply(scalar)
        return self._multiply(point, scalar % GROUP_ORDER) if found is None else found
