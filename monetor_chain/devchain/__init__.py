# SPDX-License-Identifier: BSD-3-Clause
"""The embedded development chain, as it looks inside its own process.

`clock` is the network's clock, `node` builds blocks with py-evm, `rpc` answers JSON-RPC requests
and `server` runs both behind HTTP on loopback. Nothing here is imported by agents: they reach the
chain over HTTP like any other, and `monetor_chain.embedded` starts and stops the process.
"""
