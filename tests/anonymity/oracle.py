# SPDX-License-Identifier: BSD-3-Clause
"""The random oracle behind the proofs, which a simulator may program.

In the random-oracle model the Fiat-Shamir hash is a random function. A simulator answers a new
point of it as it likes, so long as the answers are uniform; everybody else, the verifier included,
then finds that answer. Here the one place where the product hashes, `Transcript.challenge`, looks
into the table of programmed points first. Nothing else of the verifier is touched.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from monetor_chain.statements import GROUP_ORDER
from offchain.crypto import sigma
from offchain.crypto.scalars import encode_scalar
from offchain.crypto.transcript import Transcript

Point = tuple[tuple[bytes, ...], tuple[bytes, ...]]


@dataclass
class Oracle:
    """Points that are programmed, and whether programming them has any effect."""

    programmable: bool = True
    points: dict[Point, int] = field(default_factory=dict)

    def program(self, transcript: Transcript, announcements: Sequence[bytes], answer: int) -> None:
        point = tuple(transcript._items), tuple(announcements)
        assert point not in self.points, "a point of the oracle is answered once"
        if self.programmable:
            self.points[point] = answer

    def install(self, patch: pytest.MonkeyPatch) -> Oracle:
        """Let everybody ask this oracle."""
        real = Transcript.challenge

        def challenge(transcript: Transcript, announcements: Sequence[bytes]) -> int:
            point = tuple(transcript._items), tuple(announcements)
            found = self.points.get(point)
            return real(transcript, announcements) if found is None else found

        patch.setattr(Transcript, "challenge", challenge)
        return self

    def simulate(self, transcript: Transcript, equations: Sequence[Any]) -> bytes:
        """A proof of these equations without a witness: challenge and responses come first.

        The honest prover's challenge is uniform and so is every response, through its mask; the
        announcements follow from them. Drawn in this order the distribution is the same.
        """
        names = sigma._secret_names(equations)
        answer = secrets.randbelow(GROUP_ORDER)
        responses = {name: secrets.randbelow(GROUP_ORDER) for name in names}
        announcements = [one.reconstruct(responses, answer) for one in equations]
        self.program(transcript, announcements, answer)
        return b"".join(map(encode_scalar, (answer, *responses.values())))
