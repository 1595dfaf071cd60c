# SPDX-License-Identifier: BSD-3-Clause
"""The contracts on a chain of their own, with everything needed to play every role.

For gas measurement and for tests of the contracts. Nothing here is a model: the chain is py-evm or
anvil, signatures are real, and the accounts' keys, which are eth-tester's well-known ones, sign
real transactions. Accounts are named by their roles.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, cast

import coincurve
import py_arkworks_bls12381 as ark
from web3.contract import Contract
from web3.types import TxReceipt

from . import statements
from .accounts import address_of
from .compiler import compile_contract
from .errors import TransactionReverted
from .parameters import DEMO, TAX_RATE_BP, NetworkParameters
from .rehearsal_chain import KEYS, InProcessChain, RehearsalChain
from .statements import CHECKPOINT_STRIDE, GROUP_ORDER, NanoTerms, Role, TokenKind

ROLES = (
    "deployer",
    "intermediary",
    "client",
    "relay",
    "watcher",
    "guard",
    "authority_1",
    "authority_2",
    "authority_3",
    "stranger",
)
NOBODY = "0x" + "0" * 40
"""The zero address: the issuer of a token that wraps the native coin."""
CLAIM_EPOCHS = 5
"""For how many epochs tax can be claimed here; few, so that tests need not go far."""
CALL_GAS = 5_000_000
"""Gas given to every call, so that nothing is estimated (an estimate repeats the pairing)."""


@dataclass(frozen=True, slots=True)
class Party:
    """An account whose key this process holds."""

    name: str
    address: str
    private_key: bytes

    def sign(self, digest: bytes) -> bytes:
        """secp256k1 signature r || s || v on a 32-byte digest, s in the lower half."""
        raw = coincurve.PrivateKey(self.private_key).sign_recoverable(digest, hasher=None)
        return raw[:64] + bytes([27 + raw[64]])


class TokenIssuer:
    """The signing half of an intermediary's Pointcheval-Sanders key, in arkworks.

    Issues tokens in clear; blind issuing is the business of the off-chain code.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._x, *self._y = [self._scalar() for _ in range(6)]
        base = ark.G1Point()
        self.points = [base * ark.Scalar(value) for value in (self._x, *self._y)]
        self.rest_hash = statements.keccak256(b"rest of the key %d" % seed)

    def _scalar(self) -> int:
        return self._random.randrange(1, GROUP_ORDER)

    @cached_property
    def public_key(self) -> bytes:
        """X, Y0..Y4 in EIP-2537 encoding."""
        return b"".join(map(encode_g1, self.points))

    @property
    def key_hash(self) -> bytes:
        """What the ledger knows the key by."""
        return statements.key_hash(self.public_key, self.rest_hash)

    def sign(self, tag: int, cid: int, wpk: int, balance: int, nonce: int = 0) -> bytes:
        """A fresh token over (tag, cid, nonce, wpk, balance) in EIP-2537 encoding, 512 bytes."""
        messages = (tag, cid, nonce, wpk, balance)
        exponent = self._x + sum(y * m for y, m in zip(self._y, messages, strict=True))
        first = ark.G2Point() * ark.Scalar(self._scalar())
        second = first * ark.Scalar(exponent % GROUP_ORDER)
        return encode_g2(first) + encode_g2(second)


def encode_g1(point: ark.G1Point) -> bytes:
    """EIP-2537 encoding of a point of G1 other than the identity."""
    raw = bytes(point.to_xy_bytes_be())
    return b"".join(bytes(16) + raw[i : i + 48] for i in (0, 48))


def encode_g2(point: ark.G2Point) -> bytes:
    """EIP-2537 encoding of a point of G2 other than the identity."""
    raw = bytes(point.to_xy_bytes_be())
    return b"".join(bytes(16) + raw[i : i + 48] for i in (0, 48, 96, 144))


