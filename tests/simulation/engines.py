"""The servers' side of the domain's ports. Each call is made of the effects that the product's is made of, in the same
order, so that a fault can come between any two of them; each effect is checked for the epoch by its receiver.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tests.simulation.servers import Server
from verdigris.domain.errors import EngineError
from verdigris.domain.parameters import ApplyStatus, ParameterInfo
from verdigris.domain.ports import BackendAddress, EngineVersionInfo, Finding, Helpers, LogFile, Pair, ServerSpec
from verdigris.domain.statuses import ReplicationMode

if TYPE_CHECKING:
    from tests.simulation.world import Controller, World

_COPYING_S = 0.2
_POLL_S = 0.05
_FINISHED_LIMIT_S = 30.0


class Engines:
    """What the three ports share."""

    def __init__(self, world: "World", controller: "Controller") -> None:
        self.world = world
        self.controller = controller

    def server(self, resource_id: str) -> Server:
        try:
            return self.world.servers[resource_id]
        except KeyError:
            raise EngineError(f"there is no server {resource_id}") from None

    async def do(
        self, name: str, effect: Callable[[], Any], server: Server | None = None, *, bounded: float | None = None
    ) -> Any:
        """``server``: the effect needs it to run, as SQL and signals do and files do not; files do not hang either,
        without the whole process that writes them."""
        if server is None and bounded is None:
            bounded = 0.0
        return await self.world.perform(self.controller, name, effect, engine=True, server=server, bounded=bounded)

    async def applied(self, source: Server, target: Server, position: int) -> None:
        """Wait until the target has the source's first ``position`` rows. The limit is the caller's."""
        while True:
            now = self.world.loop.time()
            target.require_running()
            target.receive(now)
            if target.applied >= position:
                return
            if target.lost_stream:
                raise EngineError("replication is broken: the slot is gone")
            source.require_running()
            await asyncio.sleep(max(_POLL_S if target.stalled_until > now else 0.0, 0.002))


class WorldServers(Engines):
    """``DatabaseServers``."""

    def versions(self) -> Sequence[EngineVersionInfo]:
        return []

    def conceal_password(self, password: str) -> str:
        return password

    def known(self) -> list[str]:
        return list(self.world.servers)

    def address(self, resource_id: str) -> BackendAddress:
        self.server(resource_id)
        return self.world.address(resource_id)

    async def create(self, spec: ServerSpec) -> None:
        servers, rid = self.world.servers, spec.resource_id
        if rid in servers and servers[rid].stage == "done":
            await self.start(rid)
            return

        def enrol() -> None:
            if rid not in servers:
                servers[rid] = Server(rid, spec.engine_version, spec.instance_class, running=False, stage="new")
                servers[rid].data = False

        try:
            await self.do("server.enrol", enrol)
            await self.do("server.initdb", lambda: setattr(servers[rid], "data", True))
            await self.do("server.start", servers[rid].start)
            await self.do("server.roles", lambda: setattr(servers[rid], "password", spec.master_password_verifier))
            await self.do("server.created", lambda: setattr(servers[rid], "stage", "done"))
        except BaseException:
            await asyncio.shield(self.remove(rid))
            raise

    async def start(self, resource_id: str) -> None:
        server = self.server(resource_id)

        def start() -> None:
            server.wanted = True
            server.start()

        try:
            await self.do("server.start", start)
        except EngineError:
            self.controller.down.add(resource_id)
            raise
        self.controller.down.discard(resource_id)
        self.controller.untold.add(resource_id)

    async def stop(self, resource_id: str) -> None:
        server = self.server(resource_id)
        self.controller.down.discard(resource_id)
        self.controller.untold.discard(resource_id)

        def stop() -> None:
            server.wanted = False
            server.stop()

        await self.do("server.stop", stop)

    async def restart(self, resource_id: str) -> None:
        await self.stop(resource_id)
        await self.start(resource_id)

    async def is_running(self, resource_id: str) -> bool:
        return resource_id in self.world.servers and self.world.servers[resource_id].running

    async def remove(self, resource_id: str) -> None:
        server = self.world.servers.get(resource_id)
        if server is None:
            return
        await self.stop(resource_id)
        await self.do("server.delete_data", lambda: setattr(server, "data", False))
        await self.do("server.delete_directory", lambda: self.world.servers.pop(resource_id, None))

    async def login_verifiers(self, resource_id: str, usernames: Collection[str]) -> Mapping[str, str]:
        server = self.server(resource_id)
        return {"master": await self.do("server.verifiers", lambda: server.password, server)}

    async def set_master_password(self, resource_id: str, username: str, verifier: str) -> None:
        server = self.server(resource_id)
        await self.do("server.password", lambda: setattr(server, "password", verifier), server)

    async def set_token_logins(self, resource_id: str, enabled: bool) -> None:
        server = self.server(resource_id)
        await self.do("server.tokens", lambda: setattr(server, "token_logins", enabled))

    async def set_instance_class(self, resource_id: str, instance_class: str) -> None:
        server = self.server(resource_id)
        await self.do("server.class", lambda: setattr(server, "instance_class", instance_class))

    def log_files(self, resource_id: str) -> Sequence[LogFile]:
        return []

    def read_log_file(self, resource_id: str, name: str, *, offset: int, limit_bytes: int) -> bytes:
        return b""

    async def parameters(self, family: str) -> Sequence[ParameterInfo]:
        return []

    async def set_parameters(
        self, resource_id: str, parameters: Mapping[str, str], *, deferred: Collection[str] = ()
    ) -> ApplyStatus:
        await self.do("server.parameters", lambda: None)
        return ApplyStatus.IN_SYNC

    async def change_minor_version(self, resource_id: str, engine_version: str) -> None:
        server = self.server(resource_id)
        if server.version == engine_version:
            await self.start(resource_id)
            return
        before = server.version
        try:
            await self.stop(resource_id)
            await self.do("server.version", lambda: setattr(server, "version", engine_version))
            await self.start(resource_id)
        except BaseException:
            await asyncio.shield(self._return_to(server, before))
            raise

    async def _return_to(self, server: Server, version: str) -> None:
        await self.stop(server.resource_id)
        await self.do("server.version_back", lambda: setattr(server, "version", version))
        await self.start(server.resource_id)


class Dismantling(Engines):
    """Taking away what a deployment put on its servers (``engines/postgres/dismantling.py``, ``fence.py``)."""

    async def lift(self, source: Server) -> None:
        if not source.fence_seen:
            return
        await self.do("fence.file_back", lambda: setattr(source, "fenced_on_disk", False))
        if source.running:
            await self.do("fence.reload", source.reload, source, bounded=2.0)
        await self.do("fence.forget", lambda: setattr(source, "fence_seen", False))

    async def detach_target(self, target: Server, name: str) -> None:
        if not target.data:
            return
        if not target.running:
            await self.do("target.clean_later", lambda: target.to_clean.add(name))
            return
        if target.standby:
            return
        await self.do("target.unsubscribe", lambda: self._unsubscribe(target), target)
        await self.do("target.unpublish", lambda: target.publications.discard(name), target)

    def _unsubscribe(self, target: Server) -> None:
        target.subscription, target.subscribed, target.follows = None, False, None

    async def release_slot(self, resource_id: str, name: str) -> None:
        source = self.world.servers.get(resource_id)
        if source is None:
            return
        if not source.running:
            await self.do("source.clean_later", lambda: source.to_clean.add(name))
            return
        await self.do("source.drop_slots", lambda: source.slots.discard(name), source)
        await self.do("source.wal_limit_off", lambda: source.wal_limits.discard(name))

    async def clean_source(self, source: Server, name: str) -> None:
        await self.lift(source)
        if not source.running:
            await self.do("source.clean_later", lambda: source.to_clean.add(name))
            return
        await self.do("source.drop_slots", lambda: source.slots.discard(name), source)
        await self.do("source.unpublish", lambda: source.publications.discard(name), source)
        await self.do("source.wal_limit_off", lambda: source.wal_limits.discard(name))


class WorldGreen(Dismantling):
    """``GreenBuilder``."""

    async def check_source(self, pair: Pair) -> list[Finding]:
        source = self.server(pair.source_resource_id)
        await self.do("green.check", lambda: None, source)
        return list(self.world.findings)

    async def copy(self, pair: Pair) -> None:
        await self.dismantle(pair)
        await WorldServers(self.world, self.controller).remove(pair.target_resource_id)
        source, name, rid = self.server(pair.source_resource_id), pair.deployment_id, pair.target_resource_id
        physical = pair.mode is ReplicationMode.PHYSICAL

        def shell() -> None:
            version = pair.target_version if physical else source.version
            target = Server(rid, version, pair.target_instance_class, source.password, running=False, stage="new")
            target.data = target.wanted = False
            self.world.servers[rid] = target

        await self.do("copy.shell", shell)
        target = self.server(rid)
        await self.do("copy.wal_limit", lambda: source.wal_limits.add(name), source)
        await self.do("copy.begin", lambda: self._begin_copy(source, target, name), source)
        await asyncio.sleep(_COPYING_S)
        await self.do("copy.end", lambda: self._end_copy(target), source)
        if physical:
            await self.do("copy.follow", lambda: self._follow(source, target, name))
            await self.do("copy.start", lambda: self._start(target))
            await self.applied(source, target, len(source.rows))

    def _begin_copy(self, source: Server, target: Server, name: str) -> None:
        source.slots.add(name)
        target.strays.add("pg_basebackup")
        target.rows, target.stamps = source.rows.copy(), source.stamps.copy()
        target.applied = target.durable = len(target.rows)
        target.sequence = source.sequence

    def _end_copy(self, target: Server) -> None:
        if "pg_basebackup" not in target.strays:
            raise EngineError("pg_basebackup was killed")
        target.strays.clear()
        target.data, target.stage = True, "copied"

    def _follow(self, source: Server, target: Server, name: str) -> None:
        target.standby, target.follows, target.slot = True, source, name

    def _start(self, target: Server) -> None:
        target.wanted, target.private, target.stage = True, False, "done"
        target.start()

    async def align(self, pair: Pair) -> None:
        source, target, name = self._of(pair)
        _expect(target, "copied")
        await self.do("align.publication", lambda: source.publications.add(name), source)
        position = await self.do("align.slots", lambda: self._logical_slots(source, name), source)
        await self.do("align.follow", lambda: self._follow(source, target, name))
        await self.do("align.recover", lambda: self._recover(source, target, position))
        await self.do("align.unpublish", lambda: target.publications.clear(), target)
        await self.do("align.stop", lambda: self._aligned(target))
        await self.do("align.drop_slot", lambda: source.slots.discard(f"{name} physical"), source)

    def _logical_slots(self, source: Server, name: str) -> int:
        source.slots.add(name)
        return len(source.rows)

    def _recover(self, source: Server, target: Server, position: int) -> None:
        if target.stage != "copied":
            raise EngineError(f"{target.resource_id} was promoted already: it cannot be brought to another position")
        target.stage = "recovered"
        target.rows, target.stamps = source.rows[:position], source.stamps[:position]
        target.applied = target.durable = position
        target.publications.update(source.publications)
        target.private = True
        target.standby, target.follows = False, None
        target.start()

    def _aligned(self, target: Server) -> None:
        target.stop()
        target.stage = "aligned"

    async def upgrade(self, pair: Pair) -> None:
        _, target, _ = self._of(pair)
        _expect(target, "aligned")
        await self.do("upgrade.begin", lambda: self._upgrading(target))
        await asyncio.sleep(_COPYING_S)
        await self.do("upgrade.end", lambda: self._upgraded(target, pair.target_version))
        await self.do("upgrade.start", lambda: self._start(target))
        await self.do("upgrade.finish", lambda: None, target)

    def _upgrading(self, target: Server) -> None:
        """From here on its files are linked into the new ones: there is no second try with them."""
        target.strays.add("pg_upgrade")
        target.stage = "upgrading"

    def _upgraded(self, target: Server, version: str) -> None:
        target.strays.clear()
        target.version, target.stage = version, "upgraded"
        target.read_only_on_disk = True

    async def join(self, pair: Pair) -> None:
        source, target, name = self._of(pair)
        if pair.mode is ReplicationMode.LOGICAL:
            await self.do("join.subscribe", lambda: self._subscribe(source, target, name), target)
        else:
            await self.do("join.helpers", lambda: source.publications.add(name), source)
        await self.applied(source, target, len(source.rows))

    def _subscribe(self, source: Server, target: Server, name: str) -> None:
        source.require_running()
        target.subscription, target.subscribed = name, True
        target.follows, target.slot = source, name

    async def lag_bytes(self, pair: Pair) -> int | None:
        return 0

    async def health(self, pair: Pair) -> str | None:
        source, target, _ = self._of(pair)
        await self.do("green.health", lambda: None)
        source.require_running()
        target.require_running()
        target.receive(self.world.loop.time())
        if target.lost_stream or not target.following:
            return "The replication slot is gone."
        return None

    async def protect_source(self, pair: Pair) -> None:
        """The disks of this world have no end."""

    async def tend(self, pair: Pair) -> list[str]:
        await self.do("green.tend", lambda: None, self.server(pair.target_resource_id))
        return []

    async def dismantle(self, pair: Pair) -> None:
        target = self.world.servers.get(pair.target_resource_id)
        if target is not None:
            try:
                await self.do("dismantle.strays", lambda: target.strays.clear())
                await self.detach_target(target, pair.deployment_id)
            except EngineError:
                pass
        source = self.world.servers.get(pair.source_resource_id)
        if source is not None:
            await self.clean_source(source, pair.deployment_id)

    async def release_target(self, pair: Pair) -> None:
        await self.dismantle(pair)
        target = self.server(pair.target_resource_id)
        await self.detach_target(target, pair.deployment_id)
        await self.do("release.writable", lambda: setattr(target, "read_only_on_disk", False))
        if target.running:
            await self.do("release.reload", target.reload, target)
        await self.do("release.promote", lambda: promote(target))
        await self.do("release.unpublish", lambda: target.publications.discard(pair.deployment_id))

    def _of(self, pair: Pair) -> tuple[Server, Server, str]:
        return self.server(pair.source_resource_id), self.server(pair.target_resource_id), pair.deployment_id


def promote(target: Server) -> None:
    target.standby, target.follows = False, None


def _expect(target: Server, stage: str) -> None:
    if target.stage != stage:
        raise EngineError(f"{target.resource_id} is {target.stage}, not {stage}")


class WorldSwitchover(Dismantling):
    """``SwitchoverEngine``."""

    def __init__(self, world: "World", controller: "Controller") -> None:
        super().__init__(world, controller)
        self._closed: set[str] = set()

    async def guardrails(self, pair: Pair, *, timeout_s: float) -> list[Finding]:
        source, target, _ = self._of(pair)
        await self.do("guardrails", lambda: None)
        for side, server in (("Blue", source), ("Green", target)):
            if not server.running:
                return [Finding(guardrail="Replication health", check="replication", message=f"{side} is not running.")]
        if target.lost_stream or not target.following:
            return [
                Finding(guardrail="Replication health", check="replication", message="The replication slot is gone.")
            ]
        return list(self.world.findings)

    async def describe_sessions(self, pair: Pair, server_pids: Collection[int]) -> list[str]:
        await self.do("describe_sessions", lambda: None, self.server(pair.source_resource_id))
        return [f"process {pid} idle in transaction" for pid in server_pids]

    async def login_verifiers(self, pair: Pair, usernames: Collection[str]) -> Mapping[str, str]:
        target = self.server(pair.target_resource_id)
        return {"master": await self.do("login_verifiers", lambda: target.password, target)}

    async def helpers(self, pair: Pair) -> Helpers:
        await self.do("helpers", lambda: None, self.server(pair.source_resource_id))
        return Helpers(schema="ours", databases=("app",))

    async def prepare(self, pair: Pair) -> None:
        source, target, _ = self._of(pair)
        self.world.kept_sessions.add(self.controller)
        if pair.mode is ReplicationMode.LOGICAL:
            await self.do("prepare.sequences", lambda: self._carry_sequence(source, target), target)
        await self._prove(source, target, "prepare")
        await self._prove_replicas(pair, "prepare")

    async def stand_down(self, pair: Pair) -> None:
        self.world.kept_sessions.discard(self.controller)

    def _carry_sequence(self, source: Server, target: Server) -> None:
        source.require_running()
        target.sequence = source.sequence
        target.password = source.password

    async def _prove(self, source: Server, target: Server, during: str) -> None:
        marker = await self.do(f"{during}.marker", lambda: len(source.rows), source)
        await self.applied(source, target, marker)

    async def _prove_replicas(self, pair: Pair, during: str) -> None:
        target = self.server(pair.target_resource_id)
        for replica in map(self.server, pair.target_replicas):
            shown = await self.do(f"{during}.shown", lambda: len(target.rows), target)
            await self.applied(target, replica, shown)

    def _close_on_disk(self, source: Server) -> None:
        source.fenced_on_disk = source.fence_seen = True

    async def close(self, pair: Pair) -> None:
        source = self.server(pair.source_resource_id)
        self._closed.discard(source.resource_id)
        try:
            await self.do("close.file", lambda: self._close_on_disk(source))
            await self.do("close.reload", source.reload, source)
        except BaseException:
            await asyncio.shield(self.lift(source))
            raise
        self._closed.add(source.resource_id)

    async def fence(self, pair: Pair, keep: Collection[int]) -> None:
        source = self.server(pair.source_resource_id)
        if source.resource_id not in self._closed or not source.fenced_on_disk:
            await self.close(pair)
        try:
            await self.do("fence.clear", lambda: source.terminate_all_but(frozenset(keep)), source)
        except BaseException:
            await asyncio.shield(self.lift(source))
            raise

    async def is_fenced(self, pair: Pair) -> bool:
        return self.server(pair.source_resource_id).fence_seen

    async def unfence(self, pair: Pair) -> None:
        self._closed.discard(pair.source_resource_id)
        await self.lift(self.server(pair.source_resource_id))

    async def catch_up(self, pair: Pair) -> None:
        source, target, _ = self._of(pair)
        if pair.mode is ReplicationMode.PHYSICAL:
            await self._prove(source, target, "catch_up")
            await self._prove_replicas(pair, "catch_up")
            return
        marker = await self.do("catch_up.marker", lambda: len(source.rows), source)
        await self.do("catch_up.sequences", lambda: self._carry_sequence(source, target), target)
        await self.applied(source, target, marker)
        await self.do("catch_up.flush", target.flush, target)
        await self._prove_replicas(pair, "catch_up")

    async def open_target(self, pair: Pair) -> None:
        target = self.server(pair.target_resource_id)
        if pair.mode is ReplicationMode.PHYSICAL:
            await self.do("open.promote", lambda: promote(target), target)
            return
        await self.do("open.settings", lambda: setattr(target, "read_only_on_disk", False))
        await self.do("open.reload", target.reload, target)
        await self.do("open.disable", lambda: setattr(target, "subscribed", False), target)

    async def retire_source(self, pair: Pair) -> None:
        source, target, name = self._of(pair)
        await self.do("retire.settings", lambda: setattr(source, "read_only_on_disk", True))
        try:
            async with asyncio.timeout(_FINISHED_LIMIT_S):
                if source.running:
                    await self.do("retire.reload", source.reload, source)
                    if source.fence_seen:
                        await self.do("retire.clear", lambda: source.terminate_all_but(frozenset()), source)
                await self.detach_target(target, name)
                await self.clean_source(source, name)
        except TimeoutError:
            raise EngineError(f"{source.resource_id} did not answer") from None

    def _of(self, pair: Pair) -> tuple[Server, Server, str]:
        return self.server(pair.source_resource_id), self.server(pair.target_resource_id), pair.deployment_id
