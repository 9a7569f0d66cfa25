"""Many sessions that do nothing: opened, kept, and seen to be alive."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import psycopg

# One client's SCRAM arithmetic is a millisecond of a processor's time; more at once only queue up at the server.
_AT_ONCE = 8
_CONNECT_TIMEOUT_S = 120

Connection = psycopg.Connection[Any]


class IdleSessions:
    """Each has logged in and run one statement, as a pool's connections have. ``state``: with a setting and a prepared
    statement of its own, which are to be there when it is looked at again."""

    def __init__(self, conninfo: str, count: int, *, state: bool = False) -> None:
        self._conninfo = conninfo
        self._state = state
        self._connections: list[Connection] = []
        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                self._connections += pool.map(self._open, range(count))
        except BaseException:
            self.close()
            raise

    def _open(self, number: int) -> Connection:
        connection = psycopg.connect(
            self._conninfo, autocommit=True, prepare_threshold=None, connect_timeout=_CONNECT_TIMEOUT_S
        )
        if self._state:
            connection.execute("SELECT set_config('work_mem', %s, false)", (_work_mem(number),))
            connection.execute("PREPARE who AS SELECT current_setting('work_mem'), current_setting('server_version')")
        else:
            connection.execute("SELECT 1")
        return connection

    def check(self) -> Counter[str]:
        """How many answer as they should, by what is wrong otherwise; "" for those that are well."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return Counter(pool.map(self._look, range(len(self._connections)), self._connections))

    def _look(self, number: int, connection: Connection) -> str:
        try:
            if not self._state:
                connection.execute("SELECT 1")
                return ""
            row = connection.execute("EXECUTE who").fetchone()
        except psycopg.Error as error:
            return f"{'dropped' if connection.closed else 'error'}: {error.sqlstate or type(error).__name__}"
        return "" if row and row[0] == _work_mem(number) else "setting lost"

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _work_mem(number: int) -> str:
    """One that no other session has, odd so that it is shown as it was said."""
    return f"{5_001 + 2 * number}kB"
