"""``verdigris demo``: the main job from nothing, seen from a user's side, with a report that is true."""

import importlib.util
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import NoReturn

import msgspec
from msgspec import Struct
from rich.console import Console

from verdigris.demo.compare import compare_databases
from verdigris.demo.data import load_data
from verdigris.demo.environment import DemoFailed, Environment, switchover_timeline
from verdigris.demo.lifecycle import Deployment, Lifecycle
from verdigris.demo.polling import wait_until
from verdigris.demo.probes import LagProbe, probe_read_only
from verdigris.demo.progress import Screen
from verdigris.demo.promises import Breach, Promise, breach_of
from verdigris.demo.report import DemoReport, Measured, as_builtins, make_report, render
from verdigris.demo.result import WorkloadResult
from verdigris.demo.schema import install_schema
from verdigris.demo.verify import verify_clients, verify_ledger
from verdigris.demo.workload import Workload
from verdigris.domain.statuses import DeploymentStatus

INSTANCE = "app"
EXIT_BROKEN = 1
EXIT_UNUSABLE = 2
EXIT_INTERRUPTED = 130


class DemoOptions(Struct, frozen=True, kw_only=True):
    """``clients``: connections, half of them writing. Rates are for all of them together: enough to show a gap, and
    little enough that clients, servers, router and replication share two cores without queueing."""

    clients: int = 16
    rows: int = 300_000
    source: str = "17.10"
    target: str = "18.6"
    keep: bool = False
    json_path: Path | None = None
    commits_per_s: float = 300
    reads_per_s: float = 300
    switchover_timeout_s: int = 300
    calm_s: float = 4  # of workload before the switchover, and after it


def main(options: DemoOptions) -> int:
    """Run it and return the exit code: 0 if every promise was kept, 1 if not, 2 if it could not run."""
    console = Console()
    if importlib.util.find_spec("boto3") is None:
        console.print("The demo plays an AWS client and needs boto3: install verdigris[demo].", markup=False)
        return EXIT_UNUSABLE
    environment = Environment()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(options, environment, console)
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _run(options: DemoOptions, environment: Environment, console: Console) -> int:
    measured: Measured | None = None
    exit_code = EXIT_BROKEN
    try:
        with Screen(console) as screen:
            measured = Demo(options, environment, screen).run()
    except KeyboardInterrupt:
        console.print("Interrupted: cleaning up.")
        exit_code = EXIT_INTERRUPTED
    except Exception as error:  # whatever it is, engines and router must not stay behind
        console.print(f"The demo could not be finished: {error}", style="bold red", markup=False, soft_wrap=True)
        if not isinstance(error, DemoFailed):
            console.print_exception()
    with _no_second_interrupt():
        leftovers = breach_of(Promise.NOTHING_LEFT_RUNNING, environment.stop())
    if measured is not None:
        report = make_report(msgspec.structs.replace(measured, breaches=(*measured.breaches, *leftovers)))
        _publish(report, options, console)
        exit_code = 0 if report.kept else EXIT_BROKEN
    _leave(options, environment, console, exit_code)
    return exit_code


