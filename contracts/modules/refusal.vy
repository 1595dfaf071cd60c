# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
"""
@title Refusals with a reason
@license GNU Affero General Public License v3.0 only
@notice Every check of the ledger goes through here: a reason that is written into an `assert`
        takes about 110 bytes of code each time, and the ledger's code has a limit (EIP-170).
"""


@internal
@pure
def _unless(holds: bool, reason: String[48]):
    """
    @notice Reverts with `reason`, "module: what is wrong", unless the condition holds.
    """
    assert holds, reason
