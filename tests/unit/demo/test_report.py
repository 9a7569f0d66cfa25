"""The report, the probes and the throw-away environment, on a bare server and real processes."""

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

from verdigris.demo.client_process import Progress
from verdigris.demo.compare import Comparison
from verdigris.demo.environment import Environment, switchover_timeline
from verdigris.demo.polling import NotInTime, wait_until
from verdigris.demo.probes import LagProbe, probe_read_only
from verdigris.demo.progress import Screen
from verdigris.demo.promises import Breach, Promise
from verdigris.demo.report import DemoReport, Measured, as_builtins, make_report, render
from verdigris.demo.run import EXIT_UNUSABLE, DemoOptions, _versions, main
from verdigris.demo.verify import verify_ledger
from verdigris.demo.workload import Workload
from verdigris.workflows.timeline import AttemptRecord, PhaseRecord, TimelineRecord

TIMELINE = TimelineRecord(
    phases=(PhaseRecord(name="park", started_ms=1500.0, duration_ms=12.0),),
    attempts=(AttemptRecord(started_ms=0.0, pause_ms=182.0),),
    pause_ms=182.0,
    carried=3,
    pinned={"listen": 2},
)


def measure(dsn: str, directory: Path, *breaches: Breach) -> Measured:
    with Workload(dsn, writers=2, readers=1, directory=directory / "ledgers") as workload:
        workload.start()
        wait_until(lambda: workload.progress().acknowledged >= 20, 20, what="some commits")
        workload.mark("switchover")
        wait_until(lambda: workload.progress().acknowledged >= 40, 20, what="more commits")
        workload.mark("completed")
        result = workload.stop()
    before, after, _ = _versions(result, "17.10", "18.6")
    return Measured(
        result=result,
        verdict=verify_ledger(dsn, result),
        comparison=Comparison(tables=(), sequences=0, breaches=()),
        breaches=breaches,
        version_before=before,
        version_after=after,
        rows_loaded=7,
        green_built_s=1.5,
        switchover_s=0.25,
        timeline=TIMELINE,
    )


def text_of(report: DemoReport, *, terminal: bool) -> str:
    output = io.StringIO()
    render(report, Console(file=output, force_terminal=terminal, width=100))
    return output.getvalue()


def test_a_report_says_what_was_measured(dsn: str, directory: Path) -> None:
    measured = measure(dsn, directory)
    report = make_report(measured)
    assert report.kept
    assert report.commits_found == report.commits_acknowledged >= 40
    assert report.clients == 3
    assert report.version_before == report.version_after == "17.10"
    assert report.longest_pause_ms > 0
    assert 0 < sum(report.commits_per_bucket) <= report.commits_acknowledged
    for terminal in (True, False):
        text = text_of(report, terminal=terminal)
        assert "Every promise was kept." in text
        for told in ("from 1,500 ms on for 12.0 ms", "182 ms", "2 (listen (2))"):
            assert told in text
        assert "█" in text
    assert as_builtins(report)["sparkline"]


def test_a_broken_promise_is_named_with_examples(dsn: str, directory: Path) -> None:
    report = make_report(measure(dsn, directory, Breach(Promise.NOTHING_LOST, 2, ("key 4711",))))
    assert not report.kept
    text = text_of(report, terminal=False)
    assert "BROKEN: every acknowledged commit is there (2 times)" in text
    assert "key 4711" in text
    assert "Every promise" not in text


def test_clients_that_saw_no_new_version_break_the_promise(dsn: str, directory: Path) -> None:
    result = measure(dsn, directory).result
    before, after, wrong = _versions(result, "17.10", "18.6")
    assert (before, after) == ("17.10", "17.10")
    assert [breach.promise for breach in wrong] == [Promise.SAME_CONNECTION_NEW_VERSION]
    assert wrong[0].count == 3


def probe(dsn: str) -> set[Promise]:
    breaches = probe_read_only(dsn, readable=Promise.GREEN_READABLE, refuses_writes=Promise.GREEN_REFUSES_WRITES)
    return {breach.promise for breach in breaches}


