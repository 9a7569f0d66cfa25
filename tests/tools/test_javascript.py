"""The AWS SDK for JavaScript."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.installation import PASSWORD, Installation
from tests.node import NODE, NPM, installed

BLUE, GREEN = "17.9", "17.10"
ARN = "arn:aws:rds:us-east-1:000000000000:db:"


@pytest.fixture
def program() -> Iterator[Path]:
    if NODE is None or NPM is None:
        pytest.skip("node and npm are not installed")
    directory = installed(Path(__file__).parent / "javascript")
    yield directory
    shutil.rmtree(directory)


def test_life_cycle(verdigris: Installation, program: Path) -> None:
    key, secret = verdigris.access_key
    ended = subprocess.run(
        [str(NODE), "life_cycle.mjs"],
        cwd=program,
        env={
            "AWS_ENDPOINT_URL_RDS": f"http://127.0.0.1:{verdigris.port}",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "MASTER_PASSWORD": PASSWORD,
            "BLUE": BLUE,
            "GREEN": GREEN,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {
        "tasks": [
            ["CREATING_READ_REPLICA_OF_SOURCE", "PENDING"],
            ["DB_ENGINE_VERSION_UPGRADE", "PENDING"],
            ["CONFIGURE_BACKUPS", "PENDING"],
        ],
        "createTimeIsADate": True,
        "members": [[f"{ARN}app-old1", f"{ARN}app", "SWITCHOVER_COMPLETED"]],
        "instances": [["app", GREEN], ["app-old1", BLUE]],
        "refusal": ["InvalidBlueGreenDeploymentStateFault", True],
        "gone": "BlueGreenDeploymentNotFoundFault",
    }
