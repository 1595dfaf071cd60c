# SPDX-License-Identifier: BSD-3-Clause
"""Proofs whose verification may happen outside the step that needs it.

Verifying costs the intermediary milliseconds on the curve, everything else of a step a tenth of
that. So a step may be told the verdicts on the proofs that it meets instead of finding them: it
stays a function of its arguments. A verdict belongs to a `Claim`, which is everything that the
verification reads but the intermediary's key; claims are the same only if all of it is, byte for
byte, so a verdict can never serve another message, session or context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeAlias

from ..crypto.issuer import IssuerKey

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Claim:
    """One call of a verifier: the function (of a module, so that processes can name it to each
    other), and its arguments after the key, which are values and can be compared."""

    verify: Callable[..., None]
    arguments: tuple[Any, ...]
    named: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, verify: Callable[Concatenate[IssuerKey, P], None], *arguments: P.args,
           **named: P.kwargs) -> Claim:
        """The claim that `verify(key, *arguments, **named)` raises nothing."""
        return cls(verify, arguments, tuple(sorted(named.items())))

    def verdict(self, issuer: IssuerKey) -> str:
        """Why it does not hold; the empty string if it does."""
        try:
            self.verify(issuer, *self.arguments, **dict(self.named))
        except (ValueError, ArithmeticError) as error:
            # `CryptoError` is one; the others mean that something does not bear what a peer says.
            return str(error) or "the proof does not verify"
        return ""


Verdicts: TypeAlias = Mapping[Claim, str]
"""What is known of claims: `Claim.verdict` of each."""


class Unverified(Exception):
    """A step needs a verdict that it was not given. Nothing of the step may remain; with the
    verdict it can be taken again."""

    def __init__(self, claim: Claim) -> None:
        super().__init__("a proof has to be verified first")
        self.claim = claim
