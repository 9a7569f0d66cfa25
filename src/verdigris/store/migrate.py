"""Brings a database to this version's schema, in one transaction with the check of what it is."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from verdigris.store.database import StoreError

_DIRECTORY = Path(__file__).parent / "migrations"

# Any fixed number: two control planes that open one PostgreSQL database at once migrate it one after the other.
_ADVISORY_LOCK = 0x7665726469677269


def migrate(engine: sa.Engine, revision: str = "head") -> None:
    """Raises ``StoreError`` if a later version of Verdigris has already changed the database."""
    config = Config()
    config.set_main_option("script_location", str(_DIRECTORY).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        found = MigrationContext.configure(connection).get_current_revision()
        if found is not None and found not in known:
            raise StoreError(f"the state database has revision {found}, made by a later version of Verdigris: upgrade")
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
