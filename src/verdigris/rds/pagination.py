"""``MaxRecords`` and ``Marker``.

A marker says after which record to go on, not how many were shown: records that come or go between two pages shift
nothing. It is opaque to callers, and good only for the operation that gave it.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
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
    operation: str, params: Mapping[str, Any], records: Sequence[_RecordT], key: Callable[[_RecordT], Key]
) -> tuple[list[_RecordT], str | None]:
    """One page of ``records``, which are in the order of their distinct ``key``, and the marker of the next page."""
    size = _page_size(params)
    keyed = [(key(record), record) for record in records]
    if params.get("Marker"):
        keyed = _after(keyed, _decode(operation, params["Marker"]))
    page = keyed[:size]
    more = len(keyed) > size
    return [record for _, record in page], _encode(operation, page[-1][0]) if more else None


def _after(keyed: list[tuple[Key, _RecordT]], last: Key) -> list[tuple[Key, _RecordT]]:
    try:
        return [(key, record) for key, record in keyed if key > last]
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
