"""Whether the definitions in a database are still those that green was made with.

Logical replication carries rows, not definitions, and not every statement can be carried beside them. Green,
recovered to exactly the LSN at which its stream begins, and still of the source's version, is a byte-for-byte picture
of the source's catalogues at that moment: their rows are digested there and kept on green. Later the source's rows
are digested again. Same version, same oids: no definition has to be translated, no release's way of spelling a view
matters, and what was added to green itself is no finding.

Once carried statements have changed the source, and both sides were found to be alike, the source's new rows are what
is expected (``accept``).

An object dropped and made again has another oid and is found, but for indexes, which go by their names; a table that
came and went again is not: it does no harm.
"""

from collections.abc import Collection, Sequence

from msgspec import Struct
from psycopg import sql

from verdigris.engines.postgres.catalogues import DATABASE_CATALOGUES, SHARED_CATALOGUES, Catalogue
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.remembered import remember
from verdigris.engines.postgres.sessions import Session, both

Sums = dict[str, tuple[int, int]]  # catalogue -> number of rows, sum of their digests
Labelled = dict[tuple[str, str], tuple[int, str]]  # (catalogue, key) -> (digest, label)

_COLUMNS = sql.SQL("""
    SELECT c.relname, a.attname
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
     WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relname = ANY(%s)
       AND (a.attnum > 0 OR a.attname = 'oid') AND NOT a.attisdropped
     ORDER BY a.attrelid, a.attnum
""")

# Rows of a catalogue that are an extension's: members by themselves, or parts of a member (an operator family). A cast
# may also come with a range type.
_OF_EXTENSIONS = """
    SELECT d.objid::text FROM pg_depend d
     WHERE d.classid = replace(%s, 'pg_aggregate', 'pg_proc')::regclass AND d.deptype = 'e'
     UNION
    SELECT p.objid::text FROM pg_depend p JOIN pg_depend d ON d.classid = p.refclassid AND d.objid = p.refobjid
     WHERE p.classid IN ('pg_amop'::regclass, 'pg_amproc'::regclass) AND d.deptype = 'e'
     UNION
    SELECT objid::text FROM pg_depend WHERE classid = 'pg_cast'::regclass AND deptype = 'i'
"""


class Change(Struct, frozen=True, order=True):
    what: str  # "created", "dropped" or "changed"
    label: str  # as pg_describe_object() puts it: "table orders", "column note of table orders"
    catalogue: str

    def __str__(self) -> str:
        return f"{self.label} ({self.what})"


async def take(copy: Session, names: ObjectNames, *, shared: bool) -> None:
    """On the copy, before its upgrade: digest and keep. ``shared``: with the catalogues that all databases share."""
    digests = await _digests(copy, names, shared=shared, labelled=True)
    table = sql.Identifier(names.schema, "catalogue")
    await remember(copy, table, digests)
    sums = sql.SQL("SELECT catalogue, count(*) AS rows, sum(digest) AS digest FROM {} GROUP BY catalogue")
    await remember(copy, sql.Identifier(names.schema, "catalogue_sums"), sums.format(table))


async def changes(source: Session, target: Session, names: ObjectNames, *, shared: bool) -> list[Change]:
    """What was done to definitions on the source since green was made, by name. Where nothing was, that takes one
    statement on each side, planned before the pause, and a few rows each."""
    now, then = await both(_sums_now(source, names, shared=shared), _sums_then(target, names))
    differing = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
    if not differing:
        return []
    labels_then = await _labelled_then(target, names, differing)
    labels_now = await _labelled_now(source, names, differing, shared=shared)
    return sorted(set(_compare(labels_then, labels_now).values()))


def _compare(then: Labelled, now: Labelled) -> dict[tuple[str, str], Change]:
    """What was done to each row, by its key."""
    found = {key: Change("dropped", label, key[0]) for key, (_, label) in then.items() if key not in now}
    for key, (digest, label) in now.items():
        if key not in then:
            found[key] = Change("created", label, key[0])
        elif then[key][0] != digest:
            found[key] = Change("changed", label, key[0])
    return found


async def differing(
    source: Session, target: Session, names: ObjectNames, catalogues: Collection[str]
) -> dict[str, tuple[int, int] | None]:
    """Of these catalogues, those that are not as they are expected to be, each with its sums now."""
    now, then = await both(_sums_now(source, names, shared=False), _sums_then(target, names))
    return {name: now.get(name) for name in catalogues if now.get(name) != then.get(name)}


async def unexplained(
    source: Session, target: Session, names: ObjectNames, catalogues: Collection[str]
) -> list[Change]:
    """Of what has changed in these catalogues, whatever is neither an extension's nor gone from both sides."""
    found = []
    for name in await differing(source, target, names, catalogues):
        members = {row[0] for row in await source.rows(_OF_EXTENSIONS, name)}
        then, now = (
            await _labelled_then(target, names, [name]),
            await _labelled_now(source, names, [name], shared=False),
        )
        there = {label for _, label in (await _labelled_now(target, names, [name], shared=False)).values()}
        again = {label for _, label in now.values()}
        found += [
            change
            for key, change in _compare(then, now).items()
            if (change.label in there - again if change.what == "dropped" else key[1] not in members)
        ]
    return sorted(found)


async def accept(source: Session, target: Session, names: ObjectNames, catalogues: Collection[str]) -> list[str]:
    """From now on these catalogues are expected to be as they are on the source; the caller has found both sides to be
    alike. Returns the names of those that were not so before."""
    accepted = sorted(await differing(source, target, names, catalogues))
    for name in accepted:
        await _expect(target, names, name, await _labelled_now(source, names, [name], shared=False))
    return accepted


