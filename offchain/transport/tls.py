# SPDX-License-Identifier: BSD-3-Clause
"""TLS for links, in memory: ciphertext in, plaintext out, and back.

pyOpenSSL rather than the standard library's ssl, because authenticating a relay that opened a link
needs keying material exported from the session (tor-spec, AUTHENTICATE), which ssl does not offer.
Certificates are not checked here: the CERTS cell does that, against the one that TLS has seen.
"""

from __future__ import annotations

import contextlib

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate
from OpenSSL import SSL

from .authenticate import EXPORTED_LEN, EXPORTER_LABEL
from .errors import LinkFailed
from .identity import RouterIdentity

_READ_BYTES = 64 * 1024
_BIO_BYTES = 256 * 1024


def client_context() -> SSL.Context:
    """For links that we open. No client certificate: the link handshake is Tor's business."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_verify(SSL.VERIFY_NONE)
    # Resuming a session would let a relay link two connections of a client (tor-spec).
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION)
    return context


def server_context(identity: RouterIdentity) -> SSL.Context:
    """For links that a router accepts, with its link certificate."""
    context = client_context()
    context.use_privatekey(identity.link_key)
    context.use_certificate(load_der_x509_certificate(identity.link_cert))
    return context


class TlsSession:
    """One TLS connection over memory buffers. Not thread-safe, as pyOpenSSL is not."""

    def __init__(self, context: SSL.Context, *, server: bool) -> None:
        self._connection = SSL.Connection(context, None)
        if server:
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()
        self.established = False
        self.peer_finished = False

    def start(self) -> None:
        """Begin the handshake; what there is to send is in `output`."""
        self._shake()

    def _shake(self) -> None:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return
        except SSL.Error as error:
            raise LinkFailed(f"TLS handshake failed: {error}") from error
        self.established = True

    def feed(self, ciphertext: bytes) -> bytes:
        """Take in bytes from the socket; returns what they decrypt to.

        Raises LinkFailed when the peer does not speak TLS properly.
        """
        connection = self._connection
        at = 0
        while at < len(ciphertext):
            at += connection.bio_write(ciphertext[at:] if at else ciphertext)
        if not self.established:
            self._shake()
            if not self.established:
                return b""
        parts: list[bytes] = []
        try:
            while True:
                parts.append(connection.recv(_READ_BYTES))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.peer_finished = True
        except SSL.Error as error:
            raise LinkFailed(f"TLS failed: {error}") from error
        return b"".join(parts)

    def write(self, plaintext: bytes) -> None:
        """Encrypt; the result is in `output`."""
        at = 0
        view = memoryview(plaintext)
        try:
            while at < len(plaintext):
                at += self._connection.send(view[at:])
        except SSL.Error as error:
            raise LinkFailed(f"TLS failed: {error}") from error

    def finish(self) -> None:
        """Say close_notify, if the connection is far enough for that."""
        with contextlib.suppress(SSL.Error):  # a broken session has nothing to close
            self._connection.shutdown()

    def output(self) -> bytes:
        """Ciphertext for the socket, b"" if there is none."""
        parts: list[bytes] = []
        try:
            while True:
                parts.append(self._connection.bio_read(_BIO_BYTES))
                if len(parts[-1]) < _BIO_BYTES:
                    break
        except SSL.WantReadError:
            pass
        return b"".join(parts)

    def peer_certificate(self) -> bytes:
        """The peer's certificate, DER. Raises LinkFailed when it has shown none."""
        certificate = self._connection.get_peer_certificate()
        if certificate is None:
            raise LinkFailed("the peer showed no certificate")
        return certificate.to_cryptography().public_bytes(Encoding.DER)

    def binding(self, context: bytes) -> bytes:
        """Keying material of this session for `context`, to bind an AUTHENTICATE to it."""
        material: bytes = self._connection.export_keying_material(
            EXPORTER_LABEL, EXPORTED_LEN, context)
        return material
