# SPDX-License-Identifier: BSD-3-Clause
"""An end user's signature on a claim that somebody else may submit."""

from __future__ import annotations

from monetor_chain.authorisations import authorise_nano_refund, authorise_refund

from ..crypto.encoding import evm_signature
from ..protocol.ledger import NanoRefund, Refund
from ..protocol.watch_packages import Authorise


def authoriser(account_key: bytes, domain: bytes) -> Authorise:
    """Signs with the 32-byte key of the account that owns the channels, for the ledger of the
    EIP-712 `domain`."""

    def authorise(claim: Refund | NanoRefund, not_after: int) -> bytes:
        if isinstance(claim, Refund):
            return authorise_refund(
                account_key, domain, claim.cid, claim.wpk, claim.balance,
                evm_signature(claim.token), not_after).signature
        return authorise_nano_refund(
            account_key, domain, claim.cid, claim.terms.nano_terms(), claim.nwpk, claim.saturated,
            claim.rho, claim.nrt, not_after).signature

    return authorise
