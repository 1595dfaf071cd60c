# SPDX-License-Identifier: BSD-3-Clause
"""Curve backends, blind signatures, commitments, zero-knowledge proofs and hash chains.

Pure functions from bytes and integers to bytes and integers: nothing here opens a file, a socket
or a clock. Group elements travel compressed (G1 48, G2 96 bytes), scalars and identifiers are
Python integers. Whatever fails to decode or verify raises `errors.CryptoError`.
"""
