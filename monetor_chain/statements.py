# SPDX-License-Identifier: BSD-3-Clause
"""What the ledger and its users must agree on, byte for byte.

Every hash that both a contract and an off-chain party compute is defined here once: contexts and
tags, identifiers, the terms of a nanopayment session, hash-chain checkpoints, wallet locks and
EIP-712 digests. `contracts/` computes the same values in Vyper, and tests compare the two.

The module needs nothing but keccak256. All integers are encoded as 32-byte big-endian words, as
Solidity's and Vyper's ``abi.encode`` do for static types, unless a docstring says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import sha3

GROUP_ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
"""Order r of BLS12-381's groups G1 and G2 (draft-irtf-cfrg-pairing-friendly-curves, 4.2.1)."""

TAG_BITS = 248
"""Tags, channel ids, nonces and wallet locks lie below 2**248, hence below the group order."""

BALANCE_LIMIT = 2**32
"""A hidden balance lies in [0, BALANCE_LIMIT): four range-proof digits of base 256."""

MAX_GROUP_SIZE = 256
CHECKPOINT_STRIDE = 16
"""A hash chain has a checkpoint at every 16th value, so that a claim costs at most 15 hashes."""
MIN_PAYMENTS = 32
MAX_PAYMENTS = 2**18

_MASK_248 = (1 << TAG_BITS) - 1


def keccak256(data: bytes) -> bytes:
    """Keccak-256 as Ethereum uses it (not FIPS-202 SHA3-256)."""
    return sha3.keccak_256(data).digest()  # type: ignore[no-any-return]


def word(value: int) -> bytes:
    """`value` as one ABI word; negative values in two's complement (``int256``)."""
    return value.to_bytes(32, "big", signed=value < 0)


def hash_words(*values: int | bytes) -> bytes:
    """keccak256 of ABI-encoded static words; `bytes` values must be exactly 32 long."""
    parts = []
    for value in values:
        if isinstance(value, bytes):
            if len(value) != 32:
                raise ValueError(f"an ABI word has 32 bytes, this one has {len(value)}")
            parts.append(value)
        else:
            parts.append(word(value))
    return keccak256(b"".join(parts))


def hash_to_248(*values: int | bytes) -> int:
    """`hash_words` reduced mod 2**248."""
    return int.from_bytes(hash_words(*values), "big") & _MASK_248


def address_word(address: str | bytes) -> int:
    """A 20-byte account address, given as 0x-hex or raw bytes, as an ABI word's integer."""
    raw = bytes.fromhex(address.removeprefix("0x")) if isinstance(address, str) else address
    if len(raw) != 20:
        raise ValueError(f"an account address has 20 bytes, this one has {len(raw)}")
    return int.from_bytes(raw, "big")


# --- Pedersen generators -------------------------------------------------------------------------

GENERATOR_DST = b"MONETOR-V1-GENERATORS_BLS12381G1_XMD:SHA-256_SSWU_RO_"
GENERATOR_LABELS = tuple(b"moneTor commitment generator P%d" % i for i in (1, 2, 3))
GENERATORS = tuple(
    (int(x, 16), int(y, 16))
    for x, y in (
        (
            "0ed36d797e1715f158a1dc39f07de94a5483ed33dff5330f5335755667c9d611"
            "f1c0177950c0f6b459c72037838b726d",
            "0a5fa783d8691360a25100e057869a1f1b4f75cb2dbd51b2ee9e1a7ba1a38fe4"
            "e81081c00d5bf6a46e998f620f56498c",
        ),
        (
            "125245dbaae23104345c9d1716e81e2c87efcd055929bc5c37183574fd2f151d"
            "fe1b15838e06ce289102feb3fbf210bb",
            "0220f0ef40ab80d2545d44b689b3e52d5a6be7fa138984cf3a6179ec45f3c40a"
            "fe34ee2c8ce0c6bd2cc0949ec9a9ed6e",
        ),
        (
            "0d2eab45100bb94f5a62d15cf149ec83f40ae93828f4028ae6acbc8bf19f3b47"
            "95121eba4269662356b1af29d1049959",
            "0a66aac6efe4cca39a2cbf9233bb1c712b8d2d6bf88c5f8eb23e13814ffa283a"
            "fed636cd2b24901c8b4386d278b40a24",
        ),
    )
)
"""Affine (x, y) of P1, P2, P3 in G1: RFC 9380 hash-to-curve of GENERATOR_LABELS under
GENERATOR_DST, so nobody knows a relation between them. A test recomputes them."""


