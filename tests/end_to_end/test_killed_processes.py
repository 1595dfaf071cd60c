# SPDX-License-Identifier: BSD-3-Clause
"""Processes that die by SIGKILL at exact messages, one death after the other, and then settle.

Each death leaves its store behind, with which the party comes up for the next; in the end all
accounts are right to the unit. See dying.py for the moments.
"""

from __future__ import annotations

import signal

import pytest

from tests.end_to_end.file_server import FileServer
from tests.end_to_end.parties import Parties

SIZE = 1024 * 1024
SLOW = 300 * 1024
KILLED = -signal.SIGKILL
PATIENCE = 400
"""Seconds for a party to reach its message, or its end: a client waits for a relay that is gone."""

CLIENT = (
    ("GroupRequest", 1, "before"), ("GroupRequest", 1, "committed"),
    ("GroupRequest", 1, "answered"), ("EstablishRequest", 1, "committed"),
    ("EstablishRequest", 2, "answered"), ("Open", 1, "before"), ("Open", 1, "committed"),
    ("Open", 1, "answered"), ("OpenedRequest", 1, "committed"), ("OpenedRequest", 1, "answered"),
    # Before any session is ready: with one that an earlier process has set up, a circuit is built.
    ("GuardQuery", 1, "committed"), ("OpenGuard", 1, "before"), ("OpenGuard", 1, "committed"),
    ("OpenGuard", 1, "answered"),
    ("NanoSetupRequest", 1, "before"), ("NanoSetupRequest", 1, "committed"),
    ("NanoSetupRequest", 1, "answered"), ("NanoSetupReveal", 1, "before"),
    ("NanoSetupReveal", 1, "committed"), ("NanoSetupReveal", 1, "answered"),
    ("GuardVoucher", 1, "committed"), ("GuardVoucher", 1, "sent"),
    ("NanoOffer", 1, "committed"), ("NanoOffer", 2, "sent"),
    ("NanoPayment", 1, "before"), ("NanoPayment", 3, "committed"), ("NanoPayment", 5, "sent"),
    ("GuardPayment", 2, "before"), ("GuardPayment", 3, "committed"), ("GuardPayment", 4, "sent"),
    ("ClientCloseQuery", 1, "committed"), ("ClientCloseQuery", 1, "answered"),
    ("ClientCloseRequest", 1, "before"), ("ClientCloseRequest", 1, "committed"),
    ("ClientCloseRequest", 1, "answered"), ("ClientCloseReveal", 1, "committed"),
    ("ClientCloseReveal", 1, "answered"),
)
SETTLING = (
    ("CashOutRequest", 1, "committed"), ("CashOutRequest", 1, "answered"),
    ("Close", 1, "committed"), ("Close", 1, "answered"),
    ("RequestCloseGuard", 1, "committed"), ("RequestCloseGuard", 1, "answered"),
)
EXIT = (
    ("NanoEstablishRequest", 1, "before"), ("NanoEstablishRequest", 1, "committed"),
    ("NanoEstablishRequest", 1, "answered"), ("NanoEstablishReveal", 1, "committed"),
    ("NanoEstablishReveal", 1, "answered"), ("NanoAccepted", 1, "committed"),
    ("NanoAccepted", 1, "sent"), ("RelayCloseRequest", 1, "committed"),
    ("RelayCloseRequest", 1, "answered"), ("RelayCloseReveal", 1, "committed"),
    ("RelayCloseReveal", 1, "answered"),
)
INTERMEDIARY = (
    # Of a relay, which opens its channels as soon as it comes up.
    ("EstablishReply", 1, "committed"),
    ("NanoRefundReply", 1, "before"), ("NanoRefundReply", 1, "committed"),
    ("NanoRefundReply", 3, "sent"), ("Acknowledged", 1, "before"),
    ("Acknowledged", 3, "committed"), ("RefundTokenReply", 1, "committed"),
    ("RefundTokenReply", 3, "sent"), ("WalletTokenReply", 1, "before"),
    ("WalletTokenReply", 3, "committed"), ("ClientCloseCount", 1, "committed"),
)


def dies(process, what):
    assert process.end(PATIENCE) == KILLED, f"{what}: {process.said()}"


@pytest.mark.long
def test_a_client_that_dies_at_every_message(tmp_path):
    with FileServer(SIZE, per_second=SLOW) as server, Parties(tmp_path) as parties:
        for what in CLIENT:
            dies(parties.start_client(server.url, dies=what), what)
        client = parties.start_client(server.url)
        assert client.end(PATIENCE) == 0, client.said()
        assert client.facts()[-1]["sha256"] == server.sha256
        for what in SETTLING:
            dies(parties.start_client("--settle", dies=what), what)
        parties.check_accounts(parties.settle())


@pytest.mark.long
def test_a_relay_that_dies_at_every_message(tmp_path):
    with FileServer(SIZE, per_second=SLOW) as server, Parties(tmp_path) as parties:
        for what in EXIT:
            parties.processes["exit"].kill()
            relay = parties.start_relay("exit", dies=what)
            client = parties.start_client(server.url)
            dies(relay, what)
            parties.start_relay("exit")
            # Its download may have broken; then the next one comes.
            client.end(PATIENCE)
        client = parties.start_client(server.url)
        assert client.end(PATIENCE) == 0, client.said()
        parties.check_accounts(parties.settle())


@pytest.mark.long
def test_an_intermediary_that_dies_at_every_message(tmp_path):
    """On a slow clock, so that nobody takes the time that it needs to come back for silence."""
    with FileServer(SIZE, per_second=SLOW) as server, Parties(tmp_path, speed=0.5) as parties:
        for what in INTERMEDIARY:
            parties.processes["intermediary"].kill()
            process = parties.start_intermediary(dies=what)
            client = parties.start_client(server.url)
            dies(process, what)
            parties.start_intermediary()
            # A relay that has not opened its channels yet takes up no session.
            assert client.end(PATIENCE) in (0, 1), f"{what}: {client.said()}"
        client = parties.start_client(server.url)
        assert client.end(PATIENCE) == 0, client.said()
        parties.check_accounts(parties.settle())
