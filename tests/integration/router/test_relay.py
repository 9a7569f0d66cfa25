"""The relay in its steady state: real clients, real servers, nothing of the protocol lost on the way."""

import psycopg
import pytest

from tests.integration.router.conftest import Endpoint


@pytest.mark.parametrize("sslmode", ["disable", "require"])
async def test_password_login_passes_through(endpoint: Endpoint, sslmode: str) -> None:
    async with await psycopg.AsyncConnection.connect(endpoint.conninfo(sslmode=sslmode)) as connection:
        cursor = await connection.execute("SELECT label, current_user FROM which")
        assert await cursor.fetchone() == ("blue", "alice")
        assert connection.pgconn.ssl_in_use == (sslmode == "require")
