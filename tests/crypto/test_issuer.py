# SPDX-License-Identifier: BSD-3-Clause
"""Keys and tokens."""

from __future__ import annotations

import pickle
import secrets
from dataclasses import replace

import pytest

from monetor_chain.statements import BALANCE_LIMIT, GROUP_ORDER, keccak256
from offchain.crypto.curve import Backend, backend
from offchain.crypto.encoding import evm_g1
from offchain.crypto.errors import CryptoError
from offchain.crypto.issuer import (
    IssuerKey,
    IssuerPublicKey,
    rerandomise,
    unblind,
    verify_token,
)
from tests.crypto.points import G1_IDENTITY, G2_IDENTITY, another, bad_encodings

MESSAGES = {"tag": 2**248 - 1, "cid": 2**247 + 1, "nonce": 3, "wpk": 2**240, "balance": 2**32 - 1}


def _request(issuer: IssuerKey, t: int, **hidden: int) -> bytes:
    """g2^t times the request bases of the hidden messages."""
    curve, pk = issuer.curve, issuer.public
    names = ("tag", "cid", "nonce", "wpk", "balance")
    points = [curve.g2, *(pk.request_base(names.index(name)) for name in hidden)]
    return curve.encode_g2(curve.msm_g2(points, [t, *hidden.values()]))


# --- tokens --------------------------------------------------------------------------------------


def test_a_signed_token_verifies(issuer: IssuerKey) -> None:
    assert verify_token(issuer.public, issuer.sign(**MESSAGES), **MESSAGES)


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_every_message_is_signed(issuer: IssuerKey, name: str) -> None:
    token = issuer.sign(**MESSAGES)
    for value in (MESSAGES[name] - 1, 0):
        assert not verify_token(issuer.public, token, **{**MESSAGES, name: value})


def test_tokens_of_another_issuer_do_not_verify(issuer: IssuerKey) -> None:
    other = IssuerKey.generate(issuer.curve)
    assert not verify_token(issuer.public, other.sign(**MESSAGES), **MESSAGES)


def test_rerandomised_tokens_verify_and_share_nothing(issuer: IssuerKey) -> None:
    token = issuer.sign(**MESSAGES)
    shown = rerandomise(token, curve=issuer.curve)
    assert verify_token(issuer.public, shown, **MESSAGES)
    assert shown[:96] != token[:96]
    assert shown[96:] != token[96:]


def test_two_signatures_on_one_message_differ(issuer: IssuerKey) -> None:
    assert issuer.sign(**MESSAGES)[:96] != issuer.sign(**MESSAGES)[:96]


def test_zero_messages_verify(issuer: IssuerKey) -> None:
    # A refund token has nonce 0, an empty channel balance 0.
    messages = {**MESSAGES, "nonce": 0, "balance": 0}
    assert verify_token(issuer.public, issuer.sign(**messages), **messages)


def test_the_identity_signs_nothing(issuer: IssuerKey) -> None:
    # Without the test of sigma1 this pair verifies for every message and every key.
    assert not verify_token(issuer.public, G2_IDENTITY * 2, **MESSAGES)
    token = issuer.sign(**MESSAGES)
    assert not verify_token(issuer.public, G2_IDENTITY + token[96:], **MESSAGES)
    assert not verify_token(issuer.public, token[:96] + G2_IDENTITY, **MESSAGES)
    assert not verify_token(issuer.public, bytes(192), **MESSAGES)
    with pytest.raises(CryptoError, match="identity"):
        rerandomise(G2_IDENTITY + token[96:], curve=issuer.curve)


def test_malformed_tokens_do_not_verify(issuer: IssuerKey) -> None:
    token = issuer.sign(**MESSAGES)
    for bad in bad_encodings(token[:96]).values():
        assert not verify_token(issuer.public, bad + token[96:], **MESSAGES)
        assert not verify_token(issuer.public, token[:96] + bad, **MESSAGES)
    assert not verify_token(issuer.public, token[:-1], **MESSAGES)
    assert not verify_token(issuer.public, token + b"\x00", **MESSAGES)


def test_messages_out_of_range_do_not_verify(issuer: IssuerKey) -> None:
    token = issuer.sign(**MESSAGES)
    for name, value in MESSAGES.items():
        # The same message modulo r: the ledger refuses it, so nobody may take it.
        assert not verify_token(issuer.public, token, **{**MESSAGES, name: value + GROUP_ORDER})
        assert not verify_token(issuer.public, token, **{**MESSAGES, name: value - GROUP_ORDER})
    for name, value in (("tag", 2**248), ("cid", 2**248), ("balance", BALANCE_LIMIT), ("wpk", -1)):
        with pytest.raises(CryptoError, match=name):
            issuer.sign(**{**MESSAGES, name: value})


# --- blind issuing -------------------------------------------------------------------------------


