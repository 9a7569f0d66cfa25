"""What green remembers of its making and of what was carried since: tables in the deployment's schema there."""

from psycopg import sql

from verdigris.engines.postgres.sessions import Session


async def remember(target: Session, table: sql.Identifier, query: sql.Composable) -> None:
    """A table of the query's rows. They can be changed although it has no key, whatever the databases publish: with a
    copy comes a source's publication ``FOR ALL TABLES``, which would have updates and deletions refused."""
    await target.run(sql.SQL("CREATE TABLE {} AS {}").format(table, query))
    await target.run(sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(table))
