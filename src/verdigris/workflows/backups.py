"""Automated backups: snapshots that nobody asks for, each night of every instance that wants them, and their end.

One is a snapshot like any other, taken by the same workflow. What is here decides when it is begun, and takes away what
is not kept any longer. One instance has its turn at a time: they share disks.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import chain

import structlog
from msgspec import structs

from verdigris.domain import backups, events
from verdigris.domain.identifiers import RandomText
from verdigris.domain.model import DBInstance, DBSnapshot
from verdigris.domain.ports import Clock, Transaction
from verdigris.domain.statuses import InstanceStatus, SnapshotStatus, SnapshotType, WorkflowKind
from verdigris.workflows import arguments, membership
from verdigris.workflows.services import Services, add_events, has_free_hands, new_workflow, require_instance
from verdigris.workflows.snapshot_taking import new_snapshot, user_of

log = structlog.get_logger(__name__)

INTERVAL_S = 20.0
# One that takes longer than this keeps the others no more: its server may be frozen.
_TURN = timedelta(hours=1)
_GOOD = frozenset({SnapshotStatus.CREATING, SnapshotStatus.AVAILABLE})


class AutomatedBackups:
    def __init__(self, services: Services, wake: Callable[[], None]) -> None:
        self._services = services
        self._wake = wake

    async def run(self) -> None:
        while True:
            try:
                self.look()
            except Exception:
                log.exception("backups.failed")
            await asyncio.sleep(INTERVAL_S)

    def look(self) -> None:
        with self._services.store.transaction() as tx:
            begun, removed = self._begin_next(tx), self._remove_outdated(tx)
        if begun is not None:
            log.info("backup.begun", instance=begun.instance_identifier, snapshot=begun.identifier)
        for snapshot in removed:
            log.info("backup.outdated", snapshot=snapshot.identifier)
        if begun is not None or removed:
            self._wake()

    def _begin_next(self, tx: Transaction) -> DBSnapshot | None:
        """Of those that are due the one whose last backup is the oldest: with too many for a night all have theirs
        some time."""
        now, attempts = self._services.clock.now(), automated(tx)
        under_way = [each for each in chain(*attempts.values()) if each.status is SnapshotStatus.CREATING]
        if any(now - backups.begun_at(each) < _TURN for each in under_way):
            return None
        due = [each for each in tx.instances() if _is_due(each, attempts[each.resource_id], now)]
        for instance in sorted(due, key=lambda each: _last(each, attempts[each.resource_id])):
            if is_backed_up(tx, instance) and can_be_begun(tx, instance):
                return begin(tx, instance, self._services.clock, self._services.random_text)
        return None

    def _remove_outdated(self, tx: Transaction) -> list[DBSnapshot]:
        """What somebody uses goes when nobody does."""
        now, removed = self._services.clock.now(), list[DBSnapshot]()
        for resource_id, attempts in automated(tx).items():
            instance = tx.instance(resource_id)
            days = backups.retention_days(instance or attempts[-1])
            for each in backups.outdated(attempts, days, now, is_gone=instance is None):
                if not user_of(tx, each):
                    remove(tx, each, self._services)
                    removed.append(each)
        return removed


def _is_due(instance: DBInstance, attempts: Sequence[DBSnapshot], now: datetime) -> bool:
    return backups.is_due(backups.window_of(instance), attempts, since=instance.created_at, now=now)


def _last(instance: DBInstance, attempts: Sequence[DBSnapshot]) -> datetime:
    return max(map(backups.begun_at, attempts), default=instance.created_at)


def automated(tx: Transaction) -> defaultdict[str, list[DBSnapshot]]:
    """By the resource id of their instance, which may be gone; the oldest first."""
    found = defaultdict[str, list[DBSnapshot]](list)
    for snapshot in sorted(tx.snapshots(), key=backups.begun_at):
        if snapshot.type is SnapshotType.AUTOMATED:
            found[snapshot.resource_id].append(snapshot)
    return found


def is_backed_up(tx: Transaction, instance: DBInstance) -> bool:
    """Not a member of a cluster, which has no snapshots of its own, and no green before it is production: all that it
    has is blue's."""
    wanted = instance.cluster is None and backups.retention_days(instance) > 0
    return wanted and not membership.is_target_in_waiting(tx, instance.resource_id)


def can_be_begun(tx: Transaction, instance: DBInstance) -> bool:
    return instance.status is InstanceStatus.AVAILABLE and has_free_hands(tx, instance)


def begin(tx: Transaction, instance: DBInstance, clock: Clock, random_text: RandomText) -> DBSnapshot:
    """With whatever else ``tx`` does; the workflow runner is to be woken afterwards."""
    now = clock.now()
    taken = {snapshot.identifier for snapshot in tx.snapshots()}
    name = backups.snapshot_name(instance.identifier, now, taken)
    snapshot = new_snapshot(instance, name, SnapshotType.AUTOMATED, now, random_text)
    tx.put_snapshot(snapshot)
    tx.put_instance(structs.replace(instance, status=InstanceStatus.BACKING_UP))
    add_events(tx, events.snapshot_begun(snapshot, instance, now))
    told = arguments.CreateSnapshot(snapshot_id=snapshot.snapshot_id)
    tx.put_workflow(new_workflow(random_text, now, WorkflowKind.CREATE_SNAPSHOT, instance.resource_id, told))
    return snapshot


def begin_first(tx: Transaction, resource_id: str, services: Services) -> None:
    """Of an instance that has just come to be, if it was told to have backups: as on RDS it is available with its
    first one. One that was told nothing has it in its next window: there is not much in it yet."""
    instance = require_instance(tx, resource_id)
    has_one = any(each.status in _GOOD for each in automated(tx)[resource_id])
    if instance.settings.get("BackupRetentionPeriod") and is_backed_up(tx, instance) and not has_one:
        begin(tx, instance, services.clock, services.random_text)


def remove(tx: Transaction, snapshot: DBSnapshot, services: Services) -> None:
    tx.put_snapshot(structs.replace(snapshot, status=SnapshotStatus.DELETING))
    now = services.clock.now()
    tx.put_workflow(new_workflow(services.random_text, now, WorkflowKind.DELETE_SNAPSHOT, snapshot.snapshot_id))


def remove_all(tx: Transaction, resource_id: str, services: Services) -> None:
    """With their instance. What is being copied or restored at the moment goes once it is too old."""
    for snapshot in automated(tx)[resource_id]:
        if snapshot.status is not SnapshotStatus.DELETING and not user_of(tx, snapshot):
            remove(tx, snapshot, services)
