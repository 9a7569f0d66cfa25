"""Which deployments' blue is looked after, and that none of them keeps the others from it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from tests.unit.store.test_store import NOON, a_snapshot
from tests.unit.stores import new_store
from tests.unit.workflows.world import DEPLOYMENT, World, plant_records, services
from verdigris.domain.errors import EngineError
from verdigris.domain.ports import Pair
from verdigris.domain.statuses import DeploymentStatus, SnapshotStatus
from verdigris.store.sql_store import SqlStore
from verdigris.workflows.protection import SourceProtection


class Green:
    def __init__(self) -> None:
        self.protected: list[str] = []

    async def protect_source(self, pair: Pair) -> None:
        self.protected.append(pair.deployment_id)
        if pair.deployment_id == DEPLOYMENT:
            raise EngineError("it does not answer")


class Snapshots:
    def __init__(self) -> None:
        self.protected: list[tuple[str, str]] = []

    async def protect_source(self, snapshot_id: str, resource_id: str) -> None:
        self.protected.append((snapshot_id, resource_id))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = new_store(tmp_path / "state.db")
    plant_records(store)
    yield store
    store.close()


@pytest.mark.parametrize("status", DeploymentStatus)
async def test_blue_is_looked_after_as_long_as_there_may_be_slots(store: SqlStore, status: DeploymentStatus) -> None:
    other = "bgd-ffffffffffffffff"
    with store.transaction() as tx:
        deployment = tx.deployment(DEPLOYMENT)
        assert deployment is not None
        # A deployment that is being deleted says since when.
        tx.put_deployment(structs.replace(deployment, status=status, deleted_at=deployment.created_at))
        another = structs.replace(deployment.primary, source_resource_id="db-X", target_resource_id="db-Y")
        nameless = structs.replace(another, source_resource_id="db-Z", target_resource_id=None, target_identifier=None)
        for identifier, member in ((other, another), ("bgd-eeeeeeeeeeeeeeee", nameless)):
            tx.put_deployment(
                structs.replace(
                    deployment,
                    identifier=identifier,
                    name=identifier,
                    status=DeploymentStatus.AVAILABLE,
                    members=(member,),
                )
            )
    green = Green()
    protection = SourceProtection(dataclasses.replace(services(World(), store), green=green))  # type: ignore[arg-type]  # protect_source
    await protection.look()
    over = {DeploymentStatus.SWITCHOVER_COMPLETED, DeploymentStatus.DELETING}
    assert set(green.protected) == ({other} if status in over else {DEPLOYMENT, other})


async def test_whose_snapshot_is_taken_is_looked_after(store: SqlStore) -> None:
    being_copied = structs.replace(a_snapshot("copy"), copy_of="snap-monday")
    available = structs.replace(a_snapshot("friday"), status=SnapshotStatus.AVAILABLE, taken_at=NOON)
    with store.transaction() as tx:
        for snapshot in (a_snapshot(), being_copied, available):
            tx.put_snapshot(snapshot)
    snapshots = Snapshots()
    world = dataclasses.replace(services(World(), store), green=Green(), snapshots=snapshots)  # type: ignore[arg-type]  # protect_source
    await SourceProtection(world).look()
    assert snapshots.protected == [("snap-monday", "db-APP")]
