# SPDX-License-Identifier: BSD-3-Clause
"""One issuer per curve backend and session: making one costs 28 ms to 2 s."""

from __future__ import annotations

import pytest

from offchain.crypto.curve import Backend, backend
from offchain.crypto.issuer import IssuerKey

NATIVE = ("blst", "arkworks")
ALL = (*NATIVE, "py_ecc")


@pytest.fixture(scope="session", params=ALL)
def curve(request: pytest.FixtureRequest) -> Backend:
    return backend(request.param)


@pytest.fixture(scope="session", params=NATIVE)
def issuer(request: pytest.FixtureRequest) -> IssuerKey:
    return IssuerKey.generate(backend(request.param))


@pytest.fixture(scope="session")
def blst_issuer() -> IssuerKey:
    return IssuerKey.generate(backend("blst"))


@pytest.fixture(scope="session")
def reference(blst_issuer: IssuerKey) -> IssuerKey:
    """The same issuer, computing with the pure Python backend."""
    return IssuerKey.decode(blst_issuer.encode(), backend("py_ecc"))