async def _expect(target: Session, names: ObjectNames, name: str, now: Labelled) -> None:
    table, sums = (sql.Identifier(names.schema, table) for table in ("catalogue", "catalogue_sums"))
    for kept in (table, sums):
        await target.run(sql.SQL("DELETE FROM {} WHERE catalogue = %s").format(kept), name)
    rows = [(key, digest, label) for (_, key), (digest, label) in now.items()]
    if rows:
        await target.run(
            sql.SQL(
                "INSERT INTO {} (catalogue, key, digest, label)"
                " SELECT %s, r.* FROM unnest(%s::text[], %s::bigint[], %s::text[]) r"
            ).format(table),
            name,
            *(list(column) for column in zip(*rows, strict=True)),
        )
    await target.run(
        sql.SQL(
            "INSERT INTO {} SELECT catalogue, count(*), sum(digest) FROM {} WHERE catalogue = %s GROUP BY catalogue"
        ).format(sums, table),
        name,
    )


async def _sums_now(source: Session, names: ObjectNames, *, shared: bool) -> Sums:
    async def statement() -> sql.Composed:
        digests = await _digests(source, names, shared=shared, labelled=False)
        return sql.SQL("SELECT catalogue, count(*), sum(digest) FROM ({}) AS digests GROUP BY catalogue").format(
            digests
        )

    rows = await source.rows_prepared(f"{names.base}_sums_{shared}".lower(), statement)
    return {catalogue: (count, int(total)) for catalogue, count, total in rows}


async def _sums_then(target: Session, names: ObjectNames) -> Sums:
    table = sql.Identifier(names.schema, "catalogue_sums")
    rows = await target.rows(sql.SQL("SELECT catalogue, rows, digest FROM {}").format(table))
    return {catalogue: (count, int(total)) for catalogue, count, total in rows}


async def _labelled_then(target: Session, names: ObjectNames, catalogues: Sequence[str]) -> Labelled:
    rows = await target.rows(
        sql.SQL("SELECT catalogue, key, digest, label FROM {} WHERE catalogue = ANY(%s)").format(
            sql.Identifier(names.schema, "catalogue")
        ),
        list(catalogues),
    )
    return {(catalogue, key): (digest, label) for catalogue, key, digest, label in rows}


async def _labelled_now(source: Session, names: ObjectNames, catalogues: Sequence[str], *, shared: bool) -> Labelled:
    digests = await _digests(source, names, shared=shared, labelled=True, only=catalogues)
    rows = await source.rows(sql.SQL("SELECT catalogue, key, digest, label FROM ({}) AS digests").format(digests))
    return {(catalogue, key): (digest, label) for catalogue, key, digest, label in rows}


async def _digests(
    connection: Session,
    names: ObjectNames,
    *,
    shared: bool,
    labelled: bool,
    only: Sequence[str] | None = None,
) -> sql.Composed:
    """A query of one row for each row of each catalogue: catalogue, key, digest and, if asked for, label.

    search_path is empty in our sessions, so names inside the rows are always spelt in full.
    """
    catalogues = [*DATABASE_CATALOGUES, *(SHARED_CATALOGUES if shared else ())]
    if only is not None:
        catalogues = [catalogue for catalogue in catalogues if catalogue.name in only]
    columns: dict[str, list[str]] = {}
    for table, column in await connection.rows(_COLUMNS, [catalogue.name for catalogue in catalogues]):
        columns.setdefault(table, []).append(column)
    selects = [
        _select(catalogue, [c for c in columns[catalogue.name] if c not in catalogue.noise], labelled=labelled)
        for catalogue in catalogues
        if catalogue.name in columns
    ]
    return sql.SQL(
        "WITH foreign_namespaces AS MATERIALIZED ("
        " SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_(toast|temp)' OR nspname = {schema}),"
        " given_identities AS MATERIALIZED (SELECT relation, was FROM {identities}),"
        " relations AS MATERIALIZED ("
        " SELECT oid, relkind FROM pg_class WHERE oid >= 16384 AND relpersistence <> 't'"
        " AND relnamespace NOT IN (SELECT oid FROM foreign_namespaces)) {selects}"
    ).format(
        schema=sql.Literal(names.schema),
        identities=sql.Identifier(names.schema, "identities"),
        selects=sql.SQL(" UNION ALL ").join(selects),
    )


def _select(catalogue: Catalogue, columns: list[str], *, labelled: bool) -> sql.Composed:
    fields = sql.SQL(", ").join(_field(catalogue, column) for column in columns)
    parts = [
        sql.SQL("{} AS catalogue").format(sql.Literal(catalogue.name)),
        sql.SQL("{} AS key").format(sql.SQL(catalogue.key)),
        sql.SQL("hashtextextended(ROW({})::text, 0) AS digest").format(fields),
    ]
    if labelled:
        parts.append(sql.SQL("{} AS label").format(sql.SQL(catalogue.label)))
    return sql.SQL("SELECT {} FROM pg_catalog.{} x WHERE {}").format(
        sql.SQL(", ").join(parts), sql.Identifier(catalogue.name), sql.SQL(catalogue.where)
    )


def _field(catalogue: Catalogue, column: str) -> sql.Composable:
    instead = catalogue.instead.get(column)
    return sql.Identifier("x", column) if instead is None else sql.SQL(instead)
