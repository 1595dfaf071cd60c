# SPDX-License-Identifier: BSD-3-Clause
"""The Python face of the moneTor contracts: compile, deploy, bind, and the embedded chain.

This package imports nothing by itself, so that `monetor_chain.statements`, which the proofs
need, loads without web3.
"""