def commitment(cid: int, balance: int, rho: int) -> bytes:
    """N = P1^cid P2^balance P3^rho in EIP-2537 encoding."""
    points = [
        ark.G1Point.from_xy_bytes_be(x.to_bytes(48, "big") + y.to_bytes(48, "big"))
        for x, y in statements.GENERATORS
    ]
    terms = zip(points, (cid, balance, rho), strict=True)
    first, second, third = (point * ark.Scalar(value % GROUP_ORDER) for point, value in terms)
    return encode_g1(first + second + third)


class PaymentChain:
    """A hash chain of `n` payments with its checkpoint tree."""

    def __init__(self, n: int, seed: bytes) -> None:
        self.n = n
        values = [statements.keccak256(seed)]
        for _ in range(n):
            values.append(statements.keccak256(values[-1]))
        self.values = values[::-1]
        level = [
            statements.checkpoint_leaf(i, self.values[i])
            for i in range(CHECKPOINT_STRIDE, n + 1, CHECKPOINT_STRIDE)
        ]
        self._levels = [level]
        while len(level) > 1:
            pairs = zip(level[::2], level[1::2], strict=True)
            level = [statements.checkpoint_node(left, right) for left, right in pairs]
            self._levels.append(level)

    @property
    def hc0(self) -> bytes:
        """The public start HC[0]."""
        return self.values[0]

    @property
    def root(self) -> bytes:
        """Root of the checkpoint tree."""
        return self._levels[-1][0]

    def path(self, k: int) -> list[bytes]:
        """Siblings that prove the checkpoint at or below `k`, empty for k < 16."""
        if k < CHECKPOINT_STRIDE:
            return []
        position = k // CHECKPOINT_STRIDE - 1
        return [level[position >> i ^ 1] for i, level in enumerate(self._levels[:-1])]

    def proof(self, k: int) -> tuple[int, bytes, list[bytes]]:
        """(k, HC[k], path)."""
        return k, self.values[k], self.path(k)


@cache
def payment_chain(n: int, seed: bytes = b"rehearsal") -> PaymentChain:
    """A chain that is made once per process; a long one takes a while."""
    return PaymentChain(n, seed)


