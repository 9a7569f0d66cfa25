"""Running ``pgbench`` and ``psql`` of the server's own build, and reading what they say."""

import re
import time
from pathlib import Path
from statistics import median

from msgspec import Struct

from tests.benchmarks.backend import DATABASE, USER, Backend
from tests.benchmarks.figures import percentile
from verdigris.engines.process import run_program

# Every so-many-th transaction is written to pgbench's log: enough for a median, too little to be felt.
_SAMPLE = 0.1

_COUNT = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
_FAILED = re.compile(r"^number of failed transactions: (\d+)", re.MULTILINE)
_AVERAGE = re.compile(r"^latency average = ([\d.]+) ms", re.MULTILINE)
_RATE = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)


class PgbenchFailed(Exception):
    """It ran and transactions failed, or said something that cannot be read."""


class Throughput(Struct, frozen=True, kw_only=True):
    """One run. Latencies of single transactions are of a sample; the average is of all."""

    transactions: int
    tps: float
    average_ms: float
    median_ms: float
    p99_ms: float


def parse_report(text: str) -> tuple[int, float, float]:
    """Transactions, transactions a second, average latency in ms. Raises ``PgbenchFailed``."""
    count, rate, average = _COUNT.search(text), _RATE.search(text), _AVERAGE.search(text)
    failed = _FAILED.search(text)
    if count is None or rate is None or average is None or (failed and failed[1] != "0"):
        raise PgbenchFailed(text)
    return int(count[1]), float(rate[1]), float(average[1])


def parse_log(text: str) -> list[float]:
    """Latencies in ms: the third field of each line, in microseconds (manual, pgbench, "Per-Transaction Logging")."""
    return [int(line.split()[2]) / 1000 for line in text.splitlines() if line]


class Programs:
    """Client programs under the engine account, which has the password in a passfile."""

    def __init__(self, backend: Backend, home: Path) -> None:
        self._backend = backend
        self.directory = home / "client"
        backend.account.make_directory(self.directory)
        self.passfile = self.directory / "passfile"
        backend.account.write_file(self.passfile, f"*:*:*:{USER}:{backend.password}\n")
        self._environment = backend.account.environment(
            {"PGPASSFILE": str(self.passfile), **backend.installation.environment()}
        )

    async def _run(self, program: str, *arguments: str) -> str:
        completed = await run_program(
            [self._backend.installation.program(program), *arguments],
            account=self._backend.account,
            env=self._environment,
            cwd=self.directory,
        )
        return completed.stdout

    async def initialise(self, scale: int) -> None:
        """pgbench's tables, 100,000 accounts for each unit of ``scale``, filled by the server itself."""
        address = f"host={self._backend.socket_dir} port={self._backend.port} user={USER} dbname={DATABASE}"
        await self._run("pgbench", "-i", "-I", "dtGvp", "-q", "-s", str(scale), address)

    async def pgbench(
        self,
        conninfo: str,
        *,
        clients: int,
        seconds: int,
        protocol: str = "simple",
        reconnect: bool = False,
        sample: float = _SAMPLE,
        script: Path | None = None,
    ) -> Throughput:
        """``pgbench -S``, or ``script``; two threads at most, as it shares the machine with what it measures.

        pgbench's clock runs while its clients log in, and its rates leave that time out: many clients are given more.
        """
        for old in self.directory.glob("sample.*"):
            old.unlink()
        arguments = ["-f", str(script)] if script else ["-S"]
        arguments += [
            "-n",
            "-M",
            protocol,
            "-c",
            str(clients),
            "-j",
            str(min(clients, 2)),
            "-T",
            str(seconds + clients // 100),
        ]
        arguments += ["-C"] if reconnect else []
        rate = 1 if reconnect or script else sample
        arguments += ["-l", "--log-prefix", "sample", "--sampling-rate", str(rate)]
        transactions, tps, average_ms = parse_report(await self._run("pgbench", *arguments, conninfo))
        latencies_ms = [ms for log in self.directory.glob("sample.*") for ms in parse_log(log.read_text())]
        return Throughput(
            transactions=transactions,
            tps=tps,
            average_ms=average_ms,
            median_ms=median(latencies_ms) if latencies_ms else average_ms,
            p99_ms=percentile(latencies_ms, 99) if latencies_ms else average_ms,
        )

    async def copy(self, conninfo: str, statement: str) -> float:
        """Seconds that one COPY with ``psql`` takes, its start and login included."""
        began_s = time.monotonic()
        await self._run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", conninfo, "-c", statement)
        return time.monotonic() - began_s
