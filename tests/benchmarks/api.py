"""How many calls a second the API answers, beside moto's server: ``uv run python -m tests.benchmarks.api``

Both have the same instances recorded, and answer the same requests, which were made and signed before and are sent
again and again over a few connections; by turns, a batch each. Verdigris checks the signature of each, and reads its
records from SQLite; moto does neither. Batches are shorter than what Verdigris's throttle lets through at once, and it
is given the time to fill again.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from subprocess import DEVNULL, Popen
from typing import Any
from urllib.parse import urlencode

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import EndpointConnectionError
from msgspec import Struct

from tests.acceptance.installation import MASTER, PASSWORD, Installation, free_port, wait_until
from tests.benchmarks import machine
from tests.benchmarks.command import note, run
from tests.benchmarks.figures import number, paired_ratio, table
from tests.benchmarks.product import BLUE_VERSION, running_verdigris
from verdigris.app import random_text
from verdigris.domain.identifiers import new_resource_id
from verdigris.domain.model import DBInstance
from verdigris.domain.statuses import InstanceStatus
from verdigris.rds.throttle import BURST, REQUESTS_PER_S
from verdigris.store import open_store, sqlite_url

VERDIGRIS, MOTO = "Verdigris", "moto"
_REGION = "us-east-1"
_FIRST_PORT = 30_000  # recorded only: nobody listens there


class Options(Struct, frozen=True, kw_only=True):
    """``batch``: requests of one turn. ``running``: instances whose servers run, for the control plane's memory."""

    instances: int = 500
    running: int = 20
    batch: int = 400
    connections: int = 4
    rounds: int = 5


QUICK = Options(instances=20, running=1, batch=20, rounds=1)


class Subject(Struct, frozen=True, kw_only=True):
    name: str
    port: int
    key: tuple[str, str]


# What is asked, by name; each request's answer is looked at for what it holds.
def questions(options: Options) -> Mapping[str, tuple[dict[str, Any], int]]:
    page = min(100, options.instances)
    return {
        "one instance": ({"DBInstanceIdentifier": "i-7"}, 1),
        f"a page of {page}": ({"MaxRecords": page}, page),
    }


# ------------------------------------------------------------------------------------------------------------- subjects


def record_instances(home: Path, options: Options) -> None:
    """They have no servers."""
    store = open_store(sqlite_url(home / "state.db"))
    with store.transaction() as tx:
        for n in range(options.instances):
            tx.put_instance(_record(n))
    store.close()


def _record(n: int) -> DBInstance:
    return DBInstance(
        resource_id=new_resource_id(random_text),
        identifier=f"i-{n}",
        engine="postgres",
        engine_version=BLUE_VERSION,
        instance_class="db.t3.micro",
        status=InstanceStatus.AVAILABLE,
        master_username=MASTER,
        db_name="app",
        port=_FIRST_PORT + n,
        created_at=datetime.now(UTC),
        allocated_storage_gib=20,
        parameter_group=f"default.postgres{BLUE_VERSION.partition('.')[0]}",
    )


@contextmanager
def moto_with(options: Options) -> Iterator[Subject]:
    port = free_port()
    server = Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=DEVNULL, stderr=DEVNULL)
    try:
        key = ("AKIDTEST", "secret")
        rds = boto3.client(
            "rds",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name=_REGION,
            aws_access_key_id=key[0],
            aws_secret_access_key=key[1],
        )
        wait_until(lambda: _answers(rds), "moto answers")
        for n in range(options.instances):
            rds.create_db_instance(
                DBInstanceIdentifier=f"i-{n}",
                Engine="postgres",
                EngineVersion=BLUE_VERSION,
                DBInstanceClass="db.t3.micro",
                AllocatedStorage=20,
                MasterUsername=MASTER,
                MasterUserPassword=PASSWORD,
                DBName="app",
            )
        yield Subject(name=MOTO, port=port, key=key)
    finally:
        server.terminate()
        server.wait(30)


def _answers(rds: Any) -> bool:
    try:
        rds.describe_db_instances()
    except EndpointConnectionError:
        return False
    return True


# ------------------------------------------------------------------------------------------------------------ measuring


