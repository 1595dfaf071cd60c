# SPDX-License-Identifier: BSD-3-Clause
"""Benchmarks and the figures made from them."""
