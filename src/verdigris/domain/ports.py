"""What the domain and its workflows need of the world. Adapters implement these and meet only in ``app.py``.

Everything that may wait is a coroutine and is cancelled to enforce a deadline: an implementation must clean up on
``asyncio.CancelledError`` and must not swallow it. Every call that changes something is idempotent: it looks at what is
there and does what is missing, because it may be made again after a crash.
"""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from verdigris.domain.access import Rule
from verdigris.domain.model import (
    BlueGreenDeployment,
    DBCluster,
    DBClusterEndpoint,
    DBInstance,
    DBSnapshot,
    DBSubnetGroup,
    Event,
    JournalEntry,
    ParameterGroup,
    Workflow,
)
from verdigris.domain.parameters import ApplyStatus, ParameterInfo
from verdigris.domain.statuses import ReplicationMode
from verdigris.domain.subscriptions import Delivery, EventSubscription


class SinceBoot(Struct, frozen=True, kw_only=True):
    """A moment by a clock that nobody can set. It can be compared with others of the same ``boot`` only."""

    boot: str
    seconds: float


class Clock(Protocol):
    def now(self) -> datetime:
        """Wall time, aware, UTC: for what is stored and shown. Waiting uses the event loop's own clock."""

    def since_boot(self) -> SinceBoot:
        """For how long something takes that outlives this process."""


# --------------------------------------------------------------------------------------------------------------- store


class Transaction(Protocol):
    """One unit of work: all of it is durable when the context ends, or none of it.

    Reads see the transaction's own writes. Identifiers are matched in lower case.
    """

    def instance(self, resource_id: str) -> DBInstance | None: ...
    def instance_named(self, identifier: str) -> DBInstance | None: ...
    def instances(self) -> list[DBInstance]: ...  # ordered by identifier
    def instances_after(self, identifier: str) -> Iterable[DBInstance]: ...  # likewise, read as far as they are used
    def replicas_of(self, resource_ids: Collection[str]) -> list[DBInstance]: ...  # their read replicas, likewise
    def identifiers(self, resource_ids: Collection[str]) -> Mapping[str, str]: ...  # of those that there are
    def members_of(self, cluster_ids: Collection[str]) -> list[DBInstance]: ...  # of clusters, likewise
    def put_instance(self, instance: DBInstance) -> None: ...  # insert or replace by resource_id
    def delete_instance(self, resource_id: str) -> None: ...

    def cluster(self, resource_id: str) -> DBCluster | None: ...
    def cluster_named(self, identifier: str) -> DBCluster | None: ...
    def clusters(self) -> list[DBCluster]: ...  # ordered by identifier
    def put_cluster(self, cluster: DBCluster) -> None: ...
    def delete_cluster(self, resource_id: str) -> None: ...

    def snapshot(self, snapshot_id: str) -> DBSnapshot | None: ...
    def snapshot_named(self, identifier: str) -> DBSnapshot | None: ...
    def snapshots(self) -> list[DBSnapshot]: ...  # ordered by identifier
    def put_snapshot(self, snapshot: DBSnapshot) -> None: ...
    def delete_snapshot(self, snapshot_id: str) -> None: ...

    def cluster_endpoint(self, resource_id: str) -> DBClusterEndpoint | None: ...
    def cluster_endpoint_named(self, identifier: str) -> DBClusterEndpoint | None: ...
    def cluster_endpoints(self, cluster_ids: Collection[str]) -> list[DBClusterEndpoint]: ...  # ordered by identifier
    def put_cluster_endpoint(self, endpoint: DBClusterEndpoint) -> None: ...
    def delete_cluster_endpoint(self, resource_id: str) -> None: ...

    def parameter_group(self, name: str) -> ParameterGroup | None: ...
    def parameter_groups(self) -> list[ParameterGroup]: ...  # ordered by name
    def put_parameter_group(self, group: ParameterGroup) -> None: ...
    def delete_parameter_group(self, name: str) -> None: ...

    def subnet_group(self, name: str) -> DBSubnetGroup | None: ...
    def subnet_groups(self) -> list[DBSubnetGroup]: ...  # ordered by name
    def put_subnet_group(self, group: DBSubnetGroup) -> None: ...
    def delete_subnet_group(self, name: str) -> None: ...

    def deployment(self, identifier: str) -> BlueGreenDeployment | None: ...
    def deployments(self) -> list[BlueGreenDeployment]: ...  # ordered by creation
    def deployments_of(self, resource_ids: Collection[str]) -> list[BlueGreenDeployment]: ...  # with any as a member
    def put_deployment(self, deployment: BlueGreenDeployment) -> None: ...
    def delete_deployment(self, identifier: str) -> None: ...

    def add_event(self, event: Event) -> None: ...  # and queue it for each subscription that wants it
    def events(self, *, since: datetime, until: datetime) -> list[Event]: ...  # oldest first

    # Exactly by name. One that is put and not enabled gets nothing any more, not even what waits for it.
    def event_subscription(self, name: str) -> EventSubscription | None: ...
    def event_subscriptions(self) -> list[EventSubscription]: ...  # ordered by name
    def put_event_subscription(self, subscription: EventSubscription) -> None: ...
    def delete_event_subscription(self, name: str) -> None: ...  # with what waits for it
    def next_deliveries(self) -> list[Delivery]: ...  # the oldest of each subscription, due or not
    def postpone_delivery(self, number: int, *, attempts: int, due_at: datetime) -> None: ...
    def delete_delivery(self, number: int) -> None: ...

    def workflow(self, workflow_id: str) -> Workflow | None: ...
    def unfinished_workflows(self) -> list[Workflow]: ...  # RUNNING or UNDOING, oldest first
    def unfinished_workflows_of(self, subjects: Collection[str]) -> list[Workflow]: ...
    def workflows_of(self, subject: str) -> list[Workflow]: ...  # finished ones too, oldest first
    def put_workflow(self, workflow: Workflow) -> None: ...
    def add_journal_entry(self, entry: JournalEntry) -> None: ...
    def journal(self, workflow_id: str) -> list[JournalEntry]: ...  # in the order written