@contextmanager
def _no_second_interrupt() -> Iterator[None]:
    """Cleaning up takes seconds; an impatient Ctrl-C must not leave servers behind."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _publish(report: DemoReport, options: DemoOptions, console: Console) -> None:
    render(report, console)
    if options.json_path is not None:
        encoded = msgspec.json.format(msgspec.json.encode(as_builtins(report)))
        options.json_path.write_bytes(encoded + b"\n")


def _leave(options: DemoOptions, environment: Environment, console: Console, exit_code: int) -> None:
    """Keep the directory when asked to, and when somebody will want to know what went wrong."""
    if options.keep or exit_code == EXIT_BROKEN:
        console.print(f"State, ledgers and logs are kept in {environment.home}", soft_wrap=True)
        console.print(f"  control plane: {environment.log_path} and {environment.output_path}", soft_wrap=True)
    else:
        environment.remove()


class Demo:
    """The stages in order. Each may raise; what is measured comes back from ``run``."""

    def __init__(self, options: DemoOptions, environment: Environment, screen: Screen) -> None:
        self._options = options
        self._environment = environment
        self._screen = screen
        self._breaches: list[Breach] = []

    def run(self) -> Measured:
        options, screen = self._options, self._screen
        with screen.stage("Starting Verdigris"):
            self._environment.start()
            rds = Lifecycle(self._environment)
        with screen.stage(f"Creating a PostgreSQL {options.source} instance"):
            arn = rds.create_instance(INSTANCE, options.source)
            dsn = rds.dsn(INSTANCE)
        with screen.stage("Loading data"):
            install_schema(dsn)
            rows = load_data(dsn, options.rows, on_progress=lambda n: screen.detail(f"{n:,} rows"))
        with self._workload(dsn) as workload:
            with screen.stage(f"Connecting {options.clients} clients"):
                workload.start()
                screen.clients = workload.progress
            try:
                built_s, deployment = self._build_green(rds, dsn, arn)
                self._test_green(rds, deployment, workload)
                switchover_s, deployment = self._switch_over(rds, deployment, workload)
            except DemoFailed as failure:
                # What failed must have cost nobody anything: that is a promise as well.
                raise DemoFailed(f"{failure}\n{_damage(dsn, workload)}") from None
            with screen.stage("Going on on the new production"):
                self._let_run(workload)
                result = workload.stop()
                screen.clients = None
        return self._judge(rds, deployment, result, rows=rows, built_s=built_s, switchover_s=switchover_s)

    def _workload(self, dsn: str) -> Workload:
        options = self._options
        writers = options.clients // 2
        return Workload(
            dsn,
            writers=writers,
            readers=options.clients - writers,
            commits_per_s=options.commits_per_s,
            reads_per_s=options.reads_per_s,
            directory=self._environment.ledgers,
        )

    def _build_green(self, rds: Lifecycle, dsn: str, arn: str) -> tuple[float, Deployment]:
        probe = LagProbe(dsn)

        def look(deployment: Deployment) -> None:
            self._screen.deployment(deployment.tasks, probe.lag_bytes())

        with self._screen.stage(f"Building green with PostgreSQL {self._options.target}"):
            began_s = monotonic()
            created = rds.create_deployment(arn, self._options.target)
            deployment = rds.wait_for(
                created.identifier, DeploymentStatus.AVAILABLE, passing=DeploymentStatus.PROVISIONING, on_look=look
            )
            built_s = monotonic() - began_s
        probe.close()
        return built_s, deployment

    def _test_green(self, rds: Lifecycle, deployment: Deployment, workload: Workload) -> None:
        with self._screen.stage("Testing green at its own endpoint"):
            self._breaches += probe_read_only(
                rds.dsn(deployment.target_arn),
                readable=Promise.GREEN_READABLE,
                refuses_writes=Promise.GREEN_REFUSES_WRITES,
            )
            self._let_run(workload)

    def _switch_over(self, rds: Lifecycle, deployment: Deployment, workload: Workload) -> tuple[float, Deployment]:
        def look(seen: Deployment) -> None:
            self._screen.detail(seen.status)

        with self._screen.stage("Switching over"):
            began_s = monotonic()
            workload.mark("switchover")
            rds.switch_over(deployment.identifier, self._options.switchover_timeout_s)
            deployment = rds.wait_for(
                deployment.identifier,
                DeploymentStatus.SWITCHOVER_COMPLETED,
                passing=DeploymentStatus.SWITCHOVER_IN_PROGRESS,
                on_look=look,
            )
            workload.mark("completed")
            self._screen.deployment((), None)
            return monotonic() - began_s, deployment

    def _let_run(self, workload: Workload) -> None:
        """A while of ordinary work; returns early only by an exception."""
        end_s = monotonic() + self._options.calm_s
        so_far = workload.progress().acknowledged
        wait_until(
            lambda: monotonic() > end_s and workload.progress().acknowledged > so_far,
            self._options.calm_s + 60,
            what="the clients' commits are answered",
        )

    def _judge(
        self,
        rds: Lifecycle,
        deployment: Deployment,
        result: WorkloadResult,
        *,
        rows: int,
        built_s: float,
        switchover_s: float,
    ) -> Measured:
        old_dsn, new_dsn = rds.dsn(deployment.source_arn), rds.dsn(INSTANCE)
        with self._screen.stage("Comparing what clients were told with what is there"):
            verdict = verify_ledger(new_dsn, result)
        with self._screen.stage("Comparing the old production with the new, row by row"):
            comparison = compare_databases(old_dsn, new_dsn)
            self._breaches += probe_read_only(
                old_dsn, readable=Promise.OLD_BLUE_READABLE, refuses_writes=Promise.OLD_BLUE_REFUSES_WRITES
            )
        before, after, wrong = _versions(result, self._options.source, self._options.target)
        return Measured(
            result=result,
            verdict=verdict,
            comparison=comparison,
            breaches=(*verdict.breaches, *comparison.breaches, *verify_clients(result), *self._breaches, *wrong),
            version_before=before,
            version_after=after,
            rows_loaded=rows,
            green_built_s=built_s,
            switchover_s=switchover_s,
            timeline=switchover_timeline(self._environment.log_path),
        )


def _damage(dsn: str, workload: Workload) -> str:
    """What the clients have to say after a failure, in lines."""
    result = workload.stop()
    verdict = verify_ledger(dsn, result)
    lines = [
        f"BROKEN: {breach.promise} ({breach.count} times), for example {breach.examples[0]}"
        for breach in (*verdict.breaches, *verify_clients(result))
    ]
    counts = f"{verdict.found:,} found, {verdict.missing} missing, {verdict.doubled} doubled"
    return "\n".join([f"Until then clients were told of {verdict.acknowledged:,} commits: {counts}.", *lines])


def _versions(result: WorkloadResult, source: str, target: str) -> tuple[str, str, list[Breach]]:
    """What the clients saw first and last on the connections that they kept, and who saw something else."""
    first: set[str] = set()
    last: set[str] = set()
    wrong = []
    for client, versions in result.kept_connections.items():
        first.add(versions[0])
        last.add(versions[-1])
        if versions != [source, target]:
            wrong.append(f"client {client} saw {' then '.join(versions)}")
    if not result.kept_connections:
        wrong.append("no client kept its connection")
    return ", ".join(sorted(first)), ", ".join(sorted(last)), breach_of(Promise.SAME_CONNECTION_NEW_VERSION, wrong)
