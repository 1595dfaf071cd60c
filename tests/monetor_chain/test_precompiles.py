# SPDX-License-Identifier: BSD-3-Clause
"""The native EIP-2537 operations against the EIP's vectors, py_ecc and py-evm's own."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from eth.exceptions import VMError
from eth.precompiles import bls12_g1_add, bls12_g1_msm, bls12_pairing_check
from py_ecc import optimized_bls12_381 as bls

from monetor_chain import precompile_probe as probe, precompiles
from monetor_chain.statements import GROUP_ORDER

VECTORS = json.loads((Path(__file__).parent / "vectors" / "eip2537.json").read_text())
OPERATIONS = {"g1_add": 0x0B, "g1_msm": 0x0C, "pairing_check": 0x0F}
PURE = {"g1_add": bls12_g1_add, "g1_msm": bls12_g1_msm, "pairing_check": bls12_pairing_check}


class Call:
    """What a precompile sees of a computation."""

    def __init__(self, data: bytes, gas: int = 10**9) -> None:
        self.msg = SimpleNamespace(data=data)
        self.gas = gas
        self.used = 0
        self.output = b""

    def consume_gas(self, amount: int, reason: str = "") -> None:
        self.used += amount


def native(operation: str):
    address = OPERATIONS[operation].to_bytes(20, "big")
    return precompiles.NativePragueComputation.get_precompiles()[address]


def cases(kind: str) -> list:
    return [
        pytest.param(operation, vector, id=vector["name"])
        for operation in OPERATIONS
        for vector in VECTORS[operation][kind]
    ]


@pytest.mark.parametrize(("operation", "vector"), cases("valid"))
def test_valid_vectors_result_and_gas(operation, vector):
    call = Call(bytes.fromhex(vector["input"]))
    native(operation)(call)
    assert call.output.hex() == vector["expected"]
    assert call.used == vector["gas"]


@pytest.mark.parametrize(("operation", "vector"), cases("invalid"))
def test_invalid_vectors_fail(operation, vector):
    with pytest.raises(VMError):
        native(operation)(Call(bytes.fromhex(vector["input"])))


def encode_g1(point) -> bytes:
    if bls.is_inf(point):
        return bytes(128)
    x, y = bls.normalize(point)
    return int(x).to_bytes(64, "big") + int(y).to_bytes(64, "big")


def encode_g2(point) -> bytes:
    if bls.is_inf(point):
        return bytes(256)
    x, y = bls.normalize(point)
    return b"".join(
        int(part).to_bytes(64, "big") for part in (*x.coeffs, *y.coeffs)
    )


def test_random_operations_agree_with_py_ecc():
    rng = random.Random(2537)
    scalars = [rng.randrange(GROUP_ORDER) for _ in range(3)]
    a, b, c = (bls.multiply(bls.G1, s) for s in scalars)
    assert precompiles.g1_add(encode_g1(a) + encode_g1(b)) == encode_g1(bls.add(a, b))
    factors = [rng.getrandbits(256) for _ in range(3)]  # also above the group order
    data = b"".join(
        encode_g1(p) + f.to_bytes(32, "big") for p, f in zip((a, b, c), factors, strict=True)
    )
    total = sum(s * f for s, f in zip(scalars, factors, strict=True)) % GROUP_ORDER
    assert precompiles.g1_msm(data) == encode_g1(bls.multiply(bls.G1, total))
    q = bls.multiply(bls.G2, scalars[1])
    same = encode_g1(a) + encode_g2(q) + encode_g1(bls.neg(b)) + encode_g2(
        bls.multiply(bls.G2, scalars[0])
    )
    assert int.from_bytes(precompiles.pairing_check(same), "big") == 1
    other = same[:384] + encode_g1(bls.neg(c)) + same[512:]
    assert int.from_bytes(precompiles.pairing_check(other), "big") == 0


@pytest.mark.parametrize("operation", OPERATIONS)
def test_native_and_pure_path_agree(operation):
    valid = VECTORS[operation]["valid"]
    for vector in (valid[0], valid[-1]):
        ours, theirs = (Call(bytes.fromhex(vector["input"])) for _ in range(2))
        native(operation)(ours)
        PURE[operation](theirs)
        assert (ours.output, ours.used) == (theirs.output, theirs.used)


@pytest.mark.parametrize("count", [127, 128, 129, 200])
def test_gas_discount_of_long_multiplications(count):
    call = Call(bytes(160) * count)
    native("g1_msm")(call)
    table = precompiles.G1_MSM_DISCOUNTS
    discount = table[count - 1] if count <= 128 else 519
    assert call.used == count * 12_000 * discount // 1_000
    assert call.output == bytes(128)


def test_mode_selects_the_machine():
    assert precompiles.prague_vm("native") is precompiles.NativePragueVM
    assert precompiles.prague_vm("pure") is precompiles.PragueVM


def test_the_probes_questions_have_these_answers():
    double = bls.multiply(bls.G1, 2)
    assert encode_g1(bls.G1) == probe.G1
    assert encode_g1(bls.neg(bls.G1)) == probe.MINUS_G1
    assert encode_g2(bls.G2) == probe.G2
    assert encode_g1(double) == probe.DOUBLE_G1
    assert precompiles.g1_add(probe.G1_ADD_PROBE.input) == probe.G1_ADD_PROBE.output
    assert precompiles.g1_msm(probe.G1_MSM_PROBE.input) == probe.G1_MSM_PROBE.output
    assert precompiles.pairing_check(probe.PAIRING_PROBE.input) == probe.PAIRING_PROBE.output
