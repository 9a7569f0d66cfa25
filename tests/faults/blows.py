"""What each fault does to real processes, sockets and disks, and how it ends."""

import os
import signal
import socket
import sqlite3
import subprocess
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from tests.acceptance.installation import wait_until
from tests.acceptance.inventory import admin
from tests.faults.schedule import Fault
from tests.faults.serve import OFFSET_FILE
from tests.faults.stage import Stage
from verdigris.domain.statuses import ReplicationMode
from verdigris.router.paths import RouterPaths

if TYPE_CHECKING:
    from tests.acceptance.disks import Disk

# Less than the five minutes by which a signature may be off, more than any deadline of a run.
_CLOCK_JUMP_S = 240.0
_REFUSED_WITHIN_S = 120.0
# WAL segments that a server has in reserve are used up by switching to the next one, again and again.
_SWITCHES = 40


class Blow:
    """``prepare`` before anything goes on, ``strike`` at the moment, ``heal`` after ``lasts_s``."""

    lasts_s = 0.0

    def __init__(self, stage: Stage, length_s: float) -> None:
        self.stage = stage
        self.length_s = length_s

    def prepare(self) -> None:
        """Whatever would take time at the moment itself."""

    def strike(self) -> None:
        raise NotImplementedError

    def heal(self) -> None:
        """Start again what nobody else does, give back what was taken. Clients and servers are on their own."""

    def clean_up(self) -> None:
        """Nothing of the blow stays, also if it never came to a strike."""


class KillRouter(Blow):
    """Whoever is responsible starts it again."""

    def prepare(self) -> None:
        self._pid = self.stage.router_pid()

    def strike(self) -> None:
        os.kill(self._pid, signal.SIGKILL)


class KillBlue(Blow):
    """Looked up at the strike, like all that follow: who was there before may be replaced by then, or be gone."""

    def strike(self) -> None:
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(self.stage.postmaster(self.stage.subject or self.stage.blue), signal.SIGKILL)


class KillGreen(Blow):
    def strike(self) -> None:
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(self.stage.postmaster(self.stage.follower), signal.SIGKILL)


class KillWorker(Blow):
    def strike(self) -> None:
        with suppress(AssertionError, FileNotFoundError, ProcessLookupError):
            os.kill(self.stage.replication_worker(), signal.SIGKILL)


class KillControlPlane(Blow):
    def strike(self) -> None:
        self.stage.verdigris.kill()

    def heal(self) -> None:
        self.stage.verdigris.start()


class Stop(Blow):
    """SIGSTOP for some processes, SIGCONT after a while."""

    def __init__(self, stage: Stage, length_s: float) -> None:
        super().__init__(stage, length_s)
        self.lasts_s = length_s
        self._stopped: list[int] = []

    def _victims(self) -> list[int]:
        raise NotImplementedError

    def strike(self) -> None:
        for pid in self._victims():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                self._stopped.append(pid)

    def heal(self) -> None:
        for pid in self._stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._stopped.clear()

    clean_up = heal


class StopControlPlane(Stop):
    def _victims(self) -> list[int]:
        process = self.stage.verdigris.process
        return [] if process is None else [process.pid]


class StopRouter(Stop):
    def _victims(self) -> list[int]:
        return [self.stage.router_pid()]


class StopBlue(Stop):
    def _victims(self) -> list[int]:
        with suppress(FileNotFoundError):
            return self.stage.server_processes(self.stage.subject or self.stage.blue)
        return []


class StopGreen(Stop):
    def _victims(self) -> list[int]:
        with suppress(FileNotFoundError):
            return self.stage.server_processes(self.stage.follower)
        return []


class StopWorker(Stop):
    def _victims(self) -> list[int]:
        with suppress(AssertionError, FileNotFoundError):
            return [self.stage.replication_worker()]
        return []


class TwoControlPlanes(Blow):
    """In half of the runs a second one beside the first, else two at once after the first one's death."""

    def strike(self) -> None:
        verdigris = self.stage.verdigris
        if self.length_s < 2.0:
            self._refused(verdigris.launch())
            return
        verdigris.kill()
        started = [verdigris.launch(), verdigris.launch()]
        wait_until(
            lambda: any(one.poll() is not None for one in started), "one of two gives way", limit_s=_REFUSED_WITHIN_S
        )
        loser = next(one for one in started if one.poll() is not None)
        self._refused(loser)
        (verdigris.process,) = [one for one in started if one is not loser]

    def _refused(self, second: "subprocess.Popen[bytes]") -> None:
        try:
            status = second.wait(_REFUSED_WITHIN_S)
        except subprocess.TimeoutExpired:
            second.kill()
            second.wait()
            raise AssertionError("a second control plane was not refused") from None
        assert status == 1, f"the second control plane ended with {status}"


class JumpClock(Blow):
    """For the control plane alone, and for good: it is put right again when the run is over."""

    direction = 1

    def strike(self) -> None:
        new = self.stage.home / (OFFSET_FILE + ".new")
        new.write_text(str(self.direction * _CLOCK_JUMP_S))
        new.replace(self.stage.home / OFFSET_FILE)

    def clean_up(self) -> None:
        (self.stage.home / OFFSET_FILE).unlink(missing_ok=True)


