# SPDX-License-Identifier: BSD-3-Clause
"""Every proof, every element, every public value: whatever is changed, the proof falls."""

from __future__ import annotations

from dataclasses import replace

import pytest

from monetor_chain.statements import NanoTerms, Role
from offchain.crypto.curve import backend
from offchain.crypto.errors import CryptoError
from offchain.crypto.issuer import IssuerKey, IssuerPublicKey
from offchain.crypto.transcript import Transcript
from tests.crypto.cases import (
    NAMES,
    TERMS,
    Case,
    make,
    other_public,
    scalar_at,
    shifted,
    with_scalar,
)
from tests.crypto.points import G1_IDENTITY, another, bad_encodings

G1_BYTES = 48


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest, issuer: IssuerKey) -> Case:
    return make(request.param, issuer)


def _split(data: bytes) -> list[bytes]:
    """The points in an element: one, or sigma's two."""
    return [data] if len(data) < 192 else [data[:96], data[96:]]


def test_the_honest_proof_verifies(case: Case, issuer: IssuerKey) -> None:
    case.verify(issuer)


@pytest.mark.parametrize("name", ["opening", "nano_close_client", "nano_close_relay", "reissue"])
def test_proofs_without_a_token_verify_with_the_public_key(name: str, issuer: IssuerKey) -> None:
    make(name, issuer).verify(issuer.public)


def test_every_element_is_bound(case: Case, issuer: IssuerKey) -> None:
    for name, data in case.elements().items():
        for i, point in enumerate(_split(data)):
            pieces = _split(data)
            pieces[i] = another(issuer.curve, point)
            with pytest.raises(CryptoError):
                case.with_element(name, b"".join(pieces)).verify(issuer)
                pytest.fail(f"{name} may be exchanged")


REASONS = {"identity": "the identity is not allowed", "off subgroup": "not in G"}
"""What the verifier must say, lest it only failed later and for another reason."""


def test_no_element_may_be_malformed_or_the_identity(case: Case, issuer: IssuerKey) -> None:
    for name, data in case.elements().items():
        for i, point in enumerate(_split(data)):
            for kind, bad in bad_encodings(point).items():
                # sigma comes last, after the proof, which has it hashed.
                reason = None if name == "sigma" else REASONS.get(kind)
                pieces = _split(data)
                pieces[i] = bad
                with pytest.raises(CryptoError, match=reason):
                    case.with_element(name, b"".join(pieces)).verify(issuer)
                    pytest.fail(f"{name}: {kind}")


def _hashed_before_the_announcements(
    case: Case, issuer: IssuerKey, monkeypatch: pytest.MonkeyPatch
) -> bytes:
    seen: list[bytes] = []

    def record(self: Transcript, announcements: object) -> int:
        seen.append(b"".join(self._items))
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(Transcript, "challenge", record)
        with pytest.raises(CryptoError):
            case.verify(issuer)
    assert len(seen) == 1
    return seen[0]


