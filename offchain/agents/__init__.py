# SPDX-License-Identifier: BSD-3-Clause
"""The running parties: client, relay, intermediary and authority.

Agents wire the layers and own no rule of their own: `engine` commits a machine's steps and
delivers their outboxes, `ledger_port` turns calls into transactions and logs into events,
`intermediary_port` carries requests over onion circuits. Agents share no objects; each has its own
folder, store, keys and sockets.
"""
