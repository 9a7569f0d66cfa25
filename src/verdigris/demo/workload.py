"""Many clients on one endpoint, and everything that they saw.

    with Workload(dsn, writers=8, readers=8) as workload:
        workload.start()
        workload.mark("switchover")
        ...
        result = workload.stop()
    verdict = verify_ledger(dsn, result)

The tables must be there (``schema.install_schema``). Clients run in processes of their own, so that their Python takes
no time from the caller's event loop; all calls here block, and are for a thread where the caller has a loop.
"""

import tempfile
from pathlib import Path
from time import monotonic_ns
from types import TracebackType
from typing import Self

import msgspec

from verdigris.demo.child import ClientProcess, WorkloadFailed
from verdigris.demo.client_process import ProcessPlan, Progress
from verdigris.demo.clients import ClientPlan
from verdigris.demo.polling import NotInTime, wait_until
from verdigris.demo.result import WorkloadResult
from verdigris.demo.schema import enrol_writers

__all__ = ["Workload", "WorkloadFailed", "WorkloadResult"]


class Workload:
    """``commits_per_s`` and ``reads_per_s`` are for all clients together; None for as many as the database answers.
    ``session_state``: False for clients of a pooler that keeps none.

    ``directory`` keeps the ledgers; by default a temporary one, which outlives the workload for whoever must look.
    """

    def __init__(
        self,
        dsn: str,
        *,
        writers: int = 8,
        readers: int = 8,
        commits_per_s: float | None = None,
        reads_per_s: float | None = None,
        session_state: bool = True,
        directory: Path | None = None,
        clients_per_process: int = 16,
        stop_timeout_s: float = 30,
    ) -> None:
        self.dsn = dsn
        self.writers = writers
        self.readers = readers
        self.directory = directory or Path(tempfile.mkdtemp(prefix="verdigris-workload-"))
        self._write_interval_s = writers / commits_per_s if commits_per_s else 0.0
        self._read_interval_s = readers / reads_per_s if reads_per_s else 0.0
        self._session_state = session_state
        self._clients_per_process = clients_per_process
        self._stop_timeout_s = stop_timeout_s
        self._processes: list[ClientProcess] = []
        self._marks: dict[str, int] = {}
        self._began_ns = 0

    def start(self, timeout_s: float = 30) -> None:
        """Connect every client, then let all begin. Raises ``WorkloadFailed`` if that takes too long."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for n, plan in enumerate(self._plans()):
            path = self.directory / f"clients-{monotonic_ns()}-{n}.ledger"
            plan = msgspec.structs.replace(plan, ledger_path=str(path))
            self._processes.append(ClientProcess(plan))
        try:
            self._await_connections(timeout_s)
        except BaseException:
            self.kill()
            raise
        self._began_ns = monotonic_ns()
        for process in self._processes:
            process.go()

    def mark(self, name: str) -> int:
        """Remember this moment under a name in the result."""
        self._marks[name] = monotonic_ns()
        return self._marks[name]

    def progress(self) -> Progress:
        """The counts of all clients, at most a fifth of a second old."""
        total = Progress()
        for process in self._processes:
            for field in msgspec.structs.fields(Progress):
                value = getattr(process.progress, field.name)
                if isinstance(value, int):
                    setattr(total, field.name, getattr(total, field.name) + value)
            total.problem = process.progress.problem or total.problem
            total.versions = sorted({*total.versions, *process.progress.versions})
        return total

    def stop(self) -> WorkloadResult:
        """Let every client finish its request, and collect what they wrote down."""
        ended_ns = monotonic_ns()
        for process in self._processes:
            process.close_stdin()
        for process in self._processes:
            process.wait(self._stop_timeout_s + 10)
        crashed = [process for process in self._processes if not process.progress.finished]
        if crashed:
            raise WorkloadFailed(f"{len(crashed)} client processes ended by themselves: {crashed[0].stderr()}")
        result = WorkloadResult(
            [process.ledger_path for process in self._processes],
            began_ns=self._began_ns,
            ended_ns=ended_ns,
            marks=dict(self._marks),
        )
        self._processes.clear()
        return result

    def kill(self) -> None:
        """End the clients without a result."""
        for process in self._processes:
            process.kill()
        self._processes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _plans(self) -> list[ProcessPlan]:
        enrolment = enrol_writers(self.dsn, self.writers)
        first = enrolment.first_writer

        def client(n: int, interval_s: float) -> ClientPlan:
            return ClientPlan(
                dsn=self.dsn,
                number=first + n,
                first_writer=first,
                last_writer=first + self.writers - 1,
                accounts=enrolment.accounts,
                interval_s=interval_s,
                session_state=self._session_state,
            )

        writers = [client(n, self._write_interval_s) for n in range(self.writers)]
        # Readers have numbers after the writers'; a later run's writers may have the same ones, but not its ledger.
        readers = [client(self.writers + n, self._read_interval_s) for n in range(self.readers)]
        size = self._clients_per_process
        plan = ProcessPlan(ledger_path="", stop_timeout_s=self._stop_timeout_s)
        replace = msgspec.structs.replace
        return [
            *(replace(plan, writers=tuple(writers[n : n + size])) for n in range(0, len(writers), size)),
            *(replace(plan, readers=tuple(readers[n : n + size])) for n in range(0, len(readers), size)),
        ]

    def _await_connections(self, timeout_s: float) -> None:
        def connected() -> bool:
            crashed = next((process for process in self._processes if not process.is_running()), None)
            if crashed:
                raise WorkloadFailed(f"a client process ended at once: {crashed.stderr()}")
            return self.progress().connected >= self.writers + self.readers

        try:
            wait_until(connected, timeout_s, what="every client is connected")
        except NotInTime as error:
            raise WorkloadFailed(f"{error}; {self.progress().problem}") from None
