"""Clients that prepare without a Sync, as asyncpg does: for the server an implicit transaction is open."""

from collections.abc import Iterator

import asyncpg
import pytest

from tests.conftest import until
from tests.integration.router.clients import ALICE, ALICE_PASSWORD, Endpoint, Pair, Switchover, connect, one, park
from tests.matrix.raw import ERROR, PARAMETER, READY, RawSession, run, simple
from verdigris.domain.ports import ParkRefused
from verdigris.router.client import RouterClient
from verdigris.router.process import RouterProcess
from verdigris.router.record import started_ticks
from verdigris.wire.postgres import messages

STATEMENT = b"SELECT label, $1::int FROM which"


@pytest.fixture
def raw(endpoint: Endpoint) -> Iterator[RawSession]:
    with RawSession(endpoint.conninfo()) as session:
        yield session


def prepare(raw: RawSession, name: bytes) -> None:
    raw.send(messages.parse(name, STATEMENT), messages.describe_statement(name), messages.FLUSH)
    assert [raw.read().code for _ in range(3)] == [b"1", b"t", b"T"]


def executed(raw: RawSession, name: bytes) -> list[bytes | None]:
    raw.send(run(name, b"7"), messages.SYNC)
    return raw.answer()


@pytest.mark.parametrize("name", [b"", b"mine"])
async def test_goes_on_on_green(raw: RawSession, switchover: Switchover, name: bytes) -> None:
    prepare(raw, name)
    assert await switchover.run() == {}
    assert executed(raw, name) == [b"green", b"7"]
    assert raw.query("SELECT count(*) FROM pg_prepared_statements") == [b"%d" % bool(name)]


async def test_errors_and_the_sync_come_as_they_would(raw: RawSession, switchover: Switchover) -> None:
    prepare(raw, b"mine")
    assert await switchover.run() == {}
    raw.send(run(b"mine", b"no number"), run(b"mine", b"1"), messages.FLUSH)
    assert {message.code for message in raw.read_until(ERROR)} == {PARAMETER, ERROR}  # green is of another version
    raw.send(messages.SYNC)
    assert [message.code for message in raw.read_until(READY)] == [READY]
    assert executed(raw, b"mine") == [b"green", b"7"]


async def test_a_query_instead_of_the_sync(raw: RawSession, switchover: Switchover) -> None:
    prepare(raw, b"mine")
    assert await switchover.run() == {}
    assert raw.query("SELECT label FROM which") == [b"green"]


async def test_what_comes_in_the_pause_waits(raw: RawSession, switchover: Switchover) -> None:
    prepare(raw, b"")
    await switchover.ready()
    parked, pinned = await switchover.hand_over()
    assert pinned == {}
    raw.send(run(b"", b"7"), messages.SYNC)
    await switchover.commit(parked)
    assert raw.answer() == [b"green", b"7"]


async def test_goes_on_on_blue_after_an_abort(raw: RawSession, router: RouterClient, switchover: Switchover) -> None:
    prepare(raw, b"mine")
    parked, pinned = await switchover.ready_and_hand_over()
    assert pinned == {}
    await router.abort(parked.generation)
    assert executed(raw, b"mine") == [b"blue", b"7"]
    raw.send(messages.parse(b"", STATEMENT), messages.FLUSH)
    assert raw.read().code == b"1"
    assert await switchover.run() == {}
    assert executed(raw, b"") == [b"green", b"7"]
    assert executed(raw, b"mine") == [b"green", b"7"]


async def test_what_runs_already_is_waited_for(raw: RawSession, router: RouterClient, switchover: Switchover) -> None:
    raw.send(messages.parse(b"", STATEMENT), messages.bind(b"", [b"7"]), messages.FLUSH)
    assert [raw.read().code for _ in range(2)] == [b"1", b"2"]
    await switchover.ready()
    refused = await router.park("app", budget_s=0.2, lease_s=5)
    assert isinstance(refused, ParkRefused)
    assert refused.stragglers == 1
    raw.send(messages.EXECUTE, messages.SYNC)
    assert raw.answer() == [b"blue", b"7"]
    await park(router)


async def test_nobody_ends_it_who_only_looks(
    endpoint: Endpoint, raw: RawSession, router: RouterClient, switchover: Switchover, pair: Pair
) -> None:
    """While a green waits its locks are left alone; the park takes them away."""
    prepare(raw, b"mine")

    async def holds_a_lock() -> bool:
        async with await connect(endpoint) as watcher:
            query = "SELECT count(*) FROM pg_locks WHERE relation = 'which'::regclass"
            return await one(watcher, query) == 1

    assert await holds_a_lock()
    assert (await router.pins("app", pair.verifiers, budget_s=2)).unseen == 1
    assert await holds_a_lock()
    parked, _ = await switchover.ready_and_hand_over()
    await router.abort(parked.generation)
    assert not await holds_a_lock()


async def test_a_timeout_strikes_in_it(endpoint: Endpoint, raw: RawSession, switchover: Switchover) -> None:
    """It counts on while the batch is open, and the server tells whoever says the next word: here the router."""
    raw.send(simple("SET statement_timeout = 300"))
    raw.answer()
    prepare(raw, b"mine")
    async with await connect(endpoint) as other:
        await one(other, "SELECT pg_sleep(0.35)")
    assert await switchover.run() == {}
    assert executed(raw, b"mine") == [b"green", b"7"]


async def test_moves_to_another_router(
    raw: RawSession, router: RouterClient, router_process: RouterProcess, switchover: Switchover
) -> None:
    prepare(raw, b"mine")
    before = router_process.pid
    assert before is not None
    await router_process.restart()
    await until(lambda: started_ticks(before) is None)
    assert (await router.sessions("app")).sessions == 1
    assert await switchover.run() == {}
    assert executed(raw, b"mine") == [b"green", b"7"]


async def test_asyncpg(endpoint: Endpoint, switchover: Switchover) -> None:
    connection = await asyncpg.connect(
        host="127.0.0.1", port=endpoint.route.port, user=ALICE, password=ALICE_PASSWORD, database="app", ssl=False
    )
    try:
        statement = await connection.prepare(STATEMENT.decode())
        assert await switchover.run() == {}
        assert tuple(await statement.fetchrow(7)) == ("green", 7)
    finally:
        await connection.close()
