# SPDX-License-Identifier: BSD-3-Clause
"""EIP-2537 for the embedded chain at native speed.

py-evm computes BLS12-381 in pure Python: a pairing check takes more than a second. The three
operations that the contracts call (G1ADD, G1MSM, PAIRING_CHECK) are served here by arkworks,
about a hundred times faster; gas, errors and results are the same, and tests compare both paths
on the EIP's vectors and on random inputs. The pure path stays selectable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import py_arkworks_bls12381 as ark
from eth.exceptions import VMError
from eth.precompiles.bls12_381.constants import (
    BLS12_G1_ADD_GAS,
    BLS12_G1_MSM_GAS,
    G1_MSM_DISCOUNTS,
    G1_MSM_MAX_DISCOUNT,
    MSM_MULTIPLIER,
)
from eth.vm.forks.prague import PragueVM
from eth.vm.forks.prague.computation import PragueComputation
from eth.vm.forks.prague.state import PragueState

from .precompile_mode import Mode as Mode
from .precompile_probe import FIELD_MODULUS
from .statements import GROUP_ORDER

if TYPE_CHECKING:
    from eth.abc import ComputationAPI

_CURVE_B = 4
_PADDING = bytes(16)
_G1 = 128
_G2 = 256
_SCALAR = 32
_PAIRING_BASE_GAS = 37_700
_PAIRING_PAIR_GAS = 32_600


def g1_add(data: bytes) -> bytes:
    """Sum of two encoded G1 points; as the EIP says, without a subgroup check.

    Raises `VMError` for a wrong length, a coordinate that is not canonical, or a point that is
    not on the curve.
    """
    if len(data) != 2 * _G1:
        raise VMError("BLS12_G1ADD takes 256 bytes")
    return _encode_g1(_curve_point(data[:_G1]) + _curve_point(data[_G1:]))


def g1_msm(data: bytes) -> bytes:
    """Multi-scalar multiplication over pairs of a G1 point and a 32-byte scalar.

    Raises `VMError` for a wrong length or a point outside the subgroup.
    """
    size = _G1 + _SCALAR
    if not data or len(data) % size:
        raise VMError("BLS12_G1MSM takes a positive multiple of 160 bytes")
    points = []
    scalars = []
    for start in range(0, len(data), size):
        points.append(_group_point(data[start : start + _G1]))
        # The EIP admits any 256-bit scalar; within the subgroup it counts modulo the order.
        value = int.from_bytes(data[start + _G1 : start + size], "big") % GROUP_ORDER
        scalars.append(ark.Scalar.from_le_bytes(value.to_bytes(_SCALAR, "little")))
    return _encode_g1(ark.G1Point.multiexp_unchecked(points, scalars))


def pairing_check(data: bytes) -> bytes:
    """One as a 32-byte word iff the product of the pairings of all (G1, G2) pairs is one.

    Raises `VMError` for a wrong length or a point outside its subgroup.
    """
    size = _G1 + _G2
    if not data or len(data) % size:
        raise VMError("BLS12_PAIRING_CHECK takes a positive multiple of 384 bytes")
    left = []
    right = []
    for start in range(0, len(data), size):
        left.append(_group_point(data[start : start + _G1]))
        right.append(_twist_point(data[start + _G1 : start + size]))
    return int(ark.GT.pairing_check(left, right)).to_bytes(32, "big")


def prague_vm(mode: Mode = "native") -> type[PragueVM]:
    """A Prague virtual machine for py-evm with native or py-evm's own BLS operations."""
    return NativePragueVM if mode == "native" else PragueVM


def _coordinate(data: bytes) -> bytes:
    """The 48 significant bytes of a 64-byte field element, which must be canonical."""
    if data[:16] != _PADDING:
        raise VMError("field element: the upper 16 bytes must be zero")
    if int.from_bytes(data, "big") >= FIELD_MODULUS:
        raise VMError("field element: not below the field modulus")
    return data[16:]


def _curve_point(data: bytes) -> ark.G1Point:
    if data == bytes(_G1):
        return ark.G1Point.identity()
    x, y = _coordinate(data[:64]), _coordinate(data[64:])
    # The unchecked constructor below skips the curve equation too.
    abscissa, ordinate = int.from_bytes(x, "big"), int.from_bytes(y, "big")
    if (ordinate * ordinate - abscissa**3 - _CURVE_B) % FIELD_MODULUS:
        raise VMError("G1 point: not on the curve")
    return ark.G1Point.from_xy_bytes_unchecked_be(x + y)


def _group_point(data: bytes) -> ark.G1Point:
    if data == bytes(_G1):
        return ark.G1Point.identity()
    try:
        return ark.G1Point.from_xy_bytes_be(_coordinate(data[:64]) + _coordinate(data[64:]))
    except ValueError as error:
        raise VMError(f"G1 point: {error}") from error


def _twist_point(data: bytes) -> ark.G2Point:
    if data == bytes(_G2):
        return ark.G2Point.identity()
    parts = [_coordinate(data[start : start + 64]) for start in range(0, _G2, 64)]
    try:
        return ark.G2Point.from_xy_bytes_be(b"".join(parts))
    except ValueError as error:
        raise VMError(f"G2 point: {error}") from error


def _encode_g1(point: ark.G1Point) -> bytes:
    if point == ark.G1Point.identity():
        return bytes(_G1)
    raw = bytes(point.to_xy_bytes_be())
    return _PADDING + raw[:48] + _PADDING + raw[48:]


def _add(computation: ComputationAPI) -> None:
    data = bytes(computation.msg.data)
    if len(data) != 2 * _G1:
        raise VMError("BLS12_G1ADD takes 256 bytes")
    computation.consume_gas(BLS12_G1_ADD_GAS, reason="BLS12_G1ADD")
    computation.output = g1_add(data)


def _msm(computation: ComputationAPI) -> None:
    data = bytes(computation.msg.data)
    count, rest = divmod(len(data), _G1 + _SCALAR)
    if rest or not count:
        raise VMError("BLS12_G1MSM takes a positive multiple of 160 bytes")
    known = count <= len(G1_MSM_DISCOUNTS)
    discount = G1_MSM_DISCOUNTS[count - 1] if known else G1_MSM_MAX_DISCOUNT
    gas = count * BLS12_G1_MSM_GAS * discount // MSM_MULTIPLIER
    computation.consume_gas(gas, reason="BLS12_G1MSM")
    computation.output = g1_msm(data)


def _pairing(computation: ComputationAPI) -> None:
    data = bytes(computation.msg.data)
    count, rest = divmod(len(data), _G1 + _G2)
    if rest or not count:
        raise VMError("BLS12_PAIRING_CHECK takes a positive multiple of 384 bytes")
    gas = _PAIRING_BASE_GAS + count * _PAIRING_PAIR_GAS
    computation.consume_gas(gas, reason="BLS12_PAIRING_CHECK")
    computation.output = pairing_check(data)


class NativePragueComputation(PragueComputation):
    """Prague with three precompiles replaced (addresses from EIP-2537)."""

    _precompiles = {
        **PragueComputation.get_precompiles(),
        (0x0B).to_bytes(20, "big"): _add,
        (0x0C).to_bytes(20, "big"): _msm,
        (0x0F).to_bytes(20, "big"): _pairing,
    }


class NativePragueState(PragueState):
    """Prague's state over the computation above."""

    computation_class = NativePragueComputation


class NativePragueVM(PragueVM):
    """Prague's virtual machine over the state above."""

    _state_class = NativePragueState
