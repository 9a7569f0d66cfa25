"""Where a fault can strike: after and in the middle of every named step of every workflow, read from the code."""

import inspect
import re
from datetime import UTC, datetime
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

from msgspec import Struct

from tests.simulation.database import Database, MemoryStore
from verdigris.domain.green import build_steps
from verdigris.domain.model import Workflow
from verdigris.domain.statuses import ReplicationMode, WorkflowKind, WorkflowStatus
from verdigris.domain.switchover import Step
from verdigris.workflows import instance_deletion, instances, replicas, snapshots
from verdigris.workflows.delete_deployment import DeleteDeployment


class Moment(StrEnum):
    AFTER = "after"
    DURING = "during"


class Scene(StrEnum):
    """What is going on. The way back needs something that makes a switchover turn round: see ``trial.py``."""

    SWITCHOVER = "switchover"
    WAY_BACK = "way back"
    CREATE = "create deployment"
    DELETE = "delete deployment and green"
    RELEASE = "delete deployment, keep green"
    CREATE_INSTANCE = "create instance"
    MODIFY_INSTANCE = "modify instance"
    REBOOT_INSTANCE = "reboot instance"
    STOP_INSTANCE = "stop instance"
    START_INSTANCE = "start instance"
    DELETE_INSTANCE = "delete instance"
    CREATE_REPLICA = "create read replica"
    PROMOTE_REPLICA = "promote read replica"
    DELETE_REPLICA = "delete read replica"
    DELETE_SOURCE = "delete source of a read replica"
    REBOOT_CHANGED = "reboot instance with changes that waited"
    CREATE_SNAPSHOT = "create snapshot"
    RESTORE_INSTANCE = "restore instance from a snapshot"
    DELETE_WITH_SNAPSHOT = "delete instance with a final snapshot"
    COPY_SNAPSHOT = "copy snapshot"
    DELETE_SNAPSHOT = "delete snapshot"
    CREATE_TOPOLOGY = "create deployment of a source with a read replica"
    DELETE_TOPOLOGY = "delete deployment of a source with a read replica"


class Point(Struct, frozen=True):
    scene: Scene
    mode: ReplicationMode | None  # None where it makes no difference
    step: str
    moment: Moment

    def __str__(self) -> str:
        mode = f" ({self.mode})" if self.mode else ""
        return f"{self.scene}{mode}: {self.moment} {self.step}"


# Steps of the way back, by what makes a switchover take it.
AFTER_RESTART = (Step.UNFENCE_SOURCE, Step.ABORT_PARK, Step.UNREADY_SESSIONS, Step.FAIL)
AFTER_STRAGGLER = (Step.WAIT,)
# The last attempt of one that is told to end stragglers.
LAST_ATTEMPT = (Step.PARK_WITHOUT_STRAGGLERS,)


def switchover_steps(mode: ReplicationMode) -> tuple[Step, ...]:
    """In the order in which they go by when nothing is in the way: that of the enumeration, but for two."""
    forward = [step for step in Step if step not in (*AFTER_RESTART, *AFTER_STRAGGLER, *LAST_ATTEMPT)]
    if mode is ReplicationMode.LOGICAL:  # carried sessions can write on green before it is opened for others
        opened = forward.index(Step.OPEN_TARGET)
        forward[opened : opened + 2] = [Step.RELEASE, Step.OPEN_TARGET]
    return tuple(forward)


def goes_on(mode: ReplicationMode, step: Step) -> bool:
    """Whether the route has been committed by then: only forward from there."""
    steps = switchover_steps(mode)
    return step in steps and steps.index(step) > steps.index(Step.COMMIT_ROUTE)


def deletion_steps() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """With green, and without it. Which of them are taken hangs on records, so they are read from the source; those of
    replicas and of a cluster are in methods of their own."""
    names = re.findall(r'Step\(name="(\w+)"', inspect.getsource(DeleteDeployment.steps))
    released = names.index("release")
    return tuple(names[:released]), tuple(names[released:])


