"""Everything that the clients of a workload saw, and what follows from it."""

from functools import cached_property
from pathlib import Path

from verdigris.demo import figures
from verdigris.demo.ledger import Commit, Incident, IncidentKind, Outcome, Read, Sighting, read_ledger


class WorkloadResult:
    """The ledgers of all clients, and what follows from them. Times are ``time.monotonic_ns()``."""

    def __init__(self, paths: list[Path], *, began_ns: int, ended_ns: int, marks: dict[str, int]) -> None:
        self.paths = paths
        self.began_ns = began_ns
        self.ended_ns = ended_ns
        self.marks = marks
        self.commits: list[Commit] = []
        self.reads: list[Read] = []
        self.incidents: list[Incident] = []
        self.sightings: list[Sighting] = []
        for path in paths:
            self._load(path)

    def _load(self, path: Path) -> None:
        for record in read_ledger(path):
            match record:
                case Commit():
                    self.commits.append(record)
                case Read():
                    self.reads.append(record)
                case Incident():
                    self.incidents.append(record)
                case Sighting():
                    self.sightings.append(record)

    def count(self, outcome: Outcome) -> int:
        return sum(commit.outcome is outcome for commit in self.commits)

    def incidents_of(self, kind: IncidentKind) -> list[Incident]:
        return [incident for incident in self.incidents if incident.kind is kind]

    @property
    def errors(self) -> dict[str, int]:
        """Requests that were answered with an error or not at all, by SQLSTATE."""
        return figures.errors_by_sqlstate([*self.commits, *self.reads])

    @property
    def connections_dropped(self) -> int:
        return len(self.incidents_of(IncidentKind.CONNECTION_DROPPED))

    @property
    def kept_connections(self) -> dict[int, list[str]]:
        """The server versions that each client saw in order, of the clients that never lost their first connection."""
        versions: dict[int, list[str]] = {}
        moved = {s.client for s in self.sightings if s.connection != 1}
        moved |= {i.client for i in self.incidents if i.connection != 1 or i.kind is IncidentKind.CONNECTION_DROPPED}
        for sighting in sorted(self.sightings, key=lambda s: s.at_ns):
            seen = versions.setdefault(sighting.client, [])
            if sighting.server_version not in seen[-1:]:
                seen.append(sighting.server_version)
        return {client: seen for client, seen in versions.items() if client not in moved}

    @cached_property
    def pauses(self) -> list[figures.Pause]:
        """Every wait of every client, readers included; see ``figures.client_pauses``."""
        return figures.client_pauses([*self.commits, *self.reads], ended_ns=self.ended_ns)

    @cached_property
    def silences(self) -> list[figures.Pause]:
        return figures.silences(self.commits, began_ns=self.began_ns, ended_ns=self.ended_ns)

    def longest_pause(self, *, since_ns: int = 0, until_ns: int | None = None) -> figures.Pause | None:
        return figures.longest(self.pauses, since_ns=since_ns, until_ns=until_ns)

    def longest_silence(self, *, since_ns: int = 0, until_ns: int | None = None) -> figures.Pause | None:
        return figures.longest(self.silences, since_ns=since_ns, until_ns=until_ns)

    def buckets(self, *, since_ns: int, until_ns: int, width_ms: int = 100) -> list[int]:
        return figures.buckets(self.commits, since_ns=since_ns, until_ns=until_ns, width_ms=width_ms)

    def commit_latency_ms(self, *percents: float) -> list[float]:
        return figures.percentiles_ms(self.commits, percents)

    @property
    def duration_s(self) -> float:
        return (self.ended_ns - self.began_ns) / 1e9
