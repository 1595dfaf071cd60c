# SPDX-License-Identifier: BSD-3-Clause
"""An intermediary that keeps no rule: it signs whatever it is asked for, or refuses it.

It has the keys, remembers what it was shown, and checks nothing. Its answers are valid where the
honest party checks them, for else that party would take them for none.
"""

from __future__ import annotations

from typing import Any

from monetor_chain.statements import Role, TokenKind, tag
from offchain.crypto.ecdsa import sign
from offchain.protocol import answering, cash_out, messages as m, sessions
from offchain.protocol.errors import RefusalCode


class Lawless:
    """The answers of a dishonest intermediary with the keys of `me`."""

    def __init__(self, me: answering.Intermediary) -> None:
        self._me = me
        self._shown: dict[object, Any] = {}
        """Nonce or (hash(nT), role) → the latest request that showed points to be signed."""

    def _token(self, point: bytes, kind: TokenKind, role: Role, *bound: int) -> bytes:
        me = self._me
        return me.issuer.blind_sign(point, tag=tag(kind, role, me.ctx, *bound))

    def _refund(self, point: bytes, role: Role) -> m.RefundTokenReply:
        return m.RefundTokenReply(self._token(point, TokenKind.REFUND, role))

    def _wallet(self, key: object, role: Role) -> m.WalletTokenReply:
        return m.WalletTokenReply(self._token(self._shown[key].d_pt, TokenKind.PAYMENT, role))

    def _nrt(self, role: Role, terms_hash: bytes, asked: Any) -> m.NanoRefundReply:
        me = self._me
        return m.NanoRefundReply(sessions.sign_nano_refund(
            me.signing_key, me.domain, me.ctx, role, terms_hash, asked.nwpk, asked.commitment))

    @staticmethod
    def refusal(asked: Any, code: RefusalCode) -> m.Refusal:
        """No, for a reason of its choice."""
        return m.Refusal(code, asked.PCMD & 0xFF)

    def answer(self, asked: Any) -> Any:
        """What the request asks for."""
        match asked:
            case m.NanoSetupRequest():
                return self._nrt(Role.CLIENT, asked.terms.nano_terms().hash(), asked)
            case m.NanoEstablishRequest():
                return self._nrt(Role.RELAY, asked.terms_hash, asked)
            case m.NanoSetupReveal() | m.NanoEstablishReveal():
                return m.Acknowledged()
            case m.RelayCloseRequest():
                self._shown[asked.terms_hash, Role.RELAY] = asked
                return self._refund(asked.d_rt, Role.RELAY)
            case m.ClientCloseRequest():
                self._shown[asked.terms_hash, Role.CLIENT] = asked
                return self._refund(asked.d_rt, Role.CLIENT)
            case m.RelayCloseReveal():
                return self._wallet((asked.terms_hash, Role.RELAY), Role.RELAY)
            case m.ClientCloseReveal():
                return self._wallet((asked.terms_hash, Role.CLIENT), Role.CLIENT)
            case m.PayerRequest() | m.PayeeVoid():
                self._shown[asked.nonce] = asked
                return self._refund(asked.d_rt, Role.CLIENT)
            case m.PayeeRequest():
                self._shown[asked.nonce] = asked
                return m.RefundTokenReply(self._token(
                    asked.d_rt, TokenKind.CONDITIONAL_REFUND, Role.CLIENT, asked.wpk_c, asked.t_p))
            case m.PayeeClaim():
                return self._refund(self._shown[asked.nonce].d_rt, Role.CLIENT)
            case m.PayerReveal() | m.PayeeReveal():
                return self._wallet(asked.nonce, Role.CLIENT)
            case m.CashOutRequest():
                return self._close(asked)
        raise AssertionError(f"nobody honest asks for a {type(asked).__name__}")

    def _close(self, asked: m.CashOutRequest) -> m.CashOutReply:
        me = self._me
        channels = sum(1 << one.index for one in asked.wallets)
        total = sum(one.balance for one in asked.wallets)
        return m.CashOutReply(sign(cash_out._digest(
            me.domain, me.ctx, asked.group, channels, total), me.signing_key))
