"""Message boundaries, whatever the chunks."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verdigris.wire.postgres.errors import RemoteProtocolError
from verdigris.wire.postgres.framing import MAX_MESSAGE_BYTES, FrameReader, Skimmer, actions
from verdigris.wire.postgres.messages import message

LIMIT = 12


class Recorder:
    """A skimmer that looks into types a and b, and is told by b when to stop."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes, int]] = []
        self.skimmer = Skimmer(actions({b"a": (self._a, LIMIT), b"b": (self._b, 0)}))

    def _a(self, body: bytes, size: int) -> bool:
        self.seen.append(("a", body, size))
        return False

    def _b(self, body: bytes, size: int) -> bool:
        self.seen.append(("b", body, size))
        return True


STREAM = [
    (b"a", b""),
    (b"x", b"Z\0\0\0\5I" * 3),  # a body that looks like messages
    (b"a", b"short"),
    (b"b", b""),
    (b"a", bytes(range(40))),
    (b"b", b"some body"),
    (b"x", b""),
]
BYTES = b"".join(message(code, body) for code, body in STREAM)
SEEN = [
    (code.decode(), body[: LIMIT if code == b"a" else 0], len(body)) for code, body in STREAM if code in (b"a", b"b")
]


@pytest.mark.parametrize("first", range(len(BYTES) + 1))
def test_cut_anywhere(first: int) -> None:
    recorder = Recorder()
    for chunk in (BYTES[:first], BYTES[first:]):
        assert recorder.skimmer.feed(chunk) == len(chunk)
    assert recorder.seen == SEEN
    assert recorder.skimmer.at_boundary


@pytest.mark.parametrize("size", range(1, 9))
def test_small_chunks(size: int) -> None:
    recorder = Recorder()
    for start in range(0, len(BYTES), size):
        recorder.skimmer.feed(BYTES[start : start + size])
    assert recorder.seen == SEEN
    assert recorder.skimmer.at_boundary


def test_boundary_is_known_at_every_byte() -> None:
    recorder = Recorder()
    ends = {sum(5 + len(body) for _, body in STREAM[:count]) for count in range(len(STREAM) + 1)}
    for position in range(len(BYTES)):
        assert recorder.skimmer.at_boundary == (position in ends)
        recorder.skimmer.feed(BYTES[position : position + 1])


@given(st.lists(st.integers(1, 30), max_size=40), st.randoms(use_true_random=False))
def test_stops_after_a_request_and_goes_on(sizes: list[int], rng: random.Random) -> None:
    """Fed with ``stop``, what is not consumed is offered again: nothing is lost or seen twice."""
    recorder = Recorder()
    pending = b""
    position = 0
    for size in [*sizes, len(BYTES)]:
        pending += BYTES[position : position + size]
        position += size
        while pending:
            consumed = recorder.skimmer.feed(pending, stop=rng.random() < 0.7)
            assert consumed == len(pending) or recorder.seen[-1][0] == "b"
            assert consumed > 0
            pending = pending[consumed:]
    assert recorder.seen == SEEN


@pytest.mark.parametrize("length", [0, 3, MAX_MESSAGE_BYTES + 1, 0xFFFFFFFF])
@pytest.mark.parametrize("split", [False, True])
def test_impossible_length_is_refused(length: int, split: bool) -> None:
    data = b"x" + length.to_bytes(4, "big")
    recorder = Recorder()
    if split:
        recorder.skimmer.feed(data[:2])
        data = data[2:]
    with pytest.raises(RemoteProtocolError, match="impossible length"):
        recorder.skimmer.feed(data)


def test_huge_body_is_not_kept() -> None:
    recorder = Recorder()
    body = bytes(1_000_000)
    wire = message(b"a", body)
    for start in range(0, len(wire), 65536):
        recorder.skimmer.feed(wire[start : start + 65536])
    assert recorder.seen == [("a", body[:LIMIT], len(body))]


@given(st.lists(st.integers(1, 30), max_size=40))
def test_frame_reader(sizes: list[int]) -> None:
    reader = FrameReader(max_bytes=1000)
    found = []
    position = 0
    for size in [*sizes, len(BYTES)]:
        found += [(bytes([code]), body) for code, body in reader.feed(BYTES[position : position + size])]
        position += size
    assert found == STREAM
    assert reader.rest() == b""


def test_frame_reader_buffers_nothing_beyond_its_limit() -> None:
    reader = FrameReader(max_bytes=100)
    with pytest.raises(RemoteProtocolError):
        list(reader.feed(b"x" + (101).to_bytes(4, "big")))