def test_hidden_and_public_messages_meet_in_the_token(issuer: IssuerKey) -> None:
    t = secrets.randbelow(GROUP_ORDER)
    hidden = {"nonce": MESSAGES["nonce"], "wpk": MESSAGES["wpk"]}
    public = {k: v for k, v in MESSAGES.items() if k not in hidden}
    reply = issuer.blind_sign(_request(issuer, t, **hidden), **public)
    token = unblind(issuer.public, reply, t, **MESSAGES)
    assert verify_token(issuer.public, token, **MESSAGES)
    assert token[96:] != reply[96:]


def test_a_reply_needs_its_blinding_and_its_messages(issuer: IssuerKey) -> None:
    t = secrets.randbelow(GROUP_ORDER)
    hidden = {k: v for k, v in MESSAGES.items() if k != "tag"}
    reply = issuer.blind_sign(_request(issuer, t, **hidden), tag=MESSAGES["tag"])
    unblind(issuer.public, reply, t, **MESSAGES)
    with pytest.raises(CryptoError, match="reply"):
        unblind(issuer.public, reply, t + 1, **MESSAGES)
    for name in MESSAGES:
        with pytest.raises(CryptoError, match="reply"):
            unblind(issuer.public, reply, t, **{**MESSAGES, name: MESSAGES[name] - 1})


def test_bad_replies_are_refused(issuer: IssuerKey) -> None:
    t = 5
    hidden = {k: v for k, v in MESSAGES.items() if k != "tag"}
    reply = issuer.blind_sign(_request(issuer, t, **hidden), tag=MESSAGES["tag"])
    wrong = [
        another(issuer.curve, reply[:96]) + reply[96:],
        reply[:96] + another(issuer.curve, reply[96:]),
        G2_IDENTITY * 2,
        b"",
        reply[:-1],
        *(bad + reply[96:] for bad in bad_encodings(reply[:96]).values()),
    ]
    for bad in wrong:
        with pytest.raises(CryptoError, match="reply"):
            unblind(issuer.public, bad, t, **MESSAGES)


def test_bad_requests_are_not_signed(issuer: IssuerKey) -> None:
    good = _request(issuer, 5, wpk=6)
    for bad in bad_encodings(good).values():
        with pytest.raises(CryptoError, match="signature request"):
            issuer.blind_sign(bad, tag=1)
    for name in MESSAGES:
        with pytest.raises(CryptoError, match=name):
            issuer.blind_sign(good, **{"tag": 1, name: -1})


def test_there_is_no_request_base_for_the_tag(issuer: IssuerKey) -> None:
    for attribute in (0, 5, -1):
        with pytest.raises(CryptoError):
            issuer.public.request_base(attribute)


# --- keys ----------------------------------------------------------------------------------------


def test_keys_survive_encoding(issuer: IssuerKey) -> None:
    again = IssuerKey.decode(issuer.encode(), issuer.curve)
    assert again.public.encode() == issuer.public.encode()
    public = IssuerPublicKey.decode(issuer.public.encode(), issuer.curve)
    assert public.encode() == issuer.public.encode()
    assert public.key_hash == issuer.public.key_hash
    assert verify_token(public, again.sign(**MESSAGES), **MESSAGES)


def test_keys_and_tokens_are_the_same_on_every_backend(issuer: IssuerKey) -> None:
    token = issuer.sign(**MESSAGES)
    for name in ("blst", "arkworks"):
        other = IssuerKey.decode(issuer.encode(), backend(name))
        assert other.public.encode() == issuer.public.encode()
        assert verify_token(other.public, token, **MESSAGES)


@pytest.mark.slow
def test_the_reference_backend_agrees(blst_issuer: IssuerKey, reference: IssuerKey) -> None:
    assert reference.public.encode() == blst_issuer.public.encode()
    assert verify_token(reference.public, blst_issuer.sign(**MESSAGES), **MESSAGES)
    assert verify_token(blst_issuer.public, reference.sign(**MESSAGES), **MESSAGES)
    assert not verify_token(
        reference.public, blst_issuer.sign(**{**MESSAGES, "nonce": 4}), **MESSAGES
    )
    reference.public.check()


def test_the_registered_encoding(issuer: IssuerKey) -> None:
    pk, encoded = issuer.public, issuer.public.encode()
    first = [encoded[i : i + 48] for i in range(0, 288, 48)]
    assert pk.evm_encoding() == b"".join(map(evm_g1, first))
    assert len(pk.evm_encoding()) == 768
    assert pk.rest_hash() == keccak256(encoded[288:])
    words = keccak256(pk.evm_encoding()) + pk.rest_hash()
    assert pk.key_hash == keccak256(words)


def test_the_public_key_lets_nobody_sign(issuer: IssuerKey) -> None:
    curve, encoded = issuer.curve, issuer.public.encode()
    assert curve.encode_g2(curve.mul_g2(curve.g2, issuer.x)) not in encoded
    assert curve.encode_g2(curve.mul_g2(curve.g2, issuer.y[0])) not in encoded


