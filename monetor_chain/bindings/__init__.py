# SPDX-License-Identifier: BSD-3-Clause
"""One class per contract, with typed methods and events named as the contracts name them.

Methods that write take the `Sender` first, wait for the receipt and raise
`TransactionReverted` with the contract's reason. Methods that read take no sender. Gas limits are
generous multiples of what the operations measure; what is not used is not paid.
"""