# --- Roles, contexts, tags -----------------------------------------------------------------------


class Role(IntEnum):
    """Which kind of end user a channel belongs to."""

    CLIENT = 1
    RELAY = 2


class TokenKind(IntEnum):
    """What a blind signature of the intermediary may be used for."""

    PAYMENT = 1
    REFUND = 2
    CONDITIONAL_REFUND = 3


def key_hash(evm_public_key: bytes, rest_hash: bytes) -> bytes:
    """Identity of an intermediary's registered key.

    `evm_public_key`: X, Y0..Y4 in EIP-2537 encoding, 6 x 128 bytes. `rest_hash`: keccak256 of the
    compressed second part (Y~1..Y~4, digit key, digit tokens), which only users check.
    """
    if len(evm_public_key) != 768:
        raise ValueError(f"an encoded key has 768 bytes, this one has {len(evm_public_key)}")
    return hash_words(keccak256(evm_public_key), rest_hash)


def context(chain_id: int, ledger: str | bytes, key: bytes) -> bytes:
    """ctx = (chain id, ledger address, hash of the intermediary's key), as one 32-byte hash."""
    return hash_words(chain_id, address_word(ledger), key)


def tag(
    kind: TokenKind, role: Role, ctx: bytes, wpk_client: int = 0, payment_deadline: int = 0
) -> int:
    """First message of a token: hash of (kind, role, ctx) mod 2**248.

    A conditional refund token's tag also binds the payer's lock and the payment's deadline T_p
    (Unix seconds); for the other kinds both must stay 0.
    """
    if kind is TokenKind.CONDITIONAL_REFUND:
        return hash_to_248(int(kind), int(role), ctx, wpk_client, payment_deadline)
    if wpk_client or payment_deadline:
        raise ValueError("only a conditional refund token binds a payer's lock and a deadline")
    return hash_to_248(int(kind), int(role), ctx)


def lock_of(secret: bytes) -> int:
    """wpk (or nwpk) = keccak256(wsk) mod 2**248; revealing the 32-byte wsk revokes the wallet."""
    if len(secret) != 32:
        raise ValueError(f"a wallet secret has 32 bytes, this one has {len(secret)}")
    return int.from_bytes(keccak256(secret), "big") & _MASK_248


# --- Channels ------------------------------------------------------------------------------------


def group_id(
    ctx: bytes,
    account: str | bytes,
    intermediary: str | bytes,
    role: Role,
    deposit: int,
    fund: int,
    count: int,
    rho_e: bytes,
    rho_i: bytes,
) -> int:
    """240-bit id of a channel group, computed by the ledger and never reusable."""
    digest = hash_words(
        ctx,
        address_word(account),
        address_word(intermediary),
        int(role),
        deposit,
        fund,
        count,
        rho_e,
        rho_i,
    )
    return int.from_bytes(digest, "big") >> 16


def channel_id(group: int, index: int) -> int:
    """cid = group id * 2**8 + index, below 2**248."""
    if not 0 <= index < MAX_GROUP_SIZE:
        raise ValueError(f"a channel index lies in [0, 256), this one is {index}")
    return group << 8 | index


