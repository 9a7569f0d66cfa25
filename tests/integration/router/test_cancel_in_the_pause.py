"""Cancel requests that come while a session is parked, or is being asked something by the router."""

import asyncio
import os
import signal
from pathlib import Path

import psycopg
import pytest

from tests.conftest import until
from tests.integration.router.clients import (
    Connection,
    Endpoint,
    Pair,
    Switchover,
    bytes_from_clients,
    connect,
    has_heard,
    one,
    park,
)
from verdigris.domain.ports import Parked
from verdigris.router.client import RouterClient

PROTOCOLS = ["3.0", "3.2"]
SLOW = "SELECT pg_sleep(3)"
SHORT = "SELECT pg_sleep(0.2)"
# The short one is over, whatever has come since.
HAS_RUN = f"SELECT FROM pg_stat_activity WHERE pid = %s AND (query = '{SLOW}' OR query = '{SHORT}' AND state = 'idle')"
ATTEMPTS = 10


async def of_protocol(endpoint: Endpoint, switchover: Switchover, protocol: str) -> Connection:
    """Blue speaks 3.0 alone: whoever wants more comes when a first switchover is over."""
    if protocol == "3.2":
        assert await switchover.run() == {}
    return await connect(endpoint, min_protocol_version=protocol, max_protocol_version=protocol)


async def end(switchover: Switchover, parked: Parked, *, commit: bool) -> None:
    if commit:
        assert await switchover.commit(parked) == {}
    else:
        await switchover.router.abort(parked.generation)


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_an_idle_client_asks_next_is_not_hit(
    endpoint: Endpoint, switchover: Switchover, protocol: str, commit: bool
) -> None:
    async with await of_protocol(endpoint, switchover, protocol) as connection, await connect(endpoint) as bystander:
        await switchover.ready()
        parked = await park(switchover.router)
        await connection.cancel_safe()
        assert (await switchover.router.hand_over(parked.generation)).carried == parked.sessions
        await connection.cancel_safe()
        await end(switchover, parked, commit=commit)
        assert await one(connection, "SELECT 1 FROM pg_sleep(0.3)") == 1
        assert await one(bystander, "SELECT 2") == 2


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_request_that_waits_is_cancelled_when_it_runs(
    endpoint: Endpoint, switchover: Switchover, protocol: str, commit: bool
) -> None:
    """A driver's timeout strikes in the pause: it sends one cancel request and then waits for the answer."""
    async with await of_protocol(endpoint, switchover, protocol) as connection, await connect(endpoint) as bystander:
        parked, _ = await switchover.ready_and_hand_over()
        before = await bytes_from_clients(switchover.router)
        asked = [asyncio.create_task(each.execute(SLOW)) for each in (connection, bystander)]
        await until(lambda: has_heard(switchover.router, before + 2 * len(SLOW)))
        await connection.cancel_safe()
        await end(switchover, parked, commit=commit)
        with pytest.raises(psycopg.errors.QueryCanceled):
            await asked[0]
        assert not asked[1].done()
        assert await one(connection, "SELECT 1 FROM pg_sleep(0.3)") == 1
        await asked[1]


async def test_what_is_asked_after_a_cancelled_request_is_not_hit(
    endpoint: Endpoint, switchover: Switchover, pair: Pair
) -> None:
    """A request that was given up while it waited may end before the router's cancel request has come to the server,
    which is frozen here: whoever hears the answer can be sure that nothing more will come."""
    admin = await psycopg.AsyncConnection.connect(pair.blue_admin, autocommit=True)
    async with admin, await connect(endpoint) as connection:
        pid = await one(connection, "SELECT pg_backend_pid()")
        postmaster = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        parked, _ = await switchover.ready_and_hand_over()
        before = await bytes_from_clients(switchover.router)
        asked = asyncio.create_task(connection.execute(SHORT))
        await until(lambda: has_heard(switchover.router, before + len(SHORT)))
        await connection.cancel_safe()
        os.kill(postmaster, signal.SIGSTOP)
        try:
            await end(switchover, parked, commit=False)

            async def next_request() -> object:
                await asked
                return await one(connection, SLOW)

            then = asyncio.create_task(next_request())

            async def has_run() -> bool:
                row = await (await admin.execute(HAS_RUN, (pid,))).fetchone()
                return row is not None

            await until(has_run)
        finally:
            os.kill(postmaster, signal.SIGCONT)
        assert await then == ""


async def test_cancels_do_not_hit_what_the_router_asks(endpoint: Endpoint, switchover: Switchover) -> None:
    """An idle client sends them all the time: its state is read all the same, and it is carried."""
    async with await connect(endpoint, sslmode="disable") as connection:
        await connection.execute("SET app.tenant = 'forty-two'")
        over = asyncio.Event()

        async def go() -> int:
            count = 0
            while not over.is_set():
                await asyncio.to_thread(connection.pgconn.get_cancel().cancel)
                count += 1
            return count

        going = [asyncio.create_task(go()) for _ in range(4)]
        try:
            for _ in range(15):
                assert (await switchover.router.pins("app", switchover.pair.verifiers, budget_s=5)).pinned == {}
                assert await switchover.run() == {}
        finally:
            over.set()
            counts = await asyncio.gather(*going)
        assert min(counts) > 15
        assert await one(connection, "SHOW app.tenant") == "forty-two"


async def test_a_request_behind_a_question_of_the_routers_is_cancelled(
    endpoint: Endpoint, router: RouterClient, pair: Pair
) -> None:
    """The backend is frozen, so that the question takes long enough for the client to ask and to give up."""
    async with await connect(endpoint) as connection:
        pid = await one(connection, "SELECT pg_backend_pid()")
        assert isinstance(pid, int)
        for _ in range(ATTEMPTS):
            os.kill(pid, signal.SIGSTOP)
            try:
                looking = asyncio.create_task(router.pins("app", pair.verifiers, budget_s=20))
                before = await bytes_from_clients(router)  # asked for after the pins, on another connection
                asked = asyncio.create_task(connection.execute(SLOW))
                await until(lambda: has_heard(router, before + len(SLOW)))  # noqa: B023  asked within the round
                await connection.cancel_safe()
                assert not looking.done()
            finally:
                os.kill(pid, signal.SIGCONT)
            report = await looking
            assert report.pinned == {}
            if not report.unseen:
                break
            await asked  # on a busy machine the client may be first: then the question was not put
        with pytest.raises(psycopg.errors.QueryCanceled):
            await asked
        assert await one(connection, "SELECT 1 FROM pg_sleep(0.3)") == 1
