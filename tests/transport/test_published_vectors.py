# SPDX-License-Identifier: BSD-3-Clause
"""Cells and key derivations that other implementations published (each file names its source)."""

from __future__ import annotations

import ipaddress

import pytest

from offchain.transport import create_fast, ntor
from offchain.transport.errors import ProtocolViolation
from offchain.transport.extend import LinkTarget, decode_extend2, encode_extend2, encode_extended2
from offchain.transport.stream_cell import (
    Begin,
    BeginFlag,
    decode_begin,
    decode_resolve,
    encode_connected,
    encode_resolved,
)


def test_begin(vectors):
    for case in vectors("c_tor")["begin"]:
        found = decode_begin(bytes.fromhex(case["body"]))
        assert (found.host, found.port) == (case["host"], case["port"])
        assert found.flags == case["flags"] & 7, "flags that nobody has defined are not kept"
    for body in vectors("c_tor")["begin_refused"]:
        with pytest.raises(ProtocolViolation):
            decode_begin(bytes.fromhex(body))


def test_connected(vectors):
    for case in vectors("c_tor")["connected"]:
        ours, theirs = encode_connected(case["address"]), bytes.fromhex(case["body"])
        assert ours[:-4] == theirs[:-4], "all but the time to live, which the exit chooses"


def test_extend2(vectors):
    for case in vectors("c_tor")["extend2"]:
        target, create2 = decode_extend2(bytes.fromhex(case["body"]))
        assert target == LinkTarget(case["host"], case["port"], bytes.fromhex(case["rsa"]),
                                    bytes.fromhex(case["ed25519"])), case["name"]
        assert create2.hex() == case["create2"], "the handshake is passed on as it is"
    minimal = vectors("c_tor")["extend2"][0]
    target, create2 = decode_extend2(bytes.fromhex(minimal["body"]))
    assert encode_extend2(target, create2).hex() == minimal["body"]
    for case in vectors("c_tor")["extend2_refused"]:
        with pytest.raises(ProtocolViolation):
            decode_extend2(bytes.fromhex(case["body"]))


def test_any_answer_is_passed_on():
    for size in (0, 64, 496):
        body = size.to_bytes(2, "big") + bytes([7]) * size
        assert encode_extended2(body.ljust(509, b"\0")) == body
    for body in (b"", b"\0", b"\0\x40" + bytes(63), b"\x01\xf1" + bytes(507)):
        with pytest.raises(ProtocolViolation):
            encode_extended2(body)


def test_kdf_tor(vectors):
    for case in vectors("c_tor")["kdf_tor"]:
        assert create_fast.kdf_tor(bytes.fromhex(case["secret"]), 100).hex() == case["keys"]


def test_kdf_of_ntor(vectors):
    for case in vectors("c_tor")["ntor_kdf"]:
        assert ntor._expand(bytes.fromhex(case["secret"]), 100).hex() == case["keys"]


def test_create_fast(vectors):
    v = vectors("create_fast")
    secret = bytes.fromhex(v["secret"])
    reply, keys = create_fast.answer(secret[:20].ljust(509, b"\0"), secret[20:])
    assert reply == secret[20:] + bytes.fromhex(v["key_hash"])
    assert keys.hex() == "".join(v[name] for name in (
        "forward_digest", "backward_digest", "forward_key", "backward_key"))
    assert create_fast.answer(bytes(509))[0] != create_fast.answer(bytes(509))[0]
    with pytest.raises(ProtocolViolation):
        create_fast.answer(bytes(19))


def test_resolved():
    """The layout of tor-spec, "Remote hostname lookup"; tor's own tests parse the like."""
    four, six = "127.0.2.10", "2002:9090::f0f0:abcd"
    assert encode_resolved([four]) == b"\4\4\x7f\0\2\x0a" + b"\0\0\0\x3c"
    assert encode_resolved([six, four]) == (
        b"\6\x10" + ipaddress.ip_address(six).packed + b"\0\0\0\x3c" + encode_resolved([four]))
    assert encode_resolved([]) == b"\xf1\0" + b"\0\0\0\x3c"
    assert len(encode_resolved([six] * 99)) <= 498
    assert decode_resolve(b"example.com\0") == "example.com"
    for body in (b"", b"\0", b"example.com", b"x" * 256 + b"\0", b"a b\0"):
        with pytest.raises(ProtocolViolation):
            decode_resolve(body)


def test_clients_say_which_addresses_they_take():
    both = ["1.2.3.4", "::1"]
    flag = BeginFlag
    for flags, wanted in [
        (0, ["1.2.3.4"]), (flag.IPV6_OKAY, both),
        (flag.IPV6_OKAY | flag.IPV6_PREFERRED, both[::-1]),
        (flag.IPV6_OKAY | flag.IPV4_NOT_OKAY, ["::1"]), (flag.IPV4_NOT_OKAY, []),
        (flag.IPV6_PREFERRED, ["1.2.3.4"]),
    ]:
        assert Begin("host", 80, flag(flags)).wanted(both) == wanted
