# SPDX-License-Identifier: BSD-3-Clause
"""The hand-written signatures against the compiled contracts."""

import dataclasses

import pytest

from monetor_chain import abi
from monetor_chain.bindings import consensus, ledger, tax_pool, token
from monetor_chain.compiler import compile_contract
from monetor_chain.parameters import NetworkParameters

BINDINGS = {"Ledger": ledger, "Token": token, "Consensus": consensus, "TaxPool": tax_pool}

# What Brownie-style tools and other contracts call, and no agent does.
NOT_BOUND = {
    "Ledger": {"key_count", "guard_count"},
    "Token": {
        "name", "symbol", "decimals", "transferFrom", "permit", "eip712Domain",
    },
    "Consensus": {"channel_terms", "standing", "set_number"},
    "TaxPool": set(),
}  # fmt: skip


def canonical(parameter: dict) -> str:
    kind = parameter["type"]
    if kind.startswith("tuple"):
        inner = ",".join(canonical(part) for part in parameter["components"])
        return f"({inner}){kind[len('tuple'):]}"
    return kind


def entries(name: str, kind: str) -> list[dict]:
    return [entry for entry in compile_contract(name).abi if entry["type"] == kind]


@pytest.mark.parametrize("name", BINDINGS)
def test_every_bound_function_is_the_contracts(name):
    compiled = {
        f"{e['name']}({','.join(map(canonical, e['inputs']))})": tuple(
            map(canonical, e["outputs"])
        )
        for e in entries(name, "function")
    }
    for function in BINDINGS[name].FUNCTIONS.values():
        assert function.signature in compiled
        assert function.outputs == compiled[function.signature] or not function.outputs


@pytest.mark.parametrize("name", BINDINGS)
def test_no_function_is_forgotten(name):
    compiled = {entry["name"] for entry in entries(name, "function")}
    assert compiled - set(BINDINGS[name].FUNCTIONS) <= NOT_BOUND[name]


def test_every_event_of_the_ledger_is_known_field_by_field():
    classes = {event.__name__: event for event in ledger.EVENT_CLASSES}
    compiled = {entry["name"]: entry for entry in entries("Ledger", "event")}
    assert set(compiled) == set(classes)
    for name, entry in compiled.items():
        layout = abi._Layout(classes[name])
        stated = [(p.name, p.type, p.indexed) for p in layout.parameters]
        assert stated == [(i["name"], canonical(i), i["indexed"]) for i in entry["inputs"]]
        fields = [field.name for field in dataclasses.fields(classes[name])]
        assert fields == [i["name"] for i in entry["inputs"]] + ["at"]


def test_parameters_have_the_contracts_names_in_its_order():
    (vote,) = (e for e in entries("Consensus", "function") if e["name"] == "vote")
    components = [part["name"] for part in vote["inputs"][1]["components"]]
    assert components == [field.name for field in dataclasses.fields(NetworkParameters)]


def test_short_and_long_words_are_refused_not_padded():
    function = abi.Function("f(bytes32,bytes32[],(uint256,bytes32))")
    good = (bytes(32), [bytes(32)], (1, bytes(32)))
    assert len(function.encode(*good)) > 4
    for bad in (
        (bytes(31), [bytes(32)], (1, bytes(32))),
        (bytes(32), [bytes(33)], (1, bytes(32))),
        (bytes(32), [bytes(32)], (1, b"")),
    ):
        with pytest.raises(ValueError, match="32 bytes"):
            function.encode(*bad)
    with pytest.raises(ValueError, match="f"):
        abi.Function("f(uint256)").encode(-1)
