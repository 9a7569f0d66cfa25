"""Rows to records and back. A table's columns are its record's fields, so there is little to say per table."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from verdigris.domain.model import BlueGreenDeployment, Member

_RecordT = TypeVar("_RecordT", bound=msgspec.Struct)

# Written by the database or by another table's rows, so not a field of the record.
_GENERATED = frozenset({"number", "deployment_identifier", "position"})


def to_row(record: msgspec.Struct) -> dict[str, Any]:
    """Field by field: the column types encode what is nested."""
    return msgspec.structs.asdict(record)


def from_row(row: sa.RowMapping | Mapping[str, Any], record_type: type[_RecordT]) -> _RecordT:
    """Statuses come back as text and are checked against their enumerations here."""
    fields = {str(name): value for name, value in row.items() if name not in _GENERATED}
    return msgspec.convert(fields, record_type)


def deployment_row(deployment: BlueGreenDeployment) -> dict[str, Any]:
    row = to_row(deployment)
    del row["members"]
    return row


def member_rows(deployment: BlueGreenDeployment) -> list[dict[str, Any]]:
    return [
        {"deployment_identifier": deployment.identifier, "position": position, **to_row(member)}
        for position, member in enumerate(deployment.members)
    ]


def deployment_from_rows(row: sa.RowMapping, members: Sequence[sa.RowMapping]) -> BlueGreenDeployment:
    return from_row({**row, "members": tuple(from_row(member, Member) for member in members)}, BlueGreenDeployment)
