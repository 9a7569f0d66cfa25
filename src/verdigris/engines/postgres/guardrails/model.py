"""What a guardrail is, and what it gets to see."""

from collections.abc import Awaitable, Callable, Sequence
from enum import Flag, StrEnum, auto

from msgspec import Struct
from psycopg import sql

from verdigris.domain.errors import EngineError
from verdigris.domain.ports import Finding, Pair
from verdigris.domain.statuses import ReplicationMode
from verdigris.engines.postgres import fingerprint
from verdigris.engines.postgres.fingerprint import Change
from verdigris.engines.postgres.guardrails.trouble import Troubles
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import MAINTENANCE_DATABASE, Database, Query, Session

# The default of RDS's SwitchoverTimeout.
DEFAULT_TIMEOUT_S = 300.0
# A name too many does not help whoever reads StatusDetails.
_NAMED_AT_MOST = 20

# RDS's own guardrails (user guide, "Switchover guardrails"), and two for what forbids a deployment.
REPLICATION_HEALTH = "Replication health"
REPLICATION_LAG = "Replication lag"
ACTIVE_WRITES = "Active writes"
EXTERNAL_REPLICATION = "External replication"
LONG_WRITES = "Long-running active writes"
LONG_DDL = "Long-running DDL"
UNSUPPORTED = "Unsupported PostgreSQL changes"
SOURCE = "Source database"
ENGINE = "Target engine version"
STORAGE = "Storage"

ANY_MODE = frozenset(ReplicationMode)
LOGICAL = frozenset({ReplicationMode.LOGICAL})
PHYSICAL = frozenset({ReplicationMode.PHYSICAL})


class Side(StrEnum):
    """What is looked at. What needs green is left out as long as there is none."""

    BLUE = "blue"
    GREEN = "green"
    BOTH = "both"


class Moment(Flag):
    """When a guardrail is looked at."""

    CREATION = auto()  # before anything is made
    STANDING = auto()  # again and again while green waits; what it finds is wrong for good: INVALID_CONFIGURATION
    SWITCHOVER = auto()  # before anything changes, and by `verdigris deployments check`
    FENCED = auto()  # once more in the pause, when nobody but us can reach blue any more


class Extent(StrEnum):
    PAIR = "pair"  # looked at from outside, without a session
    CLUSTER = "cluster"  # in the maintenance database
    DATABASE = "database"  # in each database that is carried


class Subject(Struct, frozen=True, kw_only=True):
    """A pair at a moment. ``timeout_s``: what is left of SwitchoverTimeout. ``troubles`` is kept from look to look."""

    servers: PostgresServers
    pair: Pair
    moment: Moment
    timeout_s: float = DEFAULT_TIMEOUT_S
    troubles: Troubles

    @property
    def names(self) -> ObjectNames:
        return ObjectNames(self.pair.deployment_id)

    @property
    def source(self) -> PostgresServer | None:
        return self._server(self.pair.source_resource_id)

    @property
    def target(self) -> PostgresServer | None:
        """None, too, where none has been made yet."""
        return self._server(self.pair.target_resource_id) if self.pair.target_resource_id else None

    def _server(self, resource_id: str) -> PostgresServer | None:
        try:
            return self.servers.server(resource_id)
        except EngineError:
            return None


class View:
    """What a look sees: the subject, and sessions in one database of it."""

    def __init__(
        self,
        subject: Subject,
        database: Database | None = None,
        source: Session | None = None,
        target: Session | None = None,
    ) -> None:
        self.subject = subject
        self.database = database
        self._source = source
        self._target = target
        self._changes: list[Change] | None = None

    @property
    def names(self) -> ObjectNames:
        return self.subject.names

    @property
    def source(self) -> Session:
        if self._source is None:
            raise LookupError("a guardrail of green alone has no session on blue")
        return self._source

    @property
    def target(self) -> Session:
        if self._target is None:
            raise LookupError("a guardrail of blue alone has no session on green")
        return self._target

    async def source_names(self, query: Query, *parameters: object) -> list[str]:
        return [row[0] for row in await self.source.rows(query, *parameters)]

    async def target_names(self, query: Query, *parameters: object) -> list[str]:
        return [row[0] for row in await self.target.rows(query, *parameters)]

    async def changes(self) -> list[Change]:
        """What was done to definitions on blue since green was made: found out once for all guardrails on it."""
        if self._changes is None:
            shared = self.database is not None and self.database.name == MAINTENANCE_DATABASE
            self._changes = await fingerprint.changes(self.source, self.target, self.names, shared=shared)
        return self._changes


# What is wrong, each an object's name or a phrase of its own; nothing when all is well.
Look = Callable[[View], Awaitable[Sequence[str]]]


class Guardrail(Struct, frozen=True, kw_only=True):
    """``name`` is its own, ``rds`` the guardrail of RDS that it is a part of. A finding reads: complaint, colon, what
    was found, full stop, remedy. ``threshold`` and ``why``: where the line is drawn, and the reason."""

    name: str
    rds: str
    complaint: str
    remedy: str
    threshold: str = "none may be there"
    why: str
    side: Side
    modes: frozenset[ReplicationMode] = ANY_MODE
    moments: Moment
    extent: Extent
    look: Look

    @property
    def sees_source(self) -> bool:
        return self.side is not Side.GREEN

    @property
    def sees_target(self) -> bool:
        return self.side is not Side.BLUE

    def finding(self, what: Sequence[str], database: Database | None) -> Finding:
        where = f"Database {database.name}: {self.complaint}" if database else _capitalised(self.complaint)
        return Finding(guardrail=self.rds, check=self.name, message=f"{where}: {listed(what)}. {self.remedy}")


def listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def on_source(query: sql.SQL) -> Look:
    """A look that is one query on blue, of one column: names."""

    async def look(view: View) -> Sequence[str]:
        return await view.source_names(query)

    return look


def on_target(query: sql.SQL) -> Look:
    async def look(view: View) -> Sequence[str]:
        return await view.target_names(query)

    return look


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
