# SPDX-License-Identifier: BSD-3-Clause
"""Proofs are verified in other processes, which may die, hang or be too few: nobody waits for ever.

The processes are real; a fake verifier stands in only where one has to die or hang.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from offchain.crypto.issuer import IssuerKey
from offchain.protocol.claims import Claim
from offchain.verification import workers as proof_workers
from offchain.verification.workers import NoVerdict, ProofWorkers, default_workers
from tests.crypto.cases import make
from tests.verification.verifiers import dies, dies_once, knows, takes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def issuer() -> IssuerKey:
    return IssuerKey.generate()


def run(issuer: IssuerKey, scenario: Callable[[ProofWorkers], Coroutine[Any, Any, None]],
        count: int = 1) -> None:
    async def main() -> None:
        workers = ProofWorkers(issuer, count)
        try:
            async with asyncio.timeout(60):
                await scenario(workers)
        finally:
            await workers.close()
        assert not workers.pids()

    asyncio.run(main())


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_workers_find_what_the_verifier_finds(issuer: IssuerKey) -> None:
    case = make("nano_setup", issuer)
    good, bad = (Claim.of(case.verifier, case.ctx, case.statement, case.proof, **public)
                 for public in (case.public, case.public | {"nwpk": 5}))

    async def scenario(workers: ProofWorkers) -> None:
        assert await workers.verdict(good) == ""
        assert await workers.verdict(bad) == bad.verdict(issuer) != ""
        found = await asyncio.gather(*(workers.verdict(one) for one in [good, bad] * 10))
        assert found == ["", bad.verdict(issuer)] * 10
        assert len(workers.pids()) == 2

    run(issuer, scenario, count=2)


def test_a_worker_that_dies_is_replaced_and_its_claim_tried_again(
        issuer: IssuerKey, tmp_path: Path) -> None:
    async def scenario(workers: ProofWorkers) -> None:
        assert await workers.verdict(Claim.of(takes, 0.0)) == ""
        (before,) = workers.pids()
        assert await workers.verdict(Claim.of(dies_once, str(tmp_path / "died"))) == ""
        (after,) = workers.pids()
        assert after != before and gone(before)

    run(issuer, scenario)


def test_a_claim_that_kills_workers_is_given_up_and_takes_no_other_along(
        issuer: IssuerKey) -> None:
    async def scenario(workers: ProofWorkers) -> None:
        deadly, harmless = await asyncio.gather(
            workers.verdict(Claim.of(dies)), workers.verdict(Claim.of(takes, 0.0)),
            return_exceptions=True)
        assert isinstance(deadly, NoVerdict) and harmless == ""

    run(issuer, scenario)


def test_a_worker_that_hangs_is_replaced(
        issuer: IssuerKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_workers, "VERDICT_SECONDS", 0.5)
    monkeypatch.setattr(proof_workers, "START_SECONDS", 2.0)

    async def scenario(workers: ProofWorkers) -> None:
        with pytest.raises(NoVerdict, match="too long"):
            await workers.verdict(Claim.of(takes, 3600.0))
        assert await workers.verdict(Claim.of(takes, 0.0)) == ""

    run(issuer, scenario)


def test_who_comes_when_too_many_wait_is_told_so(
        issuer: IssuerKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_workers, "WAITING_PER_WORKER", 2)

    async def scenario(workers: ProofWorkers) -> None:
        asked = [asyncio.ensure_future(workers.verdict(Claim.of(takes, seconds)))
                 for seconds in (0.3, 0.01, 0.02)]
        await asyncio.sleep(0)
        with pytest.raises(NoVerdict, match="too many"):
            await workers.verdict(Claim.of(takes, 0.03))
        # The same claim again is the same work, and asks for no other place.
        assert await workers.verdict(Claim.of(takes, 0.02)) == ""
        assert await asyncio.gather(*asked) == ["", "", ""]

    run(issuer, scenario)


def test_who_waits_when_the_workers_stop_is_told_so(issuer: IssuerKey) -> None:
    async def scenario(workers: ProofWorkers) -> None:
        asked = [asyncio.ensure_future(workers.verdict(Claim.of(takes, seconds)))
                 for seconds in (30.0, 31.0)]
        await asyncio.sleep(0.1)
        pids = workers.pids()
        await workers.close()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(one, NoVerdict) for one in found)
        assert pids and all(gone(pid) for pid in pids)
        with pytest.raises(NoVerdict):
            await workers.verdict(Claim.of(takes, 0.0))

    run(issuer, scenario)


def test_who_goes_away_takes_no_verdict_from_others(issuer: IssuerKey) -> None:
    async def scenario(workers: ProofWorkers) -> None:
        claim = Claim.of(takes, 0.1)
        first, second = (asyncio.ensure_future(workers.verdict(claim)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == ""

    run(issuer, scenario)


PARENT = """
    import asyncio
    from offchain.verification.workers import ProofWorkers
    from offchain.crypto.issuer import IssuerKey
    from offchain.protocol.claims import Claim
    from tests.verification.verifiers import takes

    async def main():
        workers = ProofWorkers(IssuerKey.generate(), 1)
        await workers.verdict(Claim.of(takes, 0.0))
        print(*workers.pids(), flush=True)
        await workers.verdict(Claim.of(takes, 0.2))
        await asyncio.sleep(3600)

    if __name__ == "__main__":
        asyncio.run(main())
"""


def test_no_worker_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(200):
        if gone(pid) or "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("a worker lives on without its parent")


def test_the_key_reaches_a_worker_where_nobody_else_can_read_it(issuer: IssuerKey) -> None:
    async def scenario(workers: ProofWorkers) -> None:
        assert await workers.verdict(Claim.of(knows, issuer.encode())) == ""
        (pid,) = workers.pids()
        for place in ("cmdline", "environ"):
            seen = Path(f"/proc/{pid}/{place}").read_bytes()
            assert issuer.encode() not in seen and issuer.encode().hex().encode() not in seen

    run(issuer, scenario)


def test_one_core_is_left_for_everything_else() -> None:
    assert [default_workers(cores) for cores in (None, 1, 2, 8)] == [0, 0, 1, 7]
