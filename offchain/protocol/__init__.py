# SPDX-License-Identifier: BSD-3-Clause
"""moneTor's payment protocol as sans-IO state machines.

One module per protocol of the paper (`establish`, `pay`, `nano_setup`, `nano_establish`,
`nano_pay`, `nano_close`, `cash_out`, `guard`), each holding the end user's steps and the
intermediary's steps side by side. A step reads and writes `records.Records`, takes the time as an
argument and returns outbox items (`outbox`); whoever drives it commits records and outbox in one
transaction and only then delivers. `client`, `relay` and `intermediary` put the steps together
into one machine a party; nothing here knows sockets, clocks, disks or chains.
"""
