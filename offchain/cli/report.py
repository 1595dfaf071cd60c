# SPDX-License-Identifier: BSD-3-Clause
"""What commands print: JSON for machines, aligned lines for people, both on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def say(text: str) -> None:
    """One line for a person."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say_json(value: Any) -> None:
    """One JSON document."""
    say(json.dumps(value, indent=2))


def say_json_line(value: Any) -> None:
    """One JSON document on one line, for programs that report more than once."""
    say(json.dumps(value))


def say_pairs(pairs: Mapping[str, object]) -> None:
    """One line for each name and value, aligned."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        say(f"{name:<{width}}  {value}")


def say_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table whose first column is text and whose others are numbers."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        first, *rest = (
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        say("  ".join((first, *rest)).rstrip())


def pairs_or_json(pairs: Mapping[str, object], *, as_json: bool, as_line: bool = False) -> None:
    """The same facts for machines, on one line if wanted, or for people."""
    if as_json and as_line:
        say_json_line(pairs)
    elif as_json:
        say_json(pairs)
    else:
        say_pairs(pairs)
