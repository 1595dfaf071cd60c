# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
"""
@title A token that does during a transfer whatever it was told to
@license GNU Affero General Public License v3.0 only
@notice Before every transfer and permit it makes the calls that were prepared, whatever becomes of
        them, and notes which succeeded. Then it moves the tokens honestly and answers with the
        bytes that were chosen, or burns all gas. It can also act as any contract account.
"""

struct Hook:
    target: address
    data: Bytes[4096]


DOMAIN_SEPARATOR: public(constant(bytes32)) = empty(bytes32)

balanceOf: public(HashMap[address, uint256])
nonces: public(HashMap[address, uint256])
successes: DynArray[bool, 128]
hooks: DynArray[Hook, 64]
answer: Bytes[4096]
transfers_burn: bool
permits_burn: bool
running: bool


@deploy
def __init__():
    self.answer = abi_encode(True)


@external
def forget():
    self.hooks = []
    self.successes = []


@external
def prepare(hook: Hook):
    self.hooks.append(hook)


@external
@view
def entered() -> DynArray[bool, 128]:
    """
    @return Which of the calls succeeded, in order.
    """
    return self.successes


@external
def set_answer(answer: Bytes[4096]):
    self.answer = answer


@external
def set_burning(transfers: bool, permits: bool):
    self.transfers_burn = transfers
    self.permits_burn = permits


@external
def act(target: address, data: Bytes[4096]) -> Bytes[1024]:
    """
    @notice Makes one call as this contract; reverts as it does.
    """
    return raw_call(target, data, max_outsize=1024)


@external
def run():
    """
    @notice Makes the prepared calls while nothing else is under way.
    """
    self._run()


@external
@payable
def deposit():
    self.balanceOf[msg.sender] += msg.value // 10**9


@external
def issue(to: address, amount: uint256):
    self.balanceOf[to] += amount


@external
def approve(spender: address, amount: uint256) -> bool:
    return True


@external
def permit(
    owner: address,
    spender: address,
    amount: uint256,
    deadline: uint256,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    self._run()
    # The invalid instruction takes all gas that is left.
    assert not self.permits_burn, UNREACHABLE


@external
@raw_return
def transfer(to: address, amount: uint256) -> Bytes[4096]:
    return self._move(msg.sender, to, amount)


@external
@raw_return
def transferFrom(owner: address, to: address, amount: uint256) -> Bytes[4096]:
    return self._move(owner, to, amount)


@internal
def _move(owner: address, to: address, amount: uint256) -> Bytes[4096]:
    self._run()
    assert not self.transfers_burn, UNREACHABLE
    self.balanceOf[owner] -= amount
    self.balanceOf[to] += amount
    return self.answer


@internal
def _run():
    if self.running:
        return
    self.running = True
    for hook: Hook in self.hooks:
        success: bool = raw_call(hook.target, hook.data, revert_on_failure=False)
        self.successes.append(success)
    self.running = False
