"""LISTEN through a switchover: each notification once, in order, whichever server it was sent on."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from tests.conftest import until
from tests.integration.router.clients import Connection, Endpoint, Pair, Switchover, connect, one
from verdigris.router.client import RouterClient


@pytest.fixture
async def listener(endpoint: Endpoint) -> AsyncIterator[Connection]:
    async with await connect(endpoint) as connection:
        for channel in ('"news"', '"Öl "" x"', "empty"):
            await connection.execute(f"LISTEN {channel}")
        yield connection


async def hear(connection: Connection, count: int) -> list[str]:
    """At least ``count`` payloads, without sending anything: only what the server says by itself is heard."""
    heard: list[str] = []

    async def enough() -> bool:
        heard.extend([note.payload async for note in connection.notifies(timeout=0.05)])
        return len(heard) >= count

    await until(enough, limit_s=60)
    return heard


async def test_heard_before_during_and_after(
    endpoint: Endpoint, listener: Connection, switchover: Switchover, pair: Pair
) -> None:
    async with await connect(endpoint) as sender:
        await sender.execute("NOTIFY news, '1'")
        await sender.execute("SELECT pg_notify('Öl \" x', '2')")
        await switchover.ready()
        await sender.execute("NOTIFY news, '3'")
        parked, pinned = await switchover.hand_over()
        assert pinned == {}
        # From another way in than the router's, as late as can be; and what the old one says is not said again.
        for conninfo, payload in ((pair.blue_admin, "4"), (pair.green_admin, "repeated")):
            async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as admin:
                await admin.execute("SELECT pg_notify('news', %s)", [payload])
        await switchover.commit(parked)
        await sender.execute("NOTIFY news, '5'")
        await sender.execute("SELECT pg_notify('Öl \" x', '6')")
        assert await hear(listener, 6) == ["1", "2", "3", "4", "5", "6"]
        assert await one(listener, "SELECT label FROM which") == "green"
        assert await one(listener, "SELECT count(*) FROM pg_listening_channels()") == 3
        await listener.execute("UNLISTEN *")
        await sender.execute("NOTIFY news, '7'")
        await listener.execute("SELECT 1")
        assert await hear(listener, 0) == []


async def test_given_up_switchover_leaves_the_listener_as_it_was(
    endpoint: Endpoint, listener: Connection, switchover: Switchover, router: RouterClient
) -> None:
    await switchover.ready()
    parked, _ = await switchover.hand_over()
    await router.abort(parked.generation)
    async with await connect(endpoint) as sender:
        await sender.execute("NOTIFY news, 'x'")
    assert await hear(listener, 1) == ["x"]
    assert await one(listener, "SELECT label FROM which") == "blue"


async def test_none_is_lost_or_doubled_under_load(endpoint: Endpoint, switchover: Switchover) -> None:
    """Several senders as fast as they can, several listeners, and a switchover in the middle."""
    senders, listeners, stop = 4, 3, asyncio.Event()
    sent: dict[int, int] = {}
    labels: set[object] = set()

    async def send(number: int) -> None:
        async with await connect(endpoint) as connection:
            while not stop.is_set():
                count = sent.get(number, 0) + 1
                await connection.execute(f"NOTIFY load, '{number} {count}'")
                sent[number] = count
                labels.add(await one(connection, "SELECT label FROM which"))

    async def listen(ready: asyncio.Event, finished: asyncio.Event) -> list[str]:
        async with await connect(endpoint) as connection:
            await connection.execute("LISTEN load")
            ready.set()
            payloads: list[str] = []
            while not (finished.is_set() and len(payloads) >= sum(sent.values())):
                payloads.extend([note.payload async for note in connection.notifies(timeout=0.02)])
                if finished.is_set():
                    await connection.execute("SELECT 1")
            return payloads

    readies, finished = [asyncio.Event() for _ in range(listeners)], asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        hearing = [group.create_task(listen(ready, finished)) for ready in readies]
        for ready in readies:
            await ready.wait()
        sending = [group.create_task(send(number)) for number in range(senders)]
        await until(lambda: len(sent) == senders and min(sent.values()) > 20, limit_s=20)
        assert await switchover.run() == {}
        at_switch = dict(sent)
        await until(lambda: min(sent[n] - at_switch[n] for n in sent) > 20, limit_s=20)
        stop.set()
        await asyncio.gather(*sending)
        finished.set()
    assert labels == {"blue", "green"}
    for task in hearing:
        by_sender: dict[int, list[int]] = {}
        for payload in task.result():
            number, count = payload.split()
            by_sender.setdefault(int(number), []).append(int(count))
        assert by_sender == {number: list(range(1, count + 1)) for number, count in sent.items()}
