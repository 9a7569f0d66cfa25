"""A control plane that stood still while another took over goes on: it changes nothing on any server any more.

The lock on the state directory keeps two control planes apart as long as nobody takes the lock's file away. This is for
when somebody has.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import psycopg
import pytest
from msgspec import structs

from tests.conftest import BLUE_VERSION, server_spec
from tests.integration.replication.conftest import MakePair, as_master
from verdigris.domain.errors import ControllerSuperseded
from verdigris.domain.ports import Pair, Replica
from verdigris.engines.account import EngineAccount
from verdigris.engines.catalogue import Catalogue
from verdigris.engines.postgres import fence
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.replicas import PostgresReplicas
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.switchover import PostgresSwitchoverEngine


async def test_who_was_overtaken_changes_no_server(
    verdigris_home: Path,
    catalogue: Catalogue,
    engine_account: EngineAccount,
    make_pair: MakePair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stale, successor = (PostgresServers(verdigris_home, catalogue, engine_account, epoch=epoch) for epoch in (1, 2))
    stale.control.take_over()
    spec = server_spec(stale, version=BLUE_VERSION)
    try:
        await stale.create(spec)
        source = stale.server(spec.resource_id)
        pair = make_pair(source, "18.6")
        await _overtaken_in_the_middle_of_a_fence(source, successor, monkeypatch)
        # The successor decides: it finds what is half done, undoes it, and fences again.
        theirs = successor.server(spec.resource_id)
        assert fence.is_raised(theirs)
        await fence.lift(theirs)
        client = await as_master(theirs)
        await fence.raise_fence(theirs, [client.info.backend_pid])
        before = _files(source)
        for refused in _effects(stale, pair, spec.resource_id):
            with pytest.raises(ControllerSuperseded):
                await refused()
        assert _files(source) == before
        assert fence.is_raised(theirs)
        with pytest.raises(psycopg.OperationalError):
            await as_master(theirs)
        await client.execute("SELECT 1")
        await client.close()
    finally:
        await stale.detach()
        await successor.remove(spec.resource_id)


async def _overtaken_in_the_middle_of_a_fence(
    source: PostgresServer, successor: PostgresServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blue is closed; before it is cleared somebody else takes over. Nor may the stale one lift what it had built."""
    clear = fence.clear

    async def overtaken(*arguments: object, **options: object) -> None:
        successor.control.take_over()
        await clear(*arguments, **options)  # type: ignore[arg-type]  # passed on

    with monkeypatch.context() as patch:
        patch.setattr(fence, "clear", overtaken)
        with pytest.raises(ControllerSuperseded):
            await fence.raise_fence(source, [])


def _effects(stale: PostgresServers, pair: Pair, resource_id: str) -> list[Callable[[], Awaitable[object]]]:
    green = PostgresGreenBuilder(stale)
    switchover = PostgresSwitchoverEngine(stale, green)
    there_and_back = structs.replace(pair, target_resource_id=resource_id)
    replicas = PostgresReplicas(stale)
    replica = Replica(
        resource_id=resource_id,
        source_resource_id=resource_id,
        engine_version=BLUE_VERSION,
        instance_class="db.t4g.micro",
    )
    return [
        lambda: switchover.close(pair),
        lambda: switchover.fence(pair, []),
        lambda: switchover.unfence(pair),
        lambda: switchover.open_target(there_and_back),
        lambda: switchover.retire_source(there_and_back),
        lambda: switchover.catch_up(there_and_back),
        lambda: green.dismantle(pair),
        lambda: green.copy(pair),
        lambda: replicas.create(structs.replace(replica, resource_id=pair.target_resource_id)),
        lambda: replicas.promote(replica),
        lambda: replicas.set_free(replica),
        lambda: replicas.release_source(replica),
        lambda: replicas.make_room(replica),
        lambda: stale.start(resource_id),
        lambda: stale.stop(resource_id),
        lambda: stale.restart(resource_id),
        lambda: stale.remove(resource_id),
        lambda: stale.set_instance_class(resource_id, "db.t3.large"),
        lambda: asyncio.to_thread(stale.server(resource_id).reload),
    ]


def _files(server: PostgresServer) -> dict[str, bytes]:
    named = [server.directory / "server.json", *server.data_dir.glob("*.conf*"), *server.data_dir.glob("*.signal")]
    return {path.name: path.read_bytes() for path in named} | {"pid": str(server.pid()).encode()}
