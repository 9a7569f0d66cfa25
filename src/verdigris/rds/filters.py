"""``Filters``: a record passes if each filter has a value that one of the record's is equal to."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from verdigris.aws.errors import invalid_parameter_value

_RecordT = TypeVar("_RecordT")

# What a record has for a filter, lower case; a caller's values are compared in lower case too.
Values = Callable[[_RecordT], Iterable[str]]


def apply_filters(
    filters: Sequence[Mapping[str, Any]] | None,
    records: Iterable[_RecordT],
    supported: Mapping[str, Values[_RecordT]],
) -> list[_RecordT]:
    """Filter names are case-sensitive, as RDS's are. Raises ``InvalidParameterValue`` for a name not ``supported``."""
    found = list(records)
    for each in filters or ():
        values_of = supported.get(each["Name"])
        if values_of is None:
            raise invalid_parameter_value(f"Unrecognized filter name: {each['Name']}")
        wanted = {value.lower() for value in each["Values"]}
        if not wanted:
            raise invalid_parameter_value(f"The filter {each['Name']} has no values")
        found = [record for record in found if wanted.intersection(values_of(record))]
    return found
