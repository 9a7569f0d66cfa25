"""A database server of the simulated world: its rows, who may write them, and how they come to a server that follows.

Rows are numbers from the server's sequence, so the list of them is a ledger: a number that is missing was lost, one
that is there twice was applied twice, and a number given out twice means that the sequence was not carried.
"""

from dataclasses import dataclass, field

from verdigris.domain.errors import EngineError

# How long a row is on its way to a server that follows, once replication runs.
LAG_S = 0.004


class Violation(Exception):
    """A promise was broken."""


class Backend:
    """One server process, at work for a session. ``read_write``: it was dialled with the read-only default off."""

    __slots__ = ("alive", "lost", "pid", "read_write")

    def __init__(self, pid: int, *, read_write: bool = False) -> None:
        self.pid = pid
        self.read_write = read_write
        self.alive = True
        self.lost = False  # its end has been noticed at the other end

    def mute(self) -> None:
        """It says nothing anyway."""


@dataclass
class Server:
    resource_id: str
    version: str
    instance_class: str
    password: str = "SCRAM"
    running: bool = True
    wanted: bool = True  # whoever minds servers starts it when it dies
    supervised: bool = True
    rows: list[int] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)  # when each was committed
    durable: int = 0  # rows that a crash leaves
    sequence: int = 0
    # On disk, and as the running server has it.
    fence_seen: bool = False  # the original file waits beside its place
    fenced_on_disk: bool = False
    fenced: bool = False
    read_only_on_disk: bool = False
    read_only: bool = False
    class_in_use: str = ""
    token_logins: bool = False
    # Of deployments, by their names.
    slots: set[str] = field(default_factory=set)
    publications: set[str] = field(default_factory=set)
    wal_limits: set[str] = field(default_factory=set)
    to_clean: set[str] = field(default_factory=set)  # deployments whose objects go when it runs again
    subscription: str | None = None
    subscribed: bool = False  # the subscription is enabled
    standby: bool = False
    follows: "Server | None" = None
    slot: str = ""  # of ours on ``follows``
    applied: int = 0  # how many of its rows
    stalled_until: float = 0.0
    disk_full_until: float = 0.0
    strays: set[str] = field(default_factory=set)  # programs at work for nobody
    data: bool = True  # there is a complete data directory
    private: bool = False  # started for our own purposes: nobody else comes in
    stage: str = "done"  # of a green in the making: copied, aligned, upgraded, done
    lost_stream: bool = False  # what it needs next is no more: its slot was dropped
    backends: list[Backend] = field(default_factory=list)
    direct: Backend | None = None  # somebody who comes by the socket, around the router
    next_pid: int = 100

    def __post_init__(self) -> None:
        self.class_in_use = self.instance_class

    # -- sessions

    def connect(self, *, read_write: bool = False, ours: bool = False) -> Backend:
        """Raises ``ConnectionError``."""
        if not self.running or self.private or (self.fenced and not ours):
            raise ConnectionError(f"{self.resource_id} does not let us in")
        self.next_pid += 1
        backend = Backend(self.next_pid, read_write=read_write)
        self.backends.append(backend)
        return backend

    def terminate_all_but(self, keep: frozenset[int]) -> None:
        for backend in self.backends:
            if backend.pid not in keep:
                backend.alive = False
        self.backends = [backend for backend in self.backends if backend.alive]

    def takes_writes_of(self, backend: Backend) -> bool:
        return self.running and backend.alive and not self.standby and (backend.read_write or not self.read_only)

    def commit(self, now: float) -> int:
        self.sequence += 1
        self.rows.append(self.sequence)
        self.stamps.append(now)
        self.durable = len(self.rows)
        return self.sequence

    # -- replication

    @property
    def following(self) -> bool:
        return self.follows is not None and (self.standby or self.subscribed)

    def receive(self, now: float) -> None:
        """Apply what can have arrived by now."""
        source = self.follows
        if source is None or not self.following or not self.running or now < self.stalled_until:
            return
        if self.slot not in source.slots:
            self.lost_stream = True
        if self.lost_stream or not source.running or now < self.disk_full_until:
            return
        end, stamps = len(source.rows), source.stamps
        until = now - LAG_S
        n = self.applied
        while n < end and stamps[n] <= until:
            n += 1
        if n > self.applied:
            self.rows += source.rows[self.applied : n]
            self.stamps += stamps[self.applied : n]
            self.applied = n
            if self.standby:
                source.durable = max(source.durable, n)  # what is not flushed is not sent
                self.durable = len(self.rows)
                self.sequence = source.sequence if n == end else max(self.rows[-1], self.sequence)

    def flush(self) -> None:
        self.durable = len(self.rows)

    # -- its process

    def require_running(self) -> None:
        if not self.running:
            raise EngineError(f"{self.resource_id} is not running")

    def reload(self) -> None:
        self.require_running()
        self.fenced = self.fenced_on_disk
        self.read_only = self.read_only_on_disk

    def stop(self) -> None:
        self.flush()
        self.crash()

    def crash(self) -> None:
        """What apply workers had committed and nobody had flushed is applied again, if the source still has it."""
        if not self.running:
            return
        self.running = False
        self.terminate_all_but(frozenset())
        lost = len(self.rows) - self.durable
        if lost:
            del self.rows[self.durable :]
            del self.stamps[self.durable :]
            self.applied -= lost

    def start(self) -> None:
        if self.running:
            return
        if not self.data:
            raise EngineError(f"{self.resource_id} has no data directory")
        self.running = True
        self.class_in_use = self.instance_class
        for left in (self.slots, self.publications, self.wal_limits):
            left -= self.to_clean
        if self.subscription in self.to_clean:
            self.subscription, self.subscribed, self.follows = None, False, None
        self.to_clean.clear()
        self.reload()

    def configuration(self) -> dict[str, object]:
        """What a switchover that did not take place must leave as it was."""
        return {
            "fenced": (self.fence_seen, self.fenced_on_disk, self.fenced),
            "read_only": (self.read_only_on_disk, self.read_only),
            "slots": frozenset(self.slots),
            "publications": frozenset(self.publications),
            "wal_limits": frozenset(self.wal_limits),
            "subscription": (self.subscription, self.subscribed, self.standby),
            "version": self.version,
            "class": (self.instance_class, self.class_in_use),
        }
