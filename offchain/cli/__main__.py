# SPDX-License-Identifier: BSD-3-Clause
"""`python -m offchain.cli`, the same as `monetor`."""

from __future__ import annotations

from .main import main

if __name__ == "__main__":
    main()
