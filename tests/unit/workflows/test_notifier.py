"""Telling subscribers, over real HTTP to a server of the test's own."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import trustme
from msgspec.structs import replace

from tests.unit.store.test_store import an_event
from tests.unit.stores import new_store
from verdigris.domain.model import Event
from verdigris.domain.subscriptions import EventSubscription, pause_s
from verdigris.store.sql_store import SqlStore, open_store
from verdigris.testing.fakes import FakeClock
from verdigris.webhooks import Webhooks
from verdigris.workflows.notifier import Notifier

TOPIC = "arn:aws:sns:us-east-1:123456789012:alerts"


class Receiver:
    """Answers with ``statuses``, one after the other, and with 200 from then on; keeps what it was sent."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.heads: list[str] = []
        self.bodies: list[dict[str, str]] = []

    @property
    def messages(self) -> list[str]:
        return [json.loads(body["Message"])["Event Message"] for body in self.bodies]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        (length,) = (int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("Content-Length"))
        self.heads.append(head)
        self.bodies.append(json.loads(await reader.readexactly(length)))
        status = self.statuses.pop(0) if self.statuses else 200
        writer.write(f"HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    async with server:
        yield receiver, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks/secret?x=1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(path: Path, clock: FakeClock) -> Iterator[SqlStore]:
    store = new_store(path)
    with store.transaction() as tx:
        tx.put_event_subscription(EventSubscription(name="alerts", topic_arn=TOPIC, created_at=clock.now()))
    yield store
    store.close()


def happen(store: SqlStore, clock: FakeClock, *messages: str) -> Event:
    event = an_event()
    with store.transaction() as tx:
        for message in messages:
            event = replace(an_event(message=message), at=clock.now())
            tx.add_event(event)
    return event


def notifier(store: SqlStore, clock: FakeClock, url: str | None) -> Notifier:
    urls = {} if url is None else {TOPIC: url}
    return Notifier(store, clock, Webhooks(urls), region="us-east-1", account_id="123456789012")


async def test_a_message_is_what_sns_would_post(
    store: SqlStore, clock: FakeClock, receiver: tuple[Receiver, str]
) -> None:
    heard, url = receiver
    happen(store, clock, "Something happened.")
    assert await notifier(store, clock, url).look() == 1
    (head,), (body,) = heard.heads, heard.bodies
    assert head.startswith("POST /hooks/secret?x=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert "x-amz-sns-message-type: Notification\r\n" in head
    assert f"x-amz-sns-message-id: {body['MessageId']}\r\n" in head
    assert (body["Type"], body["TopicArn"], body["Timestamp"]) == ("Notification", TOPIC, "2026-05-04T12:00:00.000Z")
    assert json.loads(body["Message"]) == {
        "Event Source": "db-instance",
        "Event Time": "2026-05-04 12:00:00.000",
        "Source ID": "app",
        "Source ARN": "arn:aws:rds:us-east-1:123456789012:db:app",
        "Event ID": "http://docs.amazonwebservices.com/AmazonRDS/latest/UserGuide/USER_Events.html#RDS-EVENT-0005",
        "Event Categories": ["creation"],
        "Event Message": "Something happened.",
    }
    assert await notifier(store, clock, url).look() == 0


async def test_what_was_not_taken_is_told_again_in_order_by_whoever_comes_next(
    store: SqlStore, path: Path, clock: FakeClock, receiver: tuple[Receiver, str]
) -> None:
    heard, url = receiver
    heard.statuses = [500, 429]
    happen(store, clock, "one", "two")
    first = notifier(store, clock, url)
    assert await first.look() == 0
    assert await first.look() == 0  # not due yet
    assert heard.messages == ["one"]
    clock.advance(seconds=1)
    again = open_store(f"sqlite:///{path}")  # the control plane was restarted meanwhile
    with contextlib.closing(again):
        second = notifier(again, clock, url)
        assert await second.look() == 0
        clock.advance(seconds=2)
        while await second.look():
            pass
    assert heard.messages == ["one", "one", "one", "two"]
    assert len({body["MessageId"] for body in heard.bodies}) == 2


async def test_who_refuses_for_good_gets_what_comes_after(
    store: SqlStore, clock: FakeClock, receiver: tuple[Receiver, str]
) -> None:
    heard, url = receiver
    heard.statuses = [410, 302]
    happen(store, clock, "one", "two", "three")
    told = notifier(store, clock, url)
    while await told.look():
        pass
    assert heard.messages == ["one", "two", "three"]


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:1/nobody-listens"])
async def test_nobody_there_is_tried_for_a_day(store: SqlStore, clock: FakeClock, url: str | None) -> None:
    happen(store, clock, "one")
    told = notifier(store, clock, url)
    assert await told.look() == 0
    clock.advance(hours=23)
    assert await told.look() == 0
    with store.transaction() as tx:
        (waiting,) = tx.next_deliveries()
    assert (waiting.attempts, waiting.due_at) == (2, clock.now() + timedelta(seconds=2))
    clock.advance(hours=1)
    assert await told.look() == 1
    with store.transaction() as tx:
        assert tx.next_deliveries() == []


async def test_one_that_is_silent_holds_up_no_other(
    store: SqlStore, clock: FakeClock, receiver: tuple[Receiver, str]
) -> None:
    heard, url = receiver
    other = TOPIC + "-2"
    with store.transaction() as tx:
        tx.put_event_subscription(EventSubscription(name="other", topic_arn=other, created_at=clock.now()))
    happen(store, clock, "one")
    topics = Webhooks({TOPIC: url, other: "http://127.0.0.1:1/"})
    assert await Notifier(store, clock, topics, region="us-east-1", account_id="123456789012").look() == 1
    assert heard.messages == ["one"]


@pytest.mark.parametrize("trusted", [True, False])
async def test_over_tls_to_who_has_a_certificate(
    store: SqlStore, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    authority, heard = trustme.CA(), Receiver()
    if trusted:
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(heard.serve, "127.0.0.1", 0, ssl=context)
    async with server:
        happen(store, clock, "one")
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert await notifier(store, clock, url).look() == trusted
    assert heard.messages == (["one"] if trusted else [])


async def test_what_is_not_http_is_no_answer(store: SqlStore, clock: FakeClock) -> None:
    async def chatter(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(chatter, "127.0.0.1", 0)
    async with server:
        happen(store, clock, "one")
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert await notifier(store, clock, url).look() == 0
    with store.transaction() as tx:
        assert [delivery.attempts for delivery in tx.next_deliveries()] == [1]


def test_pauses_grow_up_to_five_minutes() -> None:
    assert [pause_s(attempts) for attempts in (1, 2, 3, 9, 10, 10_000)] == [1, 2, 4, 256, 300, 300]
