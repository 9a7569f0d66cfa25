"""``Filters``: a record passes if each filter has a value that one of the record's is equal to."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from verdigris.aws.errors import invalid_parameter_value

_RecordT = TypeVar("_RecordT")

# What a record has for a filter, lower case; a caller's values are compared in lower case too.
Values = Callable[[_RecordT], Iterable[str]]


def apply_filters(
    filters: Sequence[Mapping[str, Any]] | None,
    records: Iterable[_RecordT],
    supported: Mapping[str, Values[_RecordT]],
) -> Iterator[_RecordT]:
    """Filter names are case-sensitive, as RDS's are. Raises ``InvalidParameterValue`` for a name not ``supported``.

    That is said at once; ``records`` are not read before those that pass are.
    """
    found = iter(records)
    for each in filters or ():
        values_of = supported.get(each["Name"])
        if values_of is None:
            raise invalid_parameter_value(f"Unrecognized filter name: {each['Name']}")
        wanted = {value.lower() for value in each["Values"]}
        if not wanted:
            raise invalid_parameter_value(f"The filter {each['Name']} has no values")
        found = filter(partial(_passes, values_of, wanted), found)
    return found


def _passes(values_of: Values[_RecordT], wanted: set[str], record: _RecordT) -> bool:
    return not wanted.isdisjoint(values_of(record))
