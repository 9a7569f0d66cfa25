"""The compiled tracker answers as the reference does: same bytes, same chunks; same state, same error."""

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verdigris.wire.postgres import messages as m
from verdigris.wire.postgres.errors import ProtocolError
from verdigris.wire.postgres.framing import MAX_MESSAGE_BYTES
from verdigris.wire.postgres.session import MAX_PARAMETERS, MAX_STATEMENT_BYTES, SessionTracker, Unnamed

compiled = pytest.importorskip("verdigris.wire.postgres._tracker", reason="not compiled here")

# What a statement can hold of what scanners look for, and what only looks like it.
FRAGMENTS = (
    *(
        b"set ",
        b"SET\t",
        b" session ",
        b"LOCAL\n",
        b"a.b",
        b'"A b".c',
        b"app.x",
        b" = ",
        b" to ",
        b"1",
        b" ",
        b"offset",
    ),
    *(b"set_config(", b'SET_CONFIG" (', b"'my.var'", b"E'x.y'::text,", b"$1,", b"$2::text ,", b"update t set a = b.c"),
    *(b"\xc3\xa9.z", b"session.x", b'"', b".", b"_", b"s", b"se", b"\0"),
)
statements = st.lists(st.sampled_from(FRAGMENTS), max_size=6).map(b"".join)
names = st.sampled_from((b"", b"", b"s1"))
values = st.lists(st.sampled_from((b"a.b", b"C.d", b"no", b"x.y.z", None)), max_size=3)


def _parse(name: bytes, text: bytes) -> bytes:
    return m.message(b"P", name + b"\0" + text + b"\0\0\0")


