# SPDX-License-Identifier: BSD-3-Clause
"""Without tor, everything in this folder is skipped with a word that says how to get it."""

from __future__ import annotations

import pytest

from tests.interop.stock_tor import have_tor


def pytest_collection_modifyitems(items):
    if have_tor():
        return
    mark = pytest.mark.skip(reason="tor is not installed (Debian, Ubuntu: apt-get install tor)")
    for item in items:
        if "interop" in item.path.parts:
            item.add_marker(mark)
