# SPDX-License-Identifier: BSD-3-Clause
"""Everything of moneTor that runs off the ledger."""
