# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
"""
@title Group arithmetic and Pointcheval-Sanders verification on BLS12-381
@license GNU Affero General Public License v3.0 only
@notice Key in G1, signature in G2 (Pointcheval and Sanders, "Short Randomizable Signatures",
        2016, with the groups exchanged): a signature (s1, s2) over the messages m_i is valid iff
        s1 is not the identity and e(X * prod Y_i^m_i, s1) = e(g1, s2).
        Points are encoded as EIP-2537 says: 128 bytes for G1, 256 for G2.
@custom:security G1ADD does not check that its inputs lie in the prime-order subgroup; here it
        only ever sees points that a multiplication or a registration has checked. A precompile
        which the chain lacks "succeeds" with no output, and one that fails burns all the gas it
        got: hence the length checks and the gas limits of the calls.
"""

from . import refusal

ORDER: constant(uint256) = 52435875175126190479447740508185965837690552500527637822603658699938581184513

_G1ADD: constant(address) = 0x000000000000000000000000000000000000000b
_G1MSM: constant(address) = 0x000000000000000000000000000000000000000C
_PAIRING: constant(address) = 0x000000000000000000000000000000000000000F
_NEGATED_G1: constant(Bytes[128]) = x"0000000000000000000000000000000017f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb00000000000000000000000000000000114d1d6855d545a8aa7d76c8cf2e21f267816aef1db507c96655b9d5caac42364e6f38ba0ecb751bad54dcd6b939c2ca"
# Nothing-up-my-sleeve generators of the commitments: hash-to-curve (RFC 9380) of the labels
# "moneTor commitment generator P1" to "... P3".
_P1: constant(Bytes[128]) = x"000000000000000000000000000000000ed36d797e1715f158a1dc39f07de94a5483ed33dff5330f5335755667c9d611f1c0177950c0f6b459c72037838b726d000000000000000000000000000000000a5fa783d8691360a25100e057869a1f1b4f75cb2dbd51b2ee9e1a7ba1a38fe4e81081c00d5bf6a46e998f620f56498c"
_P2: constant(Bytes[128]) = x"00000000000000000000000000000000125245dbaae23104345c9d1716e81e2c87efcd055929bc5c37183574fd2f151dfe1b15838e06ce289102feb3fbf210bb000000000000000000000000000000000220f0ef40ab80d2545d44b689b3e52d5a6be7fa138984cf3a6179ec45f3c40afe34ee2c8ce0c6bd2cc0949ec9a9ed6e"
_P3: constant(Bytes[128]) = x"000000000000000000000000000000000d2eab45100bb94f5a62d15cf149ec83f40ae93828f4028ae6acbc8bf19f3b4795121eba4269662356b1af29d1049959000000000000000000000000000000000a66aac6efe4cca39a2cbf9233bb1c712b8d2d6bf88c5f8eb23e13814ffa283afed636cd2b24901c8b4386d278b40a24"

_KEY_LENGTH: constant(uint256) = 768
_TOKEN_LENGTH: constant(uint256) = 512
# keccak256 of 128 and of 256 zero bytes, the encodings of the identities of G1 and G2.
_IDENTITY_G1: constant(bytes32) = keccak256(x"0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000")
_IDENTITY_G2: constant(bytes32) = 0xd397b3b043d87fcd6fad1291ff0bfd16401c274896d8c63a923727f077b8e0b5

# EIP-2537 prices: multiplication of k terms 12,000 k times a discount (4 terms 38,256), addition 375, two pairings 102,900. The limits leave a margin for repricing.
_MSM_GAS: constant(uint256) = 60_000
_ADD_GAS: constant(uint256) = 1_000
_PAIRING_GAS: constant(uint256) = 150_000


@internal
@view
def _multiply(terms: Bytes[640]) -> Bytes[128]:
    """
    @notice Multi-scalar multiplication in G1 with subgroup checks.
    @param terms Up to four pairs of a point (128 bytes) and a scalar (32 bytes).
    @return The encoded sum.
    """
    success: bool = False
    result: Bytes[128] = b""
    success, result = raw_call(
        _G1MSM,
        terms,
        max_outsize=128,
        gas=_MSM_GAS,
        is_static_call=True,
        revert_on_failure=False,
    )
    refusal._unless(success, "ps_verifier: invalid point")
    refusal._unless(len(result) == 128, "ps_verifier: EIP-2537 missing")
    return result


@internal
@view
def _check_key(public_key: Bytes[768]):
    """
    @notice Reverts unless X, Y0..Y4 are canonical encodings of points of the subgroup, none
            of them the identity.
    """
    refusal._unless(len(public_key) == _KEY_LENGTH, "ps_verifier: key length")
    for i: uint256 in range(6):
        point: Bytes[128] = slice(public_key, 128 * i, 128)
        refusal._unless(keccak256(point) != _IDENTITY_G1, "ps_verifier: identity")
        self._multiply(concat(point, convert(1, bytes32)))


@internal
@view
def _is_token(
    public_key: Bytes[768],
    tag: uint256,
    cid: uint256,
    wpk: uint256,
    balance: uint256,
    token: Bytes[512],
) -> bool:
    """
    @notice Whether `token` is a signature over (tag, cid, 0, wpk, balance) under `public_key`,
            which must be registered. Refund tokens carry the nonce 0, so Y2 drops out.
    """
    if len(public_key) != _KEY_LENGTH or len(token) != _TOKEN_LENGTH:
        return False
    # The precompile reduces scalars silently: two numbers would stand for one message.
    if max(max(tag, cid), max(wpk, balance)) >= ORDER:
        return False
    s1: Bytes[256] = slice(token, 0, 256)
    # Byte strings of different declared lengths compare by content and length: only hashes
    # tell the identity apart. Without this line the all-zero token verifies.
    if keccak256(s1) == _IDENTITY_G2:
        return False

    success: bool = False
    attributes: Bytes[128] = self._multiply(
        concat(
            slice(public_key, 128, 128),
            convert(tag, bytes32),
            slice(public_key, 256, 128),
            convert(cid, bytes32),
            slice(public_key, 512, 128),
            convert(wpk, bytes32),
            slice(public_key, 640, 128),
            convert(balance, bytes32),
        )
    )
    message: Bytes[128] = b""
    success, message = raw_call(
        _G1ADD,
        concat(slice(public_key, 0, 128), attributes),
        max_outsize=128,
        gas=_ADD_GAS,
        is_static_call=True,
        revert_on_failure=False,
    )
    if not success or len(message) != 128:
        return False
    verdict: Bytes[32] = b""
    success, verdict = raw_call(
        _PAIRING,
        concat(message, s1, _NEGATED_G1, slice(token, 256, 256)),
        max_outsize=32,
        gas=_PAIRING_GAS,
        is_static_call=True,
        revert_on_failure=False,
    )
    return success and len(verdict) == 32 and convert(verdict, uint256) == 1


@internal
@view
def _commitment(cid: uint256, balance: uint256, rho: uint256) -> bytes32:
    """
    @notice keccak256 of the encoding of P1^cid P2^balance P3^rho. The caller bounds the scalars.
    """
    return keccak256(
        self._multiply(
            concat(
                _P1,
                convert(cid, bytes32),
                _P2,
                convert(balance, bytes32),
                _P3,
                convert(rho, bytes32),
            )
        )
    )
