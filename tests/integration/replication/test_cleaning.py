"""What cannot be taken away because a server does not run is taken away when it does; and what is taken away half-way
can be seen."""

import pytest

from tests.conftest import CreateServer, until
from tests.integration.replication.conftest import MakePair, query, run_sql, traces
from verdigris.engines.postgres import fence, wal_limit
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.probe import Admission, admission
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers


class Died(BaseException):
    """Nothing may catch it and go on."""


async def test_a_source_that_does_not_run_is_cleaned_when_it_does(
    servers: PostgresServers, green: PostgresGreenBuilder, create_server: CreateServer, make_pair: MakePair
) -> None:
    source = await create_server()
    pair = make_pair(source, "18.6")
    names = ObjectNames(pair.deployment_id)
    await wal_limit.impose(source, pair.deployment_id)
    await run_sql(
        source,
        f"CREATE PUBLICATION {names.publication}",
        f"CREATE SCHEMA {names.schema}",
        f"SELECT pg_create_physical_replication_slot('{names.physical_slot}', true)",
    )
    left = await traces(source, pair)
    assert len(left) == 5  # with the two settings of the limit
    await servers.stop(source.resource_id)
    await green.dismantle(pair)
    # As long as the slot is there, its limit is: nothing would keep it from filling the disk.
    assert wal_limit.SETTINGS[0] in source.read_settings()
    await servers.start(source.resource_id)

    async def clean() -> bool:
        return not source.record.to_clean and await traces(source, pair) == []

    await until(clean)
    assert wal_limit.SETTINGS[0] not in source.read_settings()


async def test_a_limit_of_another_deployment_stays(create_server: CreateServer) -> None:
    source = await create_server()
    await wal_limit.impose(source, "bgd-other")
    wal_limit.lift(source, "bgd-mine")
    assert wal_limit.SETTINGS[0] in source.read_settings()


async def test_a_fence_that_was_half_lifted_can_be_seen_and_is_lifted(
    create_server: CreateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control plane dies when the file is back and the server has not been told."""
    source = await create_server()
    original = (source.data_dir / "pg_hba.conf").stat().st_ino
    await fence.close(source)

    def die(self: PostgresServer) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(PostgresServer, "reload", die)
        with pytest.raises(Died):
            await fence.lift(source)
    assert fence.is_raised(source)
    assert await admission(source.address.socket_path) is Admission.REFUSED
    await fence.lift(source)
    assert not fence.is_raised(source)
    assert await admission(source.address.socket_path) is Admission.ADMITTED
    assert (source.data_dir / "pg_hba.conf").stat().st_ino == original
    assert [path.name for path in source.data_dir.iterdir() if "verdigris-" in path.name] == []
    assert await query(source, "SELECT 1") == [(1,)]
