"""Who brings servers into line with their parameter groups."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from tests.unit.stores import new_store
from tests.unit.workflows.world import SOURCE, World, plant_records, services
from verdigris.domain.errors import EngineError
from verdigris.domain.model import ParameterGroup
from verdigris.domain.parameters import FORCE_TLS, ApplyMethod, ApplyStatus, ParameterValue
from verdigris.domain.ports import BackendAddress, ServerSpec
from verdigris.domain.statuses import DeploymentStatus, WorkflowStatus
from verdigris.store.sql_store import SqlStore
from verdigris.testing.fakes import FakeServers
from verdigris.workflows.parameters import ParameterKeeper

GROUP = ParameterGroup(
    name="mine",
    family="postgres17",
    description="Ours",
    parameters={
        "work_mem": ParameterValue("8192", ApplyMethod.IMMEDIATE),
        "autovacuum": ParameterValue("0", ApplyMethod.PENDING_REBOOT),
        FORCE_TLS: ParameterValue("1", ApplyMethod.IMMEDIATE),
    },
)


class Servers(FakeServers):
    refuses = False

    def address(self, resource_id: str) -> BackendAddress:
        return BackendAddress(resource_id, f"/run/{resource_id}")

    async def set_parameters(self, resource_id: str, *args: object, **kwargs: object) -> ApplyStatus:
        if self.refuses:
            raise EngineError("no such value")
        return await super().set_parameters(resource_id, *args, **kwargs)  # type: ignore[arg-type]  # passed on


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = new_store(tmp_path / "state.db")
    plant_records(store)
    with store.transaction() as tx:
        tx.put_parameter_group(GROUP)
        for workflow in tx.unfinished_workflows():
            tx.put_workflow(structs.replace(workflow, status=WorkflowStatus.COMPLETED))
        for deployment in tx.deployments():
            tx.put_deployment(structs.replace(deployment, status=DeploymentStatus.AVAILABLE))
    put(store, parameter_group="mine", parameter_status=ApplyStatus.APPLYING)
    yield store
    store.close()


@pytest.fixture
async def servers() -> Servers:
    servers = Servers()
    await servers.create(
        ServerSpec(
            resource_id=SOURCE,
            engine_version="17.10",
            instance_class="db.t3.medium",
            master_username="boss",
            master_password_verifier="",
        )
    )
    return servers


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def keeper(world: World, store: SqlStore, servers: Servers) -> ParameterKeeper:
    return ParameterKeeper(dataclasses.replace(services(world, store), servers=servers))


def put(store: SqlStore, **changes: object) -> None:
    with store.transaction() as tx:
        instance = tx.instance(SOURCE)
        assert instance is not None
        tx.put_instance(structs.replace(instance, **changes))


def status(store: SqlStore) -> ApplyStatus:
    with store.transaction() as tx:
        instance = tx.instance(SOURCE)
    assert instance is not None
    return instance.parameter_status


async def test_the_server_gets_what_need_not_wait_and_the_router_what_is_its_business(
    keeper: ParameterKeeper, world: World, store: SqlStore, servers: Servers
) -> None:
    await keeper.look()
    assert servers.servers[SOURCE].spec.parameters == {"work_mem": "8192"}
    assert world.route_table["app"].require_tls
    assert status(store) is ApplyStatus.PENDING_REBOOT


async def test_what_the_server_refuses_is_shown(keeper: ParameterKeeper, store: SqlStore, servers: Servers) -> None:
    servers.refuses = True
    await keeper.look()
    assert status(store) is ApplyStatus.FAILED


@pytest.mark.parametrize("busy", [DeploymentStatus.PROVISIONING, DeploymentStatus.SWITCHOVER_IN_PROGRESS])
async def test_a_member_whose_deployment_is_at_work_is_left_alone(
    keeper: ParameterKeeper, store: SqlStore, servers: Servers, busy: DeploymentStatus
) -> None:
    with store.transaction() as tx:
        (deployment,) = tx.deployments()
        tx.put_deployment(structs.replace(deployment, status=busy))
    await keeper.look()
    assert status(store) is ApplyStatus.APPLYING
    assert servers.servers[SOURCE].spec.parameters == {}


async def test_a_group_that_was_changed_meanwhile_is_looked_at_again(
    keeper: ParameterKeeper, store: SqlStore, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = servers.set_parameters
    later = structs.replace(GROUP, parameters={"work_mem": ParameterValue("64", ApplyMethod.IMMEDIATE)})

    async def changed_meanwhile(*args: object, **kwargs: object) -> ApplyStatus:
        with store.transaction() as tx:
            tx.put_parameter_group(later)
        return await ask(*args, **kwargs)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(servers, "set_parameters", changed_meanwhile)
    await keeper.look()
    assert status(store) is ApplyStatus.APPLYING
    monkeypatch.setattr(servers, "set_parameters", ask)
    await keeper.look()
    assert servers.servers[SOURCE].spec.parameters == {"work_mem": "64"}
    assert status(store) is ApplyStatus.IN_SYNC
