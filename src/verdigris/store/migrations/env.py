"""Run by Alembic for each command. The connection and its transaction belong to ``store.migrate``."""

from alembic import context

from verdigris.store.schema import metadata

# Batch mode: SQLite cannot alter a constraint in place, Alembic then rewrites the table.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
)
context.run_migrations()
