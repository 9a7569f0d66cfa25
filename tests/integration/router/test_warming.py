"""What sessions have prepared is planned on green before they come, and not executed."""

import asyncio

import psycopg

from tests.integration.router.clients import Endpoint, Pair, Switchover, connect, one

# A planner calls what it is told never changes. That it did is to be heard on the other side.
_FUNCTIONS = """
    CREATE FUNCTION public.planned(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_notify('heard', 'planned'); RETURN n; END $$;
    CREATE FUNCTION public.executed(n int) RETURNS int VOLATILE LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_notify('heard', 'executed'); RETURN n; END $$
"""


async def test_plans_are_made_and_nothing_is_executed(endpoint: Endpoint, pair: Pair, switchover: Switchover) -> None:
    for conninfo in (pair.blue_admin, pair.green_admin):
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as admin:
            await admin.execute(_FUNCTIONS)
    try:
        async with (
            await psycopg.AsyncConnection.connect(pair.green_admin, autocommit=True) as green,
            await connect(endpoint) as connection,
        ):
            await green.execute("LISTEN heard")
            # One that cannot be planned is not in the way of others, nor of what the session is given later.
            await connection.execute("PREPARE first AS SELECT 1 / 0")
            await connection.execute("SET plan_cache_mode = force_custom_plan")
            await connection.execute(
                "PREPARE by_sql (int) AS SELECT public.executed($1) FROM which WHERE label <> $1::text"
            )
            await connection.execute('CREATE TEMPORARY TABLE mine (i int); PREPARE "of, mine" AS SELECT i FROM mine')
            await connection.execute("PREPARE listens AS SELECT public.executed(1)")
            await connection.execute("SELECT public.planned(1)", prepare=True)

            await connection.execute("PREPARE last AS SELECT 1 / 0")
            await switchover.ready()
            heard = await asyncio.wait_for(anext(green.notifies()), 60)
            assert heard.payload == "planned"

            await connection.execute("SET work_mem = '7MB'")
            assert await switchover.run() == {}
            assert await one(connection, "SHOW work_mem") == "7MB"
            assert await one(connection, "SHOW plan_cache_mode") == "force_custom_plan"
            assert await one(connection, "SHOW lock_timeout") == "0"
            payloads = [n.payload async for n in green.notifies(timeout=0)]
            assert "executed" not in payloads
            assert await one(connection, "EXECUTE listens") == 1
            assert await one(connection, "EXECUTE by_sql(5)") == 5
            assert await one(connection, "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 6
    finally:
        for conninfo in (pair.blue_admin, pair.green_admin):
            async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as admin:
                await admin.execute("DROP FUNCTION public.planned; DROP FUNCTION public.executed")