_EVERYTHING: dict[str, object] = {
    "master_password_verifier": "x",
    "engine_version": "17.10",
    "instance_class": "db.t3.small",
    "port": 1150,
    "new_identifier": "renamed",
}
# Of a modification that waits for a reboot.
_WAITING = {name: _EVERYTHING[name] for name in ("engine_version", "instance_class", "new_identifier")}
# Those that came last are last: a campaign of the others alone (``--scene``) has the numbers that it had before.
_INSTANCE_SCENES: tuple[tuple[Scene, WorkflowKind, dict[str, object]], ...] = (
    (Scene.CREATE_INSTANCE, WorkflowKind.CREATE_INSTANCE, _EVERYTHING),
    (Scene.MODIFY_INSTANCE, WorkflowKind.MODIFY_INSTANCE, _EVERYTHING),
    (Scene.REBOOT_INSTANCE, WorkflowKind.REBOOT_INSTANCE, {}),
    (Scene.STOP_INSTANCE, WorkflowKind.STOP_INSTANCE, _EVERYTHING),
    (Scene.START_INSTANCE, WorkflowKind.START_INSTANCE, _EVERYTHING),
    (Scene.DELETE_INSTANCE, WorkflowKind.DELETE_INSTANCE, {}),
    (Scene.CREATE_REPLICA, WorkflowKind.CREATE_READ_REPLICA, {}),
    (Scene.PROMOTE_REPLICA, WorkflowKind.PROMOTE_READ_REPLICA, {}),
    (Scene.DELETE_REPLICA, WorkflowKind.DELETE_INSTANCE, {"is_replica": True}),
    (Scene.DELETE_SOURCE, WorkflowKind.DELETE_INSTANCE, {"has_replicas": True}),
    (Scene.REBOOT_CHANGED, WorkflowKind.REBOOT_INSTANCE, _WAITING),
)
_SNAPSHOT_SCENES: tuple[tuple[Scene, WorkflowKind, dict[str, object]], ...] = (
    (Scene.CREATE_SNAPSHOT, WorkflowKind.CREATE_SNAPSHOT, {"snapshot_id": "snap"}),
    (Scene.RESTORE_INSTANCE, WorkflowKind.RESTORE_INSTANCE, {"snapshot_id": "snap"}),
    (Scene.DELETE_WITH_SNAPSHOT, WorkflowKind.DELETE_INSTANCE, {"final_snapshot": "snap"}),
    (Scene.COPY_SNAPSHOT, WorkflowKind.COPY_SNAPSHOT, {"source_id": "snap", "region": "us-east-1"}),
    (Scene.DELETE_SNAPSHOT, WorkflowKind.DELETE_SNAPSHOT, {}),
)
_CLASSES = {**instances.KINDS, **instance_deletion.KINDS, **replicas.KINDS, **snapshots.KINDS}


def instance_steps(kind: WorkflowKind, arguments: dict[str, object]) -> tuple[str, ...]:
    workflow = Workflow(
        workflow_id="none",
        kind=kind,
        subject="none",
        status=WorkflowStatus.RUNNING,
        started_at=datetime.now(UTC),
        arguments=arguments,
    )
    # Of the services only the store is asked: whether the instance is a member of a cluster. It knows of none.
    services: Any = SimpleNamespace(store=MemoryStore(Database()))
    return tuple(step.name for step in _CLASSES[kind](services, workflow).steps())


def topology_steps(mode: ReplicationMode) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Creation and deletion: those that there are besides green's own, of its only replica."""
    return tuple(planned.name for planned in build_steps(mode, replicas=1) if planned.replica), ("replica-1",)


def every_point() -> list[Point]:
    named: list[tuple[Scene, ReplicationMode | None, tuple[str, ...]]] = []
    with_green, without_green = deletion_steps()
    for mode in ReplicationMode:
        named += [
            (Scene.CREATE, mode, tuple(planned.step.value for planned in build_steps(mode))),
            (Scene.SWITCHOVER, mode, tuple(step.value for step in switchover_steps(mode))),
            (Scene.WAY_BACK, mode, tuple(step.value for step in (*AFTER_RESTART, *AFTER_STRAGGLER, *LAST_ATTEMPT))),
            (Scene.DELETE, mode, with_green),
            (Scene.RELEASE, mode, without_green),
        ]
    named += [(scene, None, instance_steps(kind, arguments)) for scene, kind, arguments in _INSTANCE_SCENES]
    for mode in ReplicationMode:
        created, deleted = topology_steps(mode)
        named += [(Scene.CREATE_TOPOLOGY, mode, created), (Scene.DELETE_TOPOLOGY, mode, deleted)]
    named += [(scene, None, instance_steps(kind, arguments)) for scene, kind, arguments in _SNAPSHOT_SCENES]
    return [Point(scene, mode, step, moment) for scene, mode, steps in named for step in steps for moment in Moment]
