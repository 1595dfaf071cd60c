# SPDX-License-Identifier: BSD-3-Clause
"""Tor's wire format, onion circuits, and the cells that carry payments.

The core does no input or output: cells (`cell`, `relay_cell`, `payment_cell`), cryptography
(`ntor`, `onion`, `certificates`), the link (`link`, `channel`, `scheduler`), circuits (`circuit`
at the client, `relay_circuit` and `router_core` at a relay) and flow control (`flow_control`,
`edge`). The drivers give it sockets: `tls`, `link_driver`, `router` and `proxy` for asyncio and
TLS, `memory_driver` for tests. The layer knows nothing of money: a payment message is a number
and some bytes.
"""
