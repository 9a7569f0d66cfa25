"""What a scenario is, and what there is to judge its end by."""

from collections.abc import Callable

from msgspec import Struct

from tests.simulation.world import World
from verdigris.domain.model import BlueGreenDeployment, DBInstance, DBSnapshot, Workflow
from verdigris.domain.policy import SwitchoverPolicy
from verdigris.domain.statuses import WorkflowKind, WorkflowStatus


class Scenario(Struct, frozen=True, kw_only=True):
    """``later``: something that happens at a time of its own, in seconds. ``ended`` calls ``World.violate``."""

    name: str
    kind: WorkflowKind
    begin: Callable[[World], None]
    ended: Callable[[World, "After"], None]
    policy: SwitchoverPolicy = SwitchoverPolicy()
    later: tuple[float, Callable[[World], None]] | None = None
    timeout_s: float | None = None


class After(Struct, frozen=True, kw_only=True):
    """What is on record at the end, and how things were before."""

    workflow: Workflow
    instances: dict[str, DBInstance]
    snapshots: dict[str, DBSnapshot]
    deployment: BlueGreenDeployment | None
    events: list[str]
    before: "Before"

    @property
    def completed(self) -> bool:
        return self.workflow.status is WorkflowStatus.COMPLETED


class Before(Struct, frozen=True, kw_only=True):
    routes: dict[str, tuple[str, int]]
    configurations: dict[str, dict[str, object]]
    instances: dict[str, DBInstance]


def requirer(world: World) -> Callable[[bool, str], None]:
    def require(condition: bool, otherwise: str) -> None:
        if not condition:
            world.violate(f"at the end: {otherwise}")

    return require
