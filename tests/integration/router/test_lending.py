"""The threads that carry sessions, on bare sockets: every byte once and in order, whoever is slow, whenever it is
called back."""

import asyncio
import contextlib
import errno
import os
import random
import select
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import pytest

from verdigris.router.lending import Outcome
from verdigris.wire.postgres import messages as m
from verdigris.wire.postgres.tracker import COMPILED, SessionTracker

if TYPE_CHECKING:
    from verdigris.router.session import Session

if not COMPILED:
    pytest.skip("not compiled here", allow_module_level=True)

from verdigris.router._relay import Engine, Loan

BUFFER_BYTES = 16 * 1024
LIMIT_S = 20.0
QUERY = m.message(b"Q", b"select 1\0")
READY = m.message(b"Z", b"I")
OWNER = cast("Session", object())  # nothing looks at it here


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(2, BUFFER_BYTES)
    yield made
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("relay-")]


class Line:
    """client <-> (client_end, lent, server_end) <-> server; TCP towards the client, as in the router."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname())
            self.client_end, _ = listener.accept()
        self.server_end, self.server = socket.socketpair()
        for end in (self.client_end, self.server_end):
            end.setblocking(False)
        for far in (self.client, self.server):
            far.settimeout(LIMIT_S)
        self.tracker = SessionTracker()
        self.tracker.server_data(READY)
        self.loan = self.lend()

    def lend(self) -> Loan:
        fds = self.client_end.fileno(), self.server_end.fileno()
        self.loan = self.engine.lend(*fds, self.tracker, OWNER)
        return self.loan

    def returned(self) -> Loan:
        """Wait for the loan to give itself back."""
        readable, _, _ = select.select([self.engine], [], [], LIMIT_S)
        assert readable
        (found,) = self.engine.collect()
        assert found is self.loan
        return found

    def close(self) -> None:
        for end in (self.client, self.client_end, self.server_end, self.server):
            end.close()


@pytest.fixture
def line(engine: Engine) -> Iterator[Line]:
    made = Line(engine)
    yield made
    made.loan.recall()
    made.close()


def receive(end: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size and (data := end.recv(min(size - len(found), 256 * 1024))):
        found += data
    return bytes(found)


def fill(end: socket.socket, data: bytes) -> int:
    """As much as goes without anybody reading."""
    end.setblocking(False)
    sent = 0
    while sent < len(data):
        try:
            sent += end.send(data[sent : sent + 65536])
        except BlockingIOError:
            # What is still on its way may make room.
            if not select.select([], [end], [], 0.3)[1]:
                break
    end.settimeout(LIMIT_S)
    return sent


def test_there_and_back(line: Line) -> None:
    for _ in range(3):
        line.client.sendall(QUERY)
        assert receive(line.server, len(QUERY)) == QUERY
        assert not line.tracker.safe
        line.server.sendall(READY)
        assert receive(line.client, len(READY)) == READY
        assert line.tracker.safe
    assert (line.loan.client_bytes, line.loan.server_bytes) == (3 * len(QUERY), 3 * len(READY))
    assert line.loan.recall() == (b"", b"")
    assert line.loan.outcome == Outcome.RECALLED


def test_recall_leaves_the_sockets_alone(line: Line) -> None:
    line.loan.recall()
    line.client.sendall(QUERY)
    line.server.sendall(READY)
    assert select.select([line.client_end], [], [], LIMIT_S)[0]
    assert line.client_end.recv(1000) == QUERY
    assert line.server_end.recv(1000) == READY
    assert line.loan.recall() == (b"", b"")  # once more changes nothing
    # Lent again, it goes on.
    line.lend()
    line.client.sendall(QUERY)
    assert receive(line.server, len(QUERY)) == QUERY


def test_a_descriptor_that_is_used_again_is_not_touched(line: Line) -> None:
    line.loan.recall()
    number = line.client_end.fileno()
    line.client_end.close()
    ours, theirs = socket.socketpair()
    if ours.fileno() != number:
        os.dup2(ours.fileno(), number)
    theirs.sendall(QUERY)
    line.server.sendall(READY)
    assert ours.recv(1000) == QUERY
    assert line.server_end.recv(1000) == READY
    if ours.fileno() != number:
        os.close(number)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("side", ["client", "server"])
def test_end_of_a_stream(line: Line, side: str) -> None:
    far, near = (line.client, line.client_end) if side == "client" else (line.server, line.server_end)
    far.sendall(QUERY if side == "client" else READY)
    far.shutdown(socket.SHUT_WR)
    assert line.returned().outcome == Outcome.ENDED
    assert line.loan.error is None
    assert near.recv(1) == b""  # who comes next sees the end as well
    receive(line.server if side == "client" else line.client, len(READY))
    assert line.loan.recall() == (b"", b"")


def test_client_that_resets(line: Line) -> None:
    line.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    line.client.close()
    assert line.returned().outcome == Outcome.CLIENT_LOST
    assert isinstance(line.loan.error, OSError)
    assert line.loan.error.errno == errno.ECONNRESET


def test_server_that_cannot_be_written_to_is_still_heard(line: Line) -> None:
    last_words = m.error_response("FATAL", "57P01", "bye")
    line.loan.recall()
    line.server.sendall(last_words)
    line.server.close()
    line.client.sendall(QUERY)
    assert select.select([line.client_end], [], [], LIMIT_S)[0]
    line.lend()
    loan = line.returned()
    # Which of the two is seen first is chance; in either case what the server said has been passed on, or is there.
    assert loan.outcome in (Outcome.SERVER_DEAF, Outcome.ENDED, Outcome.SERVER_LOST)
    to_client, _ = loan.recall()
    line.client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        to_client += line.client.recv(1000)
    with contextlib.suppress(BlockingIOError, ConnectionError):
        to_client += line.server_end.recv(1000)
    assert to_client == last_words


@pytest.mark.parametrize("side", ["client", "server"])
def test_message_that_cannot_be(line: Line, side: str) -> None:
    far, other = (line.client, line.server_end) if side == "client" else (line.server, line.client_end)
    far.sendall(b"Q\0\0\0\1")
    assert line.returned().outcome == Outcome.VIOLATED
    assert "impossible length" in str(line.loan.error)
    line.loan.recall()
    other.close()  # nothing of it has been passed on
    assert (line.server if side == "client" else line.client).recv(1000) == b""


@pytest.mark.parametrize("side", ["client", "server"])
def test_reader_that_is_slow(line: Line, side: str) -> None:
    """What is kept for it is bounded; then it reads, and has everything."""
    writer, reader = (line.server, line.client) if side == "client" else (line.client, line.server)
    data = m.message(b"d", random.randbytes(64 * 1024 * 1024))
    sent = fill(writer, data)
    assert sent < len(data)
    received = line.loan.server_bytes if side == "client" else line.loan.client_bytes
    again = threading.Thread(target=writer.sendall, args=(data[sent:],))
    again.start()
    found = receive(reader, len(data))
    again.join()
    assert found == data
    assert received < len(data)
    # The other direction was never held up, and is not now.
    reader.sendall(b"d\0\0\0\5x")
    assert receive(writer, 6) == b"d\0\0\0\5x"


def test_slow_reader_that_goes(line: Line) -> None:
    """A hang-up of a side that is not read is no reason to spin, and is found once there is something to write."""
    fill(line.server, m.message(b"d", bytes(32 * 1024 * 1024)))
    line.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    line.client.close()
    assert line.returned().outcome == Outcome.CLIENT_LOST
    assert line.loan.recall()[0]


def test_server_that_goes_while_its_client_is_slow(line: Line) -> None:
    data = m.message(b"d", bytes(32 * 1024 * 1024))
    sent = fill(line.server, data)
    line.server.close()
    busy_s = os.times().user + os.times().system
    assert not select.select([line.engine], [], [], 0.3)[0]  # nobody has read, so nothing can have come to its end
    assert os.times().user + os.times().system - busy_s < 0.2  # and nobody spins
    assert receive(line.client, sent)[:100] == data[:100]
    assert line.returned().outcome in (Outcome.ENDED, Outcome.SERVER_LOST)


def test_a_loan_called_back_is_not_collected(line: Line) -> None:
    line.client.close()
    assert select.select([line.engine], [], [], LIMIT_S)[0]  # it has given itself back
    line.loan.recall()
    assert line.loan.outcome == Outcome.ENDED
    assert line.engine.collect() == []


def test_lent_again_before_it_is_collected(line: Line) -> None:
    line.client.shutdown(socket.SHUT_WR)
    assert select.select([line.engine], [], [], LIMIT_S)[0]
    first = line.loan
    first.recall()
    second = line.lend()
    found = []
    while second not in found:
        assert select.select([line.engine], [], [], LIMIT_S)[0]
        found += line.engine.collect()
    assert found == [second]


def test_many_at_once(engine: Engine) -> None:
    lines = [Line(engine) for _ in range(200)]
    for number, line in enumerate(lines):
        line.client.sendall(m.message(b"Q", b"select %d\0" % number))
    for number, line in enumerate(lines):
        expected = m.message(b"Q", b"select %d\0" % number)
        assert receive(line.server, len(expected)) == expected
    for line in lines[::2]:
        line.loan.recall()
    for line in lines[1::2]:
        line.server.sendall(READY)
        assert receive(line.client, len(READY)) == READY
        assert line.tracker.safe
    for line in lines:
        line.loan.recall()
        line.close()


async def test_called_back_and_lent_at_any_moment(engine: Engine) -> None:
    """Random messages of both sides, in random pieces, to readers of random speed, while the loan changes hands all the
    time: each side gets the other's bytes, and the tracker has seen them."""
    rng = random.Random(7)
    line = Line(engine)
    loop = asyncio.get_running_loop()
    for end in (line.client, line.server):
        end.setblocking(False)
    size = 12_000_000
    streams = [
        b"".join(m.message(b"d", rng.randbytes(rng.randint(0, 3000))) for _ in range(size // 1500)) for _ in "cs"
    ]
    got = [bytearray(), bytearray()]

    async def write(end: socket.socket, data: bytes) -> None:
        position = 0
        while position < len(data):
            step = rng.randint(1, 60_000)
            await loop.sock_sendall(end, data[position : position + step])
            position += step

    async def read(end: socket.socket, into: bytearray, size: int) -> None:
        while len(into) < size:
            into += await loop.sock_recv(end, rng.randint(1, 40_000))
            if rng.random() < 0.05:
                await asyncio.sleep(0.002)

    async def flip() -> int:
        times = 0
        while True:
            await asyncio.sleep(rng.random() * 0.002)
            to_client, to_server = line.loan.recall()
            assert line.loan.outcome == Outcome.RECALLED
            times += 1
            # As the router does: what was not written goes first.
            await loop.sock_sendall(line.client_end, to_client)
            await loop.sock_sendall(line.server_end, to_server)
            line.lend()
            if [len(data) for data in got] == [len(streams[1]), len(streams[0])]:
                return times

    async with asyncio.timeout(60):
        _, _, _, _, times = await asyncio.gather(
            write(line.client, streams[0]),
            write(line.server, streams[1]),
            read(line.client, got[0], len(streams[1])),
            read(line.server, got[1], len(streams[0])),
            flip(),
        )
    assert bytes(got[0]) == streams[1]
    assert bytes(got[1]) == streams[0]
    assert times > 10
    line.loan.recall()
    assert line.tracker.server_at_boundary
    assert line.tracker.safe
    line.close()
