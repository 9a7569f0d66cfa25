"""How a green is built: the steps, in which order, and which of RDS's tasks each belongs to."""

from enum import StrEnum

from msgspec import Struct, structs

from verdigris.domain.model import Task
from verdigris.domain.statuses import ReplicationMode, TaskName, TaskStatus


class BuildStep(StrEnum):
    CHECK = "check"
    REGISTER = "register"
    COPY = "copy"
    ALIGN = "align"
    UPGRADE = "upgrade"
    JOIN = "join"
    ENDPOINT = "endpoint"
    BACKUPS = "backups"
    # Of each read replica, with its number behind a hyphen.
    REGISTER_REPLICA = "register-replica"
    COPY_REPLICA = "copy-replica"
    REPLICA_ENDPOINT = "replica-endpoint"
    # Of a cluster.
    REGISTER_CLUSTER = "register-cluster"
    REGISTER_ENDPOINTS = "register-endpoints"
    CLUSTER_ENDPOINTS = "cluster-endpoints"


class PlannedStep(Struct, frozen=True):
    step: BuildStep
    task: TaskName
    # Where to begin again if a crash interrupts this step; None: it may simply be repeated.
    restart_from: BuildStep | None = None
    replica: int = 0  # the position of the member that it makes; 0: green itself

    @property
    def name(self) -> str:
        return f"{self.step}-{self.replica}" if self.replica else self.step


_COPYING = TaskName.CREATING_READ_REPLICA_OF_SOURCE

_PHYSICAL = (
    PlannedStep(BuildStep.CHECK, _COPYING),
    PlannedStep(BuildStep.REGISTER, _COPYING),
    PlannedStep(BuildStep.COPY, _COPYING),
    PlannedStep(BuildStep.JOIN, _COPYING),
    PlannedStep(BuildStep.ENDPOINT, _COPYING),
    PlannedStep(BuildStep.BACKUPS, TaskName.CONFIGURE_BACKUPS),
)

_LOGICAL = (
    PlannedStep(BuildStep.CHECK, _COPYING),
    PlannedStep(BuildStep.REGISTER, _COPYING),
    PlannedStep(BuildStep.COPY, _COPYING),
    # A standby that was promoted, or a directory that pg_upgrade had its hands on, is no use for a second try.
    PlannedStep(BuildStep.ALIGN, _COPYING, restart_from=BuildStep.COPY),
    PlannedStep(BuildStep.UPGRADE, TaskName.DB_ENGINE_VERSION_UPGRADE, restart_from=BuildStep.COPY),
    PlannedStep(BuildStep.JOIN, TaskName.DB_ENGINE_VERSION_UPGRADE),
    PlannedStep(BuildStep.ENDPOINT, TaskName.DB_ENGINE_VERSION_UPGRADE),
    PlannedStep(BuildStep.BACKUPS, TaskName.CONFIGURE_BACKUPS),
)


_OF_A_REPLICA = (BuildStep.REGISTER_REPLICA, BuildStep.COPY_REPLICA, BuildStep.REPLICA_ENDPOINT)


# An endpoint of a cluster leads to members, so it is opened when they can all be reached.
_ENDPOINTS_OF_A_CLUSTER = (
    PlannedStep(BuildStep.REGISTER_ENDPOINTS, TaskName.CREATE_CUSTOM_ENDPOINTS),
    PlannedStep(BuildStep.CLUSTER_ENDPOINTS, TaskName.CREATE_CUSTOM_ENDPOINTS),
)


def build_steps(mode: ReplicationMode, *, replicas: int = 0, cluster: bool = False) -> tuple[PlannedStep, ...]:
    """Green's replicas are copies of green as it will be: they come last, one after the other."""
    check, *green = _LOGICAL if mode is ReplicationMode.LOGICAL else _PHYSICAL
    if not cluster:
        return (check, *green, *_replicas(replicas, TaskName.CREATING_TOPOLOGY_OF_SOURCE))
    return (
        check,
        PlannedStep(BuildStep.REGISTER_CLUSTER, _COPYING),
        *(each for each in green if each.task is not TaskName.CONFIGURE_BACKUPS),
        *_replicas(replicas, TaskName.CREATE_DB_INSTANCES_FOR_CLUSTER),
        *_ENDPOINTS_OF_A_CLUSTER,
    )


def _replicas(count: int, task: TaskName) -> tuple[PlannedStep, ...]:
    return tuple(PlannedStep(step, task, replica=number) for number in range(1, count + 1) for step in _OF_A_REPLICA)


def planned_tasks(*, upgrade: bool, replicas: bool, cluster: bool) -> tuple[Task, ...]:
    """Those that RDS shows of an instance, or of a cluster, in its order."""
    shown = {
        TaskName.DB_ENGINE_VERSION_UPGRADE: upgrade,
        TaskName.CONFIGURE_BACKUPS: not cluster,
        TaskName.CREATING_TOPOLOGY_OF_SOURCE: replicas and not cluster,
        TaskName.CREATE_DB_INSTANCES_FOR_CLUSTER: cluster,
        TaskName.CREATE_CUSTOM_ENDPOINTS: cluster,
    }
    return tuple(Task(name) for name in TaskName if shown.get(name, True))


def tasks_at(tasks: tuple[Task, ...], current: TaskName) -> tuple[Task, ...]:
    """The task list while a step of ``current`` runs: those before are done, those after still wait.

    A minor upgrade's green is copied onto the new version directly, so its upgrade task has no step of its own and
    is done when the first task after it begins.
    """
    position = next(i for i, task in enumerate(tasks) if task.name is current)
    return tuple(
        structs.replace(
            task,
            status=TaskStatus.COMPLETED
            if i < position
            else TaskStatus.IN_PROGRESS
            if i == position
            else TaskStatus.PENDING,
        )
        for i, task in enumerate(tasks)
    )


def tasks_completed(tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    return tuple(structs.replace(task, status=TaskStatus.COMPLETED) for task in tasks)


def tasks_failed(tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    """What was going on has failed; what was done stays done, what had not begun stays pending."""
    return tuple(
        structs.replace(task, status=TaskStatus.FAILED) if task.status is TaskStatus.IN_PROGRESS else task
        for task in tasks
    )
