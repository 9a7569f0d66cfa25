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


def build_steps(mode: ReplicationMode, *, replicas: int = 0) -> tuple[PlannedStep, ...]:
    """Green's replicas are copies of green as it will be: they come last, one after the other."""
    green = _LOGICAL if mode is ReplicationMode.LOGICAL else _PHYSICAL
    copying = TaskName.CREATING_TOPOLOGY_OF_SOURCE
    return green + tuple(
        PlannedStep(step, copying, replica=number) for number in range(1, replicas + 1) for step in _OF_A_REPLICA
    )


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
