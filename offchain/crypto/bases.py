# SPDX-License-Identifier: BSD-3-Clause
"""What the exponents of this package's proofs stand on: an intermediary's key and P1, P2, P3.

Made from a public key, the bases are points. Made from the secret key they carry their discrete
logarithms, which saves the intermediary most multiplications when it verifies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offchain.crypto.curve import G1, G2, Backend
from offchain.crypto.generators import generators
from offchain.crypto.issuer import IssuerKey, IssuerPublicKey
from offchain.crypto.issuer_public_key import ATTRIBUTES
from offchain.crypto.sigma import Base, Group, group_g1, group_g2

TAG, CID, NONCE, WPK, BALANCE = range(ATTRIBUTES)
"""Positions of the five messages of a token."""


@dataclass(frozen=True, eq=False)
class Bases:
    """Bases of one intermediary's proofs."""

    curve: Backend
    group1: Group[G1]
    group2: Group[G2]
    g1: Base[G1]
    g2: Base[G2]
    y: tuple[Base[G1], ...]
    """Y0..Y4."""
    y_tilde: tuple[Base[G2], ...]
    """Y~1..Y~4, at indices CID - 1 .. BALANCE - 1: there is none for the tag."""
    p: tuple[Base[G1], Base[G1], Base[G1]]
    """P1, P2, P3."""

    def request(self, attribute: int) -> Base[G2]:
        """Y~ of cid, nonce, wpk or balance."""
        return self.y_tilde[attribute - 1]


def bases_of(key: IssuerPublicKey | IssuerKey) -> Bases:
    """The bases of `key`; with discrete logarithms if it is the secret key."""
    logs: Sequence[int | None]
    if isinstance(key, IssuerKey):
        public, logs = key.public, key.y
    else:
        public, logs = key, [None] * ATTRIBUTES
    curve = public.curve
    p1, p2, p3 = generators(curve)
    return Bases(
        curve=curve,
        group1=group_g1(curve),
        group2=group_g2(curve),
        g1=Base(curve.g1, 1),
        g2=Base(curve.g2, 1),
        y=tuple(Base(point, log) for point, log in zip(public.y, logs, strict=True)),
        y_tilde=tuple(
            Base(point, log) for point, log in zip(public.y_tilde, logs[1:], strict=True)
        ),
        p=(Base(p1), Base(p2), Base(p3)),
    )
