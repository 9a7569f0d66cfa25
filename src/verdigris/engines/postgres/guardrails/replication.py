"""Whether green follows, and whether it ever can again."""

import asyncio
import time
from collections.abc import Sequence

from psycopg import sql

from verdigris.domain.statuses import ReplicationMode
from verdigris.engines.postgres import lag
from verdigris.engines.postgres.carrying import ddl
from verdigris.engines.postgres.guardrails.model import (
    LOGICAL,
    PHYSICAL,
    REPLICATION_HEALTH,
    REPLICATION_LAG,
    Extent,
    Guardrail,
    Moment,
    Side,
    View,
    on_target,
)
from verdigris.engines.postgres.guardrails.trouble import ATTEMPTS, ERROR_LOOP_S, Trouble

# A switchover that is to begin now looks for less long, and only where something has failed at some time: ten attempts
# of a worker.
_WATCH_S = 2.0
# Where nobody follows, a server may have just restarted, and its workers come one after the other.
_ABSENCE_S = 10.0
# One that fails is gone again within milliseconds, and back after 200.
_STAYS_S = 0.6
_POLL_S = 0.05

_LOST = sql.SQL("""
    SELECT slot_name FROM pg_replication_slots
     WHERE wal_status = 'lost' AND (slot_name = %s OR starts_with(slot_name, %s)) ORDER BY 1
""")

_SUBSCRIPTION = sql.SQL("""
    SELECT s.subenabled, coalesce(t.apply_error_count, 0), o.remote_lsn::text,
           EXISTS (SELECT FROM pg_stat_subscription w WHERE w.subid = s.oid AND w.pid IS NOT NULL)
      FROM pg_subscription s
      JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database()
      LEFT JOIN pg_stat_subscription_stats t ON t.subid = s.oid
      LEFT JOIN pg_replication_origin_status o ON o.external_id = 'pg_' || s.oid
     WHERE s.subname = %s
""")

# Conflicts that a worker of 18 or later counts and goes on after, its row unlike blue's (manual, 29.7 "Conflicts").
_SILENT_CONFLICTS = ("update_missing", "delete_missing", "update_origin_differs", "delete_origin_differs")
# By way of JSON, because before 18 there are no such columns.
_CONFLICTS = sql.SQL("""
    SELECT format('%%s %%s', c.value, replace(substr(c.key, 7), '_', ' '))
      FROM pg_stat_subscription_stats t
      JOIN pg_subscription s ON s.oid = t.subid
      JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database()
     CROSS JOIN jsonb_each_text(to_jsonb(t)) AS c
     WHERE substr(c.key, 7) = ANY(%s) AND starts_with(c.key, 'confl_') AND c.value <> '0' AND s.subname = %s
     ORDER BY 1
""")

_OUR_SCHEMA = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)"


async def _lost_slots(view: View) -> Sequence[str]:
    return await view.source_names(_LOST, view.names.base, view.names.base + "_")


async def _missing_slots(view: View) -> Sequence[str]:
    """Those that green's subscriptions name, or the one that its standby uses."""
    present = await view.source_names("SELECT slot_name FROM pg_replication_slots")
    wanted = [view.names.physical_slot]
    if view.subject.pair.mode is ReplicationMode.LOGICAL:
        query = "SELECT subslotname FROM pg_subscription WHERE subname = %s AND subslotname IS NOT NULL ORDER BY 1"
        wanted = await view.target_names(query, view.names.subscription)
    return [slot for slot in wanted if slot not in present]


async def _subscription_off(view: View) -> Sequence[str]:
    rows = await view.target.rows(_SUBSCRIPTION, view.names.subscription)
    if not rows:
        # A database that was made on green has none of ours.
        return ["it is gone"] if await view.target.value(_OUR_SCHEMA, view.names.schema) else []
    return [] if rows[0][0] else ["it is disabled"]


async def _diverged(view: View) -> Sequence[str]:
    return await view.target_names(_CONFLICTS, [*_SILENT_CONFLICTS], view.names.subscription)


async def _apply_fails(view: View) -> Sequence[str]:
    if view.subject.moment is Moment.STANDING:
        failing = _remember(view, await view.target.rows(_SUBSCRIPTION, view.names.subscription))
    else:
        failing = await _watch(view)
    if failing and (statement := await ddl.next_to_apply(view.source, view.target, view.names)):
        return [*failing, f"next is {statement}"]
    return failing


def _remember(view: View, rows: Sequence[tuple[bool, int, str | None, bool]]) -> Sequence[str]:
    """Whether it fails again and again and gets nowhere. A new control plane simply needs ten seconds more."""
    key, now_s = (view.names.base, view.target.info.dbname), time.monotonic()
    if not rows or not rows[0][0]:
        view.subject.troubles.pop(key, None)
        return []
    _, errors, remote_lsn, _ = rows[0]
    trouble = view.subject.troubles.setdefault(key, Trouble.none_yet(remote_lsn, errors, now_s))
    return [f"{trouble.attempts} failed attempts"] if trouble.look(remote_lsn, errors, now_s) else []


async def _watch(view: View) -> Sequence[str]:
    """Nobody applies, or attempts fail one after the other. Returns as soon as all is seen to be well: at once where
    a worker is there and nothing has ever failed, else when one gets ahead or has stayed for some time."""
    first: tuple[int, str | None] | None = None
    began_s = absent_s = time.monotonic()
    while rows := await view.target.rows(_SUBSCRIPTION, view.names.subscription):
        enabled, errors, remote_lsn, at_work = rows[0]
        now_s = time.monotonic()
        if not enabled:
            return []  # for another guardrail to say
        first = first or (errors, remote_lsn)
        absent_s = absent_s if at_work else now_s
        if at_work and (errors == 0 or remote_lsn != first[1] or now_s - absent_s > _STAYS_S):
            return []
        failed = errors - first[0]
        if now_s - began_s > (_WATCH_S if failed >= ATTEMPTS else _ABSENCE_S):
            return [f"{failed} failed attempts"] if failed else ["no worker applies changes"]
        await asyncio.sleep(_POLL_S)
    return []


