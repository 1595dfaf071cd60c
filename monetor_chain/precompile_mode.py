# SPDX-License-Identifier: BSD-3-Clause
"""Which EIP-2537 the embedded chain runs; apart, so that naming it loads no EVM."""

from typing import Literal

Mode = Literal["native", "pure"]
"""`native`: a compiled library; `pure`: py-evm's own Python, about a hundred times slower."""

MODES: tuple[Mode, ...] = ("native", "pure")
