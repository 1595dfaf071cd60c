# SPDX-License-Identifier: BSD-3-Clause
"""Pure decisions: credit of a circuit, when the next payment is due, who gets what of the tax."""