async def _nobody_follows(view: View) -> Sequence[str]:
    """A connection that has just ended is made again every 200 ms."""
    ends_at = time.monotonic() + _ABSENCE_S
    while True:
        slots = await lag.read_slots(view.source, view.names)
        idle = [slot.name for slot in slots if not slot.active and not slot.lost]
        if not idle or time.monotonic() > ends_at:
            return idle
        await asyncio.sleep(_POLL_S)


async def _behind(view: View) -> Sequence[str]:
    behind = await lag.measure(view.source, view.target, view.names, view.subject.pair.mode)
    told = behind.too_far(view.subject.timeout_s)
    return [told] if told else []


GUARDRAILS = (
    Guardrail(
        name="slot-lost",
        rds=REPLICATION_HEALTH,
        complaint="green fell too far behind, so its replication slot was given up to protect blue's disk",
        remedy="Delete the deployment and create it again, with more free disk or when blue writes less.",
        threshold="max_slot_wal_keep_size, half of blue's free disk unless set by hand",
        why="Blue comes first. The WAL that green would need is gone.",
        side=Side.BLUE,
        moments=Moment.STANDING | Moment.SWITCHOVER,
        extent=Extent.CLUSTER,
        look=_lost_slots,
    ),
    Guardrail(
        name="slot-missing",
        rds=REPLICATION_HEALTH,
        complaint="blue's replication slot for green is gone",
        remedy="Delete the deployment and create it again.",
        threshold="none may be missing",
        why="Somebody has dropped it: blue no longer keeps what green would need.",
        side=Side.BOTH,
        moments=Moment.STANDING | Moment.SWITCHOVER,
        extent=Extent.CLUSTER,
        look=_missing_slots,
    ),
    Guardrail(
        name="green-promoted",
        rds=REPLICATION_HEALTH,
        complaint="green was promoted and no longer follows blue",
        remedy="Delete the deployment and create it again.",
        threshold="pg_is_in_recovery() has to be true",
        why="A promoted standby has a history of its own.",
        side=Side.GREEN,
        modes=PHYSICAL,
        moments=Moment.STANDING | Moment.SWITCHOVER,
        extent=Extent.CLUSTER,
        look=on_target(sql.SQL("SELECT 'it is not in recovery' WHERE NOT pg_is_in_recovery()")),
    ),
    Guardrail(
        name="subscription-off",
        rds=REPLICATION_HEALTH,
        complaint="green no longer subscribes to blue",
        remedy="If it was disabled by hand and nothing else was done, enable it; otherwise delete the deployment.",
        threshold="enabled in every database",
        why="Nothing arrives on green any more.",
        side=Side.GREEN,
        modes=LOGICAL,
        moments=Moment.STANDING | Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=_subscription_off,
    ),
    Guardrail(
        name="apply-fails",
        rds=REPLICATION_HEALTH,
        complaint="green cannot apply changes (its log says why)",
        remedy="A change that was made on green, or to blue's schema, is in the way: undo it on green, or delete the"
        " deployment.",
        threshold=f"{ERROR_LOOP_S:g} s of failed attempts without progress while it waits; {_WATCH_S:g} s before a"
        f" switchover, {_ABSENCE_S:g} s where nobody tries",
        why="Some fifty attempts: longer than any deadlock or lock timeout.",
        side=Side.BOTH,
        modes=LOGICAL,
        moments=Moment.STANDING | Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=_apply_fails,
    ),
    Guardrail(
        name="conflicts",
        rds=REPLICATION_HEALTH,
        complaint="changes of blue met rows on green that were not as they should be",
        remedy="Green's rows differ from blue's: delete the deployment and create it again.",
        why="Somebody has changed or deleted rows on green. Before 18 PostgreSQL does not count it.",
        side=Side.GREEN,
        modes=LOGICAL,
        moments=Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=_diverged,
    ),
    Guardrail(
        name="replication-stopped",
        rds=REPLICATION_HEALTH,
        complaint="green is not connected to blue at the moment, slots without a reader",
        remedy="Try again in a moment; if it stays so, green's log says why.",
        threshold=f"every slot has a reader within {_ABSENCE_S:g} s",
        why="A lost connection is made again every 200 ms.",
        side=Side.BLUE,
        moments=Moment.SWITCHOVER,
        extent=Extent.CLUSTER,
        look=_nobody_follows,
    ),
    Guardrail(
        name="lag",
        rds=REPLICATION_LAG,
        complaint="green is farther behind than can be made up for in time",
        remedy="Try again when blue writes less, or with a longer SwitchoverTimeout.",
        threshold=f"{lag.SHARE_OF_TIMEOUT:.0%} of what is left of SwitchoverTimeout, at the speed measured; less than"
        f" {lag.NOTHING_BYTES >> 20} MiB is not measured",
        why="The rest of the time is for sessions that do not come to rest at the first attempt. Speed is what green"
        f" gains on blue within {lag.MEASURED_S:g} s.",
        side=Side.BOTH,
        moments=Moment.SWITCHOVER,
        extent=Extent.CLUSTER,
        look=_behind,
    ),
)
