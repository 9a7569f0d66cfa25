"""Column types that behave alike on SQLite and PostgreSQL."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql


class Moment(sa.types.TypeDecorator[datetime]):
    """An aware moment: ``timestamptz`` on PostgreSQL, on SQLite text of fixed width in UTC, so that text order is
    time order (``2026-01-02T03:04:05.000006Z``)."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a moment needs its time zone: {value!r}")
        value = value.astimezone(UTC)
        if dialect.name == "postgresql":
            return value
        # Not strftime: its %Y has no leading zeros, and callers may ask for events of the year 999.
        return value.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002 (base class)
        if value is None:
            return None
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return moment.astimezone(UTC)


class Json(sa.types.TypeDecorator[Any]):
    """What nobody queries: encoded by msgspec, decoded into ``python_type`` (``jsonb`` on PostgreSQL)."""

    impl = sa.JSON
    cache_ok = True

    def __init__(self, decodes_to: Any) -> None:
        super().__init__(none_as_null=True)
        self.decodes_to = decodes_to

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.JSONB(none_as_null=True))
        return dialect.type_descriptor(sa.JSON(none_as_null=True))

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002 (base class)
        return msgspec.to_builtins(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002 (base class)
        return None if value is None else msgspec.convert(value, self.decodes_to)


# Counts up by itself on both: SQLite does so only for a primary key declared INTEGER.
RowNumber = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def one_of(column: str, values: type[StrEnum] | tuple[str, ...]) -> str:
    """SQL for a CHECK that ``column`` holds one of ``values``. Only for constants of this package."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"
