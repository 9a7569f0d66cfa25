"""When may a session be moved? Scripts of both directions, with the answer after each step."""

from collections.abc import Callable

import pytest

from verdigris.wire.postgres import messages as m
from verdigris.wire.postgres.errors import RemoteProtocolError
from verdigris.wire.postgres.session import MAX_STATEMENT_BYTES, SessionTracker, Unnamed


def ready(status: bytes = b"I") -> bytes:
    return m.message(b"Z", status)


def query(text: bytes) -> bytes:
    return m.message(b"Q", text + b"\0")


COMPLETE = m.message(b"C", b"SELECT 1\0")
PARSE_COMPLETE = m.message(b"1")
BIND_COMPLETE = m.message(b"2")
ERROR = m.error_response("ERROR", "22000", "no")
COPY_IN = m.message(b"G", b"\0\0\0")
COPY_DATA = m.message(b"d", b"1\tx\n")
COPY_DONE = m.message(b"c")
BATCH = m.parse(b"", b"select 1") + m.bind(b"") + m.EXECUTE
ROW = m.message(b"D", b"\0\1\0\0\0\6Z\0\0\0\5I")


@pytest.fixture
def tracker(tracker_class: type[SessionTracker]) -> SessionTracker:
    found = tracker_class()
    found.server_data(m.message(b"R", bytes(4)) + m.message(b"K", b"\0\0\0\7abcd") + ready())
    assert found.safe
    return found


