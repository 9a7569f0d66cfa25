"""Rows: LISTEN. Every notification is heard exactly once, in the order in which it was committed."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import psycopg

from tests.conftest import until
from tests.matrix.case import case
from tests.matrix.raw import NOTIFICATION, READY, simple
from tests.matrix.stage import GREEN, LIMIT_S, Stage, assert_on_green, value

CHANNELS = ("orders", "Odd channel; name", "stock")


class Notifier:
    """Another session that notifies without end, one transaction after the other, each payload with its number."""

    def __init__(self, stage: Stage, *channels: str) -> None:
        self._stage = stage
        self._channels = channels
        self._going = stage.meanwhile(self._go)

    def _go(self) -> int:
        n = 0
        with self._stage.connect() as connection:
            while self._stage.goes_on() or n < 10:
                n += 1
                with connection.transaction():
                    for channel in self._channels:
                        connection.execute("SELECT pg_notify(%s, %s)", (channel, str(n)))
        return n

    def expected(self) -> list[tuple[str, str]]:
        """All that it has said, once it has been told to end."""
        last = self._going.result(LIMIT_S)
        return [(channel, str(n)) for n in range(1, last + 1) for channel in self._channels]


@case("LISTEN on several channels", "psycopg")
def listen(stage: Stage) -> Iterator[None]:
    """Heard by a client that waits for them."""
    with stage.connect() as connection:
        for channel in CHANNELS:
            connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
        notifier = Notifier(stage, *CHANNELS)

        def hear() -> list[tuple[str, str]]:
            heard: list[tuple[str, str]] = []
            while stage.goes_on():
                heard += [(notify.channel, notify.payload) for notify in connection.notifies(timeout=0.05)]
            return heard

        hearing = stage.meanwhile(hear)
        yield
        expected = notifier.expected()
        heard = hearing.result(LIMIT_S)
        missing = len(expected) - len(heard)
        late = connection.notifies(timeout=LIMIT_S, stop_after=missing) if missing > 0 else ()
        heard += [(notify.channel, notify.payload) for notify in late]
        heard += [(notify.channel, notify.payload) for notify in connection.notifies(timeout=0.2)]  # none too many
        assert heard == expected
        channels = connection.execute("SELECT pg_listening_channels() ORDER BY 1").fetchall()
        assert {channel for (channel,) in channels} == set(CHANNELS)
        connection.execute("UNLISTEN stock")
        connection.execute("SELECT pg_notify('stock', 'not heard'), pg_notify('orders', 'heard')")
        assert [notify.payload for notify in connection.notifies(timeout=LIMIT_S, stop_after=1)] == ["heard"]
        assert_on_green(connection)


@case("LISTEN of a client that asks", "bytes")
def listen_and_ask(stage: Stage) -> Iterator[None]:
    """Notifications between the answers to its requests; and its own ones, which it hears too."""
    with stage.raw() as raw:
        raw.query("LISTEN asked")
        notifier = Notifier(stage, "asked")
        heard: list[bytes] = []

        def ask(statement: str) -> None:
            raw.send(simple(statement))
            heard.extend(message.body[4:] for message in raw.read_until(READY) if message.code == NOTIFICATION)

        def go() -> int:
            own = 0
            while stage.goes_on():
                own += 1
                ask(f"NOTIFY asked, 'own {own}'")
            return own

        going = stage.meanwhile(go)
        yield
        own = going.result(LIMIT_S)
        expected = [payload for _, payload in notifier.expected()]
        ask("NOTIFY asked, 'the last'")
        payloads = [text.split(b"\0")[1].decode() for text in heard]
        assert [payload for payload in payloads if payload.isdigit()] == expected
        assert [payload for payload in payloads if not payload.isdigit()] == [
            *(f"own {n}" for n in range(1, own + 1)),
            "the last",
        ]
        assert raw.query("SHOW server_version") == [GREEN.encode()]


@case("NOTIFY in a transaction", "psycopg", straggles=True)
def notify_later(stage: Stage) -> Iterator[None]:
    """Said before the switchover, committed while it waits, heard by a listener that has been idle all the time."""
    with stage.connect() as listener, stage.connect() as notifier:
        listener.execute("LISTEN later")
        notifier.execute("BEGIN; NOTIFY later, 'committed'")
        ending = stage.once_attempted(lambda: notifier.execute("COMMIT"))
        yield
        ending.result(LIMIT_S)
        notifier.execute("NOTIFY later, 'after'")
        assert [notify.payload for notify in listener.notifies(timeout=LIMIT_S, stop_after=2)] == ["committed", "after"]
        assert_on_green(listener)


@case("LISTEN", "asyncpg")
async def listen_asyncpg(stage: Stage) -> AsyncIterator[None]:
    connection = await asyncpg.connect(**stage.asyncpg())
    try:
        heard: list[tuple[str, str]] = []

        def hear(_connection: object, _pid: int, channel: str, payload: str) -> None:
            heard.append((channel, payload))

        for channel in ("added", "Added; too"):
            await connection.add_listener(channel, hear)
        notifier = Notifier(stage, "added", "Added; too")
        yield
        expected = await asyncio.to_thread(notifier.expected)
        await connection.execute("SELECT pg_notify('added', 'the last')")
        await until(lambda: ("added", "the last") in heard)
        assert [notify for notify in heard if notify[1].isdigit()] == expected
        assert await connection.fetchval("SHOW server_version") == GREEN
    finally:
        await connection.close()


@case("LISTEN", "psycopg async")
async def listen_async(stage: Stage) -> AsyncIterator[None]:
    connection = await psycopg.AsyncConnection.connect(stage.dsn(), autocommit=True)
    async with connection:
        await connection.execute("LISTEN waiting")
        notifier = Notifier(stage, "waiting")

        async def hear() -> list[str]:
            heard: list[str] = []
            async for notify in connection.notifies():
                if notify.payload == "the last":
                    break
                heard.append(notify.payload)
            return heard

        hearing = asyncio.ensure_future(hear())
        yield
        expected = await asyncio.to_thread(notifier.expected)
        with stage.connect() as other:
            other.execute("NOTIFY waiting, 'the last'")
            assert value(other, "SHOW server_version") == GREEN
        async with asyncio.timeout(LIMIT_S):
            assert await hearing == [payload for _, payload in expected]
