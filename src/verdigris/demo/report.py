"""The demo's report: what was measured, as a record, and the same for people."""

from typing import Any

from msgspec import Struct, to_builtins
from rich.console import Console
from rich.table import Table
from rich.text import Text

from verdigris.demo import figures
from verdigris.demo.compare import Comparison
from verdigris.demo.figures import Pause
from verdigris.demo.ledger import IncidentKind
from verdigris.demo.promises import Breach
from verdigris.demo.result import WorkloadResult
from verdigris.demo.verify import Verdict
from verdigris.domain import status_details
from verdigris.workflows.timeline import TimelineRecord

BUCKET_MS = 100
SPARKLINE_BUCKETS = 60


class DemoReport(Struct, frozen=True, kw_only=True):
    """Times in the unit of their names. A *pause* is one client's wait for an answer, whatever it did meanwhile; a
    *silence* is a time in which no client at all had a commit acknowledged."""

    kept: bool
    breaches: tuple[Breach, ...]
    version_before: str
    version_after: str
    rows_loaded: int
    clients: int
    duration_s: float
    green_built_s: float
    switchover_s: float
    timeline: TimelineRecord | None  # as the control plane measured it
    longest_pause_ms: float
    longest_silence_ms: float
    longest_pause_before_switchover_ms: float
    commits_acknowledged: int
    commits_found: int
    commits_missing: int
    commits_doubled: int
    commits_unknown: int
    commits_unknown_found: int
    commits_failed: int
    commits_per_s: float
    commit_p50_ms: float
    commit_p99_ms: float
    reads: int
    client_errors: dict[str, int]
    connections_dropped: int
    connections_kept_across: int
    rows_compared: int
    tables_compared: int
    sequences_compared: int
    bucket_ms: int
    commits_per_bucket: list[int]


class Measured(Struct, frozen=True, kw_only=True):
    """What the demo hands over at its end. The marks ``switchover`` and ``completed`` are in ``result``."""

    result: WorkloadResult
    verdict: Verdict
    comparison: Comparison
    breaches: tuple[Breach, ...]
    version_before: str
    version_after: str
    rows_loaded: int
    green_built_s: float
    switchover_s: float
    timeline: TimelineRecord | None


def make_report(measured: Measured) -> DemoReport:
    result, verdict = measured.result, measured.verdict
    began_ns, completed_ns = result.marks["switchover"], result.marks["completed"]
    silence = result.longest_silence(since_ns=began_ns, until_ns=completed_ns)
    p50_ms, p99_ms = result.commit_latency_ms(50, 99)
    return DemoReport(
        kept=not measured.breaches,
        breaches=measured.breaches,
        version_before=measured.version_before,
        version_after=measured.version_after,
        rows_loaded=measured.rows_loaded,
        clients=len({sighting.client for sighting in result.sightings}),
        duration_s=round(result.duration_s, 3),
        green_built_s=round(measured.green_built_s, 3),
        switchover_s=round(measured.switchover_s, 3),
        timeline=measured.timeline,
        longest_pause_ms=_ms(result.longest_pause(since_ns=began_ns, until_ns=completed_ns)),
        longest_silence_ms=_ms(silence),
        longest_pause_before_switchover_ms=_ms(result.longest_pause(until_ns=began_ns)),
        commits_acknowledged=verdict.acknowledged,
        commits_found=verdict.found,
        commits_missing=verdict.missing,
        commits_doubled=verdict.doubled,
        commits_unknown=verdict.unknown,
        commits_unknown_found=verdict.unknown_found,
        commits_failed=verdict.failed,
        commits_per_s=round(verdict.acknowledged / result.duration_s, 1),
        commit_p50_ms=round(p50_ms, 3),
        commit_p99_ms=round(p99_ms, 3),
        reads=sum(read.sqlstate is None for read in result.reads),
        client_errors=result.errors | _connect_errors(result),
        connections_dropped=result.connections_dropped,
        connections_kept_across=sum(len(versions) > 1 for versions in result.kept_connections.values()),
        rows_compared=measured.comparison.rows_compared,
        tables_compared=len(measured.comparison.tables),
        sequences_compared=measured.comparison.sequences,
        bucket_ms=BUCKET_MS,
        commits_per_bucket=_around(result, silence),
    )


def _ms(pause: Pause | None) -> float:
    return round(pause.ms, 3) if pause else 0.0


def _connect_errors(result: WorkloadResult) -> dict[str, int]:
    failed = len(result.incidents_of(IncidentKind.CONNECT_FAILED))
    return {"connect": failed} if failed else {}


