# SPDX-License-Identifier: BSD-3-Clause
"""The handshake with which two routers start to speak on a TLS link (tor-spec, "Negotiating and
initializing channels").

VERSIONS both ways; the responder proves its identity (CERTS), challenges (AUTH_CHALLENGE) and
closes with NETINFO; the initiator answers with NETINFO. A client says no more than that; a router
that opens a link says before it, by CERTS and AUTHENTICATE, who it is, without which a stock relay
takes it for a client.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import struct
from dataclasses import dataclass

from .authenticate import (
    AUTH_ED25519_SHA256_RFC5705,
    Binding,
    LinkFacts,
    check_authenticate,
    encode_authenticate,
)
from .cell import CellParser, Cells, Command, encode_fixed, encode_variable
from .certificates import (
    ProvenIdentity,
    check_initiator,
    check_responder,
    initiator_certs,
    responder_certs,
)
from .errors import DestroyReason, ProtocolViolation
from .extend import LinkTarget
from .identity import RouterIdentity

LINK_VERSIONS = (4, 5)
_CHALLENGE_LEN = 32
_MAX_IGNORED = 32
"""How many padding cells a handshake tolerates."""


def encode_versions(versions: tuple[int, ...] = LINK_VERSIONS) -> bytes:
    """The VERSIONS cell that opens a link."""
    return encode_variable(0, Command.VERSIONS, struct.pack(f">{len(versions)}H", *versions),
                           id_len=2)


def choose_version(body: bytes) -> int:
    """The highest link version that both sides speak, from the peer's VERSIONS body."""
    if len(body) % 2:
        raise ProtocolViolation("VERSIONS has an odd length")
    offered: tuple[int, ...] = struct.unpack(f">{len(body) // 2}H", body)
    common = set(offered) & set(LINK_VERSIONS)
    if not common:
        raise ProtocolViolation("no link version in common")
    return max(common)


def encode_netinfo(peer: str, own: str, timestamp: int) -> bytes:
    """Body of NETINFO: a time (0 from a client, which must not tell its clock), the peer's address
    as seen from here and our own; an empty `own` tells none."""

    def address(text: str) -> bytes:
        packed = ipaddress.ip_address(text).packed
        return bytes([4 if len(packed) == 4 else 6, len(packed)]) + packed

    mine = b"\1" + address(own) if own else b"\0"
    return struct.pack(">I", timestamp) + address(peer) + mine


def check_netinfo(body: bytes) -> None:
    """Raise ProtocolViolation for a NETINFO that cannot be read. Nothing in it is believed."""
    at = 4
    if len(body) < at + 2:
        raise ProtocolViolation("NETINFO is cut short")
    at += 2 + body[at + 1]
    if len(body) <= at:
        raise ProtocolViolation("NETINFO is cut short")
    count, at = body[at], at + 1
    for _ in range(count):
        if len(body) < at + 2 or len(body) < at + 2 + body[at + 1]:
            raise ProtocolViolation("NETINFO is cut short")
        at += 2 + body[at + 1]


def decode_auth_challenge(body: bytes) -> tuple[int, ...]:
    """The methods that an AUTH_CHALLENGE offers. Raises ProtocolViolation when malformed."""
    if len(body) < _CHALLENGE_LEN + 2:
        raise ProtocolViolation("AUTH_CHALLENGE is cut short")
    (count,) = struct.unpack_from(">H", body, _CHALLENGE_LEN)
    if len(body) < _CHALLENGE_LEN + 2 + 2 * count:
        raise ProtocolViolation("AUTH_CHALLENGE is cut short")
    methods: tuple[int, ...] = struct.unpack_from(f">{count}H", body, _CHALLENGE_LEN + 2)
    return methods


@dataclass(frozen=True, slots=True)
class Initiating:
    """We opened the link, to `target`. `tls_cert` is what TLS saw of the peer (DER).

    A router names its own identity, and what binds its signature to the TLS session; a client has
    neither to tell.
    """

    target: LinkTarget
    tls_cert: bytes
    identity: RouterIdentity | None = None
    binding: Binding | None = None


@dataclass(frozen=True, slots=True)
class Responding:
    """We accepted the link and say who we are. Without `binding` nobody can authenticate to us."""

    identity: RouterIdentity
    binding: Binding | None = None


