# SPDX-License-Identifier: BSD-3-Clause
"""One question with a known answer for each precompile that the contracts call (EIP-2537).

The points are the generators of G1 and G2 and the double of the former; a test computes them.
"""

from __future__ import annotations

from dataclasses import dataclass

FIELD_MODULUS = int(
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f624"
    "1eabfffeb153ffffb9feffffffffaaab",
    16,
)
"""Order of the base field of BLS12-381."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A precompile's address, an input and the output it must give."""

    address: str
    input: bytes
    output: bytes


def _encode(*coordinates: str) -> bytes:
    return b"".join(bytes(16) + bytes.fromhex(coordinate) for coordinate in coordinates)


_G1_X = (
    "17f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905"
    "a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb"
)
_G1_Y = (
    "08b3f481e3aaa0f1a09e30ed741d8ae4fcf5e095d5d00af6"
    "00db18cb2c04b3edd03cc744a2888ae40caa232946c5e7e1"
)
_DOUBLE_X = (
    "0572cbea904d67468808c8eb50a9450c9721db3091280125"
    "43902d0ac358a62ae28f75bb8f1c7c42c39a8c5529bf0f4e"
)
_DOUBLE_Y = (
    "166a9d8cabc673a322fda673779d8e3822ba3ecb8670e461"
    "f73bb9021d5fd76a4c56d9d4cd16bd1bba86881979749d28"
)
_G2_X0 = (
    "024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02"
    "b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
)
_G2_X1 = (
    "13e02b6052719f607dacd3a088274f65596bd0d09920b61a"
    "b5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"
)
_G2_Y0 = (
    "0ce5d527727d6e118cc9cdc6da2e351aadfd9baa8cbdd3a7"
    "6d429a695160d12c923ac9cc3baca289e193548608b82801"
)
_G2_Y1 = (
    "0606c4a02ea734cc32acd2b02bc28b99cb3e287e85a763af"
    "267492ab572e99ab3f370d275cec1da1aaa9075ff05f79be"
)
_MINUS_G1_Y = f"{FIELD_MODULUS - int(_G1_Y, 16):096x}"

G1 = _encode(_G1_X, _G1_Y)
MINUS_G1 = _encode(_G1_X, _MINUS_G1_Y)
DOUBLE_G1 = _encode(_DOUBLE_X, _DOUBLE_Y)
G2 = _encode(_G2_X0, _G2_X1, _G2_Y0, _G2_Y1)

G1_ADD_PROBE = Probe("0x" + "0b".zfill(40), G1 + G1, DOUBLE_G1)
G1_MSM_PROBE = Probe("0x" + "0c".zfill(40), G1 + (2).to_bytes(32, "big"), DOUBLE_G1)
PAIRING_PROBE = Probe(
    "0x" + "0f".zfill(40), G1 + G2 + MINUS_G1 + G2, (1).to_bytes(32, "big")
)
