"""What was defined on blue since green was made and is not on green: logical replication carries rows only."""

from collections.abc import Collection, Sequence

from verdigris.engines.postgres.carrying import ddl, definitions, large_objects
from verdigris.engines.postgres.fingerprint import Change
from verdigris.engines.postgres.guardrails.model import (
    LOGICAL,
    UNSUPPORTED,
    Extent,
    Guardrail,
    Look,
    Moment,
    Side,
    View,
)

# Catalogues whose changes are other guardrails'; all other changes are those of `definitions-changed`.
_DATABASES = frozenset({"pg_database"})

_UNDO = "Undo them, or delete the deployment and create it again."


def _of(catalogues: Collection[str]) -> Look:
    async def look(view: View) -> Sequence[str]:
        return _told([change for change in await view.changes() if change.catalogue in catalogues])

    return look


async def _definitions(view: View) -> Sequence[str]:
    """Before a switchover it counts whether green has them too; behind the fence, whether that has been seen."""
    changes = _told([change for change in await view.changes() if change.catalogue not in _DATABASES])
    statements = await ddl.unsettled(view.source, view.target, view.names)
    if view.subject.moment is Moment.FENCED:
        return changes or statements
    if not changes and not statements:
        return []
    differing = await ddl.differences(view.source, view.target, view.names)
    if differing:
        return differing + await ddl.refused(view.source, view.target, view.names)
    carried = definitions.COVERED | definitions.OF_EXTENSIONS
    return _told([change for change in await view.changes() if change.catalogue not in _DATABASES | carried])


def _told(changes: Collection[Change]) -> list[str]:
    return sorted({str(change) for change in changes})


async def _large_objects(view: View) -> Sequence[str]:
    look_s = await large_objects.look_s(view.target, view.names)
    return [large_objects.too_long(look_s)] if look_s > large_objects.LONGEST_LOOK_S else []


GUARDRAILS = (
    Guardrail(
        name="definitions-changed",
        rds=UNSUPPORTED,
        complaint="definitions were changed on blue since green was made, and green has not the same",
        remedy=_UNDO,
        threshold="every definition that changed on blue is on green; every table of blue's is replicated; in the"
        " pause, every row of every catalogue is as when that was found to be so",
        why="Logical replication carries rows, not definitions. Plain DDL is executed on green as well, at its place"
        " among the rows; what is not (see decision 29) is named with the reason.",
        side=Side.BOTH,
        modes=LOGICAL,
        moments=Moment.SWITCHOVER | Moment.FENCED,
        extent=Extent.DATABASE,
        look=_definitions,
    ),
    Guardrail(
        name="databases-changed",
        rds=UNSUPPORTED,
        complaint="databases were created, dropped or changed on blue since green was made",
        remedy=_UNDO,
        threshold="as they were when green's stream begins",
        why="A database that was made later has no slot, so green has nothing of it.",
        side=Side.BOTH,
        modes=LOGICAL,
        moments=Moment.SWITCHOVER | Moment.FENCED,
        extent=Extent.CLUSTER,
        look=_of(_DATABASES),
    ),
    Guardrail(
        name="large-objects",
        rds=UNSUPPORTED,
        complaint="large objects are too many for a pause",
        remedy="Move them into a table (bytea), or delete those that nobody needs (vacuumlo).",
        threshold=f"looking through them may take {large_objects.LONGEST_LOOK_S:g} s, as measured the last time",
        why="They do not replicate logically. What was changed is copied beforehand; that nothing is missing has to be"
        " seen once more when nobody writes, and everybody waits for that.",
        side=Side.GREEN,
        modes=LOGICAL,
        moments=Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=_large_objects,
    ),
)
