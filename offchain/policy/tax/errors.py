# SPDX-License-Identifier: BSD-3-Clause
"""The one way in which planning a distribution fails."""

from __future__ import annotations


class PolicyError(ValueError):
    """Facts or arguments that no distribution can be made of; the text says which and where."""
