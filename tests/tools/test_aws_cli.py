"""The AWS command line: the life cycle, and the shapes of its own documented examples."""

import importlib.resources
import json
import re
import subprocess
import sys
import textwrap
from typing import Any

from tests.acceptance.installation import MASTER, PASSWORD, Installation, wait_until

# What RDS answers too, and the examples leave out.
NOT_IN_EXAMPLES = {"TagList", "StatusDetails"}


class CommandLine:
    def __init__(self, verdigris: Installation) -> None:
        key, secret = verdigris.access_key
        self._endpoint = f"http://127.0.0.1:{verdigris.port}"
        self._environment = {
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_PAGER": "",
            "AWS_MAX_ATTEMPTS": "1",
            "HOME": str(verdigris.home),
            "PATH": "/usr/bin:/bin",
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "awscli", "--endpoint-url", self._endpoint, "--output", "json", "rds", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def __call__(self, *arguments: str) -> Any:
        ended = self.run(*arguments)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout) if ended.stdout.strip() else None


def documented(operation: str) -> Any:
    """What its first example, which is one of a DB instance, answers."""
    text = (importlib.resources.files("awscli") / "examples" / "rds" / f"{operation}.rst").read_text()
    output = re.search(r"^Output::\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    assert output is not None
    return json.loads(textwrap.dedent(output[1]))


def shape(answer: Any) -> Any:
    """Names and types of members; a list's elements are all of one shape, whose members need not all be there."""
    match answer:
        case dict():
            return {name: shape(value) for name, value in answer.items() if name not in NOT_IN_EXAMPLES}
        case [dict(), *_]:
            return [{name: member for element in answer for name, member in shape(element).items()}]
        case list():
            return sorted({type(element).__name__ for element in answer})
        case _:
            return type(answer).__name__


def test_life_cycle(verdigris: Installation) -> None:
    aws = CommandLine(verdigris)
    created = aws("create-db-instance", "--db-instance-identifier", "app",
                  "--engine", "postgres", "--engine-version", "17.10", "--db-name", "app",
                  "--db-instance-class", "db.t3.micro", "--allocated-storage", "20",
                  "--master-username", MASTER, "--master-user-password", PASSWORD,
                  "--tags", "Key=env,Value=production")  # fmt: skip
    assert created["DBInstance"]["DBInstanceStatus"] == "creating"
    aws("wait", "db-instance-available", "--db-instance-identifier", "app")

    made = aws("create-blue-green-deployment", "--blue-green-deployment-name", "upgrade",
               "--source", created["DBInstance"]["DBInstanceArn"], "--target-engine-version", "18.6")  # fmt: skip
    assert shape(made) == shape(documented("create-blue-green-deployment"))
    named = ("--blue-green-deployment-identifier", made["BlueGreenDeployment"]["BlueGreenDeploymentIdentifier"])

    def has_status(status: str) -> bool:
        query = ("--query", "BlueGreenDeployments[0].Status")
        return bool(aws("describe-blue-green-deployments", *named, *query) == status)

    wait_until(lambda: has_status("AVAILABLE"), "green is there", limit_s=120)
    described = aws("describe-blue-green-deployments", *named)
    assert shape(described) == shape(documented("describe-blue-green-deployments"))
    by_name = ("--filters", "Name=blue-green-deployment-name,Values=upgrade")
    assert aws("describe-blue-green-deployments", *by_name) == described

    with verdigris.connect("app") as client:
        begun = aws("switchover-blue-green-deployment", *named, "--switchover-timeout", "300")
        assert shape(begun) == shape(documented("switchover-blue-green-deployment"))
        wait_until(lambda: has_status("SWITCHOVER_COMPLETED"), "it has been switched over", limit_s=120)
        assert client.execute("SHOW server_version").fetchall()[0][0].split()[0] == "18.6"

    refused = aws.run("delete-blue-green-deployment", *named, "--delete-target")
    assert refused.returncode != 0
    assert "(InvalidBlueGreenDeploymentStateFault)" in refused.stderr
    deleted = aws("delete-blue-green-deployment", *named)
    assert shape(deleted) == shape(documented("delete-blue-green-deployment"))
    verdigris.await_no_deployment(named[1])
    gone = aws.run("describe-blue-green-deployments", *named)
    assert "(BlueGreenDeploymentNotFoundFault)" in gone.stderr

    aws("stop-db-instance", "--db-instance-identifier", "app-old1")
    verdigris.await_instance("app-old1", "stopped")
    for identifier in ("app", "app-old1"):
        aws("delete-db-instance", "--db-instance-identifier", identifier, "--skip-final-snapshot")
        aws("wait", "db-instance-deleted", "--db-instance-identifier", identifier)
    assert aws("describe-db-instances") == {"DBInstances": []}
