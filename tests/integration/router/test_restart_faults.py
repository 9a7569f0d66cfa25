"""One of the two processes dies in the middle of a restart, at every point that there is."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.conftest import until
from tests.integration.router.clients import Connection, Endpoint, Pair, connect, one
from tests.integration.router.ledger import Crew
from verdigris.domain.errors import VerdigrisError
from verdigris.router.client import RouterClient
from verdigris.router.errors import RouterUnavailable
from verdigris.router.limits import Limits
from verdigris.router.process import RouterProcess
from verdigris.router.record import started_ticks
from verdigris.router.run import Loop

if TYPE_CHECKING:
    import subprocess

WORKERS = 12
LIMIT_S = 30.0
SABOTAGE = Path(__file__).with_name("sabotage.py")


class Sabotaged(RouterProcess):
    """Its next successor, or itself, dies at ``point``."""

    plan: tuple[str, str, int]

    def command(  # type: ignore[override]  # the original is static, and need not know which it is
        self, home: Path, loop: Loop = Loop.AUTO, limits: Limits | None = None, *, succeed: bool = False
    ) -> list[str]:
        command = RouterProcess.command(home, loop, limits, succeed=succeed)
        point, victim, number = self.plan
        return [sys.executable, os.fspath(SABOTAGE), point, victim, str(number), *command[3:]] if succeed else command


class Belated(Sabotaged):
    """Its successor is dead before it looks for the first time."""

    def _start(self, *, succeed: bool = False) -> "subprocess.Popen[bytes]":
        child = super()._start(succeed=succeed)
        if succeed:
            child.wait(LIMIT_S)
        return child


@pytest.fixture
async def crew(endpoint: Endpoint, pair: Pair) -> AsyncIterator[Crew]:
    async with Crew(endpoint, WORKERS, pair.blue_admin, sslmode="disable") as crew:
        await crew.progress()
        yield crew


def sabotaged(process: RouterProcess, point: str, victim: str, number: int = 1) -> Sabotaged:
    plotter = Sabotaged(process.home, process.loop)
    plotter.plan = point, victim, number
    return plotter


async def goes_on(endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, crew: Crew) -> None:
    """Those who are there work, newcomers are served, and the next restart succeeds."""
    await crew.progress()
    async with await connect(endpoint) as newcomer:
        assert await one(newcomer, "SELECT 1") == 1
    assert [route.name for route in await router.routes()] == ["app"]
    cut_off = crew.cut_off
    before = router_process.pid
    assert before is not None
    await router_process.restart()
    await until(lambda: started_ticks(before) is None)
    await crew.progress()
    assert crew.cut_off == cut_off


@pytest.mark.parametrize(
    ("point", "number"),
    [("start", 1), ("Begin", 1), ("Grant", 1), ("InCharge", 1), ("Offer", 1), ("Offer", 5), ("Taken", 1)],
)
async def test_successor_dies_before_it_has_a_session(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, crew: Crew, point: str, number: int
) -> None:
    """As if nothing had been: not one client is cut off."""
    before = router_process.pid
    plotter = sabotaged(router_process, point, "new", number)
    if point in ("start", "Begin", "Grant"):
        with pytest.raises(VerdigrisError):
            await plotter.restart()
    else:
        with contextlib.suppress(VerdigrisError):  # it has been on record as the router for a moment
            await plotter.restart()
    await until(lambda: router_process.pid == before)
    await until(lambda: answers(router))
    if point == "Offer" and number > 1:
        assert crew.cut_off < number
    else:
        assert not crew.cut_off
    await goes_on(endpoint, router, router_process, crew)


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] == b"T"


async def answers(router: RouterClient) -> bool:
    try:
        await router.routes()
    except RouterUnavailable:
        return False
    return True


@pytest.fixture
async def stays(endpoint: Endpoint) -> AsyncIterator[Connection]:
    """A client in a transaction: as long as it is, the old process cannot have left everything."""
    async with await connect(endpoint) as connection:
        await connection.execute("BEGIN")
        yield connection


@pytest.mark.parametrize("number", [1, 6, WORKERS])
async def test_successor_dies_with_sessions(
    endpoint: Endpoint,
    router: RouterClient,
    router_process: RouterProcess,
    crew: Crew,
    stays: Connection,
    number: int,
) -> None:
    """What it was given goes with it, as when any router is killed; the others never notice."""
    before = router_process.pid
    successor = await sabotaged(router_process, "Yours", "frozen", number).restart()
    await until(lambda: is_stopped(successor))
    os.kill(successor, signal.SIGKILL)
    await until(lambda: router_process.pid == before)
    await stays.execute("COMMIT")
    await goes_on_without(number, endpoint, router, router_process, crew)


async def test_successor_dies_with_everything(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, crew: Crew
) -> None:
    """Nobody is the router then, until the control plane, which looks every second, or somebody else starts one."""
    before = router_process.pid or 0
    successor = await sabotaged(router_process, "Finished", "frozen").restart()
    await until(lambda: is_stopped(successor))
    await until(lambda: started_ticks(before) is None)
    os.kill(successor, signal.SIGKILL)
    await until(lambda: router_process.pid is None)
    assert await router_process.ensure_running() not in (before, successor)
    await goes_on_without(WORKERS, endpoint, router, router_process, crew)


async def restart_and_look_late(router_process: RouterProcess, point: str, number: int) -> str:
    """The new process is dead before whoever has asked for it looks for the first time. What he is told."""
    plotter = Belated(router_process.home, router_process.loop)
    plotter.plan = point, "new", number
    with pytest.raises(VerdigrisError) as told:
        # In a thread: it waits for the end of the process, and the clients work here.
        await asyncio.to_thread(lambda: asyncio.run(plotter.restart()))
    return str(told.value)


async def test_successor_dies_with_sessions_before_it_is_seen(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, crew: Crew, stays: Connection
) -> None:
    before = router_process.pid
    assert "cut off" not in await restart_and_look_late(router_process, "Yours", 6)
    assert router_process.pid == before
    await stays.execute("COMMIT")
    await goes_on_without(6, endpoint, router, router_process, crew)


async def test_successor_dies_with_everything_before_it_is_seen(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, crew: Crew
) -> None:
    """Nobody may have asked for a restart but an operator: he is told, and there is a router again."""
    before = router_process.pid
    assert "its clients are cut off" in await restart_and_look_late(router_process, "Finished", 1)
    assert router_process.pid not in (before, None)
    await goes_on_without(WORKERS, endpoint, router, router_process, crew)


async def goes_on_without(
    cut_off: int, endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, crew: Crew
) -> None:
    """At least so many have been cut off."""
    await until(lambda: answers(router))
    await crew.progress()
    assert crew.cut_off >= cut_off
    await goes_on(endpoint, router, router_process, crew)


async def test_successor_that_does_not_come_up(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, crew: Crew
) -> None:
    before = router_process.pid
    for point in ("start", "Grant"):
        with pytest.raises(VerdigrisError, match="does not come up"):
            await sabotaged(router_process, point, "fail").restart()
        assert router_process.pid == before
    await goes_on(endpoint, router, router_process, crew)
    assert not crew.cut_off


@pytest.mark.parametrize(
    ("point", "number"), [("Grant", 1), ("InCharge", 1), ("Offer", 1), ("Taken", 3), ("Yours", 1), ("Yours", 8)]
)
async def test_predecessor_dies(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, crew: Crew, point: str, number: int
) -> None:
    """The new process is the router, with all the sessions that had reached it."""
    before = router_process.pid
    after = await sabotaged(router_process, point, "old", number).restart()
    assert after != before
    await until(lambda: started_ticks(before or 0) is None)
    await crew.progress()
    assert router_process.pid == after
    arrived = {"Offer": number, "Taken": number, "Yours": number}.get(point, 0)
    assert crew.cut_off <= WORKERS - arrived
    if point in ("Grant", "InCharge"):
        assert crew.cut_off == WORKERS
    await goes_on(endpoint, router, router_process, crew)


async def test_under_load(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, crew: Crew, pair: Pair
) -> None:
    """Three restarts under work, with newcomers all the time: no error, no lost or doubled commit."""
    newcomers = 0

    async def come_and_go() -> None:
        nonlocal newcomers
        while True:
            async with await connect(endpoint, sslmode=("disable", "require")[newcomers % 2]) as newcomer:
                assert await one(newcomer, "SELECT 7") == 7
            newcomers += 1

    coming = asyncio.create_task(come_and_go())
    try:
        for _ in range(3):
            seen = newcomers
            before = router_process.pid
            assert before is not None
            await router_process.restart()
            await until(lambda: started_ticks(before) is None)  # noqa: B023  used at once
            await crew.progress()
            await until(lambda: coming.done() or newcomers > seen + 2)  # noqa: B023  used at once
        assert not coming.done()
    finally:
        coming.cancel()
        results = await asyncio.gather(coming, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError | psycopg.Error), results
    assert not crew.cut_off
