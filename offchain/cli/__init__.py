# SPDX-License-Identifier: BSD-3-Clause
"""The `monetor` command.

Each command has a module of its own that reads options, calls one function of the layers below
and reports. Those layers are imported inside the commands: web3 alone takes longer to load than
`monetor --help` may take. What can go wrong becomes a message in one place, `failures`.
"""