# --- Nanopayment sessions ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NanoTerms:
    """nT, the public terms of one nanopayment session, the same on both legs.

    Units: delta_c and delta_r in token base units per payment (delta_c = -price), t_exp in Unix
    seconds, epoch the index of the parameter set that the terms follow.
    """

    delta_c: int
    delta_r: int
    n: int
    hc0: bytes
    t_exp: int
    root: bytes
    epoch: int

    @property
    def price(self) -> int:
        """What the client pays per nanopayment, in base units."""
        return -self.delta_c

    def hash(self) -> bytes:
        """hash(nT): keccak256 of the ABI encoding of the struct, in field order."""
        return hash_words(
            self.delta_c, self.delta_r, self.n, self.hc0, self.t_exp, self.root, self.epoch
        )


def checkpoint_leaf(index: int, value: bytes) -> bytes:
    """Leaf of the checkpoint tree: keccak256("leaf" || uint32 index || HC[index])."""
    return keccak256(b"leaf" + index.to_bytes(4, "big") + value)


def checkpoint_node(left: bytes, right: bytes) -> bytes:
    """Inner node of the checkpoint tree; left and right are not sorted, so position counts."""
    return keccak256(left + right)


# --- EIP-712 -------------------------------------------------------------------------------------

EIP712_NAME = "moneTor"
EIP712_VERSION = "1"
_DOMAIN_TYPE = keccak256(
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)

NANO_REFUND_TYPE = (
    b"NanoRefund(bytes32 ctx,uint8 role,bytes32 terms,uint256 nwpk,bytes32 commitment)"
)
CLOSE_TYPE = b"Close(bytes32 ctx,uint256 group,uint256 channels,uint256 total)"
AUTHORISATION_TYPE = (
    b"Authorisation(string action,uint256 id,bytes32 arguments,uint256 notAfter)"
)
VOUCHER_TYPE = (
    b"Voucher(uint256 guardChannel,uint256 seq,uint256 base,uint256 n,bytes32 hc0,bytes32 root,"
    b"uint256 expiry)"
)


def domain_separator(chain_id: int, ledger: str | bytes) -> bytes:
    """EIP-712 domain of the ledger."""
    return hash_words(
        _DOMAIN_TYPE,
        keccak256(EIP712_NAME.encode()),
        keccak256(EIP712_VERSION.encode()),
        chain_id,
        address_word(ledger),
    )


def typed_digest(domain: bytes, struct_hash: bytes) -> bytes:
    """keccak256(0x1901 || domain separator || struct hash), what secp256k1 signs (EIP-712)."""
    return keccak256(b"\x19\x01" + domain + struct_hash)


def nano_refund_struct(
    ctx: bytes, role: Role, terms_hash: bytes, nwpk: int, commitment_hash: bytes
) -> bytes:
    """Struct hash of nrt; `commitment_hash` is keccak256 of N in EIP-2537 encoding (128 bytes)."""
    return hash_words(
        keccak256(NANO_REFUND_TYPE), ctx, int(role), terms_hash, nwpk, commitment_hash
    )


def close_struct(ctx: bytes, group: int, channels: int, total: int) -> bytes:
    """Struct hash of a cooperative close; `channels` is a bitmap, bit i = channel index i."""
    return hash_words(keccak256(CLOSE_TYPE), ctx, group, channels, total)


def authorisation_struct(action: str, identifier: int, arguments: bytes, not_after: int) -> bytes:
    """Struct hash of an end user's authorisation to submit `action` for him.

    `identifier`: group id for open, reclaim and close, channel id for the refunds. `arguments`:
    keccak256 of the ABI words listed with each action in docs/ledger.md (never k, hc or path).
    `not_after`: last Unix second at which the ledger takes it.
    """
    return hash_words(
        keccak256(AUTHORISATION_TYPE),
        keccak256(action.encode()),
        identifier,
        arguments,
        not_after,
    )


def voucher_struct(
    guard_channel: int, seq: int, base: int, n: int, hc0: bytes, root: bytes, expiry: int
) -> bytes:
    """Struct hash of a direct channel's voucher (client to guard)."""
    return hash_words(keccak256(VOUCHER_TYPE), guard_channel, seq, base, n, hc0, root, expiry)
