"""What several revisions do: let workflows be of other kinds."""

from alembic import op


def change_workflow_kinds(rule: str) -> None:
    """``rule``: the whole of the new one, in SQL.

    SQLite changes a constraint by copying the table and dropping the old one, and a row that is dropped takes with it
    what refers to it. So the journal is put aside meanwhile.
    """
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    if is_sqlite:
        op.execute("CREATE TEMPORARY TABLE kept_journal AS SELECT * FROM journal")
    with op.batch_alter_table("workflows") as table:
        table.drop_constraint(op.f("ck_workflows_kind"), type_="check")
        table.create_check_constraint(op.f("ck_workflows_kind"), rule)
    if is_sqlite:
        op.execute("INSERT INTO journal SELECT * FROM kept_journal")
        op.execute("DROP TABLE kept_journal")