class Store(Protocol):
    def transaction(self) -> AbstractContextManager[Transaction]:
        """Read and write; one writer at a time. Rolls back if the block raises."""

    def raise_epoch(self) -> int:
        """Count up and return the epoch: called once at each takeover."""

    def epoch(self) -> int: ...


# ------------------------------------------------------------------------------------------------------------- servers


class BackendAddress(Struct, frozen=True):
    """Where the router reaches one server: the path of its socket. Nobody else may enter the directory."""

    resource_id: str
    socket_path: str


class ServerSpec(Struct, frozen=True, kw_only=True):
    resource_id: str
    engine_version: str
    instance_class: str
    master_username: str
    master_password_verifier: str
    db_name: str | None = None
    parameters: dict[str, str] = {}  # of its parameter group, formulas as they are


class Ports(Protocol):
    """TCP ports for endpoints on the host that clients use.

    A cluster's two endpoints have one port, because the API has one for them, so they are on two addresses:
    ``reader_host`` is that of the readers'; None: there is none, and no clusters. Each custom endpoint of a cluster
    needs one of ``custom_hosts`` for the same reason."""

    host: str
    reader_host: str | None
    custom_hosts: Sequence[str]
    count: int  # how many there are, taken or not

    def is_free(self, port: int, *, on_both: bool = False) -> bool: ...
    def allocate(self, taken: Container[int], *, on_both: bool = False) -> int:
        """A port of the configured range that is free now and not in ``taken``. Raises ``PortInUse`` if none is."""


class LogFile(Struct, frozen=True):
    """One of a server's log files, under a name like RDS's."""

    name: str
    size_bytes: int
    written_at_ms: int  # POSIX time


class EngineVersionInfo(Struct, frozen=True, kw_only=True):
    engine: str
    version: str
    installed: bool  # False: known, hash pinned, fetched when first needed
    source: str  # "system", "embedded" or "wheel"
    upgrade_targets: tuple[str, ...]