client_messages = st.one_of(
    statements.map(lambda text: m.message(b"Q", text)),
    st.builds(_parse, names, statements),
    st.builds(_parse, names, st.sampled_from((b"set_config($1, ", b"set_config($2, ''), set_config($1, '')"))),
    st.builds(m.bind, names, values),
    st.builds(m.bind, names, values).map(lambda bind: m.message(b"B", bind[5:-7])),
    st.sampled_from(
        (
            *(m.message(code) for code in (b"B", b"E", b"D", b"C", b"H", b"S", b"S", b"F", b"c", b"f", b"d", b"P")),
            *(m.describe_statement(b"s1"), m.close_statement(b"s1"), m.describe_portal(b""), m.message(b"C", b"P\0")),
            *(m.message(b"?"), m.message(b"d", b"Z\0\0\0\5I"), m.message(b"p", b"md5"), m.TERMINATE),
            m.sasl_initial_response(b"SCRAM-SHA-256", b"n,,n=,r=abc"),
            m.sasl_initial_response(b"SCRAM-SHA-256-PLUS", b"p=x,,n=,r=abc"),
            m.password(b"c=biws,r=abcdef,p=" + b"A" * 43 + b"="),
        )
    ),
)
ready = st.sampled_from((b"I", b"T", b"E")).map(lambda status: m.message(b"Z", status))
server_messages = st.one_of(
    ready,
    st.sampled_from(
        (
            *(m.message(code) for code in (b"1", b"1", b"1", b"2", b"3", b"G", b"G", b"E", b"C", b"N", b"n", b"v")),
            *(m.message(b"t", b"\0\0"), m.message(b"T", b"\0\0")),
            *(m.message(b"D", b"\0\1Z\0\0\0\5I"), m.message(b"W"), m.message(b"v", b"\0\3\0\2\0\0\0\0")),
            *(m.parameter_status(b"a", b"1"), m.parameter_status(b"a", b"2"), m.parameter_status(b"b", b"1")),
            *(m.message(b"K", b"\0\0\0\7abcd"), m.message(b"R", bytes(4)), m.message(b"R", b"\0\0\0\5salt")),
            *(m.message(b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0"), m.message(b"R", b"\0\0\0\x0br=abcdef,s=AAAA,i=4096")),
        )
    ),
)
# Rare ones that end the conversation; each is told apart by the error that it raises.
hostile = st.one_of(
    st.sampled_from(
        (
            *(b"x" + length.to_bytes(4, "big") for length in (0, 3, MAX_MESSAGE_BYTES + 1, 0xFFFFFFFF)),
            *(m.message(b"Z"), m.message(b"Z", b"II"), m.message(b"Z", b"?"), m.message(b"S", b"no end")),
            *(m.message(b"K"), m.message(b"R"), m.message(b"K", bytes(300))),
        )
    ),
    st.binary(max_size=40),
)
# True: from the client.
steps = st.lists(
    st.one_of(
        st.tuples(st.just(True), st.lists(client_messages, min_size=1, max_size=6).map(b"".join)),
        st.tuples(st.just(False), st.lists(server_messages, min_size=1, max_size=6).map(b"".join)),
    ),
    max_size=30,
)


def observed(tracker: SessionTracker) -> dict[str, Any]:
    login, custom = tracker.login, tracker.custom_settings
    return {
        "status": tracker.status,
        "terminated": tracker.terminated,
        "in_doubt": tracker.in_doubt,
        "logged_in": tracker.logged_in,
        "quiet": tracker.quiet,
        "safe": tracker.safe,
        "needs_client": tracker.needs_client,
        "server_at_boundary": tracker.server_at_boundary,
        "batch_open": tracker.batch_open,
        "unnamed": tracker.unnamed,
        "key": tracker.key,
        "parameters": tracker.parameters,
        "login": (login.method, login.transcript, login.protocol_minor),
        "custom_settings": (custom.names, custom.unknown, custom.bound),
        "sequence_values": tracker.sequence_values.asked,
    }


class Pair:
    def __init__(self) -> None:
        self.reference = SessionTracker()
        self.compiled: SessionTracker = compiled.SessionTracker()
        self.failed = False

    def feed(self, from_client: bool, data: bytes, *, stop: bool = False) -> int:
        """How much of ``data`` both consumed."""
        outcomes: list[int | tuple[type[ProtocolError], str]] = []
        for tracker in (self.reference, self.compiled):
            try:
                if from_client:
                    outcomes.append(tracker.client_data(data, stop))
                else:
                    tracker.server_data(data)
                    outcomes.append(len(data))
            except ProtocolError as error:
                outcomes.append((type(error), str(error)))
                self.failed = True
        assert outcomes[0] == outcomes[1]
        assert observed(self.compiled) == observed(self.reference)
        return outcomes[0] if isinstance(outcomes[0], int) else len(data)

    def feed_in_chunks(self, from_client: bool, data: bytes, rng: random.Random, size: int) -> None:
        while data and not self.failed:
            chunk = data[: rng.randint(1, size)]
            data = data[self.feed(from_client, chunk, stop=from_client and rng.random() < 0.2) :]


@settings(max_examples=400, deadline=None)
@given(steps, st.sampled_from((1, 3, 7, 40, 1000)), st.randoms(use_true_random=False))
def test_conversations(script: list[tuple[bool, bytes]], size: int, rng: random.Random) -> None:
    pair = Pair()
    for from_client, data in script:
        pair.feed_in_chunks(from_client, data, rng, size)


@settings(max_examples=200, deadline=None)
@given(steps, st.booleans(), hostile, st.sampled_from((1, 5, 1000)), st.randoms(use_true_random=False))
def test_hostile_bytes(
    script: list[tuple[bool, bytes]], from_client: bool, poison: bytes, size: int, rng: random.Random
) -> None:
    pair = Pair()
    for step in [*script, (from_client, poison)]:
        pair.feed_in_chunks(*step, rng, size)


@settings(max_examples=500, deadline=None)
@given(statements)
def test_statements_that_set_something(statement: bytes) -> None:
    """What the compiled tracker does not show to the scanners is of no interest to them."""
    Pair().feed(True, m.message(b"Q", statement))


@pytest.mark.parametrize("excess", [-1, 0, 1])
def test_statements_about_as_long_as_are_kept(excess: int) -> None:
    head = b"\0set a.b = '"
    parse = m.message(b"P", head + b"x" * (MAX_STATEMENT_BYTES - len(head) + excess))
    pair = Pair()
    pair.feed(False, m.message(b"Z", b"I"))
    for start in range(0, len(parse), 65_000):
        pair.feed(True, parse[start : start + 65_000])
    pair.feed(False, m.message(b"1"))
    assert (pair.compiled.unnamed is Unnamed.TOO_LONG) == (excess > 0)


def test_more_parameters_than_are_kept() -> None:
    pair = Pair()
    for n in range(MAX_PARAMETERS + 2):
        pair.feed(False, m.parameter_status(b"p%d" % n, b"x"))
    assert len(pair.compiled.parameters) == MAX_PARAMETERS


@pytest.mark.parametrize("count", [3, 4, 5, 63, 64, 65, 1000])
def test_many_requests_in_flight(count: int) -> None:
    """Across every size that the compiled tracker's queue grows to and comes back from, at any place in it."""
    pair = Pair()
    pair.feed(False, m.message(b"Z", b"I"))
    for shift in range(5):
        for n in range(count):
            pair.feed(True, _parse(b"", b"select %d" % n) + (m.SYNC if n % 3 == 0 else b""))
            if n < shift:
                pair.feed(False, m.message(b"1") + m.message(b"Z", b"T"))
        for _ in range(count):
            pair.feed(False, m.message(b"1") + m.message(b"Z", b"I"))
    assert pair.compiled.quiet == pair.reference.quiet


SYMBOLS = (
    *((True, m.message(code)) for code in (b"Q", b"P", b"B", b"S", b"F", b"c")),
    (True, m.describe_statement(b"s1")),
    (True, m.close_statement(b"s1")),
    (True, _parse(b"", b"select 1")),
    *((False, m.message(code)) for code in (b"1", b"T", b"3", b"G", b"E")),
    *((False, m.message(b"Z", status)) for status in (b"I", b"T")),
)


def test_every_short_conversation() -> None:
    """All sequences of four of the messages that change anything, in whatever order: also those that make no sense."""
    for conversation in itertools.product(SYMBOLS, repeat=4):
        trackers: tuple[SessionTracker, SessionTracker] = (SessionTracker(), compiled.SessionTracker())
        for tracker in trackers:
            tracker.server_data(m.message(b"Z", b"I"))
            for from_client, data in conversation:
                if from_client:
                    tracker.client_data(data)
                else:
                    tracker.server_data(data)
        reference, other = trackers
        assert (other.quiet, other.needs_client, other.in_doubt, other.unnamed) == (
            reference.quiet,
            reference.needs_client,
            reference.in_doubt,
            reference.unnamed,
        ), conversation
