"""What several revisions do: let workflows be of other kinds."""

from verdigris.store.migrations.checks import change_check


def change_workflow_kinds(rule: str) -> None:
    """``rule``: the whole of the new one, in SQL."""
    change_check("workflows", "kind", rule, referring="journal")
