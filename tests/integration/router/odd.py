"""Types, functions and the like for temporary tables to be made of, on both servers."""

import psycopg

from tests.integration.router.clients import Connection, Pair

# Made by the administrator on both servers, before any temporary object.
PERMANENT = """
CREATE SCHEMA odd;
GRANT ALL ON SCHEMA odd TO PUBLIC;
CREATE TYPE odd.mood AS ENUM ('sad', 'a ''quoted'' one');
CREATE TYPE odd.pair AS (a int, b text);
CREATE DOMAIN odd.small AS int CHECK (VALUE < 100);
CREATE COLLATION odd.byte_order FROM "C";
CREATE FUNCTION odd.doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION odd.stamped() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note := ''by trigger''; RETURN NEW; END';
"""


async def on_both(pair: Pair, script: str) -> None:
    for conninfo in (pair.blue_admin, pair.green_admin):
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as admin:
            await admin.execute(script)


async def rows(connection: Connection, query: str) -> list[tuple[object, ...]]:
    return await (await connection.execute(query)).fetchall()
