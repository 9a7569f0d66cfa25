"""What the monitor writes about deployments that wait for their switchover."""

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from tests.unit.stores import new_store
from tests.unit.workflows.world import DEPLOYMENT, World, plant_records, services
from verdigris.domain.errors import EngineError, VerdigrisError
from verdigris.domain.model import BlueGreenDeployment
from verdigris.domain.ports import Pair
from verdigris.domain.statuses import DeploymentStatus
from verdigris.store.sql_store import SqlStore
from verdigris.workflows import monitor
from verdigris.workflows.monitor import DeploymentMonitor

TOLD = "2 sessions of app cannot be carried by a switchover: listen (2)"


class Green:
    def __init__(self) -> None:
        self.problem: str | None = None
        self.untended: list[str] = []
        self.failure: VerdigrisError | None = None
        self.frozen = False

    async def health(self, pair: Pair) -> str | None:
        return self.problem

    async def tend(self, pair: Pair) -> list[str]:
        if self.frozen:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        return self.untended


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = new_store(tmp_path / "state.db")
    plant_records(store)
    yield store
    store.close()


@pytest.fixture
def world() -> World:
    return World(pins=["listen", "listen"])


@pytest.fixture
def green() -> Green:
    return Green()


@pytest.fixture
def watch(world: World, store: SqlStore, green: Green, monkeypatch: pytest.MonkeyPatch) -> DeploymentMonitor:
    monkeypatch.setattr(monitor, "PINS_INTERVAL_S", 0.0)
    put(store, status=DeploymentStatus.AVAILABLE)
    return DeploymentMonitor(dataclasses.replace(services(world, store), green=green))  # type: ignore[arg-type]  # health


def put(store: SqlStore, **changes: object) -> None:
    deployment = shown(store)
    with store.transaction() as tx:
        tx.put_deployment(structs.replace(deployment, **changes))


def shown(store: SqlStore) -> BlueGreenDeployment:
    with store.transaction() as tx:
        deployment = tx.deployment(DEPLOYMENT)
    assert deployment is not None
    return deployment


async def test_pins_are_named_and_the_name_goes_with_them(
    watch: DeploymentMonitor, world: World, store: SqlStore
) -> None:
    await watch.look()
    assert shown(store).status_details == TOLD
    world.pins.clear()
    await watch.look()
    assert shown(store).status_details is None


@pytest.mark.parametrize("status", [DeploymentStatus.SWITCHOVER_FAILED, DeploymentStatus.SWITCHOVER_IN_PROGRESS])
async def test_other_statuses_have_their_own_things_to_say(
    watch: DeploymentMonitor, world: World, store: SqlStore, status: DeploymentStatus
) -> None:
    put(store, status=status, status_details="Why.")
    await watch.look()
    assert shown(store).status_details == "Why."
    assert "pins" not in world.calls


async def test_a_switchover_that_begins_during_the_look_is_not_talked_over(
    watch: DeploymentMonitor, world: World, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = world.act

    async def begin_switchover(name: str) -> object:
        if name == "pins":
            put(store, status=DeploymentStatus.SWITCHOVER_IN_PROGRESS)
        return await act(name)

    monkeypatch.setattr(world, "act", begin_switchover)
    await watch.look()
    assert "pins" in world.calls
    assert shown(store).status_details is None


async def test_a_router_that_does_not_answer_leaves_what_was_said(
    watch: DeploymentMonitor, world: World, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watch.look()

    async def fail(name: str) -> object:
        raise EngineError("it does not answer")

    monkeypatch.setattr(world, "act", fail)
    await watch.look()
    assert shown(store).status_details == TOLD


async def test_a_broken_green_comes_before_pins(watch: DeploymentMonitor, green: Green, store: SqlStore) -> None:
    green.problem = "The slot is gone."
    await watch.look()
    assert (shown(store).status, shown(store).status_details) == (
        DeploymentStatus.INVALID_CONFIGURATION,
        "The slot is gone.",
    )


async def test_sessions_are_not_asked_at_every_look(world: World, store: SqlStore, green: Green) -> None:
    put(store, status=DeploymentStatus.AVAILABLE)
    watch = DeploymentMonitor(dataclasses.replace(services(world, store), green=green))  # type: ignore[arg-type]  # health
    await watch.look()
    await watch.look()
    assert world.calls.count("pins") == 1


async def test_what_is_not_carried_is_told_before_the_pins(
    watch: DeploymentMonitor, green: Green, store: SqlStore
) -> None:
    green.untended = ["Role nobody cannot be dropped."]
    await watch.look()
    assert shown(store).status_details == "Role nobody cannot be dropped. " + TOLD
    green.failure = EngineError("green said no")
    await watch.look()
    assert shown(store).status_details == "Not carried to green yet: green said no. " + TOLD
    green.untended, green.failure = [], None
    await watch.look()
    assert shown(store).status_details == TOLD


async def test_news_of_carrying_do_not_wait_for_the_next_look_at_sessions(
    world: World, store: SqlStore, green: Green
) -> None:
    put(store, status=DeploymentStatus.AVAILABLE)
    watch = DeploymentMonitor(dataclasses.replace(services(world, store), green=green))  # type: ignore[arg-type]  # as above
    await watch.look()
    green.untended = ["It is late."]
    await watch.look()
    await watch.look()
    assert shown(store).status_details == "It is late. " + TOLD
    assert world.calls.count("pins") == 2


async def test_carrying_that_does_not_end_keeps_nobody_waiting(
    watch: DeploymentMonitor, green: Green, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "TEND_LIMIT_S", 0.01)
    green.frozen = True
    await watch.look()
    assert shown(store).status_details == TOLD


async def test_a_broken_green_is_not_carried_to(watch: DeploymentMonitor, green: Green, store: SqlStore) -> None:
    green.problem, green.failure = "The slot is gone.", EngineError("asked all the same")
    await watch.look()
    assert shown(store).status_details == "The slot is gone."