def _around(result: WorkloadResult, silence: Pause | None) -> list[int]:
    """Commits per bucket, the middle of the longest silence in the middle."""
    middle_ns = (silence.began_ns + silence.ended_ns) // 2 if silence else result.marks["switchover"]
    half_ns = SPARKLINE_BUCKETS * BUCKET_MS * figures.NS_PER_MS // 2
    since_ns = max(result.began_ns, middle_ns - half_ns)
    until_ns = min(result.ended_ns, middle_ns + half_ns)
    return result.buckets(since_ns=since_ns, until_ns=until_ns, width_ms=BUCKET_MS)


def _lines(report: DemoReport) -> list[tuple[str, str]]:
    errors = ", ".join(f"{count} x {sqlstate}" for sqlstate, count in report.client_errors.items())
    return [
        ("version", f"{report.version_before} before, {report.version_after} after"),
        ("rows loaded", f"{report.rows_loaded:,}"),
        ("time to build green", f"{report.green_built_s:.1f} s"),
        ("switchover", f"{report.switchover_s:.2f} s from the call to SWITCHOVER_COMPLETED"),
        *(_timeline_lines(report.timeline) if report.timeline is not None else []),
        ("longest pause that a client saw", f"{report.longest_pause_ms:.0f} ms"),
        ("longest time without any commit", f"{report.longest_silence_ms:.0f} ms"),
        ("longest pause before the switchover", f"{report.longest_pause_before_switchover_ms:.0f} ms"),
        ("client errors", f"{sum(report.client_errors.values())}" + (f" ({errors})" if errors else "")),
        ("connections dropped", f"{report.connections_dropped} of {report.clients}"),
        ("connections that saw both versions", f"{report.connections_kept_across} of {report.clients}"),
        ("commits acknowledged", f"{report.commits_acknowledged:,}"),
        ("  found", f"{report.commits_found:,}"),
        ("  missing", f"{report.commits_missing:,}"),
        ("  doubled", f"{report.commits_doubled:,}"),
        ("commits with unknown outcome", f"{report.commits_unknown} ({report.commits_unknown_found} found)"),
        ("rows compared", f"{report.rows_compared:,} in {report.tables_compared} tables"),
        ("sequences compared", f"{report.sequences_compared}"),
        (
            "throughput",
            f"{report.commits_per_s:,.0f} commits/s and {report.reads:,} reads in {report.duration_s:.0f} s",
        ),
        ("commit latency", f"median {report.commit_p50_ms:.1f} ms, p99 {report.commit_p99_ms:.1f} ms"),
    ]


def _timeline_lines(timeline: TimelineRecord) -> list[tuple[str, str]]:
    """Phases of the pause overlap, so each has its beginning."""
    pinned = status_details.counts(timeline.pinned)
    pause = "not known" if timeline.pause_ms is None else f"{timeline.pause_ms:.0f} ms"
    return [
        ("  attempts", f"{len(timeline.attempts)}"),
        ("  sessions held by the router for", pause),
        ("  sessions carried", f"{timeline.carried}"),
        ("  sessions closed", f"{timeline.closed}" + (f" ({pinned})" if pinned else "")),
        *(
            (f"  {phase.name}", f"from {phase.started_ms:,.0f} ms on for {phase.duration_ms:,.1f} ms")
            for phase in timeline.phases
        ),
    ]


def render(report: DemoReport, console: Console) -> None:
    lines = _lines(report)
    spark = figures.sparkline(report.commits_per_bucket)
    if console.is_terminal:
        table = Table(title="What the clients saw, and what the database holds", show_header=False)
        for label, value in lines:
            table.add_row(label, value)
        console.print(table)
    else:
        for label, value in lines:
            console.print(f"{label + ':':38}{value}", soft_wrap=True, highlight=False)
    top = max(report.commits_per_bucket, default=0)
    console.print(f"commits per {report.bucket_ms} ms around the switchover (highest {top}):", highlight=False)
    console.print(Text(f"  |{spark}|"), soft_wrap=True)
    for breach in report.breaches:
        console.print(Text(f"BROKEN: {breach.promise} ({breach.count} times)", "bold red"), soft_wrap=True)
        for example in breach.examples:
            console.print(Text(f"    {example}", "red"), soft_wrap=True)
    if report.kept:
        console.print(Text("Every promise was kept.", "bold green"))


def as_builtins(report: DemoReport) -> dict[str, Any]:
    """Members under their names, plus the sparkline: for ``--json``."""
    fields: dict[str, Any] = to_builtins(report)
    return fields | {"sparkline": figures.sparkline(report.commits_per_bucket)}