class Question:
    """One request of one subject, signed once."""

    def __init__(self, subject: Subject, members: Mapping[str, Any], instances: int) -> None:
        self._port = subject.port
        self._instances = instances
        self._body = urlencode({"Action": "DescribeDBInstances", "Version": "2014-10-31", **members}).encode()
        request = AWSRequest(
            "POST",
            f"http://127.0.0.1:{subject.port}/",
            headers={"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"},
            data=self._body,
        )
        SigV4Auth(Credentials(*subject.key), "rds", _REGION).add_auth(request)
        self._headers = dict(request.headers.items())

    def ask(self, times: int) -> None:
        """Over a connection that is kept, if the server keeps it."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            for _ in range(times):
                connection.request("POST", "/", self._body, self._headers)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200 or text.count(b"<DBInstanceIdentifier>") != self._instances:
                    raise AssertionError(f"{answer.status}: {text[:500]!r}")
        finally:
            connection.close()


def calls_per_s(question: Question, options: Options) -> float:
    each = options.batch // options.connections
    began_s = time.monotonic()
    with ThreadPoolExecutor(options.connections) as pool:
        list(pool.map(question.ask, [each] * options.connections))
    return each * options.connections / (time.monotonic() - began_s)


def compare(subjects: Sequence[Subject], options: Options) -> str:
    rows: list[list[str | float]] = []
    for name, (members, instances) in questions(options).items():
        rates: dict[str, list[float]] = {subject.name: [] for subject in subjects}
        asked = {subject.name: Question(subject, members, instances) for subject in subjects}
        for n in range(options.rounds):
            for subject in [*subjects[n % 2 :], *subjects[: n % 2]]:
                rates[subject.name].append(calls_per_s(asked[subject.name], options))
            note(f"{name}: round {n + 1} of {options.rounds}")
            time.sleep(options.batch / REQUESTS_PER_S)  # until the throttle is as full as it was
        ratios = [ours / theirs for ours, theirs in zip(rates[VERDIGRIS], rates[MOTO], strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        medians = [median(rates[subject.name]) for subject in subjects]
        rows.append([name, *medians, paired_ratio(rates[VERDIGRIS], rates[MOTO]), spread])
    return table(("calls a second", *(subject.name for subject in subjects), "ratio", "lowest and highest"), rows)


def memory_table(options: Options, recorded: tuple[int, int], running: tuple[int, int]) -> str:
    rows = [
        [f"{options.instances} instances recorded", *(number(size / 2**20) for size in recorded)],
        [f"{options.running} instances running besides", *(number(size / 2**20) for size in running)],
    ]
    return table(("control plane, MiB", "Rss", "Pss"), rows)


def start_instances(verdigris: Installation, count: int) -> None:
    for n in range(count):
        verdigris.begin_instance(f"running-{n}", BLUE_VERSION)
    for n in range(count):
        verdigris.await_instance(f"running-{n}", limit_s=300)
        note(f"running: {n + 1} of {count}")


# -------------------------------------------------------------------------------------------------------------- command


def benchmark(options: Options) -> None:
    if options.batch > BURST:
        raise SystemExit(f"a batch of more than {BURST} is throttled")
    facts = machine.describe(
        moto=f"moto {machine.version_of('moto')}, its own server",
        runs=f"medians of {options.rounds} batches of {options.batch} requests over {options.connections} connections",
    )
    print(f"## API\n\n{facts}\n\n### {options.instances} instances recorded\n")
    with running_verdigris(lambda home: record_instances(home, options)) as verdigris:
        ours = Subject(name=VERDIGRIS, port=verdigris.port, key=verdigris.access_key)
        with moto_with(options) as moto:
            print(compare([ours, moto], options))
        assert verdigris.process is not None  # it has been started
        recorded = machine.own_resident_bytes(verdigris.process.pid)
        start_instances(verdigris, options.running)
        running = machine.own_resident_bytes(verdigris.process.pid)
    print(f"\n{memory_table(options, recorded, running)}\n\n- load after: {machine.load()}")


def parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.api", description=__doc__)
    default = Options()
    parser.add_argument("--instances", type=int, default=default.instances, metavar="N", help="recorded")
    parser.add_argument("--running", type=int, default=default.running, metavar="N", help="with servers, afterwards")
    parser.add_argument("--rounds", type=int, default=default.rounds, metavar="N")
    parser.add_argument("--quick", action="store_true", help="a short run, to see that it works")
    found = parser.parse_args(arguments)
    if found.quick:
        return QUICK
    return Options(instances=found.instances, running=found.running, rounds=found.rounds)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    return run(lambda: benchmark(options))


if __name__ == "__main__":
    sys.exit(main())