def test_login_is_not_safe(tracker_class: type[SessionTracker]) -> None:
    tracker = tracker_class()
    assert not tracker.safe
    assert tracker.needs_client
    tracker.server_data(m.message(b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0"))
    assert not tracker.safe
    tracker.server_data(m.parameter_status(b"TimeZone", b"UTC") + m.message(b"K", b"\0\0\0\7" + b"k" * 32) + ready())
    assert tracker.safe
    assert tracker.key == m.BackendKey(7, b"k" * 32)
    assert tracker.parameters == {b"TimeZone": b"UTC"}


def test_query(tracker: SessionTracker) -> None:
    tracker.client_data(query(b"select 1"))
    assert not tracker.safe
    assert not tracker.needs_client
    tracker.server_data(ROW + COMPLETE)
    assert not tracker.safe
    tracker.server_data(ready())
    assert tracker.safe


def test_every_split_of_an_answer(tracker: SessionTracker) -> None:
    answer = ROW + COMPLETE + ready()
    for cut in range(len(answer)):
        tracker.client_data(query(b"select 1"))
        tracker.server_data(answer[:cut])
        assert not tracker.safe
        tracker.server_data(answer[cut:])
        assert tracker.safe


@pytest.mark.parametrize("status", [b"T", b"E"])
def test_transaction(tracker: SessionTracker, status: bytes) -> None:
    tracker.client_data(query(b"begin"))
    tracker.server_data(COMPLETE + ready(status))
    assert not tracker.safe
    assert tracker.quiet
    assert tracker.needs_client
    tracker.client_data(query(b"rollback"))
    tracker.server_data(COMPLETE + ready())
    assert tracker.safe


def test_half_a_message_of_the_client(tracker: SessionTracker) -> None:
    data = query(b"select 1")
    tracker.client_data(data[:3])
    assert not tracker.safe
    assert tracker.needs_client
    tracker.client_data(data[3:])
    tracker.server_data(COMPLETE + ready())
    assert tracker.safe


def test_half_a_message_of_the_server(tracker: SessionTracker) -> None:
    notice = m.message(b"N", b"SNOTICE\0\0")
    tracker.server_data(notice[:7])
    assert not tracker.safe
    tracker.server_data(notice[7:])
    assert tracker.safe


def test_open_batch_and_flush(tracker: SessionTracker) -> None:
    tracker.client_data(BATCH + m.FLUSH)
    tracker.server_data(PARSE_COMPLETE + BIND_COMPLETE + COMPLETE)
    assert not tracker.safe
    assert tracker.needs_client
    tracker.client_data(m.SYNC)
    assert not tracker.safe
    tracker.server_data(ready())
    assert tracker.safe


PARAMETERS = m.message(b"t", b"\0\0")
COLUMNS = m.message(b"T", b"\0\0")
NO_DATA = m.message(b"n")
CLOSE_COMPLETE = m.message(b"3")


@pytest.mark.parametrize("name", [b"", b"s1"])
@pytest.mark.parametrize("columns", [COLUMNS, NO_DATA])
def test_a_batch_that_only_prepares(tracker: SessionTracker, name: bytes, columns: bytes) -> None:
    """As asyncpg does it. What is made outlives any transaction, so with the last answer the point is a safe one."""
    prepare = m.parse(name, b"select 1") + m.describe_statement(name) + m.close_statement(b"former") + m.FLUSH
    for cut in range(1, len(prepare) - len(m.FLUSH)):
        tracker.client_data(prepare[:cut])
        assert not tracker.safe
        assert tracker.needs_client
        tracker.client_data(prepare[cut:])
        for answer in (PARSE_COMPLETE, PARAMETERS, columns):
            tracker.server_data(answer)
            assert not tracker.safe
        tracker.server_data(CLOSE_COMPLETE)
        assert tracker.safe
        assert tracker.batch_open
        tracker.client_data(m.SYNC)
        assert not tracker.safe
        assert not tracker.batch_open
        tracker.server_data(ready())
        assert tracker.safe


def test_what_follows_a_batch_that_only_prepares(tracker: SessionTracker) -> None:
    prepare, answer = m.parse(b"s", b"select 1") + m.describe_statement(b"s"), PARSE_COMPLETE + PARAMETERS + NO_DATA
    tracker.client_data(prepare)
    tracker.server_data(answer)
    tracker.client_data(m.bind(b"s"))
    tracker.server_data(BIND_COMPLETE)
    assert not tracker.safe
    assert tracker.needs_client
    # The first Sync's answer is not that of the batch behind it.
    tracker.client_data(m.SYNC + query(b"select 1") + prepare)
    tracker.server_data(ready() + COLUMNS + ROW + COMPLETE + ready())
    assert not tracker.safe
    tracker.server_data(answer)
    assert tracker.safe
    tracker.batch_ended()
    assert not tracker.batch_open
    tracker.client_data(m.bind(b"s") + m.EXECUTE)
    assert tracker.batch_open
    tracker.server_data(BIND_COMPLETE + COMPLETE)
    assert not tracker.safe


@pytest.mark.parametrize("other", [m.bind(b""), m.describe_portal(b""), m.message(b"C", b"P\0"), m.EXECUTE])
def test_a_batch_that_does_more_than_to_prepare(tracker: SessionTracker, other: bytes) -> None:
    tracker.client_data(m.parse(b"", b"select 1") + other)
    tracker.server_data(PARSE_COMPLETE + BIND_COMPLETE + NO_DATA + CLOSE_COMPLETE + COMPLETE)
    assert not tracker.safe


@pytest.mark.parametrize("answered", [b"", PARSE_COMPLETE, PARSE_COMPLETE + PARAMETERS])
def test_a_batch_that_only_prepares_and_fails(tracker: SessionTracker, answered: bytes) -> None:
    """The server reads over everything up to the Sync."""
    tracker.client_data(m.parse(b"s", b"selec") + m.describe_statement(b"s") + m.FLUSH)
    tracker.server_data(answered + ERROR)
    tracker.client_data(m.parse(b"s", b"select 1") + m.FLUSH)
    assert not tracker.safe
    tracker.client_data(m.SYNC)
    assert not tracker.safe
    tracker.server_data(ready())
    assert tracker.safe


def test_a_batch_that_only_prepares_in_a_transaction(tracker: SessionTracker) -> None:
    tracker.client_data(query(b"begin"))
    tracker.server_data(COMPLETE + ready(b"T"))
    tracker.client_data(m.parse(b"s", b"select 1") + m.FLUSH)
    tracker.server_data(PARSE_COMPLETE)
    assert not tracker.safe
    assert tracker.needs_client


@pytest.mark.parametrize("ending", [query(b"select 1"), m.message(b"F", bytes(10))])
def test_a_query_ends_an_open_batch(tracker: SessionTracker, ending: bytes) -> None:
    tracker.client_data(m.parse(b"named", b"select 1") + m.describe_statement(b"named") + m.FLUSH)
    tracker.server_data(PARSE_COMPLETE)
    assert not tracker.safe
    assert tracker.batch_open
    tracker.client_data(ending)
    assert not tracker.batch_open
    assert not tracker.safe
    assert not tracker.needs_client
    tracker.server_data(COMPLETE + ready())
    assert tracker.safe
    tracker.client_data(ending + BATCH)
    tracker.server_data(COMPLETE + ready() + PARSE_COMPLETE + BIND_COMPLETE + COMPLETE)
    assert not tracker.safe
    assert tracker.needs_client


def test_pipeline_of_many(tracker: SessionTracker) -> None:
    tracker.client_data((BATCH + m.SYNC) * 50 + query(b"select 1"))
    for _ in range(50):
        assert not tracker.safe
        tracker.server_data(PARSE_COMPLETE + BIND_COMPLETE + COMPLETE + ready())
    assert not tracker.safe
    tracker.server_data(COMPLETE + ready())
    assert tracker.safe


def test_stops_after_each_request(tracker: SessionTracker) -> None:
    first, second = BATCH + m.SYNC, query(b"select 1")
    assert tracker.client_data(first + second, stop=True) == len(first)
    assert not tracker.needs_client


def test_function_call(tracker: SessionTracker) -> None:
    tracker.client_data(m.message(b"F", bytes(10)))
    assert not tracker.safe
    tracker.server_data(m.message(b"V", b"\xff\xff\xff\xff") + ready())
    assert tracker.safe


# --------------------------------------------------------------------------------------------------------------- copy


def test_copy_in_by_query(tracker: SessionTracker) -> None:
    tracker.client_data(query(b"copy t from stdin"))
    tracker.server_data(COPY_IN)
    assert tracker.needs_client
    tracker.client_data(COPY_DATA * 3)
    assert not tracker.safe
    tracker.client_data(COPY_DONE)
    assert not tracker.safe
    assert not tracker.needs_client
    tracker.server_data(COMPLETE + ready())
    assert tracker.safe


def test_copy_in_by_query_sent_ahead(tracker: SessionTracker) -> None:
    tracker.client_data(query(b"copy t from stdin") + COPY_DATA + COPY_DONE + query(b"select 1"))
    tracker.server_data(COPY_IN + COMPLETE + ready())
    assert not tracker.safe
    tracker.server_data(COMPLETE + ready())
    assert tracker.safe


def test_copy_in_by_extended_protocol(tracker: SessionTracker) -> None:
    """As libpq does it: a Sync goes along with the Execute and is ignored by the server."""
    tracker.client_data(BATCH + m.SYNC)
    tracker.server_data(PARSE_COMPLETE + BIND_COMPLETE + COPY_IN)
    assert tracker.needs_client
    tracker.client_data(COPY_DATA + COPY_DONE)
    assert tracker.needs_client
    tracker.client_data(m.SYNC)
    assert not tracker.needs_client
    assert not tracker.safe
    tracker.server_data(COMPLETE + ready())
    assert tracker.safe
    assert not tracker.in_doubt


def test_copy_in_by_extended_protocol_sent_ahead(tracker: SessionTracker) -> None:
    tracker.client_data(BATCH + m.SYNC + COPY_DATA + COPY_DONE + m.SYNC + query(b"select 1"))
    tracker.server_data(PARSE_COMPLETE + BIND_COMPLETE + COPY_IN + COMPLETE + ready())
    assert not tracker.safe
    tracker.server_data(COMPLETE + ready())
    assert tracker.safe


def test_syncs_while_copying_are_ignored(tracker: SessionTracker) -> None:
    tracker.client_data(query(b"copy t from stdin"))
    tracker.server_data(COPY_IN)
    tracker.client_data(m.SYNC + COPY_DATA + m.SYNC + COPY_DONE)
    tracker.server_data(COMPLETE + ready())
    assert tracker.safe


def test_copy_that_fails_leaves_a_doubt(tracker: SessionTracker) -> None:
    """Whether the server has read the Sync before or after its error cannot be told; both are covered."""
    tracker.client_data(BATCH + m.SYNC)
    tracker.server_data(PARSE_COMPLETE + BIND_COMPLETE + COPY_IN)
    tracker.client_data(COPY_DATA)
    tracker.server_data(ERROR)
    assert tracker.in_doubt
    assert not tracker.safe
    tracker.client_data(COPY_DONE + m.SYNC)
    assert not tracker.safe
    tracker.server_data(ready())
    assert tracker.safe
    assert tracker.in_doubt  # so that the router asks before it believes it


def test_copy_by_query_that_fails_leaves_none(tracker: SessionTracker) -> None:
    tracker.client_data(query(b"copy t from stdin"))
    tracker.server_data(COPY_IN)
    tracker.client_data(COPY_DATA)
    tracker.server_data(ERROR + ready())
    assert tracker.safe
    tracker.client_data(COPY_DATA + COPY_DONE)  # sent before the client saw the error: ignored by the server
    assert tracker.safe
    assert not tracker.in_doubt


def test_copy_fail(tracker: SessionTracker) -> None:
    tracker.client_data(query(b"copy t from stdin"))
    tracker.server_data(COPY_IN)
    tracker.client_data(m.message(b"f", b"no\0"))
    tracker.server_data(ERROR + ready())
    assert tracker.safe


# -------------------------------------------------------------------------------------------------- unnamed statement


def test_unnamed_statement_is_kept_once_confirmed(tracker: SessionTracker) -> None:
    parse = m.parse(b"", b"select $1", [23])
    tracker.client_data(parse + m.SYNC)
    assert tracker.unnamed is None
    tracker.server_data(PARSE_COMPLETE + ready())
    assert tracker.unnamed == parse[5:]
    tracker.client_data(m.parse(b"named", b"select 2") + m.SYNC)
    tracker.server_data(PARSE_COMPLETE + ready())
    assert tracker.unnamed == parse[5:]
    tracker.client_data(query(b"select 3"))
    tracker.server_data(COMPLETE + ready())
    assert tracker.unnamed is None


def test_unnamed_statement_after_errors(tracker: SessionTracker) -> None:
    """A Parse that was skipped after an error does not count; the last confirmed one does."""
    first = m.parse(b"", b"select 1")
    tracker.client_data(first + m.SYNC)
    tracker.server_data(PARSE_COMPLETE + ready())
    tracker.client_data(m.parse(b"bad", b"selec") + m.parse(b"", b"select 2") + m.SYNC)
    tracker.client_data(m.parse(b"", b"select 3") + m.SYNC)
    tracker.server_data(ERROR + ready())
    assert tracker.unnamed == first[5:]
    tracker.server_data(PARSE_COMPLETE + ready())
    assert tracker.unnamed == m.parse(b"", b"select 3")[5:]


def test_long_unnamed_statement_is_known_but_not_kept(tracker: SessionTracker) -> None:
    tracker.client_data(m.parse(b"", b"select '" + b"x" * MAX_STATEMENT_BYTES + b"'") + m.SYNC)
    tracker.server_data(PARSE_COMPLETE + ready())
    assert tracker.unnamed is Unnamed.TOO_LONG


# ---------------------------------------------------------------------------------------------------- custom settings


@pytest.mark.parametrize(
    ("statement", "names", "unknown"),
    [
        (b"SET app.user = 'x'", {b"app.user"}, False),
        (b"set SESSION app.a.b TO 1; set local Other.\"Name\"='y'", {b"app.a.b", b"other.name"}, False),
        (b"select pg_catalog.set_config('my.var', $1, false)", {b"my.var"}, False),
        (b"select set_config('my.var'::text, 'x', true)", {b"my.var"}, False),
        (b"select set_config($1, $2, false)", set(), True),
        (b"select set_config('a.' || name, 'x', false)", set(), True),
        (b"select set_config($1, $2, true), set_config( f(a, ',)') , '), ''', TRUE::bool )", set(), False),
        (b"select set_config($1, $2, true), set_config($3, $4, $5)", set(), True),
        (b"select set_config($1, $2, true and $3)", set(), True),
        (b"select set_config($1, $2, 't'", set(), True),
        (b"SET search_path = app, public", set(), False),
        (b"UPDATE t SET a = b.c", set(), False),
        (b'set\t\n local  "My App".x\vto 1', {b"my app.x"}, False),
        (b"set session.x = 1", {b"session.x"}, False),
        (b"offset a.b = 1", set(), False),
        (b"select pg_catalog.\"set_config\" ('a.b', '', false)", {b"a.b"}, False),
        (b"select 1", set(), False),
    ],
)
def test_custom_settings(tracker: SessionTracker, statement: bytes, names: set[bytes], unknown: bool) -> None:
    tracker.client_data(query(statement))
    assert tracker.custom_settings.names == names
    assert tracker.custom_settings.unknown == unknown


def test_custom_settings_are_bounded(tracker: SessionTracker) -> None:
    for n in range(100):
        tracker.client_data(query(b"set app.v%d = 1" % n))
    assert len(tracker.custom_settings.names) <= 64
    assert tracker.custom_settings.unknown


def bind_in_binary(statement: bytes, *values: bytes) -> bytes:
    formats = b"\0\1\0\1"  # one, for all: binary
    sent = b"".join(len(value).to_bytes(4, "big") + value for value in values)
    return m.message(b"B", b"portal\0" + statement + b"\0" + formats + len(values).to_bytes(2, "big") + sent + b"\0\0")


SETS_BOUND = b"select set_config($1, $2, false)"


@pytest.mark.parametrize("statement", [b"", b"s1"])
@pytest.mark.parametrize("make_bind", [lambda name, *values: m.bind(name, values), bind_in_binary])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_names_that_are_bound(
    tracker: SessionTracker, statement: bytes, make_bind: Callable[..., bytes], size: int
) -> None:
    """Again and again by the same statement, in whatever pieces the messages come."""
    requests = m.parse(statement, SETS_BOUND) + m.SYNC
    for name in (b"app.a", b"App.B", b"work_mem", b"no name", b"also.no name", b"1.5", b"app.a.b"):
        requests += make_bind(statement, name, b"x.y") + m.EXECUTE + m.SYNC
    for begin in range(0, len(requests), size):
        tracker.client_data(requests[begin : begin + size])
    assert tracker.custom_settings.names == {b"app.a", b"app.b", b"app.a.b"}
    assert not tracker.custom_settings.unknown


@pytest.mark.parametrize(
    ("text", "values", "names", "unknown"),
    [
        (b"select set_config($2::text, $1, $3), set_config( $4 , 'x', false)", [b"a", b"b.c", b"f", b"d.e"], 2, False),
        (b"select set_config($1, $2, true)", [b"a.b", b"x"], 0, False),
        (b"select set_config($1 || 'x', $2, false)", [b"a.b", b"x"], 0, True),
        (b"select set_config('a.b', $1, false)", [b"c.d"], 1, False),
        (b"select set_config($1, $2, false)", [None, b"x"], 0, False),
        (b"prepare p as select set_config($1, $2, false)", [], 0, True),
        (b"select set_config($1, $2, false)", [b"x" * 70_000, b"y"], 0, True),
        (b"select set_config($2, $1, false)", [b"x" * 60_000, b"a.b"], 1, False),
        (b"select set_config($70000, '', false)", [b"x"], 0, True),
    ],
)
def test_which_parameters_are_names(
    tracker: SessionTracker, text: bytes, values: list[bytes | None], names: int, unknown: bool
) -> None:
    tracker.client_data(m.parse(b"", text))
    tracker.client_data(m.bind(b"", values) + m.SYNC)
    assert len(tracker.custom_settings.names) == names
    assert tracker.custom_settings.unknown == unknown


def test_only_such_statements_are_looked_for(tracker: SessionTracker) -> None:
    tracker.client_data(m.parse(b"", SETS_BOUND) + m.parse(b"s1", SETS_BOUND))
    assert not tracker.custom_settings.unknown  # nothing has been set yet
    tracker.client_data(m.parse(b"", b"select $1"))
    tracker.client_data(m.bind(b"", [b"not.one"]) + m.bind(b"s2", [b"nor.this"]) + m.bind(b"s1", [b"but.this", b""]))
    assert tracker.custom_settings.names == {b"but.this"}
    # It is refused, and what was there is there still.
    tracker.client_data(m.parse(b"s1", b"select set_config('x', $1, false), set_config($2, '', false)"))
    tracker.client_data(m.bind(b"s1", [b"first.one", b"second.one"]))
    assert tracker.custom_settings.names == {b"but.this", b"first.one", b"second.one"}


def test_statements_that_set_names_are_bounded(tracker: SessionTracker) -> None:
    for n in range(100):
        tracker.client_data(m.parse(b"s%d" % n, SETS_BOUND))
    assert len(tracker.custom_settings.bound) == 64
    assert tracker.custom_settings.unknown


@pytest.mark.parametrize("end", range(5, 30))
def test_malformed_bind(tracker: SessionTracker, end: int) -> None:
    tracker.client_data(m.parse(b"", SETS_BOUND))
    body = m.bind(b"", [b"app.name", b"value"])[5:]
    tracker.client_data(m.message(b"B", body[: end - 5]))
    assert tracker.custom_settings.unknown == (end - 5 < 18)


# ---------------------------------------------------------------------------------------------------- sequence values


@pytest.mark.parametrize(
    ("statement", "asked"),
    [
        (b"SELECT currval('orders_id_seq')", True),
        (b"select pg_catalog.LastVal()", True),
        (b"INSERT INTO t VALUES (1); SELECT\nLASTVAL()", True),
        (b"INSERT INTO t VALUES (nextval('s')) RETURNING id", False),
        (b"SELECT curr, val, last FROM v", False),
    ],
)
def test_who_asks_for_sequence_values(tracker: SessionTracker, statement: bytes, asked: bool) -> None:
    tracker.client_data(query(b"SELECT 1"))
    tracker.client_data(query(statement))
    tracker.client_data(query(b"SELECT 1"))
    assert tracker.sequence_values.asked == asked


# -------------------------------------------------------------------------------------------------------- bad servers


@pytest.mark.parametrize("data", [m.message(b"Z"), m.message(b"Z", b"?"), m.message(b"S", b"no end"), m.message(b"K")])
def test_malformed_messages_of_the_server(tracker: SessionTracker, data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        tracker.server_data(data)


def test_terminate(tracker: SessionTracker) -> None:
    tracker.client_data(m.TERMINATE)
    assert tracker.terminated