def test_the_challenge_covers_the_whole_statement(
    case: Case, issuer: IssuerKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Equations bind an element only to what was hashed: an element or a public value outside the
    # hash can be chosen after the challenge.
    honest = _hashed_before_the_announcements(case, issuer, monkeypatch)
    variants = {}
    for name, data in case.elements().items():
        for i, point in enumerate(_split(data)):
            pieces = _split(data)
            pieces[i] = another(issuer.curve, point)
            variants[f"{name} {i}"] = case.with_element(name, b"".join(pieces))
    for j in range(case.ranges):
        start, end = j * G1_BYTES, (j + 1) * G1_BYTES
        digit = another(issuer.curve, case.proof[start:end])
        proof = case.proof[:start] + digit + case.proof[end:]
        variants[f"digit {j}"] = replace(case, proof=proof)
    for name, value in case.public.items():
        if name not in case.elements():
            public = {**case.public, name: other_public(value)}
            variants[name] = replace(case, public=public)
    variants["ctx"] = replace(case, ctx=bytes(32))
    for name, variant in variants.items():
        changed = _hashed_before_the_announcements(variant, issuer, monkeypatch)
        assert changed != honest, name


def test_public_elements_are_hashed_too(issuer: IssuerKey, monkeypatch: pytest.MonkeyPatch) -> None:
    for case, name in (
        (make("nano_close_client", issuer), "commitment"),
        (make("reissue", issuer), "k"),
    ):
        honest = _hashed_before_the_announcements(case, issuer, monkeypatch)
        variant = case.with_element(name, another(issuer.curve, case.public[name]))
        assert _hashed_before_the_announcements(variant, issuer, monkeypatch) != honest


def test_every_public_value_is_bound(case: Case, issuer: IssuerKey) -> None:
    for name, value in case.public.items():
        changed = replace(case, public={**case.public, name: other_public(value)})
        with pytest.raises(CryptoError):
            changed.verify(issuer)
            pytest.fail(name)


@pytest.mark.parametrize("name", ["nano_setup", "nano_establish"])
def test_every_field_of_the_terms_is_bound(issuer: IssuerKey, name: str) -> None:
    case = make(name, issuer)
    changes = {
        "delta_c": -101,
        "delta_r": 85,
        "n": 512,
        "hc0": bytes(32),
        "t_exp": 5,
        "root": bytes(32),
        "epoch": 8,
    }
    assert set(changes) == set(NanoTerms.__slots__)
    for field, value in changes.items():
        terms = replace(TERMS, **{field: value})
        with pytest.raises(CryptoError):
            replace(case, public={**case.public, "terms": terms}).verify(issuer)
            pytest.fail(field)


def test_public_values_out_of_range_are_refused(case: Case, issuer: IssuerKey) -> None:
    for name, value in case.public.items():
        if isinstance(value, int) and not isinstance(value, Role):
            for bad in (-(2**250), 2**250, 2**600):
                with pytest.raises(CryptoError):
                    replace(case, public={**case.public, name: bad}).verify(issuer)
                    pytest.fail(name)


def test_the_context_is_bound(case: Case, issuer: IssuerKey) -> None:
    for ctx in (bytes(32), case.ctx[:-1] + b"\x00"):
        with pytest.raises(CryptoError):
            replace(case, ctx=ctx).verify(issuer)
    with pytest.raises(CryptoError, match="ctx"):
        replace(case, ctx=case.ctx[:-1]).verify(issuer)


def test_another_issuer_refuses(case: Case, issuer: IssuerKey) -> None:
    with pytest.raises(CryptoError):
        case.verify(IssuerKey.generate(issuer.curve))


def test_every_scalar_of_the_proof_counts(case: Case, issuer: IssuerKey) -> None:
    start = case.ranges * G1_BYTES
    assert (len(case.proof) - start) % 32 == 0
    for position in range(start, len(case.proof), 32):
        value = scalar_at(case.proof, position)
        for wrong in (value ^ 1, 0):
            with pytest.raises(CryptoError):
                replace(case, proof=with_scalar(case.proof, position, wrong)).verify(issuer)


def test_scalars_must_be_canonical(case: Case, issuer: IssuerKey) -> None:
    # The same residue in another encoding would pass every equation.
    for position in range(case.ranges * G1_BYTES, len(case.proof), 32):
        value = scalar_at(case.proof, position)
        with pytest.raises(CryptoError, match="canonical"):
            proof = with_scalar(case.proof, position, shifted(value))
            replace(case, proof=proof).verify(issuer)


def test_proofs_have_one_length(case: Case, issuer: IssuerKey) -> None:
    for proof in (b"", case.proof[:-1], case.proof[:-32], case.proof + b"\x00", case.proof * 2):
        with pytest.raises(CryptoError):
            replace(case, proof=proof).verify(issuer)


def test_every_digit_is_bound_and_well_formed(case: Case, issuer: IssuerKey) -> None:
    for j in range(case.ranges):
        start, end = j * G1_BYTES, (j + 1) * G1_BYTES
        good = case.proof[start:end]
        wrong = [another(issuer.curve, good), G1_IDENTITY]
        wrong += [bad for bad in bad_encodings(good).values() if len(bad) == G1_BYTES]
        for bad in wrong:
            with pytest.raises(CryptoError):
                replace(case, proof=case.proof[:start] + bad + case.proof[end:]).verify(issuer)
    if case.ranges:
        # Digits in another order are other digits.
        swapped = case.proof[48:96] + case.proof[:48] + case.proof[96:]
        with pytest.raises(CryptoError):
            replace(case, proof=swapped).verify(issuer)


REPLAYS = [
    ("nano_setup", "nano_establish"),
    ("nano_establish", "nano_setup"),
    ("nano_close_client", "nano_close_relay"),
    ("nano_close_relay", "nano_close_client"),
    ("pay_payer", "pay_payee"),
    ("pay_payee", "pay_payer"),
    ("reissue", "nano_close_client"),
    ("nano_close_client", "reissue"),
    ("opening", "reissue"),
]


@pytest.mark.parametrize(("source", "target"), REPLAYS)
def test_no_proof_serves_another_protocol_step_or_role(
    blst_issuer: IssuerKey, source: str, target: str
) -> None:
    a, b = make(source, blst_issuer), make(target, blst_issuer)
    values = dict(b.public)
    for name, value in a.public.items():
        if type(values.get(name)) is type(value) and name != "role":
            values[name] = value
    if source == "reissue":
        values.update(commitment=a.public["k"], adjustment=0)
    if (source, target) == ("nano_close_client", "reissue"):
        values["k"] = a.public["commitment"]
    with pytest.raises(CryptoError):
        b.verifier(blst_issuer, a.ctx, a.statement, a.proof, **values)
    b.verify(blst_issuer)


@pytest.mark.parametrize("part", ["protocol", "step", "role", "ctx"])
def test_where_a_proof_belongs_is_hashed(part: str) -> None:
    place = {"protocol": "a", "step": "b", "role": Role.CLIENT, "ctx": bytes(32)}
    other = {"protocol": "ab", "step": "", "role": Role.RELAY, "ctx": b"\x01" * 32}
    first = Transcript(**place)  # type: ignore[arg-type]
    second = Transcript(**{**place, part: other[part]})  # type: ignore[arg-type]
    assert first.challenge([]) != second.challenge([])
    assert Transcript(**place).challenge([]) == first.challenge([])  # type: ignore[arg-type]


def test_items_cannot_flow_into_each_other() -> None:
    def challenge(*items: tuple[str, bytes], announcements: tuple[bytes, ...] = ()) -> int:
        transcript = Transcript("a", "b", Role.CLIENT, bytes(32))
        for name, data in items:
            transcript.element(name, data)
        return transcript.challenge(announcements)

    seen = {
        challenge(("x", b"ab"), ("y", b"c")),
        challenge(("x", b"a"), ("y", b"bc")),
        challenge(("xa", b"b"), ("y", b"c")),
        challenge(("y", b"c"), ("x", b"ab")),
        challenge(("x", b"ab")),
        challenge(announcements=(b"ab",)),
        challenge(announcements=(b"a", b"b")),
        challenge(("x", b"ab"), announcements=(b"c",)),
    }
    assert len(seen) == 8


@pytest.mark.parametrize("name", NAMES)
def test_proofs_cross_native_backends(blst_issuer: IssuerKey, name: str) -> None:
    other = IssuerKey.decode(blst_issuer.encode(), backend("arkworks"))
    make(name, blst_issuer).verify(other)
    make(name, other).verify(blst_issuer)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_reference_backend_agrees(
    blst_issuer: IssuerKey, reference: IssuerKey, name: str
) -> None:
    case = make(name, blst_issuer)
    case.verify(reference)
    with pytest.raises(CryptoError):
        replace(case, ctx=bytes(32)).verify(reference)
    make(name, reference).verify(blst_issuer)


def test_lengths_do_not_depend_on_values(issuer: IssuerKey) -> None:
    for name in NAMES:
        first, second = make(name, issuer), make(name, issuer)
        assert len(first.proof) == len(second.proof)
        assert first.proof[:32] != second.proof[:32]


def test_the_public_key_alone_verifies_requests(blst_issuer: IssuerKey) -> None:
    pk = IssuerPublicKey.decode(blst_issuer.public.encode(), blst_issuer.curve)
    case = make("nano_close_client", blst_issuer)
    case.verify(pk)
    with pytest.raises(CryptoError):
        replace(case, public={**case.public, "adjustment": 0}).verify(pk)