class LinkHandshake:
    """One side of the handshake. `step` eats cells and returns bytes for the peer."""

    def __init__(self, role: Initiating | Responding, *, now: float, peer_host: str = "127.0.0.1",
                 own_host: str = "") -> None:
        """`now`: seconds since the epoch, for the certificates; the hosts are for NETINFO."""
        self._role = role
        self._now = now
        self._peer_host = peer_host
        self._own_host = own_host
        self._version = 0
        self._expected = [Command.VERSIONS]
        self._ignored = 0
        self._sent = hashlib.sha256()
        self._received = hashlib.sha256()
        self._responder_log = self._initiator_log = b""
        self._claimed: tuple[ProvenIdentity, bytes] | None = None
        self.peer: ProvenIdentity | None = None
        self.done = False

    @property
    def version(self) -> int:
        """The negotiated link protocol version, 0 before that."""
        return self._version

    def start(self) -> bytes:
        """What the initiator says first; a responder waits."""
        return self._say(encode_versions()) if isinstance(self._role, Initiating) else b""

    def step(self, parser: CellParser) -> bytes:
        """Eat what `parser` has until the handshake is done or more bytes are needed.

        Raises ProtocolViolation; the link is then to be closed without an answer.
        """
        parser.transcript = self._received
        out = b""
        while not self.done:
            cell = parser.next_cell()
            if cell is None:
                break
            out += self._take(cell, parser)
        if self.done:
            parser.transcript = None
        return out

    def _say(self, data: bytes) -> bytes:
        self._sent.update(data)
        return data

    def _take(self, cell: Cells, parser: CellParser) -> bytes:
        if cell.command in (Command.VPADDING, Command.PADDING) and self._version:
            self._ignored += 1
            if self._ignored > _MAX_IGNORED:
                raise ProtocolViolation("too much padding in a handshake")
            return b""
        if cell.circ_id or cell.command not in self._expected:
            raise ProtocolViolation(f"cell {cell.command} does not belong into a handshake")
        if cell.command == Command.VERSIONS:
            self._version = choose_version(cell.body)
            parser.id_len = 4
            return self._after_versions()
        if isinstance(self._role, Initiating):
            return self._initiator(cell, self._role)
        self._responder(cell, self._role)
        return b""

    def _after_versions(self) -> bytes:
        role = self._role
        if isinstance(role, Initiating):
            self._expected = [Command.CERTS]
            return b""
        self._expected = [Command.CERTS, Command.NETINFO]
        challenge = (secrets.token_bytes(_CHALLENGE_LEN)
                     + struct.pack(">HH", 1, AUTH_ED25519_SHA256_RFC5705))
        first = self._say(
            encode_versions()
            + encode_variable(0, Command.CERTS, responder_certs(role.identity, self._now))
            + encode_variable(0, Command.AUTH_CHALLENGE, challenge))
        self._responder_log = self._sent.digest()
        return first + self._netinfo(int(self._now))

    def _netinfo(self, timestamp: int) -> bytes:
        return self._say(encode_fixed(0, Command.NETINFO, encode_netinfo(
            self._peer_host, self._own_host, timestamp)))

    def _responder(self, cell: Cells, role: Responding) -> None:
        if cell.command == Command.NETINFO:
            check_netinfo(cell.body)
            self.done = True
        elif cell.command == Command.CERTS:
            self._claimed = check_initiator(cell.body, self._now)
            self._initiator_log = self._received.digest()
            # Who shows certificates and proves nothing stays a client.
            self._expected = [Command.AUTHENTICATE, Command.NETINFO]
        else:
            assert self._claimed is not None, "AUTHENTICATE is expected only after CERTS"
            if role.binding is None:
                raise ProtocolViolation("AUTHENTICATE on a link that it cannot be bound to")
            peer, key = self._claimed
            own = ProvenIdentity.of(role.identity.rsa.public_key(), role.identity.ed25519_identity)
            check_authenticate(cell.body, LinkFacts(
                peer, own, self._responder_log, self._initiator_log, role.identity.link_cert,
                role.binding), key)
            self.peer = peer
            self._expected = [Command.NETINFO]

    def _initiator(self, cell: Cells, role: Initiating) -> bytes:
        if cell.command == Command.CERTS:
            self.peer = check_responder(cell.body, role.tls_cert, self._now)
            check_target(self.peer, role.target)
            self._expected = [Command.AUTH_CHALLENGE, Command.NETINFO]
            return b""
        if cell.command == Command.AUTH_CHALLENGE:
            methods = decode_auth_challenge(cell.body)
            self._expected = [Command.NETINFO]
            if role.identity is not None and AUTH_ED25519_SHA256_RFC5705 in methods:
                return self._authenticate(role, role.identity)
            return b""
        check_netinfo(cell.body)
        self.done = True
        # A client does not tell its clock: how far it is off would make it known again.
        return self._netinfo(0 if role.identity is None else int(self._now))

    def _authenticate(self, role: Initiating, identity: RouterIdentity) -> bytes:
        assert self.peer is not None, "the responder's certificates come first"
        if role.binding is None:
            raise ValueError("a router cannot authenticate without the link's binding")
        responder_log = self._received.digest()
        own = ProvenIdentity.of(identity.rsa.public_key(), identity.ed25519_identity)
        certs = self._say(encode_variable(0, Command.CERTS, initiator_certs(identity, self._now)))
        facts = LinkFacts(own, self.peer, responder_log, self._sent.digest(), role.tls_cert,
                          role.binding)
        return certs + self._say(encode_variable(
            0, Command.AUTHENTICATE, encode_authenticate(facts, identity.link_auth)))


def check_target(peer: ProvenIdentity, target: LinkTarget) -> None:
    """Raise ProtocolViolation (OR_IDENTITY) when the peer is not the one that was called."""
    wrong_ed25519 = (target.ed25519_identity
                     and target.ed25519_identity != peer.ed25519_identity)
    if target.rsa_fingerprint != peer.rsa_fingerprint or wrong_ed25519:
        raise ProtocolViolation("another router answered", DestroyReason.OR_IDENTITY)
