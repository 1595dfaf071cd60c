# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
"""
@title Signed statements
@license GNU Affero General Public License v3.0 only
@notice EIP-712 digests of everything that somebody signs for the ledger, and the check of a
        secp256k1 signature against the account that must have made it.
"""

from . import refusal

struct Authorisation:
    not_after: uint256
    signature: Bytes[65]


# Half of the order of secp256k1: of the two signatures (r, s), (r, -s) only the lower is taken.
_HALF_ORDER: constant(uint256) = (
    57_896_044_618_658_097_711_785_492_504_343_953_926_418_782_139_537_452_191_302_581_570_759_080_747_168
)
_DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
_NAME: constant(bytes32) = keccak256("moneTor")
_VERSION: constant(bytes32) = keccak256("1")
_NANO_REFUND_TYPE: constant(bytes32) = keccak256(
    "NanoRefund(bytes32 ctx,uint8 role,bytes32 terms,uint256 nwpk,bytes32 commitment)"
)
_CLOSE_TYPE: constant(bytes32) = keccak256(
    "Close(bytes32 ctx,uint256 group,uint256 channels,uint256 total)"
)
_AUTHORISATION_TYPE: constant(bytes32) = keccak256(
    "Authorisation(string action,uint256 id,bytes32 arguments,uint256 notAfter)"
)
_VOUCHER_TYPE: constant(bytes32) = keccak256(
    "Voucher(uint256 guardChannel,uint256 seq,uint256 base,uint256 n,bytes32 hc0,bytes32 root,uint256 expiry)"
)


@internal
@view
def _check(struct_hash: bytes32, signature: Bytes[65], signer: address):
    """
    @notice Reverts unless `signer` signed the typed data with this struct hash for this ledger
            on this chain: 65 bytes r || s || v, v 27 or 28, s in the lower half.
    @dev The domain is computed anew, so that it follows the chain id through a fork.
    """
    recovered: address = empty(address)
    if len(signature) == 65:
        v: uint256 = convert(slice(signature, 64, 1), uint256)
        s: uint256 = extract32(signature, 32, output_type=uint256)
        if (v == 27 or v == 28) and s <= _HALF_ORDER:
            domain: bytes32 = keccak256(
                abi_encode(_DOMAIN_TYPE, _NAME, _VERSION, chain.id, self)
            )
            recovered = ecrecover(
                keccak256(concat(x"1901", domain, struct_hash)),
                v,
                extract32(signature, 0, output_type=uint256),
                s,
            )
    # A failed recovery yields the zero address, which must never pass for a signer.
    refusal._unless(
        recovered != empty(address) and recovered == signer,
        "authorisation: signature",
    )


@internal
@view
def _demand(
    account: address,
    action: bytes32,
    identifier: uint256,
    arguments: bytes32,
    authorisation: Authorisation,
):
    """
    @notice Reverts unless `account` itself calls or has signed this very call.
    @param action keccak256 of the function's name.
    @param arguments keccak256 of the call's arguments that must not be changed.
    """
    if msg.sender == account:
        return
    refusal._unless(block.timestamp <= authorisation.not_after, "authorisation: expired")
    self._check(
        keccak256(
            abi_encode(
                _AUTHORISATION_TYPE, action, identifier, arguments, authorisation.not_after
            )
        ),
        authorisation.signature,
        account,
    )


@internal
@pure
def _nano_refund(
    ctx: bytes32, role: uint256, terms_hash: bytes32, nwpk: uint256, commitment: bytes32
) -> bytes32:
    """
    @notice Struct hash of the statement by which an intermediary owes a session's outcome.
    """
    return keccak256(
        abi_encode(_NANO_REFUND_TYPE, ctx, role, terms_hash, nwpk, commitment)
    )


@internal
@pure
def _close(ctx: bytes32, group: uint256, channels: uint256, total: uint256) -> bytes32:
    """
    @notice Struct hash of a cooperative close.
    """
    return keccak256(abi_encode(_CLOSE_TYPE, ctx, group, channels, total))


@internal
@pure
def _voucher(
    gid: uint256,
    seq: uint256,
    base: uint256,
    n: uint256,
    hc0: bytes32,
    root: bytes32,
    expiry: uint256,
) -> bytes32:
    """
    @notice Struct hash of a guard channel's voucher.
    """
    return keccak256(abi_encode(_VOUCHER_TYPE, gid, seq, base, n, hc0, root, expiry))
