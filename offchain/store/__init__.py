# SPDX-License-Identifier: BSD-3-Clause
"""SQLite persistence: records and outbox of one party, committed together.

`Store.transaction` is the write-ahead rule of the whole project: a step's new records and its
outbox are on disk before anything is delivered, and what was not delivered is there after a crash.
`backup` makes one sealed file of a party's folder and puts it back.
"""

from .sqlite import Identity, Store, StoreError, Transaction, reading

__all__ = ["Identity", "Store", "StoreError", "Transaction", "reading"]
