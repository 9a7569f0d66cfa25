"""Changing a CHECK of a table that others refer to.

SQLite changes a constraint by copying the table and dropping the old one, and a row that is dropped takes with it what
refers to it. So those rows are put aside meanwhile.
"""

from alembic import op


def change_check(table: str, column: str, rule: str, *, referring: str) -> None:
    """``rule``: the whole of the new one, in SQL. ``referring``: the table whose rows refer to this one's."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    if is_sqlite:
        op.execute(f"CREATE TEMPORARY TABLE kept_rows AS SELECT * FROM {referring}")  # noqa: S608 (names of ours)
    with op.batch_alter_table(table) as batch:
        batch.drop_constraint(op.f(f"ck_{table}_{column}"), type_="check")
        batch.create_check_constraint(op.f(f"ck_{table}_{column}"), rule)
    if is_sqlite:
        op.execute(f"INSERT INTO {referring} SELECT * FROM kept_rows")  # noqa: S608 (likewise)
        op.execute("DROP TABLE kept_rows")
