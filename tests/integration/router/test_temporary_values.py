"""What is in temporary tables, under any settings of the session, and any name of theirs."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from tests.integration.router.clients import Connection, Endpoint, Pair, Switchover, connect, one
from verdigris.router.client import RouterClient

pytestmark = pytest.mark.usefixtures("odd_schema")


VALUES = [
    ("float8", ["NaN", "Infinity", "-Infinity", "-0", "0.1", "1e-320", "1.7976931348623157e308"]),
    ("float4", ["NaN", "-0", "3.4028235e38", "0.1", "1e-45"]),
    ("numeric", ["NaN", "Infinity", "1.10", "0.000000000000000000000000000001", "9" * 200]),
    ("numeric(20,5)", ["1.5", "-99999.00001"]),
    ("timestamptz", ["infinity", "-infinity", "4713-01-01 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00",
                     "1880-01-01 12:34:56.789+00:19:32"]),
    ("timestamp(3)", ["2024-02-29 23:59:59.999", "0044-03-15 BC"]),
    ("date", ["infinity", "4713-01-01 BC", "5874897-12-31"]),
    ("timetz", ["24:00:00+15:59:59", "00:00:00-12"]),
    ("interval", ["-1 year +3 days -04:05:06.789", "infinity", "178000000 years"]),
    ("interval day to second(2)", ["3 days 04:05:06.78"]),
    ("text", ["", "\\", "\\N", "\\.", "a\tb\nc\r\nd\x0be\x08f", "'", '"', "\u00e9\u4e2d\U0001f600", "NULL", "\x7f"]),
    ('"char"', ["\\351", "a", ""]),
    ("char(5)", ["ab", "     "]),
    ("bytea", ["\\x00ff5c6e0a", "\\x"]),
    ("bit varying", ["", "10110"]),
    ("jsonb", ['{"a": [1, 1.10, null, "\\u00e9\\\\"], "b": {}}', "1e400"]),
    ("json", ['{"a":1,  "a":2}', "  null "]),
    ("text[]", ['{NULL,"NULL","","a\\"b\\\\c",{}}'.replace(",{}", ""), "[0:1]={x,y}", "{{a,b},{c,d}}", "{}"]),
    ("float8[]", ["{NaN,-0,NULL}"]),
    ("int4range", ["empty", "[1,)", "(,)"]),
    ("tstzrange", ['["2020-01-01 00:00:00+00",infinity)']),
    ("nummultirange", ["{}", "{[1.0,2.50),(3,]}"]),
    ("inet", ["::1/64", "10.1.2.3/8"]),
    ("money", ["-$92,233,720,368,547,758.08", "$0.01"]),
    ("uuid", ["00000000-0000-0000-0000-000000000000"]),
    ("tsvector", ["'a':1A 'b''c':2,3B"]),
    ("tsquery", ["'a' & !'b':*AB"]),
    ("pg_lsn", ["FFFFFFFF/FFFFFFFF"]),
    ("point", ["(NaN,-0)", "(1e-300,Infinity)"]),
    ("path", ["[(0,0),(1.1,2)]"]),
    ("odd.mood", ["a 'quoted' one"]),
    ("odd.pair", ['(,)', '(1,"a, ""b"" \\\\")']),
    ("odd.pair[]", ['{"(1,\\"x,y\\")",NULL}']),
    ("odd.small", ["99"]),
    ("regtype", ["odd.mood", "integer"]),
    ("oid", ["4294967295"]),
    ("xid8", ["18446744073709551615"]),
]  # fmt: skip


@pytest.mark.parametrize(
    "session",
    [
        [],
        [
            "SET DateStyle = 'German, DMY'",
            "SET IntervalStyle = 'sql_standard'",
            "SET TimeZone = 'Africa/Monrovia'",
            "SET extra_float_digits = -15",
            "SET bytea_output = 'escape'",
            "SET xmloption = 'document'",
            "SET array_nulls = off",
            "SET search_path = odd, public",
            "SET standard_conforming_strings = off",
            "SET escape_string_warning = off",
            "SET quote_all_identifiers = on",
            "SET client_encoding = 'LATIN1'",
            "SET statement_timeout = '5s'",
            "SET default_transaction_isolation = 'serializable'",
            "SET default_transaction_read_only = on",
        ],
    ],
    ids=["as it is", "under other settings"],
)
async def test_values(endpoint: Endpoint, switchover: Switchover, session: list[str]) -> None:
    """The bytes that the server itself sends and hashes for them are the same on both sides."""
    async with await connect(endpoint) as connection:
        for number, (type_name, values) in enumerate(VALUES):
            await connection.execute(f"CREATE TEMP TABLE t{number} (v {type_name})")
            for value in [*values, None]:
                await connection.execute(sql.SQL(f"INSERT INTO t{number} VALUES ({{}})").format(sql.Literal(value)))
        for statement in session:
            await connection.execute(statement)
        before = [await sent(connection, number) for number in range(len(VALUES))]
        assert await switchover.run() == {}
        assert [await sent(connection, number) for number in range(len(VALUES))] == before
        assert await one(connection, "SELECT label FROM public.which") == "green"


async def sent(connection: Connection, number: int) -> list[object]:
    """As text under settings that lose nothing, so that it can be compared whatever the session has set."""
    async with connection.transaction():
        for setting in ("client_encoding = 'UTF8'", "DateStyle = 'ISO'", "IntervalStyle = 'postgres'",
                        "extra_float_digits = 3", "bytea_output = 'hex'", "TimeZone = 'UTC'"):  # fmt: skip
            await connection.execute(f"SET LOCAL {setting}")
        async with connection.cursor().copy(f"COPY t{number} TO STDOUT") as copy:
            return [bytes(row) async for row in copy]


async def test_the_settings_are_the_clients_afterwards(endpoint: Endpoint, switchover: Switchover) -> None:
    async with await connect(endpoint) as connection:
        await connection.execute("CREATE TEMP TABLE t (x int)")
        await connection.execute("CREATE TEMP TABLE filled AS SELECT 1.5::float8 AS f")
        for statement in ("SET DateStyle = 'German'", "SET client_encoding = 'LATIN1'", "SET search_path = odd"):
            await connection.execute(statement)
        seen: list[bytes] = []
        names = (b"DateStyle", b"client_encoding", b"standard_conforming_strings", b"TimeZone", b"IntervalStyle")
        before = [connection.pgconn.parameter_status(name) for name in names]
        connection.add_notice_handler(lambda notice: seen.append((notice.message_primary or "").encode()))
        assert await switchover.run() == {}
        assert await one(connection, "SHOW search_path") == "odd"
        assert await one(connection, "SHOW DateStyle") == "German, DMY"
        assert [connection.pgconn.parameter_status(name) for name in names] == before
        assert seen == []


_OTHER_COLUMN = "2"
identifiers = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: len(name.encode()) < 50 and name != _OTHER_COLUMN
)


async def test_any_identifier(endpoint: Endpoint, router: RouterClient, switchover: Switchover, pair: Pair) -> None:
    """Of tables, columns, constraints, indexes and sequences: all at once, in one session."""
    found: list[tuple[str, str, str]] = []

    @settings(max_examples=60, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(identifiers, identifiers, identifiers.filter(lambda text: text != "x"))  # which the check refuses
    def collect(table: str, column: str, text: str) -> None:
        found.append((f"{len(found)}{table}", column, text))

    collect()
    async with await connect(endpoint) as connection:
        for table, column, text in found:
            await connection.execute(
                sql.SQL(
                    "CREATE TEMP TABLE {table} ({column} text DEFAULT {text} CHECK ({column} <> 'x') UNIQUE,"
                    ' "2" int GENERATED ALWAYS AS IDENTITY)'
                ).format(table=sql.Identifier(table), column=sql.Identifier(column), text=sql.Literal(text))
            )
            await connection.execute(sql.SQL("INSERT INTO {} DEFAULT VALUES").format(sql.Identifier(table)))
        assert await switchover.run() == {}
        for table, column, text in found:
            query = sql.SQL('SELECT {}, "2" FROM {}').format(sql.Identifier(column), sql.Identifier(table))
            assert await (await connection.execute(query)).fetchall() == [(text, 1)]