class DatabaseServers(Protocol):
    """Real servers as processes, addressed by resource id. They outlive the control plane."""

    def versions(self) -> Sequence[EngineVersionInfo]: ...

    def conceal_password(self, password: str) -> str:
        """The verifier to store instead of the password (PostgreSQL: a SCRAM-SHA-256 secret)."""

    async def create(self, spec: ServerSpec) -> None:
        """Make the data directory and roles, leave the server running."""

    async def start(self, resource_id: str) -> None:
        """Run until ``stop``: a server that dies by itself is started again."""

    async def stop(self, resource_id: str) -> None: ...
    async def restart(self, resource_id: str) -> None: ...
    async def is_running(self, resource_id: str) -> bool: ...
    async def remove(self, resource_id: str) -> None:
        """Stop it and delete every file of it."""

    def known(self) -> list[str]:
        """Resource ids that have a directory, whatever the store says: for finding what was left behind."""

    def address(self, resource_id: str) -> BackendAddress: ...

    def log_files(self, resource_id: str) -> Sequence[LogFile]: ...
    def read_log_file(self, resource_id: str, name: str, *, offset: int, limit_bytes: int) -> bytes:
        """From ``offset`` on; empty for a file that is gone. ``name`` is one of ``log_files``."""

    async def login_verifiers(self, resource_id: str, usernames: Collection[str]) -> Mapping[str, str]:
        """Stored password verifiers, by role. Roles without one are absent."""

    async def set_master_password(self, resource_id: str, username: str, verifier: str) -> None: ...
    async def set_token_logins(self, resource_id: str, enabled: bool) -> None:
        """Whether it leaves members of ``rds_iam`` to the router, which is to have been told before; in effect for
        whoever comes when this returns."""

    async def set_instance_class(self, resource_id: str, instance_class: str) -> None:
        """Write the class's memory and connection settings; they take effect at the next restart."""

    async def parameters(self, family: str) -> Sequence[ParameterInfo]:
        """What there is to set on servers of a family (``postgres17``), by name. Slow at first: a server is asked."""

    async def set_parameters(
        self, resource_id: str, parameters: Mapping[str, str], *, deferred: Collection[str] = ()
    ) -> ApplyStatus:
        """All of a parameter group's values, at once where the server can take them so; those ``deferred`` keep the
        value that they have. Says whether a restart is needed. Raises ``EngineError``, with nothing changed, for a
        value that the server refuses."""

    async def change_minor_version(self, resource_id: str, engine_version: str) -> None:
        """Stop, run the same data directory with another minor version, start."""


# --------------------------------------------------------------------------------------------------------------- green


class Pair(Struct, frozen=True, kw_only=True):
    """One source, its target, and how the target follows. ``deployment_id`` names slots, publications and the like."""

    deployment_id: str
    source_resource_id: str
    target_resource_id: str
    mode: ReplicationMode
    source_version: str
    target_version: str
    target_instance_class: str
    target_parameters: dict[str, str] = {}  # of its parameter group, formulas as they are
    # Read replicas of target that production's readers go to: they have what target has before anybody does.
    target_replicas: tuple[str, ...] = ()


class Finding(Struct, frozen=True, kw_only=True):
    """A guardrail that failed: RDS's name for it, the name of the one condition, and what is wrong in words that say
    what to do."""

    guardrail: str
    check: str
    message: str

    def __str__(self) -> str:
        return f"{self.guardrail} ({self.check}): {self.message}"


class CheckOutcome(StrEnum):
    OK = "ok"
    FAILED = "failed"
    NOT_LOOKED_AT = "not looked at"  # a server that it needs does not run


class CheckResult(Struct, frozen=True, kw_only=True):
    """One guardrail, looked at. ``side``: "blue", "green" or "both"."""

    check: str
    guardrail: str
    side: str
    outcome: CheckOutcome
    findings: tuple[Finding, ...] = ()


class Helpers(Struct, frozen=True, kw_only=True):
    """Functions of ours that both servers have, with which a router carries what no client can read or write itself."""

    schema: str
    databases: tuple[str, ...]  # that have them
    asking: tuple[str, ...] = ()  # those with definitions (functions, defaults, views) that call currval() or lastval()


