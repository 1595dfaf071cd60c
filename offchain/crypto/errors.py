# SPDX-License-Identifier: BSD-3-Clause
"""The one error of this package."""

from __future__ import annotations


class CryptoError(ValueError):
    """Something failed to decode or to verify; the message names the offending field.

    Messages carry names, lengths and public values only, so they may be logged.
    """
