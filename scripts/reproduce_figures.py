# SPDX-License-Identifier: BSD-3-Clause
"""Measure on this machine, then write the page of results and its figures.

Arguments: the folder to write into (docs), and a file that `monetor demo --json` wrote. Needs the
extra `experiments`.
"""

from __future__ import annotations

import sys

from offchain.experiments.results import main as write_results


def main(*arguments: str) -> None:
    """Called by itself, or with the arguments above."""
    write_results(arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