class GreenBuilder(Protocol):
    """Makes a green and keeps it in step. Each call raises ``StepFailed`` with the reason for ``StatusDetails``."""

    async def check_source(self, pair: Pair) -> list[Finding]:
        """What forbids a deployment: tables without a key, missing extensions, lost disk space. Changes nothing."""

    async def copy(self, pair: Pair) -> None:
        """Start from nothing (dismantling an earlier attempt first) and copy source to target; physical mode ends
        here with a running, streaming standby, logical mode with a standby that is stopped."""

    async def align(self, pair: Pair) -> None:
        """Logical only: publications and slots on source, target brought to exactly the last slot's LSN."""

    async def upgrade(self, pair: Pair) -> None:
        """Logical only: the target's data directory becomes one of the target version, server running, read-only."""

    async def join(self, pair: Pair) -> None:
        """Follow the source from now on and wait until caught up once. Sessions on target are read-only."""

    async def lag_bytes(self, pair: Pair) -> int | None:
        """WAL written on source and not yet applied on target; None if replication is not running."""

    async def health(self, pair: Pair) -> str | None:
        """None when replication is well, else what is wrong (broken for good, so INVALID_CONFIGURATION)."""

    async def protect_source(self, pair: Pair) -> None:
        """Keep what source holds back for target within a share of its free disk; give it up where it takes more.
        Does nothing while source is down."""

    async def tend(self, pair: Pair) -> list[str]:
        """Carry what replication does not, while green waits: one round, cheap when nothing has changed, resumed by the
        next one when it is cancelled. Never harms source. Returns what the operator should know, a sentence each;
        raises what could not be carried."""

    async def dismantle(self, pair: Pair) -> None:
        """Remove everything that the deployment put on source (slots, publications, roles, settings), and the
        replication of target. Works with either side gone or stopped. Does not remove target's files."""

    async def release_target(self, pair: Pair) -> None:
        """Delete without a switchover and without DeleteTarget: dismantle, and make target a writable, standalone
        server."""


# ------------------------------------------------------------------------------------------------------- read replicas


class Replica(Struct, frozen=True, kw_only=True):
    """A read replica and whom it follows. What is kept back on the source for it is named after ``resource_id``."""

    resource_id: str
    source_resource_id: str
    engine_version: str
    instance_class: str
    parameters: dict[str, str] = {}  # of its parameter group, formulas as they are


class ReplicaState(Struct, frozen=True, kw_only=True):
    """``trouble``: why it does not follow at the moment, or never will again, as a clause; None if it does."""

    trouble: str | None = None
    lag_bytes: int | None = None  # WAL written on the source and not yet replayed; None while it does not follow
    cramped: bool = False  # it has less of something than its source, and stops replaying, or does not start, for that


class Replicas(Protocol):
    """Servers that follow another one physically, for as long as nobody promotes them. Named ones may be gone, or not
    run: each call says what becomes of it then."""

    async def create(self, replica: Replica) -> None:
        """Copy the source, from nothing each time, and return when the copy follows it and has caught up once."""

    async def look(self, replica: Replica) -> ReplicaState: ...

    async def protect_source(self, replica: Replica) -> None:
        """Keep what the source holds back for it within a share of its free disk; give it up where it takes more.
        Does nothing while the source is down."""

    async def make_room(self, replica: Replica) -> bool:
        """Give it as much of what a standby may not have less of as its source has now (connections above all).
        Whether it was restarted for that. Does nothing while the source is down."""

    async def catch_up(self, replica: Replica) -> None:
        """Return when it has replayed all that is committed on its source now. The limit is the caller's."""

    async def promote(self, replica: Replica) -> None:
        """Make it a writable server of its own, with what it has received, and have the source keep nothing back for
        it. Raises ``EngineError`` if it does not run and cannot be started."""

    async def set_free(self, replica: Replica) -> None:
        """In its files only: from its next start on it follows nobody. For one that cannot be promoted."""

    async def release_source(self, replica: Replica) -> None:
        """Have the source keep nothing back for it; a source that does not run, as soon as it does."""


# ----------------------------------------------------------------------------------------------------------- snapshots


class Restoration(Struct, frozen=True, kw_only=True):
    """A server to be made of a snapshot. Users, passwords and databases are the snapshot's."""

    snapshot_id: str
    resource_id: str
    engine_version: str  # the snapshot's major version
    instance_class: str
    parameters: dict[str, str] = {}  # of its parameter group, formulas as they are


