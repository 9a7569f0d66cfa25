"""The packets that open a connection."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verdigris.wire.postgres.errors import RemoteProtocolError
from verdigris.wire.postgres.messages import BackendKey
from verdigris.wire.postgres.startup import (
    GSSENC_REQUEST,
    PROTOCOL_3_0,
    PROTOCOL_3_2,
    SSL_REQUEST,
    CancelRequest,
    Opening,
    StartupMessage,
    cancel_request,
    packet_size,
    read_packet,
    recognise,
    startup_message,
)

ALICE = {b"user": b"alice", b"database": b"app", b"options": b"-c work_mem=5MB"}


def test_openings_are_recognised() -> None:
    assert recognise(SSL_REQUEST) is Opening.SSL_REQUEST
    assert recognise(GSSENC_REQUEST) is Opening.GSSENC_REQUEST
    assert recognise(startup_message(PROTOCOL_3_0, ALICE)) is Opening.PACKET
    assert recognise(b"\x16") is Opening.TLS
    assert recognise(SSL_REQUEST[:7]) is None


@pytest.mark.parametrize("version", [PROTOCOL_3_0, PROTOCOL_3_2])
def test_startup_message_round_trip(version: int) -> None:
    raw = startup_message(version, ALICE)
    assert packet_size(raw[:4]) == len(raw)
    packet = read_packet(raw)
    assert packet == StartupMessage(version, ALICE)
    assert isinstance(packet, StartupMessage)
    assert (packet.user, packet.database) == (b"alice", b"app")


def test_database_is_the_user_by_default() -> None:
    packet = read_packet(startup_message(PROTOCOL_3_0, {b"user": b"alice"}))
    assert isinstance(packet, StartupMessage)
    assert packet.database == b"alice"


@pytest.mark.parametrize("secret", [b"1234", b"x" * 32, b"y" * 256])
def test_cancel_request_round_trip(secret: bytes) -> None:
    key = BackendKey(4711, secret)
    assert read_packet(cancel_request(key)) == CancelRequest(key)


@pytest.mark.parametrize(
    ("value", "replication"),
    [(b"false", False), (b"OFF", False), (b"0", False), (b"true", True), (b"database", True), (b"1", True)],
)
def test_replication_is_noticed(value: bytes, replication: bool) -> None:
    packet = StartupMessage(PROTOCOL_3_0, {b"user": b"a", b"replication": value})
    assert packet.asks_for_replication == replication


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"user\0alice\0",  # no terminator
        b"user\0\0\0",  # empty name of the user
        b"database\0app\0\0",
        b"user\0alice\0rest",
        b"user\0alice\0\0trailing",
    ],
)
def test_malformed_parameters_are_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_packet(struct.pack("!II", len(body) + 8, PROTOCOL_3_0) + body)


@pytest.mark.parametrize("length", [0, 7, 10_001, 0xFFFFFFFF])
def test_length_is_not_trusted(length: int) -> None:
    with pytest.raises(RemoteProtocolError):
        packet_size(length.to_bytes(4, "big"))


def test_other_protocols_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match=r"2\.0"):
        read_packet(struct.pack("!II", 8, 2 << 16))


@given(st.binary(min_size=8, max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    raw = (len(data)).to_bytes(4, "big") + data[4:]
    with contextlib.suppress(RemoteProtocolError):
        read_packet(raw)
