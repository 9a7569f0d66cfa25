"""A tracker packed at a safe point and unpacked goes on as the original would."""

import msgspec
import pytest

from verdigris.wire.postgres import messages, session
from verdigris.wire.postgres.errors import LocalProtocolError
from verdigris.wire.postgres.idle import IdleTracker, pack_tracker, unpack_tracker
from verdigris.wire.postgres.login import Method
from verdigris.wire.postgres.scram import Transcript
from verdigris.wire.postgres.session import MAX_STATEMENT_BYTES, Unnamed

READY = messages.message(b"Z", b"I")
# What a tracker has for the eyes of others; whoever adds something decides here whether it travels.
TRAVELS = {"batch_open", "custom_settings", "key", "login", "parameters", "sequence_values", "status", "unnamed"}
STAYS = {"in_doubt", "terminated"}  # false at a safe point


def test_nothing_is_forgotten() -> None:
    public = {name for name in session.SessionTracker.__slots__ if not name.startswith("_")}
    assert public == TRAVELS | STAYS
    assert {"method", "protocol_minor", "transcript"} == {
        name for name in type(session.SessionTracker().login).__slots__ if not name.startswith("_")
    }
    assert set(type(session.SessionTracker().custom_settings).__slots__) == {"bound", "names", "unknown"}
    assert set(type(session.SessionTracker().sequence_values).__slots__) == {"asked"}


@pytest.mark.parametrize("unnamed", [None, b"\0SELECT $1\0\0\0", bytes(MAX_STATEMENT_BYTES + 1)])
@pytest.mark.parametrize("batch_open", [False, True])
def test_round_trip(tracker_class: type[session.SessionTracker], unnamed: bytes | None, batch_open: bool) -> None:
    original = tracker_class()
    original.login.method = Method.SCRAM
    original.login.transcript = Transcript(b"n=,r=x", bytes(32))
    original.login.protocol_minor = 2
    original.server_data(messages.message(b"K", b"\0\0\0\7secret"))
    original.server_data(messages.parameter_status(b"TimeZone", b"UTC") + READY)
    original.client_data(messages.message(b"Q", b"SET app.tenant = 7; SELECT lastval()\0"))
    original.server_data(READY)
    original.client_data(messages.parse(b"sets", b"SELECT set_config($2, $1, false), set_config($3, '', false)"))
    original.client_data(messages.SYNC)
    original.server_data(messages.message(b"1") + READY)
    if unnamed is not None:
        original.client_data(messages.message(b"P", unnamed) + messages.SYNC)
        original.server_data(messages.message(b"1") + READY)
    if batch_open:
        original.client_data(messages.parse(b"s", b"SELECT 1"))
        original.server_data(messages.message(b"1"))
    packed = msgspec.msgpack.decode(msgspec.msgpack.encode(pack_tracker(original)), type=IdleTracker)
    copy = unpack_tracker(packed)
    assert copy.safe
    assert copy.batch_open == batch_open
    assert copy.logged_in
    assert copy.key == original.key
    assert copy.parameters == {b"TimeZone": b"UTC"}
    assert (copy.login.method, copy.login.transcript, copy.login.protocol_minor) == (
        Method.SCRAM,
        Transcript(b"n=,r=x", bytes(32)),
        2,
    )
    assert (copy.custom_settings.names, copy.custom_settings.unknown) == ({b"app.tenant"}, False)
    assert copy.custom_settings.bound == {b"sets": (2, 3)}
    copy.client_data(messages.bind(b"sets", [b"", b"app.two", b"app.three"]) + messages.EXECUTE + messages.SYNC)
    copy.server_data(READY)
    assert copy.custom_settings.names == {b"app.tenant", b"app.two", b"app.three"}
    assert copy.sequence_values.asked
    assert copy.unnamed == original.unnamed
    assert (copy.unnamed is Unnamed.TOO_LONG) == (unnamed is not None and len(unnamed) > MAX_STATEMENT_BYTES)
    copy.client_data(messages.message(b"Q", b"SELECT 1\0"))
    assert not copy.safe
    assert not copy.batch_open
    copy.server_data(READY)
    assert copy.safe
    assert copy.unnamed is None


def test_only_at_a_safe_point(tracker_class: type[session.SessionTracker]) -> None:
    tracker = tracker_class()
    with pytest.raises(LocalProtocolError):
        pack_tracker(tracker)
    tracker.server_data(messages.message(b"Z", b"T"))
    with pytest.raises(LocalProtocolError):
        pack_tracker(tracker)