class Snapshots(Protocol):
    """Copies of whole servers, each as it was at one moment, that nothing runs on."""

    async def take(self, snapshot_id: str, resource_id: str) -> int:
        """Of a running server, from nothing each time. Complete, checked and durable when it returns; how large it is,
        in bytes."""

    async def discard(self, snapshot_id: str, resource_id: str) -> None:
        """What there is of one that was to be taken, and what its server keeps back for it."""

    async def protect_source(self, snapshot_id: str, resource_id: str) -> None:
        """While it is taken: as ``Replicas.protect_source``."""

    async def copy(self, snapshot_id: str, source_id: str) -> None:
        """Another one of the same content, that does not need the first."""

    async def restore(self, restoration: Restoration) -> None:
        """A server with what the snapshot has, running, that stands alone: it follows nobody, nobody's deployment has
        anything on it. From nothing, unless it is complete."""

    async def remove(self, snapshot_id: str) -> None: ...


# ---------------------------------------------------------------------------------------------------------- switchover


class SwitchoverEngine(Protocol):
    """The database side of a switchover, in the order in which it is used. Sizes of waits come from the caller's
    cancellation. ``keep`` are server process ids of sessions that the router has parked."""

    async def guardrails(self, pair: Pair, *, timeout_s: float) -> list[Finding]:
        """What forbids a switchover now. ``timeout_s``: what is left until its deadline. Changes nothing."""

    async def describe_sessions(self, pair: Pair, server_pids: Collection[int]) -> list[str]:
        """What these backends of source are busy with, one phrase each, for the people who have to find their clients.
        Those that are gone are left out."""

    async def login_verifiers(self, pair: Pair, usernames: Collection[str]) -> Mapping[str, str]:
        """Stored password verifiers on target, by role, for the router to dial with. Roles without one are absent."""

    async def helpers(self, pair: Pair) -> Helpers:
        """For the router to carry sessions with."""

    async def prepare(self, pair: Pair) -> None:
        """What can be done before the pause: sequences carried once, lag brought near zero."""

    async def stand_down(self, pair: Pair) -> None:
        """The workflow ends, whichever way: let go of what ``prepare`` holds open. Does nothing if it holds nothing."""

    async def close(self, pair: Pair) -> None:
        """Source takes no new connection but the internal user's; whoever is connected stays. ``unfence`` undoes it.
        ``fence`` is quicker after it."""

    async def fence(self, pair: Pair, keep: Collection[int]) -> None:
        """Source takes no new connection but the internal user's, and every other backend is gone except ``keep``
        and replication to target. Returns when that is so."""

    async def is_fenced(self, pair: Pair) -> bool: ...

    async def unfence(self, pair: Pair) -> None:
        """Undo ``close`` and ``fence`` without a trace."""

    async def catch_up(self, pair: Pair) -> None:
        """Write the marker on source (after the fence) and wait until it is seen on target, and all that target has
        then on its replicas; sequences carried. Raises
        ``SetBack`` for what has slipped in since ``prepare``, which carries it."""

    async def open_target(self, pair: Pair) -> None:
        """After the point of no return: replication ended (physical: promoted), target writable for everyone."""

    async def retire_source(self, pair: Pair) -> None:
        """After the point of no return: source read-only for good, fence lifted, nothing of the deployment left on
        it."""


# ------------------------------------------------------------------------------------------------------------ failover


class WriterChange(Struct, frozen=True, kw_only=True):
    """A cluster's writer and one of its readers change places; ``others`` are readers too, and follow the new writer.
    All by resource id."""

    writer: str
    reader: str
    others: tuple[str, ...] = ()

    @property
    def followers(self) -> tuple[str, ...]:
        """Of the new writer."""
        return (self.writer, *self.others)