class JumpClockBack(JumpClock):
    direction = -1


class LockState(Blow):
    """Another program has the state database in its hands."""

    def __init__(self, stage: Stage, length_s: float) -> None:
        super().__init__(stage, length_s)
        self.lasts_s = length_s
        self._connection: sqlite3.Connection | None = None

    def prepare(self) -> None:
        self._connection = sqlite3.connect(self.stage.home / "state.db", timeout=5, isolation_level=None)

    def strike(self) -> None:
        assert self._connection is not None
        self._connection.execute("BEGIN IMMEDIATE")

    def heal(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    clean_up = heal


class Fill(Blow):
    def __init__(self, stage: Stage, length_s: float) -> None:
        super().__init__(stage, length_s)
        self.lasts_s = length_s
        self.disk: Disk | None = None

    def strike(self) -> None:
        assert self.disk is not None
        self.disk.fill()

    def heal(self) -> None:
        if self.disk is not None:
            self.disk.empty()
            self.disk = None  # what it belonged to may be deleted before the run is over

    clean_up = heal


class FillState(Fill):
    """State database, route table and logs."""

    def prepare(self) -> None:
        self.disk = self.stage.home_disk


class FillWal(Fill):
    """A server that cannot have another WAL segment, and needs one at once."""

    resource_id = ""
    writer_id = ""

    def prepare(self) -> None:
        self.disk = self.stage.wal_disk(self.resource_id)

    def strike(self) -> None:
        super().strike()
        threading.Thread(target=self._use_up, daemon=True).start()

    def _use_up(self) -> None:
        with suppress(psycopg.Error), admin(self.stage.verdigris, self.writer_id) as connection:
            for _ in range(_SWITCHES):
                connection.execute("SELECT pg_logical_emit_message(false, 'fault', 'x'), pg_switch_wal()")


class FillBlue(FillWal):
    def prepare(self) -> None:
        self.resource_id = self.writer_id = self.stage.blue
        super().prepare()


class FillGreen(FillWal):
    """A standby's WAL is its primary's."""

    def prepare(self) -> None:
        self.resource_id = self.stage.green
        physical = self.stage.mode is ReplicationMode.PHYSICAL
        self.writer_id = self.stage.blue if physical else self.stage.green
        super().prepare()


class FillBoth(FillWal):
    def prepare(self) -> None:
        self.writer_id = self.stage.blue
        self.disk = self.stage.servers_disk


class CutLink(Blow):
    """Conversations between control plane and router break off, and for a while there is nobody at the socket.

    We sit between the two from the beginning, so that a command can have been heard and its answer be lost.
    """

    def __init__(self, stage: Stage, length_s: float) -> None:
        super().__init__(stage, length_s)
        self.lasts_s = length_s
        self._path = RouterPaths(stage.home).control_socket
        self._aside = self._path.with_name("aside.sock")
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()

    def prepare(self) -> None:
        self._path.rename(self._aside)
        self._listen()

    def strike(self) -> None:
        self._refuse()
        with self._lock:
            for end in self._open:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def heal(self) -> None:
        if self._aside.exists():
            self._listen()

    def clean_up(self) -> None:
        self._refuse()
        if self._aside.exists():
            self._aside.rename(self._path)

    def _listen(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(os.fspath(self._path))
        listener.listen(64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _refuse(self) -> None:
        if self._listener is not None:
            self._path.unlink(missing_ok=True)
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            router = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                router.connect(os.fspath(self._aside))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open += [client, router]
            for source, target in ((client, router), (router, client)):
                threading.Thread(target=_relay, args=(source, target), daemon=True).start()


def _relay(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


BLOWS: dict[Fault, type[Blow]] = {
    Fault.CONTROL_PLANE_KILLED: KillControlPlane,
    Fault.CONTROL_PLANE_STOPPED: StopControlPlane,
    Fault.TWO_CONTROL_PLANES: TwoControlPlanes,
    Fault.CLOCK_FORWARD: JumpClock,
    Fault.CLOCK_BACK: JumpClockBack,
    Fault.STATE_FULL: FillState,
    Fault.STATE_LOCKED: LockState,
    Fault.LINK_CUT: CutLink,
    Fault.ROUTER_KILLED: KillRouter,
    Fault.ROUTER_STOPPED: StopRouter,
    Fault.BLUE_KILLED: KillBlue,
    Fault.BLUE_STOPPED: StopBlue,
    Fault.BLUE_FULL: FillBlue,
    Fault.GREEN_KILLED: KillGreen,
    Fault.GREEN_STOPPED: StopGreen,
    Fault.GREEN_FULL: FillGreen,
    Fault.BOTH_FULL: FillBoth,
    Fault.WORKER_KILLED: KillWorker,
    Fault.WORKER_STOPPED: StopWorker,
}
