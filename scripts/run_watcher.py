# SPDX-License-Identifier: BSD-3-Clause
"""Run a watcher as a process of its own.

The same as `monetor watcher`; arguments are those of the command (`--help` lists them).
"""

from __future__ import annotations

import sys

from offchain.cli.main import main as monetor


def main(*arguments: str) -> None:
    """Called by itself, or with the command's arguments; ends the process with its exit status."""
    monetor(["watcher", *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
