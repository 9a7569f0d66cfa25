"""A whole Verdigris to be measured, and the parts of its life cycle that no figure is about."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from tests.acceptance.installation import Installation, wait_until
from tests.benchmarks.command import state_directory, undisturbed

BLUE_VERSION, GREEN_VERSION = "17.10", "18.6"
INSTANCE_CLASS = "db.t3.medium"  # its max_connections have room for 64 clients, twice at a switchover
_LIMIT_S = 120.0


@contextmanager
def running_verdigris(prepare: Callable[[Path], None] = lambda _home: None) -> Iterator[Installation]:
    """On a directory of its own, which is given to ``prepare`` before the start; nothing is left of it."""
    with state_directory() as home:
        prepare(home)
        installation = Installation(home, ports=range(18400, 19000))
        try:
            installation.start()
            yield installation
        finally:
            with undisturbed():
                installation.remove()


def delete_deployment(verdigris: Installation, identifier: str, **members: Any) -> None:
    """Return when it is gone."""
    verdigris.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=identifier, **members)
    wait_until(lambda: not _deployment_exists(verdigris, identifier), f"{identifier} is deleted", limit_s=_LIMIT_S)


def delete_instance(verdigris: Installation, identifier: str) -> None:
    """Return when it is gone, and its files with it."""
    directory = verdigris.home / "instances" / verdigris.instance(identifier)["DbiResourceId"]
    verdigris.rds.delete_db_instance(DBInstanceIdentifier=identifier, SkipFinalSnapshot=True)
    wait_until(lambda: not _instance_exists(verdigris, identifier), f"{identifier} is deleted", limit_s=_LIMIT_S)
    wait_until(lambda: not directory.exists(), f"{directory} is removed", limit_s=_LIMIT_S)


def timed_build(verdigris: Installation, source: str, **members: Any) -> tuple[str, float]:
    """The identifier of a new deployment, and the seconds until a caller sees it AVAILABLE (looked at ten times a
    second)."""
    began_s = time.monotonic()
    identifier, _ = verdigris.build_green(source, **members)
    return identifier, time.monotonic() - began_s


def _deployment_exists(verdigris: Installation, identifier: str) -> bool:
    return not _fault(lambda: verdigris.deployment(identifier), "BlueGreenDeploymentNotFoundFault")


def _instance_exists(verdigris: Installation, identifier: str) -> bool:
    return not _fault(lambda: verdigris.instance(identifier), "DBInstanceNotFound")


def _fault(ask: Callable[[], object], code: str) -> bool:
    """Whether the answer is that error; any other one is raised."""
    try:
        ask()
    except ClientError as error:
        if error.response["Error"]["Code"] != code:
            raise
        return True
    return False
