# SPDX-License-Identifier: BSD-3-Clause
"""Verification of proofs outside the process that needs them.

The claims come from `protocol.claims`; what a step makes of a verdict is the protocol's matter.
"""