def test_secrets_are_not_shown(issuer: IssuerKey) -> None:
    shown = repr(issuer) + str(issuer) + repr(issuer.public)
    for secret in (issuer.x, *issuer.y, issuer.digit_secret):
        for form in (str(secret), f"{secret:x}", f"{secret:064x}"):
            assert form not in shown
    with pytest.raises(TypeError):
        pickle.dumps(issuer)


def test_malformed_keys_are_refused(issuer: IssuerKey) -> None:
    secret, public = issuer.encode(), issuer.public.encode()
    for bad in (b"", secret[:-1], secret + b"\x00"):
        with pytest.raises(CryptoError, match="secret key"):
            IssuerKey.decode(bad, issuer.curve)
    for start in range(0, 224, 32):
        for value in (0, GROUP_ORDER, 2**256 - 1):
            bad = secret[:start] + value.to_bytes(32, "big") + secret[start + 32 :]
            with pytest.raises(CryptoError, match="secret key"):
                IssuerKey.decode(bad, issuer.curve)
    impossible = secret[:192] + (GROUP_ORDER - 255).to_bytes(32, "big")
    with pytest.raises(CryptoError, match="secret key"):
        IssuerKey.decode(impossible, issuer.curve)
    for bad in (b"", public[:-1], public + b"\x00"):
        with pytest.raises(CryptoError, match="key"):
            IssuerPublicKey.decode(bad, issuer.curve)


OFFSETS = {"X": 0, "Y0": 48, "Y4": 240, "digit token 0": 768, "digit token 255": 768 + 255 * 48}


@pytest.mark.parametrize("name", sorted(OFFSETS))
def test_no_element_of_a_key_may_be_malformed(blst_issuer: IssuerKey, name: str) -> None:
    public, start = blst_issuer.public.encode(), OFFSETS[name]
    for kind, bad in bad_encodings(public[start : start + 48]).items():
        if len(bad) == 48:
            with pytest.raises(CryptoError, match=name):
                IssuerPublicKey.decode(
                    public[:start] + bad + public[start + 48 :], blst_issuer.curve
                )
                pytest.fail(kind)


def test_a_good_key_passes_the_check(issuer: IssuerKey) -> None:
    issuer.public.check()


def _tampered(curve: Backend, pk: IssuerPublicKey) -> dict[str, IssuerPublicKey]:
    """Keys with one bad element each, by the name that the check must give."""
    zero = curve.mul_g1(curve.g1, 0)
    bad: dict[str, IssuerPublicKey] = {"X": replace(pk, x=zero)}
    for i in range(5):
        y = [*pk.y]
        y[i] = zero
        bad[f"Y{i}"] = replace(pk, y=tuple(y))
    for i in range(1, 5):
        y_tilde = [*pk.y_tilde]
        y_tilde[i - 1] = curve.add_g2(y_tilde[i - 1], curve.g2)
        bad[f"request base {i}"] = replace(pk, y_tilde=tuple(y_tilde))
    for digit in (0, 1, 128, 255):
        tokens = [*pk.digit_tokens]
        tokens[digit] = curve.add_g1(tokens[digit], curve.g1)
        bad[f"digit token {digit}"] = replace(pk, digit_tokens=tuple(tokens))
    return bad


def test_every_bad_element_is_found(issuer: IssuerKey) -> None:
    for name, pk in _tampered(issuer.curve, issuer.public).items():
        with pytest.raises(CryptoError, match=f"^{name}:"):
            pk.check()


def test_exchanged_elements_are_found(issuer: IssuerKey) -> None:
    pk = issuer.public
    first, second, *rest = pk.digit_tokens
    with pytest.raises(CryptoError, match="digit token 0"):
        replace(pk, digit_tokens=(second, first, *rest)).check()
    with pytest.raises(CryptoError, match="request base 1"):
        replace(pk, y_tilde=(pk.y_tilde[1], pk.y_tilde[0], *pk.y_tilde[2:])).check()
    with pytest.raises(CryptoError, match="digit token"):
        replace(pk, digit_key=issuer.curve.g2).check()
    with pytest.raises(CryptoError, match="number of elements"):
        replace(pk, digit_tokens=pk.digit_tokens[:-1]).check()


def test_the_identity_is_no_element_of_an_encoded_key(issuer: IssuerKey) -> None:
    public = issuer.public.encode()
    for start in (0, 48, 240, 768, 768 + 255 * 48):
        with pytest.raises(CryptoError, match="identity"):
            IssuerPublicKey.decode(
                public[:start] + G1_IDENTITY + public[start + 48 :], issuer.curve
            )
    for start in (288, 672):
        with pytest.raises(CryptoError, match="identity"):
            IssuerPublicKey.decode(
                public[:start] + G2_IDENTITY + public[start + 96 :], issuer.curve
            )
