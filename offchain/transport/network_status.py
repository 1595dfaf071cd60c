# SPDX-License-Identifier: BSD-3-Clause
"""Reading a real Tor network's directory documents (dir-spec): the consensus, the authorities' key
certificates, the routers' descriptors. stem takes the documents apart; whom to believe is decided
here.

The chain of trust: who runs a client names the authorities' identity keys; each identity key
certifies a signing key for a time; more than half of the authorities sign the consensus; the
consensus names each router's identity and the digest of its descriptor.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from stem.descriptor.networkstatus import KeyCertificate, NetworkStatusDocumentV3
from stem.descriptor.server_descriptor import RelayDescriptor

from .errors import TransportError
from .identity import RouterInfo, fingerprint
from .server_descriptor import PaidTerms, paid_terms

MAX_DESCRIPTOR = 64 * 1024
"""Longest server descriptor that is looked at, in bytes."""
_CERTIFICATE = re.compile(
    rb"^dir-key-certificate-version 3\n.*?^dir-key-certification\n"
    rb"-----BEGIN SIGNATURE-----\n.*?-----END SIGNATURE-----\n", re.DOTALL | re.MULTILINE)
_DESCRIPTOR = re.compile(
    rb"^router .*?^router-signature\n-----BEGIN SIGNATURE-----\n.*?-----END SIGNATURE-----\n",
    re.DOTALL | re.MULTILINE)
_DEFAULT_WEIGHT = 10_000
"""What the consensus' position weights are parts of (dir-spec, "bandwidth-weights")."""


class DirectoryDocumentError(TransportError):
    """A directory document is malformed, out of date, or not signed by who should have."""


@dataclass(frozen=True, slots=True)
class ListedRouter:
    """A router as the consensus and its own descriptor describe it.

    `bandwidth`: what the consensus counts it for, in kilobytes per second; `accepts_streams`:
    whether its exit policy accepts anything at all.
    """

    info: RouterInfo
    flags: frozenset[str]
    bandwidth: int
    accepts_streams: bool
    paid: PaidTerms | None


