"""What becomes of a switchover, and of the sessions in its way, is the operator's choice; and it is told beforehand."""

from typing import Any

import msgspec
import psycopg
import pytest

from tests.acceptance.installation import Installation, wait_until
from tests.acceptance.inventory import Unchanged
from tests.acceptance.serve_log import ServeLog

TIMEOUT_S = 30  # the shortest that there is
WORKER = "worker"


def worker(verdigris: Installation, password: str) -> psycopg.Connection[Any]:
    return verdigris.connect("app", user=WORKER, password=password)


def answer(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def version(connection: psycopg.Connection[Any]) -> str:
    return str(answer(connection, "SHOW server_version"))


def details(verdigris: Installation, deployment: str) -> str | None:
    told: str | None = verdigris.deployment(deployment).get("StatusDetails")
    return told


def await_details(verdigris: Installation, deployment: str, expected: str | None) -> None:
    wait_until(lambda: details(verdigris, deployment) == expected, f"StatusDetails is {expected!r}", limit_s=40)


def timeline(verdigris: Installation, deployment: str) -> dict[str, Any]:
    shown = verdigris.command("deployments", "show", deployment, "--json")
    assert shown.returncode == 0, shown.stderr
    found: dict[str, Any] = msgspec.json.decode(shown.stdout)["switchovers"][-1]["timeline"]
    return found


def test_pinned_sessions_are_named_then_refuse_or_are_waited_for(verdigris: Installation) -> None:
    verdigris.create_instance("app", "17.10")
    with verdigris.connect("app") as other:
        other.execute(f"CREATE ROLE {WORKER} LOGIN PASSWORD 'as it was'".encode())
        deployment, green = verdigris.build_green("app", TargetEngineVersion="18.6")
        with worker(verdigris, "as it was") as pinned:
            assert details(verdigris, deployment) is None
            other.execute(f"ALTER ROLE {WORKER} PASSWORD 'as it is'".encode())
            told = "1 session of app cannot be carried by a switchover: authentication (1)"
            await_details(verdigris, deployment, told)
            verdigris.environment["COLUMNS"] = "160"  # or the table's cells are broken into lines
            status = verdigris.command("status").stdout
            assert "authentication (1)" in status, status

            verdigris.restart(VERDIGRIS_PINNED_SESSIONS="refuse")
            with Unchanged(verdigris, "app", host=False), Unchanged(verdigris, green, host=False):
                refused = _switch_over_in_vain(verdigris, deployment)
            assert refused["StatusDetails"] == f"Switchover was canceled due to {told}"
            assert "park" not in {phase["name"] for phase in timeline(verdigris, deployment)["phases"]}
            assert (version(pinned), version(other)) == ("17.10", "17.10")

            verdigris.restart(VERDIGRIS_PINNED_SESSIONS="wait")
            log = ServeLog(verdigris.log_path)
            verdigris.rds.switchover_blue_green_deployment(
                BlueGreenDeploymentIdentifier=deployment, SwitchoverTimeout=TIMEOUT_S
            )
            log.wait_for("switchover.set_back", reason=told)
            assert details(verdigris, deployment) == f"Attempt set back: {told}. Trying again."
            assert (version(pinned), version(other)) == ("17.10", "17.10")
        completed = verdigris.await_deployment(deployment, "SWITCHOVER_COMPLETED", limit_s=TIMEOUT_S)
        assert "; 1 session carried, 0 closed" in completed["StatusDetails"]
        assert version(other) == "18.6"
        with worker(verdigris, "as it is") as newcomer:
            assert version(newcomer) == "18.6"
    done = timeline(verdigris, deployment)
    assert done["attempts"][0]["setback"] == told
    assert done["attempts"][-1]["setback"] is None
    assert (done["carried"], done["pinned"], done["stragglers"]) == (1, {}, 0)


def _switch_over_in_vain(verdigris: Installation, deployment: str) -> dict[str, Any]:
    verdigris.rds.switchover_blue_green_deployment(
        BlueGreenDeploymentIdentifier=deployment, SwitchoverTimeout=TIMEOUT_S
    )
    return verdigris.await_deployment(deployment, "SWITCHOVER_FAILED", limit_s=TIMEOUT_S + 15)


def test_stragglers_and_pinned_sessions_are_closed_and_nothing_of_them_is_half_done(verdigris: Installation) -> None:
    """In the last attempt, and by the server's own word; the deadline would otherwise have ended the switchover."""
    verdigris.restart(VERDIGRIS_STRAGGLERS="close", VERDIGRIS_PAUSE_BUDGET_MS="300")
    verdigris.create_instance("app", "17.10")
    with verdigris.connect("app") as other:
        other.execute("CREATE TABLE t (id int PRIMARY KEY)")
        deployment, _ = verdigris.build_green("app", TargetEngineVersion="18.6")
        with (
            verdigris.connect("app") as writer,
            verdigris.connect("app") as sleeper,
            verdigris.connect("app") as pinned,
        ):
            pinned.pgconn.exec_(b"PREPARE pin AS SELECT 1; DEALLOCATE pin; PREPARE pin AS SELECT 2")  # which is it?
            await_details(
                verdigris,
                deployment,
                "1 session of app cannot be carried by a switchover: prepared-statements (1)",
            )
            # Now, or a guardrail would find them: writes that have been going on for more than ten seconds.
            writer.execute("INSERT INTO t VALUES (1)")
            writer.execute("BEGIN")
            writer.execute("INSERT INTO t VALUES (2)")
            sleeper.pgconn.send_query(b"INSERT INTO t SELECT 3 FROM pg_sleep(600)")
            completed = verdigris.switch_over(deployment, TIMEOUT_S)
            with pytest.raises(psycopg.errors.AdminShutdown):
                writer.execute("COMMIT")
            assert _sqlstates(sleeper)[0] == b"57P01"  # and then libpq says that the connection is gone
            with pytest.raises(psycopg.errors.AdminShutdown, match="prepared-statements"):
                pinned.execute("SELECT 1")
        assert "; 1 session carried, 3 closed" in completed["StatusDetails"]
        assert (version(other), answer(other, "SELECT array_agg(id) FROM t")) == ("18.6", [1])
    with verdigris.connect("app-old1") as old:
        assert answer(old, "SELECT array_agg(id) FROM t") == [1]
    done = timeline(verdigris, deployment)
    assert (done["stragglers"], done["pinned"]) == (2, {"prepared-statements": 1})
    assert len(done["attempts"]) > 1
    for attempt in done["attempts"][:-1]:
        assert attempt["setback"].startswith("2 sessions did not end a transaction or request within 0.3 s: process")
    assert "park_without_stragglers" in {phase["name"] for phase in done["phases"]}


def _sqlstates(connection: psycopg.Connection[Any]) -> list[bytes | None]:
    """Of all results that are still due."""
    found = []
    while (result := connection.pgconn.get_result()) is not None:
        found.append(result.error_field(psycopg.pq.DiagnosticField.SQLSTATE))
    return found


def test_a_wrong_setting_keeps_the_control_plane_from_starting(verdigris: Installation) -> None:
    verdigris.environment["VERDIGRIS_PINNED_SESSIONS"] = "keep"
    refused = verdigris.command("serve")
    assert refused.returncode == 1
    assert "VERDIGRIS_PINNED_SESSIONS='keep' is none of wait, close, refuse" in refused.stderr
    del verdigris.environment["VERDIGRIS_PINNED_SESSIONS"]
