"""Our own sessions, when something goes wrong with one of two."""

import asyncio

import psycopg
import pytest

from tests.conftest import CreateServer
from verdigris.engines.postgres.sessions import both, session

LIMIT_S = 20.0


async def test_nobody_is_left_waiting_when_one_of_two_questions_fails(create_server: CreateServer) -> None:
    """The other one is cancelled on its server, and its session can be used, or closed, at once."""
    server = await create_server()
    async with session(server) as one, session(server) as other, asyncio.timeout(LIMIT_S):
        assert await both(one.value("SELECT 1"), other.value("SELECT 'b'")) == (1, "b")
        before = asyncio.all_tasks()
        with pytest.raises(psycopg.errors.DivisionByZero):
            await both(one.value("SELECT pg_sleep(600)"), other.value("SELECT 1/0"))
        assert asyncio.all_tasks() == before
        assert await both(one.value("SELECT 2"), other.value("SELECT 3")) == (2, 3)
