# SPDX-License-Identifier: BSD-3-Clause
"""Deploy the contracts to a network of brownie-config.yaml and record where they are.

The same as `monetor deploy`; arguments are those of the command (`--help` lists them).
"""

from __future__ import annotations

import sys

from offchain.cli.main import main as monetor


def main(*arguments: str) -> None:
    """Called by itself, or with the command's arguments; ends the process with its exit status."""
    monetor(["deploy", *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
