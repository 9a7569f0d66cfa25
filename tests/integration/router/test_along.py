"""Several endpoints in one commit: production's, and those of readers, whose old servers nobody fences."""

import asyncio

import msgspec
import psycopg
import pytest

from tests.conftest import until
from tests.integration.router.clients import Endpoint, Pair, Switchover, connect, one
from tests.ports import host_ports
from verdigris.domain.errors import ParkBroken
from verdigris.domain.ports import Parked, Route
from verdigris.router.client import RouterClient


@pytest.fixture
async def reader(endpoint: Endpoint, router: RouterClient) -> Endpoint:
    """To the same server, under another name."""
    port = host_ports().allocate({endpoint.route.port})
    found = Endpoint(msgspec.structs.replace(endpoint.route, name="reader", port=port))
    await router.put_route(found.route)
    return found


async def park_reader(router: RouterClient, pair: Pair, *, leave_stragglers: bool = False) -> Parked:
    await router.ready("reader", pair.green, pair.verifiers)
    budget_s = 0.1 if leave_stragglers else 5
    parked = await router.park("reader", budget_s=budget_s, lease_s=10, leave_stragglers=leave_stragglers)
    assert isinstance(parked, Parked)
    await router.hand_over(parked.generation)
    return parked


async def _is_active(router: RouterClient) -> bool:
    return (await router.sessions("reader")).active > 0


def to_green(endpoint: Endpoint, pair: Pair) -> Route:
    return msgspec.structs.replace(endpoint.route, backend=pair.green)


async def test_all_or_none(
    endpoint: Endpoint, reader: Endpoint, router: RouterClient, pair: Pair, switchover: Switchover
) -> None:
    before = await router.routes()
    routes = [switchover.switched, to_green(reader, pair)]
    async with await connect(endpoint) as writes, await connect(reader) as reads:
        first, _ = await switchover.ready_and_hand_over()
        second = await park_reader(router, pair)
        await router.abort(second.generation)
        with pytest.raises(ParkBroken):
            await router.commit(first.generation, routes, hold=False, along=[second.generation])
        assert await router.routes() == before
        assert await one(reads, "SELECT label FROM which") == "blue"

        second = await park_reader(router, pair)
        await router.commit(first.generation, routes, hold=True, along=[second.generation])
        assert await router.routes() == routes
        await router.release(second.generation)
        assert await one(reads, "SELECT label FROM which") == "green"
        await router.release(first.generation)
        assert await one(writes, "SELECT label FROM which") == "green"


async def test_readers_are_released_by_themselves(
    reader: Endpoint, router: RouterClient, pair: Pair, switchover: Switchover
) -> None:
    """Whatever keeps production waiting: what they go to can be read at any time."""
    async with await connect(reader) as reads:
        first, _ = await switchover.ready_and_hand_over()
        second = await park_reader(router, pair)
        routes = [switchover.switched, to_green(reader, pair)]
        await router.commit(first.generation, routes, hold=True, along=[second.generation])
        await router.renew(second.generation, lease_s=0.1)
        assert await one(reads, "SELECT label FROM which") == "green"
        await router.release(first.generation)


async def test_a_straggler_is_closed(
    reader: Endpoint, router: RouterClient, pair: Pair, switchover: Switchover
) -> None:
    """Nobody ends it from behind: it would go on reading from a server that production has left."""
    async with await connect(reader) as slow, await connect(reader) as reads:
        asked = asyncio.create_task(slow.execute("SELECT pg_sleep(600)"))
        await until(lambda: _is_active(router))
        first, _ = await switchover.ready_and_hand_over()
        second = await park_reader(router, pair, leave_stragglers=True)
        assert (second.sessions, second.stragglers) == (1, 1)
        routes = [switchover.switched, to_green(reader, pair)]
        await router.commit(first.generation, routes, hold=False, along=[second.generation])
        for generation in (second.generation, first.generation):
            await router.release(generation)
        assert await one(reads, "SELECT label FROM which") == "green"
        with pytest.raises(psycopg.OperationalError):
            async with asyncio.timeout(30):
                await asked