class WriterChanges(Protocol):
    """The servers' side of a failover. At no moment is there more than one that can be written to: ``demote`` comes
    before ``promote``, which refuses to be the first. Raises ``EngineError``."""

    async def prepare(self, change: WriterChange) -> None:
        """Nobody notices: have the reader keep what its followers will need, and let it catch up if there is
        somebody to catch up with."""

    async def demote(self, change: WriterChange) -> None:
        """The writer ends, and starts as nothing but a standby of the reader from now on. Returns when the reader has
        everything that was ever committed on it."""

    async def promote(self, change: WriterChange) -> None:
        """The point of no return. The reader can be written to."""

    async def follow(self, change: WriterChange) -> None:
        """Everybody follows the new writer; nothing is kept for anybody on the old one. Those that do not run will
        when they do."""

    async def restore(self, change: WriterChange) -> None:
        """Everything as before, from wherever it is. Refused when the reader has been promoted."""


# -------------------------------------------------------------------------------------------------------------- router


NOWHERE = BackendAddress("", "")


class Branches(Struct, frozen=True, kw_only=True):
    """The endpoints, by name, that another endpoint leads to. A new client goes to that of ``members`` which has the
    fewest sessions, or to one of ``otherwise`` if none of them takes it; there it stays."""

    members: tuple[str, ...]
    otherwise: tuple[str, ...] = ()


class Route(Struct, frozen=True, kw_only=True):
    """One endpoint: an instance's, under its identifier, which leads to a backend; or a cluster's, which leads to
    endpoints of its members (``branches``), and to ``NOWHERE`` itself."""

    name: str
    host: str
    port: int
    backend: BackendAddress
    require_tls: bool = False
    branches: Branches | None = None
    token_logins: bool = False  # the router verifies tokens for it; a router that is not told so lets nobody in by one


class ReadyReport(Struct, frozen=True, kw_only=True):
    sessions: int
    dialled: int
    # reason -> sessions that cannot be carried for it (see PinReason in router/)
    pinned: dict[str, int] = {}


class PinReport(Struct, frozen=True, kw_only=True):
    """``sessions`` that are logged in, of which ``unseen`` were too busy to be looked at lately."""

    sessions: int
    unseen: int = 0
    pinned: dict[str, int] = {}  # as in ReadyReport


class Parked(Struct, frozen=True, kw_only=True):
    generation: int
    sessions: int
    server_pids: tuple[int, ...]  # backend processes of the parked sessions on the old backend
    waiting_clients: int
    stragglers: int = 0  # sessions that have not reached a safe point, and were left out


class ParkRefused(Struct, frozen=True, kw_only=True):
    """The budget ran out: everyone was released on the old backend; ``stragglers`` had not reached a safe point."""

    stragglers: int
    waited_s: float
    server_pids: tuple[int, ...] = ()  # backend processes of the stragglers


class HandoverReport(Struct, frozen=True, kw_only=True):
    carried: int
    # reason -> sessions that will be closed with 57P01 when they are released
    pinned: dict[str, int] = {}


class RouterSessions(Struct, frozen=True, kw_only=True):
    """A snapshot of one endpoint's sessions."""

    usernames: tuple[str, ...]
    sessions: int
    active: int
    generation: int | None = None  # of the park that holds it now
    committed: bool = False  # that park's route is committed and its sessions wait for ``release``


class TokenKey(Struct, frozen=True, kw_only=True):
    """What verifies the tokens that one access key signs: a signing key for each day (``20260110``), good for
    ``rds-db`` alone, and the rules that are about connecting."""

    access_key_id: str
    days: dict[str, bytes]
    rules: tuple[Rule, ...]

    def __repr__(self) -> str:
        return f"TokenKey({self.access_key_id})"


class TokenKeys(Struct, frozen=True, kw_only=True):
    region: str
    account_id: str
    keys: tuple[TokenKey, ...] = ()