def test_a_probe_tells_read_only_from_writable_from_gone(dsn: str) -> None:
    assert probe(dsn) == {Promise.GREEN_REFUSES_WRITES}
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM ledger.receipts").fetchone() == (0,)
    assert probe(f"{dsn} options='-c default_transaction_read_only=on'") == set()
    assert probe(dsn.replace("dbname=app", "dbname=nowhere")) == {Promise.GREEN_READABLE}
    with psycopg.connect(dsn) as connection:
        connection.execute("DROP TABLE ledger.receipts")
    assert probe(dsn) == {Promise.GREEN_REFUSES_WRITES}  # refused, but for another reason


def test_the_lag_probe_measures_a_slot(dsn: str) -> None:
    lag = LagProbe(dsn)
    assert lag.lag_bytes() is None
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_create_physical_replication_slot('green', true)")
        connection.execute("CREATE TABLE filler AS SELECT n FROM generate_series(1, 1000) n")
        behind = lag.lag_bytes()
        connection.execute("SELECT pg_drop_replication_slot('green')")
    assert behind is not None
    assert behind > 1000
    lag.close()
    assert lag.lag_bytes() is None


def test_waiting_has_a_limit() -> None:
    with pytest.raises(NotInTime, match=r"not within 0\.05 s: never"):
        wait_until(lambda: False, 0.05, what="never")


def test_the_timeline_comes_from_the_log(tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    assert switchover_timeline(log) is None
    log.write_text(
        '{"event": "switchover.completed", "timeline": "of another version"}\n{"event": "server.started"}\nnot json\n'
    )
    assert switchover_timeline(log) is None
    with log.open("a") as lines:
        lines.write(f'{{"event": "switchover.completed", "timeline": {TIMELINE.as_json()}}}\n')
    assert switchover_timeline(log) == TIMELINE


@pytest.fixture
def environment() -> Iterator[Environment]:
    environment = Environment()
    yield environment
    environment.remove()


def test_what_is_left_running_is_found_and_ended(environment: Environment) -> None:
    straggler = subprocess.Popen(["/bin/sleep", "600"], cwd=environment.home)
    try:
        leftovers = environment.stop(leftovers_timeout_s=0.5)
        assert leftovers == [f"{straggler.pid}: /bin/sleep 600"]
        assert straggler.wait(10) == -9
        assert environment.stop() == []
    finally:
        straggler.kill()


def test_the_environment_is_not_the_callers(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERDIGRIS_HOME", "/elsewhere")
    monkeypatch.setenv("VERDIGRIS_ACCOUNT_ID", "123456789012")
    monkeypatch.setenv("VERDIGRIS_ENGINE_CACHE", "/cache")
    variables = environment._variables()
    assert variables["VERDIGRIS_HOME"] == str(environment.home)
    assert variables["VERDIGRIS_ENGINE_CACHE"] == "/cache"
    assert "VERDIGRIS_ACCOUNT_ID" not in variables


@pytest.mark.parametrize("terminal", [True, False])
def test_the_screen_shows_stages_tasks_and_clients(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")  # one that can be drawn on, whatever the tests run in
    output = io.StringIO()
    with Screen(Console(file=output, force_terminal=terminal, width=100)) as screen:
        screen.clients = lambda: Progress(connected=16, acknowledged=5, versions=["17.10"])
        with screen.stage("Building green"):
            screen.deployment((("CREATING_READ_REPLICA_OF_SOURCE", "IN_PROGRESS"),), 1234)
            screen.detail("half way")
            if terminal:
                screen._live.refresh()
        with pytest.raises(KeyError), screen.stage("Failing"):
            raise KeyError
    text = output.getvalue()
    assert "CREATING_READ_REPLICA_OF_SOURCE" in text
    assert "Building green (half way)" in text
    assert "Failing" in text
    assert "1,234 bytes" in text


def test_without_boto3_the_demo_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert main(DemoOptions()) == EXIT_UNUSABLE
    assert "verdigris[demo]" in capsys.readouterr().out
