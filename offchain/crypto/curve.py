# SPDX-License-Identifier: BSD-3-Clause
"""One interface over several implementations of BLS12-381.

`Backend` says what the rest of the package needs of a curve library. Points are opaque: only the
backend that made a point may be given it. All backends share one encoding (compressed, as in
appendix A of draft-irtf-cfrg-pairing-friendly-curves and in ZCash), so parties need not agree on
one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import NewType, Protocol

from offchain.crypto.errors import CryptoError

G1 = NewType("G1", object)
"""An element of the group of order r on E(F_p)."""
G2 = NewType("G2", object)
"""An element of the group of order r on the twist over F_p^2."""

G1_BYTES = 48
G2_BYTES = 96

G1_GENERATOR = bytes.fromhex(
    "97f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac58"
    "6c55e83ff97a1aeffb3af00adb22c6bb"
)
G2_GENERATOR = bytes.fromhex(
    "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049"
    "334cf11213945d57e5ac7d055d042b7e024aa2b2f08f0a91260805272dc51051"
    "c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
)

DEFAULT_BACKEND = "blst"
BACKEND_VARIABLE = "MONETOR_CURVE"

_COMPRESSED = 0x80
_INFINITY = 0x40


class Backend(Protocol):
    """Arithmetic of a pairing curve. Scalars are any integers and count modulo `GROUP_ORDER`."""

    name: str
    g1: G1
    g2: G2

    def expect_g1(self, point: G1) -> None:
        """This very object will be multiplied often: the backend may prepare for it."""

    def expect_g2(self, point: G2) -> None:
        """This very object will be multiplied often: the backend may prepare for it."""

    def add_g1(self, a: G1, b: G1) -> G1:
        """a + b (written a*b in the docstrings of the protocols, where groups multiply)."""

    def add_g2(self, a: G2, b: G2) -> G2:
        """a + b."""

    def neg_g1(self, a: G1) -> G1:
        """-a."""

    def neg_g2(self, a: G2) -> G2:
        """-a."""

    def mul_g1(self, a: G1, k: int) -> G1:
        """k times a."""

    def mul_g2(self, a: G2, k: int) -> G2:
        """k times a."""

    def msm_g1(self, points: Sequence[G1], scalars: Sequence[int]) -> G1:
        """Sum of scalars[i] times points[i]; lengths must agree and be positive."""

    def msm_g2(self, points: Sequence[G2], scalars: Sequence[int]) -> G2:
        """Sum of scalars[i] times points[i]; lengths must agree and be positive."""

    def encode_g1(self, a: G1) -> bytes:
        """48 bytes."""

    def encode_g2(self, a: G2) -> bytes:
        """96 bytes."""

    def uncompress_g1(self, data: bytes) -> G1:
        """Point of a well-formed encoding; ValueError unless on the curve and in the subgroup."""

    def uncompress_g2(self, data: bytes) -> G2:
        """Point of a well-formed encoding; ValueError unless on the curve and in the subgroup."""

    def pairing_equal(self, a: G1, b: G2, c: G1, d: G2) -> bool:
        """Whether e(a, b) = e(c, d)."""


def _check_shape(data: bytes, length: int, field: str, identity: bool) -> None:
    # Done here for all backends, since not every library refuses every malformed encoding:
    # arkworks ignores what follows the infinity flag.
    if len(data) != length:
        raise CryptoError(f"{field}: a point has {length} bytes, this one has {len(data)}")
    if not data[0] & _COMPRESSED:
        raise CryptoError(f"{field}: not a compressed point")
    if data[0] & _INFINITY:
        if not identity:
            raise CryptoError(f"{field}: the identity is not allowed here")
        if data[0] != _COMPRESSED | _INFINITY or any(data[1:]):
            raise CryptoError(f"{field}: malformed identity")


def decode_g1(curve: Backend, data: bytes, field: str, *, identity: bool = False) -> G1:
    """The G1 element that `data` encodes.

    Raises CryptoError, naming `field`, unless the encoding is canonical and the point lies on the
    curve and in the subgroup. The identity passes only with `identity`.
    """
    _check_shape(data, G1_BYTES, field, identity)
    try:
        return curve.uncompress_g1(data)
    except ValueError as error:
        raise CryptoError(f"{field}: not in G1") from error


def decode_g2(curve: Backend, data: bytes, field: str, *, identity: bool = False) -> G2:
    """The G2 element that `data` encodes; see `decode_g1`."""
    _check_shape(data, G2_BYTES, field, identity)
    try:
        return curve.uncompress_g2(data)
    except ValueError as error:
        raise CryptoError(f"{field}: not in G2") from error


@cache
def _load(name: str) -> Backend:
    # Imported on demand: a party needs one of them only.
    if name == "blst":
        from offchain.crypto.curve_blst import Blst

        return Blst()
    if name == "arkworks":
        from offchain.crypto.curve_arkworks import Arkworks

        return Arkworks()
    if name == "py_ecc":
        from offchain.crypto.curve_py_ecc import PyEcc

        return PyEcc()
    raise CryptoError(f"curve backend: no such backend {name!r}")


def backend(name: str | None = None) -> Backend:
    """The backend called `name` (blst, arkworks or py_ecc).

    Without a name, the environment variable MONETOR_CURVE decides, else blst.
    """
    return _load(name or os.environ.get(BACKEND_VARIABLE) or DEFAULT_BACKEND)
