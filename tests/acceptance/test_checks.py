"""``verdigris deployments check``: what a switchover would say, without switching over."""

from typing import Any

import msgspec

from tests.acceptance.installation import Installation


def check(verdigris: Installation, deployment: str) -> tuple[int, dict[str, Any]]:
    done = verdigris.command("deployments", "check", deployment, "--json")
    return done.returncode, msgspec.json.decode(done.stdout)


def test_guardrails_are_looked_at_on_demand(verdigris: Installation) -> None:
    verdigris.create_instance("app", "17.10")
    with verdigris.connect("app") as connection:
        connection.execute("CREATE TABLE kept (id int PRIMARY KEY)")
        deployment, _ = verdigris.build_green("app", TargetEngineVersion="18.6")

        status, report = check(verdigris, deployment)
        assert (status, report["passed"]) == (0, True)
        assert {result["outcome"] for result in report["checks"]} == {"ok"}
        assert {"lag", "tables-without-key", "green-lacks-roles"} <= {result["check"] for result in report["checks"]}

        connection.execute("CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS x")
        status, report = check(verdigris, deployment)
        assert (status, report["passed"]) == (1, False)
        failed = {r["check"]: r["findings"][0] for r in report["checks"] if r["outcome"] == "failed"}
        assert "public.fleeting" in failed["unlogged-tables"]["message"]
        verdigris.environment["COLUMNS"] = "200"  # or the table's cells are broken into lines
        shown = verdigris.command("deployments", "check", deployment)
        assert shown.returncode == 1
        assert "a switchover would be refused" in shown.stdout
        assert "unlogged-tables" in shown.stdout

        # The same words in StatusDetails; and nothing has changed.
        verdigris.rds.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment, SwitchoverTimeout=30)
        refused = verdigris.await_deployment(deployment, "SWITCHOVER_FAILED")
        for finding in failed.values():
            assert finding["message"] in refused["StatusDetails"]
        assert "Unsupported PostgreSQL changes (unlogged-tables): " in refused["StatusDetails"]
        connection.execute("INSERT INTO kept VALUES (1)")

    unknown = verdigris.command("deployments", "check", "bgd-nobodyhasthisname")
    assert unknown.returncode == 1
    assert "there is no blue/green deployment bgd-nobodyhasthisname" in unknown.stderr
