# SPDX-License-Identifier: BSD-3-Clause
"""Rules of the protocol that a model can leave out, one at a time.

Each is a flag of a model, in test code only. With a flag the checker must find who loses; without
any it must find nobody.
"""

from __future__ import annotations

from enum import StrEnum


class Weak(StrEnum):
    """One rule left out."""

    # --- The intermediary's, in sessions
    CLOSE_ORDER = "the client's leg closes before the relay's"
    K_UNCHECKED = "a relay's count is taken without proof"
    SECOND_CLOSE = "a second close with new requests is answered"
    K_IN_KEY = "the reply to a close belongs to its count as well"
    POSTED_SETUP = "NanoSetupReveal of a wallet that is on the ledger is answered"
    POSTED_ESTABLISH = "NanoEstablishReveal of a wallet that is on the ledger is answered"
    POSTED_CLOSE_R = "RelayCloseReveal of a leg that is on the ledger is answered"
    POSTED_CLOSE_C = "ClientCloseReveal of a leg that is on the ledger is answered"
    RELAY_NOT_REVOKED = "the relay's old wallet is not revoked"
    NRT_WITHOUT_STATE = "nrt_R is signed while the session stays set up"
    CLOSING_AS_CLOSED = "relay closing is taken for relay closed"
    LATE_ESTABLISH = "a relay joins after T_exp - margin"
    LATE_RELAY_CLOSE = "a relay closes late at a count that is not on the ledger"
    CLOSE_FROM_SETTING_UP = "the client closes a session whose old wallet is not revoked"
    WALL_CLOCK = "T_exp passes by the clock and not by a confirmed block"
    REVEALED_BEFORE_SETUP = "terms whose payments are on the ledger already are set up"
    DIFFERENT_WPK = "the two requests of a close name different locks"
    NWPK_UNBOUND = "nrt does not bind nwpk"
    NO_RANGE = "the balance after n payments may be negative"
    # --- The ledger's
    NO_T_EXP = "the ledger takes a relay's count after T_exp"
    NO_CLIENT_DELAY = "a client's dispute window opens before T_exp"
    OWN_CLOSE = "the intermediary may claim for the end user"
    GROUP_CLOSE_RESOLVED = "a group close covers a channel that is paid out"
    ONE_DEADLINE = "a claim that answers a notice is resolved at the notice's deadline"
    POSITION = "a checkpoint proves any position"
    # --- The end users'
    ANY_COUNT = "the client takes a count that it did not send"
    NO_REVEAL = "the relay does not reveal before T_exp"
    LATE_PAYMENT = "the relay counts payments until it closes, however late"
    EARLY_SECRET = "an old secret leaves with the request that replaces its wallet"
    # --- In hidden payments
    POSTED_PAY_JOIN = "PayerRequest of a wallet that is on the ledger is joined"
    POSTED_PAYEE_JOIN = "PayeeRequest of a wallet that is on the ledger is joined"
    POSTED_PAY_CLAIM = "PayeeClaim is answered though the payer's wallet is on the ledger"
    POSTED_PAYER_REVEAL = "PayerReveal of a wallet that is on the ledger is answered"
    POSTED_PAYEE_REVEAL = "PayeeReveal of a wallet that is on the ledger is answered"
    T_P_TOO_LATE = "T_p is later than a dispute window from the reading of the locks"
    UNCONDITIONAL_CRT = "the payee gets an ordinary refund token at once"
    SAME_WALLET = "one wallet may stand on both legs"
    NO_CRT_VERIFIED = "the payer does not wait for the payee's word"
    NEGATIVE_AMOUNT = "the hidden amount may be negative"
    VOID_BY_CLOCK = "T_p passes by the clock and not by a confirmed block"
    VOID_AFTER_SECRET = "a payment whose secret is known is voided"
    LATE_SECRET = "the payee counts a secret that comes after T_p - margin"
    NO_CRT_CLAIM = "the payee does not post its conditional token before T_p"
