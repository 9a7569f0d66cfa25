"""Fakes of the domain's ports, in memory, for tests of what is built on them.

Each keeps its port's promises (idempotent, refuses what is not there) and lets a test look at what was done.
"""

import hashlib
import random
from collections.abc import Collection, Container, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Struct, structs

from verdigris.domain.errors import EngineError, PortInUse
from verdigris.domain.parameters import ApplyStatus, ApplyType, DataType, ParameterInfo
from verdigris.domain.ports import BackendAddress, EngineVersionInfo, LogFile, ServerSpec, SinceBoot
from verdigris.domain.versions import PostgresVersion


class FakeClock:
    """Stands still until a test moves it."""

    def __init__(self, now: datetime = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def advance(self, **duration: float) -> None:
        """``advance(minutes=5)``: arguments of ``timedelta``."""
        self._now += timedelta(**duration)

    def since_boot(self) -> SinceBoot:
        return SinceBoot(boot="one", seconds=self._now.timestamp())


class FakePorts:
    """A range of ports; ``used_by_others`` are those that some other program has."""

    def __init__(self, first: int = 20000, last: int = 20999, *, host: str = "127.0.0.1") -> None:
        self.host = host
        self.reader_host: str | None = "127.0.0.2"
        self.custom_hosts: Sequence[str] = tuple(f"127.0.0.{number}" for number in range(3, 9))
        self.range = range(first, last + 1)
        self.count = len(self.range)
        self.used_by_others: set[int] = set()

    def is_free(self, port: int, *, on_both: bool = False) -> bool:  # noqa: ARG002 (used by others is used everywhere)
        return port not in self.used_by_others

    def allocate(self, taken: Container[int], *, on_both: bool = False) -> int:  # noqa: ARG002 (likewise)
        for port in self.range:
            if port not in taken and self.is_free(port):
                return port
        raise PortInUse(f"no port from {self.range.start} to {self.range.stop - 1} is free")


class FakeServer(Struct, frozen=True, kw_only=True):
    spec: ServerSpec
    running: bool = True
    restarts: int = 0
    token_logins: bool = False


def fake_parameters(_family: str) -> Sequence[ParameterInfo]:
    """One of each kind."""

    def one(name: str, data_type: DataType, apply_type: ApplyType, **fields: object) -> ParameterInfo:
        fields = {"description": f"Sets {name}.", "is_modifiable": True, **fields}
        return msgspec.convert(
            {"name": name, "data_type": data_type, "apply_type": apply_type, **fields}, ParameterInfo
        )

    return (
        one("autovacuum", DataType.BOOLEAN, ApplyType.DYNAMIC, default="on"),
        one("shared_buffers", DataType.INTEGER, ApplyType.STATIC, minimum="16", maximum="1073741823", default="16384",
            system_value="{DBInstanceClassMemory/32768}"),
        one("wal_compression", DataType.STRING, ApplyType.DYNAMIC, choices=("off", "on", "lz4"), default="off"),
        one("wal_level", DataType.STRING, ApplyType.STATIC, choices=("minimal", "logical"), is_modifiable=False),
        one("work_mem", DataType.INTEGER, ApplyType.DYNAMIC, minimum="64", maximum="2147483647", default="4096"),
    )  # fmt: skip


class FakeServers:
    """``domain.ports.DatabaseServers`` without processes."""

    def __init__(self, versions: Sequence[str] = ("16.14", "17.9", "17.10", "18.6")) -> None:
        self.catalogue = [
            EngineVersionInfo(
                engine="postgres",
                version=version,
                installed=True,
                source="embedded",
                upgrade_targets=tuple(
                    other for other in versions if PostgresVersion.parse(other) > PostgresVersion.parse(version)
                ),
            )
            for version in versions
        ]
        self.servers: dict[str, FakeServer] = {}
        self.logs: dict[str, bytes] = {}  # every server's

    def versions(self) -> Sequence[EngineVersionInfo]:
        return self.catalogue

    def conceal_password(self, password: str) -> str:
        return "FAKE$" + hashlib.sha256(password.encode()).hexdigest()

    async def create(self, spec: ServerSpec) -> None:
        self.servers.setdefault(spec.resource_id, FakeServer(spec=spec))

    async def start(self, resource_id: str) -> None:
        self._change(resource_id, running=True)

    async def stop(self, resource_id: str) -> None:
        self._change(resource_id, running=False)

    async def restart(self, resource_id: str) -> None:
        self._change(resource_id, running=True, restarts=self._server(resource_id).restarts + 1)

    async def is_running(self, resource_id: str) -> bool:
        return resource_id in self.servers and self.servers[resource_id].running

    async def remove(self, resource_id: str) -> None:
        self.servers.pop(resource_id, None)

    def known(self) -> list[str]:
        return list(self.servers)

    def address(self, resource_id: str) -> BackendAddress:
        return BackendAddress(resource_id, f"/run/{resource_id.lower()}/.s.PGSQL.5432")

    def log_files(self, resource_id: str) -> Sequence[LogFile]:
        self._server(resource_id)
        return [LogFile(name, len(content), 1_750_000_000_000) for name, content in self.logs.items()]

    def read_log_file(self, resource_id: str, name: str, *, offset: int, limit_bytes: int) -> bytes:
        self._server(resource_id)
        return self.logs[name][offset : offset + limit_bytes]

    async def login_verifiers(self, resource_id: str, usernames: Collection[str]) -> Mapping[str, str]:
        spec = self._server(resource_id).spec
        return {spec.master_username: spec.master_password_verifier} if spec.master_username in usernames else {}

    async def set_master_password(self, resource_id: str, username: str, verifier: str) -> None:
        if self._server(resource_id).spec.master_username != username:
            raise EngineError(f'role "{username}" does not exist')
        self._change_spec(resource_id, master_password_verifier=verifier)

    async def set_token_logins(self, resource_id: str, enabled: bool) -> None:
        self.servers[resource_id] = structs.replace(self._server(resource_id), token_logins=enabled)

    async def set_instance_class(self, resource_id: str, instance_class: str) -> None:
        self._change_spec(resource_id, instance_class=instance_class)

    async def parameters(self, family: str) -> Sequence[ParameterInfo]:
        return fake_parameters(family)

    async def set_parameters(
        self, resource_id: str, parameters: Mapping[str, str], *, deferred: Collection[str] = ()
    ) -> ApplyStatus:
        before = self._server(resource_id).spec.parameters
        now = {name: value for name, value in parameters.items() if name not in deferred}
        now |= {name: before[name] for name in deferred if name in before}
        self._change_spec(resource_id, parameters=now)
        static = {info.name for info in fake_parameters("") if info.apply_type is ApplyType.STATIC}
        pending = now != dict(parameters) or any(before.get(name) != now.get(name) for name in static)
        return ApplyStatus.PENDING_REBOOT if pending else ApplyStatus.IN_SYNC

    async def change_minor_version(self, resource_id: str, engine_version: str) -> None:
        self._change_spec(resource_id, engine_version=engine_version)

    def _server(self, resource_id: str) -> FakeServer:
        try:
            return self.servers[resource_id]
        except KeyError:
            raise EngineError(f"there is no server {resource_id}") from None

    def _change(self, resource_id: str, **changes: object) -> None:
        self.servers[resource_id] = structs.replace(self._server(resource_id), **changes)

    def _change_spec(self, resource_id: str, **changes: object) -> None:
        spec = structs.replace(self._server(resource_id).spec, **changes)
        self._change(resource_id, spec=spec)


class FakeRandomText:
    """Random text that is the same in every run."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)  # noqa: S311 (tests need it repeatable, not secret)

    def __call__(self, alphabet: str, length: int) -> str:
        return "".join(self._random.choices(alphabet, k=length))
