"""Parameters of real servers: what they say there is, and what becomes of a group's values."""

import pytest

from tests.conftest import CreateServer
from tests.integration.engines.test_servers import rows
from verdigris.domain.errors import EngineError
from verdigris.domain.parameters import ApplyStatus, ApplyType, DataType, ParameterInfo
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers


async def value(server: PostgresServer, name: str) -> str:
    return str((await rows(server, f"SELECT setting FROM pg_settings WHERE name = '{name}'"))[0][0])


@pytest.mark.parametrize("family", ["postgres17", "postgres18"])
async def test_a_family_is_described_by_its_server(servers: PostgresServers, family: str) -> None:
    infos = {info.name: info for info in await servers.parameters(family)}
    assert len(infos) > 350
    work_mem = infos["work_mem"]
    assert (work_mem.data_type, work_mem.apply_type, work_mem.allowed_values, work_mem.default) == (
        DataType.INTEGER, ApplyType.DYNAMIC, "64-2147483647", "4096",
    )  # fmt: skip
    assert infos["shared_buffers"].apply_type is ApplyType.STATIC
    assert "read committed" in infos["default_transaction_isolation"].choices
    assert infos["shared_preload_libraries"].data_type is DataType.LIST
    assert infos["autovacuum"].allowed_values == "0,1"
    assert _open_and_dangerous(infos) == []
    # A value that the server refuses at its start only has to be one that can be checked beforehand.
    assert [i.name for i in infos.values() if i.is_modifiable and i.apply_type is ApplyType.STATIC
            and i.data_type is DataType.STRING and not i.choices] == []  # fmt: skip
    assert {
        name for name in ("wal_level", "max_replication_slots", "ssl", "hba_file") if infos[name].is_modifiable
    } == set()
    assert {name for name in _USUAL if not infos[name].is_modifiable} == set()


# What people change on RDS.
_USUAL = (
    "autovacuum_naptime", "autovacuum_vacuum_scale_factor", "checkpoint_timeout", "effective_io_concurrency",
    "idle_in_transaction_session_timeout", "log_min_duration_statement", "log_statement", "maintenance_work_mem",
    "max_connections", "max_parallel_workers_per_gather", "max_wal_size", "random_page_cost", "search_path",
    "shared_buffers", "shared_preload_libraries", "statement_timeout", "synchronous_commit", "temp_file_limit",
    "track_io_timing", "wal_compression", "work_mem",
)  # fmt: skip


def _open_and_dangerous(infos: dict[str, ParameterInfo]) -> list[str]:
    """By the words that the manual uses in names of what runs programs, opens files or loads code."""
    endings = ("_command", "_file", "_dir", "_directory", "_library", "_libraries", "_path", "_directories", "provider")
    harmless = ("search_path", "shared_preload_libraries")
    return [i.name for i in infos.values() if i.is_modifiable and i.name.endswith(endings) and i.name not in harmless]


async def test_values_take_effect_at_once_or_at_the_next_start(
    servers: PostgresServers, create_server: CreateServer
) -> None:
    server = await create_server()
    rid = server.resource_id
    assert await servers.set_parameters(rid, {"work_mem": "8192"}) is ApplyStatus.IN_SYNC
    assert await value(server, "work_mem") == "8192"

    wanted = {"work_mem": "16384", "max_connections": "LEAST({DBInstanceClassMemory/9531392},77)", "autovacuum": "0"}
    assert await servers.set_parameters(rid, wanted, deferred={"autovacuum"}) is ApplyStatus.PENDING_REBOOT
    assert await value(server, "work_mem") == "16384"
    assert await value(server, "max_connections") != "77"
    assert await servers.set_parameters(rid, wanted) is ApplyStatus.PENDING_REBOOT
    assert await value(server, "autovacuum") == "off"
    await servers.restart(rid)
    assert await value(server, "max_connections") == "77"
    assert await servers.set_parameters(rid, wanted) is ApplyStatus.IN_SYNC

    # A larger class counts for formulas, the others stay.
    await servers.set_instance_class(rid, "db.t4g.medium")
    assert await servers.set_parameters(rid, {}) is ApplyStatus.PENDING_REBOOT
    await servers.restart(rid)
    assert await value(server, "work_mem") == "4096"
    assert await value(server, "autovacuum") == "on"
    assert int(await value(server, "max_connections")) > 77


async def test_what_the_server_refuses_changes_nothing(servers: PostgresServers, create_server: CreateServer) -> None:
    """In the file it would keep the server from starting again."""
    server = await create_server()
    before = server.read_settings()
    with pytest.raises(EngineError, match="DateStyle"):
        await servers.set_parameters(server.resource_id, {"work_mem": "8192", "DateStyle": "tomorrow"})
    assert server.read_settings() == before
    assert await value(server, "work_mem") == "4096"
    await servers.restart(server.resource_id)


async def test_a_server_that_is_down_has_them_when_it_starts(
    servers: PostgresServers, create_server: CreateServer
) -> None:
    server = await create_server()
    await servers.stop(server.resource_id)
    assert await servers.set_parameters(server.resource_id, {"shared_buffers": "4096"}) is ApplyStatus.IN_SYNC
    await servers.start(server.resource_id)
    assert await value(server, "shared_buffers") == "4096"
