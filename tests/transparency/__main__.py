"""A driver's own tests against a bare server and against an endpoint of Verdigris in front of that server.

    uv run --with anyio --with pproxy --with dnspython python -m tests.transparency psycopg DIRECTORY
    uv run --with distro python -m tests.transparency asyncpg DIRECTORY

What follows is pytest's, such as ``-k``.

``DIRECTORY`` holds the driver's source with its tests: a checkout, or an unpacked sdist where that has them. The tests
run with the driver and the Python of this environment, as the same superuser both times. Prints what became of each
test where that differs; ends with 1 if anything does.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree import ElementTree

import psycopg
from msgspec import Struct
from psycopg.conninfo import make_conninfo

from tests.benchmarks.backend import DATABASE, USER, Backend, running_backend
from tests.benchmarks.command import state_directory
from verdigris.domain.ports import Route
from verdigris.engines.layout import Layout
from verdigris.router.client import RouterClient
from verdigris.router.ports import HostPorts
from verdigris.router.process import RouterProcess
from verdigris.router.run import Loop

VERSION = "17.10"  # a build that can listen on TCP as the endpoint does, with TLS: the embedded 18.6 cannot
BARE, ENDPOINT = "bare server", "endpoint"


class Target(Struct, frozen=True):
    name: str
    port: int
    password: str


class Suite(Struct, frozen=True):
    """``options`` of pytest and ``environment``, by which the suite learns where to go."""

    options: Callable[[Target], list[str]]
    environment: Callable[[Target], dict[str, str]]


def _dsn(target: Target) -> str:
    # Without TLS, as most of these tests are run: some of them talk to the server's port by themselves.
    return make_conninfo(
        host="127.0.0.1", port=target.port, user=USER, password=target.password, dbname=DATABASE, sslmode="disable"
    )


def _pg_variables(target: Target) -> dict[str, str]:
    return {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(target.port),
        "PGUSER": USER,
        "PGPASSWORD": target.password,
        "PGDATABASE": DATABASE,
        "PGSSLMODE": "disable",
    }


SUITES: Mapping[str, Suite] = {
    "psycopg": Suite(
        options=lambda target: [f"--test-dsn={_dsn(target)}", "-p", "no:randomly", "-p", "no:asyncio"],
        environment=lambda _: {},
    ),
    "asyncpg": Suite(options=lambda _: ["-p", "no:asyncio"], environment=_pg_variables),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.transparency", description=__doc__)
    parser.add_argument("driver", choices=sorted(SUITES))
    parser.add_argument("directory", type=Path, help="the driver's source with its tests")
    arguments, more = parser.parse_known_args()
    outcomes = asyncio.run(_run_both(SUITES[arguments.driver], arguments.directory.resolve(), more))
    return _report(outcomes[BARE], outcomes[ENDPOINT])


async def _run_both(suite: Suite, source: Path, more: list[str]) -> dict[str, dict[str, str]]:
    with state_directory() as home, tempfile.TemporaryDirectory() as copy:
        # The tests alone: beside the driver's source they would import that, which has not been built.
        tests = Path(copy)
        shutil.copytree(source / "tests", tests / "tests")
        ports = HostPorts()
        bare_port = ports.allocate(())
        async with running_backend(home, VERSION, bare_port) as backend:
            _make_superuser(home, bare_port)
            router = RouterProcess(home, Loop.AUTO)
            await router.ensure_running()
            try:
                endpoint_port = ports.allocate({bare_port})
                await _put_route(home, backend, endpoint_port)
                outcomes = {}
                for target in (
                    Target(BARE, bare_port, backend.password),
                    Target(ENDPOINT, endpoint_port, backend.password),
                ):
                    print(f"== {target.name}", flush=True)
                    outcomes[target.name] = await asyncio.to_thread(_run, suite, tests, target, more)
                return outcomes
            finally:
                await router.stop()


def _make_superuser(home: Path, port: int) -> None:
    [directory] = (home / "instances").iterdir()
    socket_dir = Layout(home).socket_dir(directory.name)
    with psycopg.connect(
        host=str(socket_dir),
        port=port,
        user="rdsadmin",
        passfile=str(directory / "passfile"),
        dbname="postgres",
        autocommit=True,
    ) as connection:
        connection.execute(f"ALTER ROLE {USER} SUPERUSER")


async def _put_route(home: Path, backend: Backend, port: int) -> None:
    route = Route(name="suite", host="127.0.0.1", port=port, backend=backend.address)
    await RouterClient(home, epoch=1).put_route(route)


def _run(suite: Suite, directory: Path, target: Target, more: list[str]) -> dict[str, str]:
    """What became of each test, by its name."""
    report = directory / "report.xml"
    report.unlink(missing_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "tests", "-q", "--tb=short", "--timeout=120", f"--junitxml={report}"),
            *suite.options(target),
            *more,
        ],
        cwd=directory,
        env=environment | suite.environment(target),
        check=False,  # that some tests fail is what we want to see
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"the suite could not be run: pytest ended with {done.returncode}")
    cases = ElementTree.parse(report).getroot().iter("testcase")  # noqa: S314  pytest has just written it
    return {f"{case.get('classname')}::{case.get('name')}": _outcome(case) for case in cases}


def _outcome(case: ElementTree.Element) -> str:
    for kind in ("failure", "error", "skipped"):
        found = case.find(kind)
        if found is not None:
            return f"{kind}: {(found.get('message') or '').splitlines()[0] if found.get('message') else ''}"
    return "passed"


def _report(bare: dict[str, str], endpoint: dict[str, str]) -> int:
    for name, outcomes in ((BARE, bare), (ENDPOINT, endpoint)):
        kinds = Counter(outcome.partition(":")[0] for outcome in outcomes.values())
        print(f"{name}: {len(outcomes)} tests, " + ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())))
    different = [
        test
        for test in sorted({*bare, *endpoint})
        if bare.get(test, "missing").partition(":")[0] != endpoint.get(test, "missing").partition(":")[0]
    ]
    for test in different:
        print(f"\n{test}\n  {BARE}: {bare.get(test, 'missing')}\n  {ENDPOINT}: {endpoint.get(test, 'missing')}")
    print(f"\n{len(different)} tests went differently")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
