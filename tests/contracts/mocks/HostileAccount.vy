# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
"""
@title A contract that owns channels or vaults and takes no native coin in peace
@license GNU Affero General Public License v3.0 only
@notice Modes for coin that arrives: 0 takes it, 1 reverts, 2 burns all gas, 3 makes the prepared
        call and takes the coin whatever becomes of it, 4 makes the call and fails as it does.
"""

mode: public(uint256)
entered: public(bool)
target: address
data: Bytes[4096]


@external
def set_mode(mode: uint256, target: address, data: Bytes[4096]):
    self.mode = mode
    self.target = target
    self.data = data
    self.entered = False


@external
@payable
def act(target: address, data: Bytes[4096]) -> Bytes[1024]:
    """
    @notice Makes one call as this contract; reverts as it does.
    """
    return raw_call(target, data, max_outsize=1024, value=msg.value)


@external
@payable
def __default__():
    mode: uint256 = self.mode
    assert mode != 1, "no coin"
    # The invalid instruction takes all gas that is left.
    assert mode != 2, UNREACHABLE
    if mode == 3:
        self.entered = raw_call(self.target, self.data, revert_on_failure=False)
    if mode == 4:
        raw_call(self.target, self.data)
        self.entered = True
