"""The durable route table: which endpoint leads where, and how far epochs and generations have come.

One small JSON file, replaced as a whole: written beside, flushed, renamed, and the directory flushed, so that after a
crash there is either the old table or the new one. What a reader sees as committed is on disk.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from verdigris.domain.errors import VerdigrisError
from verdigris.domain.ports import Branches, Route


class Table(Struct, frozen=True, kw_only=True):
    epoch: int = 0
    generation: int = 0  # of the latest park
    committed_generation: int = 0  # of the latest park whose routes were committed
    routes: tuple[Route, ...] = ()

    def named(self, name: str) -> Route | None:
        return next((route for route in self.routes if route.name == name), None)

    def on_port(self, route: Route) -> Route | None:
        """Another route that has the port of ``route``."""
        return next(
            (
                other
                for other in self.routes
                if other.name != route.name and (other.host, other.port) == (route.host, route.port)
            ),
            None,
        )

    def with_routes(self, *changed: Route) -> "Table":
        """Each of ``changed`` in place of the one of its name, or added."""
        routes = {route.name: route for route in (*self.routes, *changed)}
        return msgspec.structs.replace(self, routes=tuple(routes.values()))

    def without(self, name: str) -> "Table":
        """Nor does any other route lead to it: the next one of that name may be anybody's."""
        left = (route for route in self.routes if route.name != name)
        return msgspec.structs.replace(self, routes=tuple(_rebranched(route, {name: None}) for route in left))

    def renamed(self, name: str, new_name: str) -> "Table":
        routes = (
            msgspec.structs.replace(route, name=new_name)
            if route.name == name
            else _rebranched(route, {name: new_name})
            for route in self.routes
        )
        return msgspec.structs.replace(self, routes=tuple(routes))


def _rebranched(route: Route, changes: Mapping[str, str | None]) -> Route:
    """``changes``: new names of branches; None: it is no branch any more."""
    if route.branches is None:
        return route

    def changed(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(now for name in names if (now := changes.get(name, name)) is not None)

    branches = Branches(members=changed(route.branches.members), otherwise=changed(route.branches.otherwise))
    return msgspec.structs.replace(route, branches=branches)


class RouteStore:
    """The table in memory and on disk. ``table`` only ever shows what is durable."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = asyncio.Lock()
        self.table = self._read()

    def _read(self) -> Table:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return Table()
        try:
            return msgspec.json.decode(content, type=Table)
        except msgspec.DecodeError as error:
            # Starting empty would silently take every endpoint away and forget the epoch.
            raise VerdigrisError(f"the route table {self._path} cannot be read: {error}") from error

    def reload(self) -> None:
        """Another process has written since."""
        self.table = self._read()

    @property
    def lock(self) -> asyncio.Lock:
        """Hold it from reading ``table`` to ``write``."""
        return self._lock

    async def write(self, table: Table) -> None:
        """Make ``table`` durable, then visible. If writing fails, the old table is put back and the error raised.

        Not to be cancelled: callers run it in a task of its own.
        """
        try:
            await asyncio.to_thread(self._replace, table)
        except OSError:
            await asyncio.to_thread(self._put_back)
            raise
        self.table = table

    def _replace(self, table: Table) -> None:
        temporary = self._path.with_name(self._path.name + ".new")
        content = msgspec.json.format(msgspec.json.encode(table))
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _put_back(self) -> None:
        """After a failure that may have come after the rename: the file shall say what ``table`` says."""
        if self._path.exists() and self._read() != self.table:
            self._replace(self.table)