class Router(Protocol):
    """The one way in for clients, and the arbiter of a switchover. Raises ``ControllerSuperseded`` for a stale epoch,
    ``ParkBroken`` when a generation no longer holds, ``PortInUse``."""

    async def routes(self) -> list[Route]: ...
    async def put_route(self, route: Route) -> None:
        """Durable when it returns. Listening if new; an existing endpoint may change its backend only by ``commit``.
        Its branches it may change at any time: clients that are connected stay where they are."""

    async def set_token_keys(self, keys: TokenKeys) -> None:
        """In place of those that it had. They are in its memory only: a router that has been started has none."""

    async def remove_route(self, name: str) -> None:
        """Sessions on it are closed with 57P01. It is a branch of no other endpoint any more."""

    async def rename_route(self, name: str, new_name: str) -> None:
        """Sessions on it stay. Endpoints that lead to it lead to it under its new name."""

    async def disconnect(self, name: str) -> None:
        """Close the sessions of an endpoint with 57P01 (the server behind it is about to stop)."""

    async def sessions(self, name: str) -> RouterSessions: ...

    async def pins(self, name: str, verifiers: Mapping[str, str], *, budget_s: float) -> PinReport:
        """Count the sessions that could not be carried as they are now, as far as their own backend tells. Dials
        nobody; asks at most for ``budget_s``, between requests, and only those whose clients have said something since
        they were asked last. ``verifiers``: what the roles of these sessions would log in with, by role."""

    async def ready(
        self, name: str, target: BackendAddress, verifiers: Mapping[str, str], helpers: Helpers | None = None
    ) -> ReadyReport:
        """Dial target for every live session of the endpoint and log in as its user, so that no connection is opened
        inside the pause. May be called again: only what is missing is dialled. Without ``helpers`` sessions go without
        what only they carry."""

    async def park(
        self, name: str, *, budget_s: float, lease_s: float, leave_stragglers: bool = False
    ) -> Parked | ParkRefused:
        """Stop every session at its next safe point; new connections wait. Holds for ``lease_s`` unless renewed; a
        lease that runs out releases everyone on the old backend and ends the generation. New clients then still wait,
        because the backend may be fenced, until ``abort`` or ``unready`` says that it is not, or for a minute.

        Sessions that do not reach a safe point within ``budget_s`` are the reason for a ``ParkRefused``, or with
        ``leave_stragglers`` stay out of the park: they are still the backend's, and the fence ends them."""

    async def hold(self, name: str) -> None:
        """New connections wait from now on, for a minute, or until ``admit``, ``abort``, ``unready`` or a ``release``
        that admits them. Returns when the backend has answered those that came before, or after a moment."""

    async def admit(self, name: str) -> None:
        """New connections are let through again, unless a park holds the endpoint."""

    async def renew(self, generation: int, *, lease_s: float) -> None: ...

    async def hand_over(self, generation: int) -> HandoverReport:
        """Read each parked session's state from the old backend and replay it on its dialled connection."""

    async def commit(
        self,
        generation: int,
        routes: Sequence[Route],
        *,
        hold: bool,
        leave_nobody: bool = False,
        along: Sequence[int] = (),
    ) -> None:
        """The point of no return: if the generation still holds, ``routes`` replaces those of the same names (others
        are added) durably, and the parked sessions belong to the new backend. They stay parked until ``release``;
        if ``hold`` is false they are released by themselves when the lease runs out.

        Sessions that nothing carries are closed by it; with ``leave_nobody`` it is ``ParkBroken`` instead.

        ``along``: generations of other endpoints, whose routes are among ``routes``. They are committed by the same
        write, or none is. Nobody has to fence their old backends: they may be read, and their stragglers are closed.
        By themselves they are released when their lease runs out, whatever ``hold`` says."""

    async def release(self, generation: int, *, admit: bool = True) -> Mapping[str, int]:
        """Let the parked sessions run: on the new backend after ``commit``, else on the old one. After a ``commit`` new
        connections wait on, until ``admit`` and for a minute at most, unless ``admit`` is given here. It is answered
        when nobody is held whose client waits; the others follow, each at once if its client asks for something.

        Returns, as reasons and counts, the sessions that the handover had carried and that were closed all the same:
        the new backend has refused what it could only be given now. Nothing if they were released already."""

    async def answered(self, name: str) -> None:
        """Return when those who were waited for have their answers, or after a moment; at once where newcomers wait.
        After a ``release`` their first requests want all the processors there are."""

    async def abort(self, generation: int, *, admit: bool = True) -> None:
        """Release on the old backend and close the dialled connections. Refused after ``commit``. Unless ``admit`` is
        given, new connections go on waiting as after ``hold``: the backend is fenced still."""

    async def unready(self, name: str) -> None:
        """Close connections that ``ready`` dialled and that no handover used. A park that is there still was granted
        without anybody's hearing of it: it ends."""
