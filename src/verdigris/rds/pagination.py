"""``MaxRecords`` and ``Marker``.

A marker says after which record to go on, not how many were shown: records that come or go between two pages shift
nothing. It is opaque to callers, and good only for the operation that gave it.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from verdigris.aws.errors import Fault, invalid_parameter_value

MIN_RECORDS = 20
MAX_RECORDS = 100

Key = list[str | int]
_RecordT = TypeVar("_RecordT")


class _Marker(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    operation: str
    after: Key


def paginate(
    operation: str, params: Mapping[str, Any], records: Iterable[_RecordT], key: Callable[[_RecordT], Key]
) -> tuple[list[_RecordT], str | None]:
    """One page of ``records``, which are in the order of their distinct ``key``, and the marker of the next page. They
    are not read any further than to tell whether there is one."""
    size = _page_size(params)
    if params.get("Marker"):
        records = _after(_decode(operation, params["Marker"]), records, key)
    found = [record for _, record in zip(range(size + 1), records, strict=False)]
    page = found[:size]
    return page, _encode(operation, key(page[-1])) if len(found) > size else None


def marked_name(operation: str, params: Mapping[str, Any]) -> str:
    """Of records whose key is their name: the one after which the page begins; empty for the first page."""
    if not params.get("Marker"):
        return ""
    match _decode(operation, params["Marker"]):
        case [str() as name]:
            return name
    raise _invalid_marker()


def _after(last: Key, records: Iterable[_RecordT], key: Callable[[_RecordT], Key]) -> Iterator[_RecordT]:
    return filter(lambda record: _is_after(key(record), last), records)


def _is_after(own: Key, last: Key) -> bool:
    try:
        return own > last
    except TypeError:  # a forged marker: numbers where there are texts
        raise _invalid_marker() from None


def _page_size(params: Mapping[str, Any]) -> int:
    size: int = params.get("MaxRecords", MAX_RECORDS)
    if not MIN_RECORDS <= size <= MAX_RECORDS:
        raise invalid_parameter_value(
            f"Invalid value {size} for MaxRecords. Must be between {MIN_RECORDS} and {MAX_RECORDS}"
        )
    return size


def _encode(operation: str, after: Key) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(_Marker(operation, after))).decode("ascii")


def _decode(operation: str, text: str) -> Key:
    try:
        raw = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        marker = msgspec.json.decode(raw, type=_Marker)
    except (UnicodeEncodeError, binascii.Error, msgspec.MsgspecError, UnicodeDecodeError):
        raise _invalid_marker() from None
    if marker.operation != operation:
        raise _invalid_marker()
    return marker.after


def _invalid_marker() -> Fault:
    return invalid_parameter_value("The value of Marker is not one that a call of this operation has returned")
