# SPDX-License-Identifier: BSD-3-Clause
"""The relay list: CSV text from which anybody can recompute a distribution."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable

from .errors import PolicyError
from .facts import Relay

COLUMNS = ("fingerprint", "account", "bandwidth", "guard", "exit", "location")
HEADER = ",".join(COLUMNS)

_WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")


def read(text: str) -> tuple[Relay, ...]:
    """Relays of a list with the header `HEADER`, in the order of the text.

    An empty account means none; guard and exit are 0 or 1. Lines may end in LF or CRLF.
    Raises `PolicyError` with line and column for the first thing that is wrong.
    """
    lines = [line + "\n" for line in text.removesuffix("\n").split("\n")] if text else []
    relays = []
    seen: dict[str, int] = {}
    rows = csv.reader(lines, strict=True)
    try:
        if next(rows, None) != list(COLUMNS):
            raise PolicyError(f"the first line must be {HEADER}")
        for row in rows:
            relay = _relay(row)
            first = seen.setdefault(relay.fingerprint, rows.line_num)
            if first != rows.line_num:
                raise PolicyError(
                    f"column fingerprint: {relay.fingerprint} is listed on line {first} already"
                )
            relays.append(relay)
    except (PolicyError, csv.Error) as error:
        raise PolicyError(f"relay list, line {max(rows.line_num, 1)}: {error}") from None
    return tuple(relays)


def _relay(row: list[str]) -> Relay:
    if len(row) != len(COLUMNS):
        raise PolicyError(f"{len(row)} columns instead of {len(COLUMNS)}")
    cells = dict(zip(COLUMNS, row, strict=True))
    for name in ("guard", "exit"):
        if cells[name] not in ("0", "1"):
            raise PolicyError(f"column {name}: {cells[name]!r} is neither 0 nor 1")
    if not _WHOLE_NUMBER.fullmatch(cells["bandwidth"]):
        raise PolicyError(f"column bandwidth: {cells['bandwidth']!r} is no number of KB/s")
    return Relay(
        fingerprint=cells["fingerprint"],
        account=cells["account"] or None,
        bandwidth=int(cells["bandwidth"]),
        is_guard=cells["guard"] == "1",
        is_exit=cells["exit"] == "1",
        location=cells["location"],
    )


def write(relays: Iterable[Relay]) -> str:
    """The list in its canonical form: sorted by fingerprint, LF after every line.

    Two lists of the same relays give the same text. Raises `PolicyError` for a duplicate.
    """
    lines = [HEADER]
    previous = None
    for relay in sorted(relays, key=lambda relay: relay.fingerprint):
        if relay.fingerprint == previous:
            raise PolicyError(f"relay {previous} is listed twice")
        previous = relay.fingerprint
        flags = f"{relay.is_guard:d},{relay.is_exit:d}"
        lines.append(
            f"{relay.fingerprint},{relay.account or ''},{relay.bandwidth},{flags},{relay.location}"
        )
    return "\n".join(lines) + "\n"