class Rehearsal:
    """A fresh chain with token, consensus, tax pool and ledger, and a registered key."""

    def __init__(
        self,
        parameters: NetworkParameters = DEMO,
        *,
        chain: RehearsalChain | None = None,
        wealth: int = 10**12,
        token: tuple[Any, Any] | None = None,
    ) -> None:
        """`token`: ABI and bytecode of a token to use instead of the project's own; its
        constructor takes nothing. `chain`: a fresh one, by default in this process with native
        precompiles; it ends with `close`."""
        self.chain = InProcessChain() if chain is None else chain
        self.w3 = self.chain.w3
        self.parameters = parameters
        self.parties = {
            name: Party(name, address_of(key), key) for name, key in zip(ROLES, KEYS, strict=True)
        }
        self._random = random.Random(7)
        deployer = self.party("deployer")
        authorities = [self.party(f"authority_{i}").address for i in (1, 2, 3)]
        self.consensus = self.deploy("Consensus", authorities, 2, TAX_RATE_BP, parameters.words())
        if token is None:
            self.token = self.deploy("Token", NOBODY)
        else:
            self.token = self.deploy_code(*token)
        self.pool = self.deploy("TaxPool", self.token.address, self.consensus.address, CLAIM_EPOCHS)
        self.ledger = self.deploy(
            "Ledger", self.token.address, self.consensus.address, self.pool.address, TAX_RATE_BP
        )
        self.send(self.pool.functions.set_ledger(self.ledger.address), deployer)
        self.chain_id = int(self.w3.eth.chain_id)
        self.domain = statements.domain_separator(self.chain_id, self.ledger.address)
        self.issuer = TokenIssuer(1)
        intermediary = self.party("intermediary")
        self.send(
            self.ledger.functions.register_key(self.issuer.public_key, self.issuer.rest_hash),
            intermediary,
        )
        self.ctx = statements.context(self.chain_id, self.ledger.address, self.issuer.key_hash)
        for name in ("intermediary", "client", "relay"):
            self.enrich(self.party(name), wealth)
        self.approve(intermediary)
        self.send(self.ledger.functions.deposit_vault(wealth // 2), intermediary)

    def party(self, name: str) -> Party:
        """The account of a role."""
        return self.parties[name]

    def deploy(self, name: str, *arguments: object) -> Contract:
        """Deploys one of the project's contracts by name."""
        artifact = compile_contract(name)
        return self.deploy_code(artifact.abi, artifact.bytecode, *arguments)

    def deploy_code(self, abi: Any, bytecode: Any, *arguments: object) -> Contract:
        """Deploys compiled code; without an address if the constructor refuses."""
        factory = self.w3.eth.contract(abi=abi, bytecode=bytecode)
        sender = self.party("deployer").address
        receipt = self.chain.transact(
            factory.constructor(*arguments), {"from": sender, "gas": 15_000_000}
        )
        # Some chains name the address at which there would have been a contract.
        address = receipt["contractAddress"] if receipt["status"] else None
        return cast(Contract, self.w3.eth.contract(address=address, abi=abi))

    def send(self, call: Any, sender: Party, *, value: int = 0, gas: int = CALL_GAS) -> TxReceipt:
        """Sends a contract call in a block of its own.

        Raises `TransactionReverted` with the contract's reason.
        """
        fields = {"from": sender.address, "gas": gas, "value": value}
        receipt = self.chain.transact(call, fields)
        if not receipt["status"]:
            reason = self.chain.reason(call, fields, receipt)
            raise TransactionReverted(reason, bytes(receipt["transactionHash"]))
        return receipt

    def events(self, receipt: TxReceipt, name: str) -> list[dict[str, Any]]:
        """The ledger's events of one kind in a receipt, as plain dictionaries."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self.ledger.events[name]().process_receipt(receipt)
        return [dict(event["args"]) for event in found]

    def now(self) -> int:
        """Timestamp of the latest block."""
        return int(self.w3.eth.get_block("latest")["timestamp"])

    def travel(self, timestamp: int) -> None:
        """Makes the next transaction's block have exactly this timestamp."""
        self.chain.travel(timestamp)

    def mine(self) -> None:
        """Mines an empty block."""
        self.chain.mine()

    def snapshot(self) -> int:
        """Remembers the present state; its number."""
        return self.chain.snapshot()

    def revert(self, snapshot: int) -> None:
        """Goes back to a snapshot, which is used up, and so are all that were taken after it."""
        self.chain.revert(snapshot)

    def close(self) -> None:
        """Ends the chain."""
        self.chain.close()

    def secret(self) -> bytes:
        """32 bytes that repeat from run to run, so that gas figures do too."""
        return self._random.randbytes(32)

    def enrich(self, party: Party, amount: int) -> None:
        """Gives `party` tokens for its native coin."""
        self.send(self.token.functions.deposit(), party, value=amount * 10**9)

    def approve(self, party: Party, amount: int = 2**256 - 1) -> None:
        """Lets the ledger draw on the party's tokens."""
        self.send(self.token.functions.approve(self.ledger.address, amount), party)

    # --- Statements --------------------------------------------------------------------------

    def digest(self, struct_hash: bytes) -> bytes:
        """EIP-712 digest for this ledger."""
        return statements.typed_digest(self.domain, struct_hash)

    def authorise(
        self,
        account: Party,
        action: str,
        identifier: int,
        *arguments: int | bytes,
        not_after: int = 2**64 - 1,
    ) -> tuple[int, bytes]:
        """An end user's authorisation for somebody else's transaction."""
        struct = statements.authorisation_struct(
            action, identifier, statements.hash_words(*arguments), not_after
        )
        return not_after, account.sign(self.digest(struct))

    def permit(self, owner: Party, value: int, deadline: int = 2**64 - 1) -> tuple[int, int, bytes]:
        """An ERC-2612 permit for the ledger with the owner's current nonce."""
        nonce = self.token.functions.nonces(owner.address).call()
        kind = statements.keccak256(
            b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
        )
        struct = statements.hash_words(
            kind,
            statements.address_word(owner.address),
            statements.address_word(self.ledger.address),
            value,
            nonce,
            deadline,
        )
        domain = self.token.functions.DOMAIN_SEPARATOR().call()
        return value, deadline, owner.sign(statements.typed_digest(domain, struct))

    def nano_refund_signature(
        self, role: Role, terms: NanoTerms, nwpk: int, cid: int, b_full: int, rho: int
    ) -> bytes:
        """nrt: the intermediary's statement on a session."""
        struct = statements.nano_refund_struct(
            self.ctx,
            role,
            terms.hash(),
            nwpk,
            statements.keccak256(commitment(cid, b_full, rho)),
        )
        return self.party("intermediary").sign(self.digest(struct))

    def close_signature(self, group: int, channels: int, total: int) -> bytes:
        """The intermediary's part of a cooperative close."""
        struct = statements.close_struct(self.ctx, group, channels, total)
        return self.party("intermediary").sign(self.digest(struct))

    def refund_token(self, role: Role, cid: int, wpk: int, balance: int) -> bytes:
        """rt for a channel, wallet and balance."""
        return self.issuer.sign(statements.tag(TokenKind.REFUND, role, self.ctx), cid, wpk, balance)

    def terms(self, n: int | None = None, t_exp: int | None = None, **changes: Any) -> NanoTerms:
        """Session terms that follow the parameters, on a shared hash chain."""
        size = n or self.parameters.n
        chain = payment_chain(size)
        values: dict[str, Any] = {
            "delta_c": -self.parameters.price,
            "delta_r": self.parameters.delta_r,
            "n": size,
            "hc0": chain.hc0,
            "t_exp": t_exp or self.parameters.t_exp(self.now()),
            "root": chain.root,
            "epoch": self.parameters.epoch_at(self.now()),
        }
        return NanoTerms(**{**values, **changes})

    # --- Channels ----------------------------------------------------------------------------

    def windows(self) -> tuple[int, int]:
        """Dispute window and close notice that an opening would pin now."""
        terms = self.consensus.functions.channel_terms().call()
        return int(terms[0]), int(terms[1])

    def open_group(
        self,
        account: Party,
        role: Role,
        deposit: int,
        fund: int,
        count: int = 1,
        *,
        funded: bool = True,
    ) -> int:
        """Init-E by the account itself with a permit, and Init-I; returns the group's id."""
        rho_e, rho_i = self.secret(), self.secret()
        receipt = self.send(
            self.ledger.functions.open(
                self.issuer.key_hash,
                account.address,
                role,
                deposit,
                fund,
                count,
                *self.windows(),
                rho_e,
                rho_i,
                NO_AUTHORISATION,
                self.permit(account, deposit * count),
            ),
            account,
        )
        group = int(self.events(receipt, "Opened")[0]["group"])
        if funded:
            self.send(self.ledger.functions.fund(group), self.party("intermediary"))
        return group

    def nano_claim(
        self,
        role: Role,
        cid: int,
        terms: NanoTerms,
        secret: bytes,
        b_full: int,
        k: int,
        *,
        proof: Sequence[Any] | None = None,
        auth: tuple[int, bytes] | None = None,
    ) -> tuple[Any, ...]:
        """Arguments of `nano_refund` for a session with these numbers."""
        nwpk = statements.lock_of(secret)
        rho = int.from_bytes(statements.keccak256(secret), "big") % GROUP_ORDER
        signature = self.nano_refund_signature(role, terms, nwpk, cid, b_full, rho)
        return (
            cid,
            words(terms),
            nwpk,
            b_full,
            rho,
            signature,
            *(payment_chain(terms.n).proof(k) if proof is None else proof),
            NO_AUTHORISATION if auth is None else auth,
        )


NO_AUTHORISATION = (0, b"")
"""What an end user passes for its own transaction."""
NO_PERMIT = (0, 0, b"")
"""What an end user passes that has approved the ledger before."""


def words(terms: NanoTerms) -> tuple[int | bytes, ...]:
    """Session terms as the contract's struct."""
    return (
        terms.delta_c,
        terms.delta_r,
        terms.n,
        terms.hc0,
        terms.t_exp,
        terms.root,
        terms.epoch,
    )