@dataclass(frozen=True, slots=True)
class NetworkStatus:
    """What the authorities say at one time. Times are in seconds since the epoch."""

    valid_after: float
    valid_until: float
    parameters: dict[str, int]
    weights: dict[str, int]
    routers: tuple[ListedRouter, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the consensus itself says of a router."""

    fingerprint: bytes
    descriptor_digest: bytes
    host: str
    port: int
    flags: frozenset[str]
    bandwidth: int


@dataclass(frozen=True, slots=True)
class SignedConsensus:
    """A consensus that was checked. It lacks the routers' keys, which are in the descriptors."""

    valid_after: float
    valid_until: float
    parameters: dict[str, int]
    weights: dict[str, int]
    entries: tuple[_Entry, ...]

    def descriptor_digests(self) -> tuple[bytes, ...]:
        """SHA-1 of the descriptors (20 bytes each) that the consensus is about."""
        return tuple(one.descriptor_digest for one in self.entries)

    def with_descriptors(self, descriptors: bytes) -> NetworkStatus:
        """The network. Routers whose descriptor is missing, or is not the one that the consensus
        names, are left out."""
        by_digest = dict(_descriptors(descriptors))
        found = (_listed(one, by_digest[one.descriptor_digest]) for one in self.entries
                 if one.descriptor_digest in by_digest)
        return NetworkStatus(self.valid_after, self.valid_until, self.parameters, self.weights,
                             tuple(one for one in found if one is not None))


def read_consensus(consensus: bytes, certificates: bytes, *, authorities: Collection[bytes],
                   now: float) -> SignedConsensus:
    """Check and read a consensus of the flavour "ns"; `certificates` are the authorities' own.

    `authorities`: SHA-1 of the identity keys (20 bytes each) of those who are believed; more than
    half of them must have signed. Routers that are not running and valid are left out. Raises
    DirectoryDocumentError.
    """
    signed = _check_signatures(
        consensus, _signing_keys(certificates, authorities, now), len(authorities))
    try:
        # stem's own validation refuses what tor writes where no version is recommended.
        document = NetworkStatusDocumentV3(signed, validate=False)
        after, until = (each.replace(tzinfo=datetime.UTC).timestamp()
                        for each in (document.valid_after, document.valid_until))
        entries = tuple(
            _Entry(bytes.fromhex(one.fingerprint), bytes.fromhex(one.digest), str(one.address),
                   int(one.or_port), frozenset(one.flags), int(one.bandwidth or 0))
            for one in document.routers.values() if {"Running", "Valid"} <= set(one.flags))
        parameters, weights = dict(document.params), dict(document.bandwidth_weights)
    except (ValueError, AttributeError, TypeError) as error:
        raise DirectoryDocumentError(f"the consensus is malformed: {error}") from error
    if not after <= now <= until:
        raise DirectoryDocumentError("the consensus is not valid now")
    return SignedConsensus(after, until, parameters, weights, entries)


def _rsa(pem: str) -> RSAPublicKey:
    """A key of a directory document: PKCS#1 in armour that has another title elsewhere."""
    der = base64.b64decode("".join(pem.strip().splitlines()[1:-1]), validate=True)
    key = load_der_public_key(der)
    if not isinstance(key, RSAPublicKey):
        raise ValueError("not an RSA key")
    return key


def _signed_by(key: RSAPublicKey, signature: str, digest: bytes) -> bool:
    """Whether the armoured signature is PKCS#1 v1.5 without DigestInfo over the digest."""
    try:
        raw = base64.b64decode("".join(signature.strip().splitlines()[1:-1]), validate=True)
        return key.recover_data_from_signature(raw, padding.PKCS1v15(), None) == digest
    except (InvalidSignature, binascii.Error, ValueError):
        return False


def _signing_keys(certificates: bytes, authorities: Collection[bytes], now: float
                  ) -> dict[bytes, list[RSAPublicKey]]:
    """The signing keys that the named authorities have certified, by authority."""
    found: dict[bytes, list[RSAPublicKey]] = {}
    for match in _CERTIFICATE.finditer(certificates):
        text = match[0]
        try:
            certificate = KeyCertificate(text, validate=False)
            identity = _rsa(certificate.identity_key)
            expires = certificate.expires.replace(tzinfo=datetime.UTC).timestamp()
            signed = text[: text.index(b"dir-key-certification\n") + 22]
            digest = hashlib.sha1(signed, usedforsecurity=False).digest()
            name = fingerprint(identity)
            if (name in authorities and now < expires
                    and _signed_by(identity, certificate.certification, digest)):
                found.setdefault(name, []).append(_rsa(certificate.signing_key))
        except (ValueError, AttributeError, TypeError):
            continue  # one authority's broken certificate does not spoil the others'
    return found


def _check_signatures(consensus: bytes, keys: dict[bytes, list[RSAPublicKey]], total: int
                      ) -> bytes:
    """What has been signed: whoever passes the consensus on can add to its signatures."""
    end = consensus.find(b"\ndirectory-signature ")
    if not consensus.startswith(b"network-status-version 3") or end < 0:
        raise DirectoryDocumentError("the consensus has no signatures")
    signed, signatures = consensus[: end + 21], consensus[end + 1 :]
    good: set[bytes] = set()
    for part in signatures.split(b"directory-signature ")[1:]:
        head, _, armour = part.partition(b"\n")
        words = head.decode("ascii", "replace").split()
        algorithm = words.pop(0) if len(words) == 3 else "sha1"
        if len(words) != 2 or algorithm not in ("sha1", "sha256"):
            continue
        digest = hashlib.new(algorithm, signed, usedforsecurity=False).digest()
        try:
            name = bytes.fromhex(words[0])
        except ValueError:
            continue
        text = armour.decode("ascii", "replace")
        if any(_signed_by(key, text, digest) for key in keys.get(name, ())):
            good.add(name)
    if 2 * len(good) <= total:
        raise DirectoryDocumentError(
            f"the consensus is signed by {len(good)} of {total} authorities that are believed")
    return consensus[: end + 1]


def _descriptors(text: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Server descriptors by their digest: SHA-1 from the first line through the keyword of the
    last signature."""
    for match in _DESCRIPTOR.finditer(text):
        one = match[0]
        if len(one) <= MAX_DESCRIPTOR:
            signed = one[: one.rindex(b"\nrouter-signature\n") + 18]
            yield hashlib.sha1(signed, usedforsecurity=False).digest(), one


def _listed(entry: _Entry, text: bytes) -> ListedRouter | None:
    """None for a descriptor without the keys that circuits need."""
    try:
        found = RelayDescriptor(text, validate=False)
        identity, ntor = (base64.b64decode(key + "=" * (-len(key) % 4))
                          for key in (found.ed25519_master_key, found.ntor_onion_key))
        info = RouterInfo(found.nickname, entry.host, entry.port, entry.fingerprint, identity,
                          ntor)
        accepts = bool(found.exit_policy.is_exiting_allowed())
        return ListedRouter(info, entry.flags, entry.bandwidth, accepts,
                            paid_terms(found.get_unrecognized_lines()))
    except (ValueError, AttributeError, TypeError):
        return None


def choose_hops(status: NetworkStatus, *, paid_only: bool = False) -> list[RouterInfo]:
    """Guard, middle and exit, each drawn by bandwidth times the consensus' weight for its place
    (dir-spec, "Computing Bandwidth Weights"; path-spec).

    `paid_only`: only relays that say how they are paid. Raises DirectoryDocumentError when the
    network has no such three.
    """
    free = [one for one in status.routers if one.paid is not None or not paid_only]
    chosen: list[ListedRouter] = []
    # The exit first: it is the scarcest.
    for place in "egm":
        candidates = [one for one in free if one not in chosen and _fit(one, place)]
        chosen.append(_draw(candidates, [
            one.bandwidth * _weight(status.weights, place, one.flags) for one in candidates]))
    exit_, guard, middle = chosen
    return [guard.info, middle.info, exit_.info]


def _fit(router: ListedRouter, place: str) -> bool:
    if place == "e":
        return ("Exit" in router.flags and "BadExit" not in router.flags
                and router.accepts_streams)
    return place == "m" or "Guard" in router.flags


def _weight(weights: dict[str, int], place: str, flags: frozenset[str]) -> int:
    kind = {(True, True): "d", (True, False): "g", (False, True): "e", (False, False): "m"}[
        "Guard" in flags, "Exit" in flags]
    return weights.get(f"W{place}{kind}", _DEFAULT_WEIGHT)


def _draw(candidates: Sequence[ListedRouter], weights: Sequence[int]) -> ListedRouter:
    if not candidates:
        raise DirectoryDocumentError("the network has too few relays for a circuit")
    if not sum(weights):
        return secrets.choice(candidates)
    at = secrets.randbelow(sum(weights))
    for one, weight in zip(candidates, weights, strict=True):
        at -= weight
        if at < 0:
            return one
    raise AssertionError("the point lies below the sum of the weights")
