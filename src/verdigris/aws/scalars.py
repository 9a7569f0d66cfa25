"""Single values of the Query protocol, text on the wire, in both directions."""

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from verdigris.aws.model import Kind, Shape

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,64}(?:\.[0-9]{0,64})?|\.[0-9]{1,64})(?:[eE][+-]?[0-9]{1,4})?")
# Seconds since 1970. Fewer digits would more likely be a year or a day than a moment before 1973.
_EPOCH = re.compile(r"-?[0-9]{9,12}(?:\.[0-9]{1,9})?")
# RDS's examples leave the seconds out ("2009-07-08T18:00Z"); tools leave out the zone, or the time.
_ISO_8601 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?",
    re.ASCII | re.IGNORECASE,
)
_INTEGER_BITS = {Kind.INTEGER: 32, Kind.LONG: 64}
# Spelled as botocore does; Python's own would take "nan", "inf", "infinity" in any case.
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Scalar = str | int | float | bool | bytes | datetime


class BadScalar(ValueError):
    """The text is no value of the shape's type. Says what it should have been: "an integer", "true or false"."""


class NotOfKind(TypeError):
    """A value of ours has not the type of its shape."""


# ------------------------------------------------------------------------------------------------------------- parsing


def parse_scalar(shape: Shape, text: str) -> Scalar:
    """Raises :class:`BadScalar`."""
    return _PARSERS[shape.kind](shape, text)


def _parse_string(_shape: Shape, text: str) -> str:
    return text


def _parse_boolean(_shape: Shape, text: str) -> bool:
    match text.lower():
        case "true":
            return True
        case "false":
            return False
        case _:
            raise BadScalar("true or false")


def _parse_integer(shape: Shape, text: str) -> int:
    bits = _INTEGER_BITS[shape.kind]
    if not _INTEGER.fullmatch(text):
        raise BadScalar("an integer")
    number = int(text)
    if not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise BadScalar(f"an integer of {bits} bits")
    return number


def _parse_float(_shape: Shape, text: str) -> float:
    if text in _NON_FINITE:
        return _NON_FINITE[text]
    if not _DECIMAL.fullmatch(text):
        raise BadScalar("a number")
    return float(text)


def _parse_blob(_shape: Shape, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadScalar("base64") from None


def _parse_timestamp(_shape: Shape, text: str) -> datetime:
    """Any of the three forms that models know, whichever the shape names: AWS takes them all."""
    try:
        if _ISO_8601.fullmatch(text):
            moment = datetime.fromisoformat(text.upper())
        elif _EPOCH.fullmatch(text):
            moment = datetime.fromtimestamp(float(text), UTC)
        else:
            moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise BadScalar("a timestamp such as 2023-01-10T18:42:09Z") from None


_PARSERS: Mapping[Kind, Callable[[Shape, str], Scalar]] = {
    Kind.STRING: _parse_string,
    Kind.CHARACTER: _parse_string,
    Kind.BOOLEAN: _parse_boolean,
    Kind.INTEGER: _parse_integer,
    Kind.LONG: _parse_integer,
    Kind.FLOAT: _parse_float,
    Kind.DOUBLE: _parse_float,
    Kind.BLOB: _parse_blob,
    Kind.TIMESTAMP: _parse_timestamp,
}


# ---------------------------------------------------------------------------------------------------------- formatting


def format_scalar(shape: Shape, value: object) -> str:
    """Not yet escaped. Raises :class:`NotOfKind`: a string is never made of what is not one."""
    match shape.kind, value:
        case Kind.STRING | Kind.CHARACTER, str():
            return str(value)
        case Kind.BOOLEAN, bool():
            return "true" if value else "false"
        case Kind.INTEGER | Kind.LONG, int() if not isinstance(value, bool):
            return str(int(value))
        case Kind.FLOAT | Kind.DOUBLE, int() | float() if not isinstance(value, bool):
            return _format_float(float(value))
        case Kind.BLOB, bytes():
            return base64.b64encode(value).decode("ascii")
        case Kind.TIMESTAMP, datetime() if value.tzinfo is not None:
            return format_timestamp(value, shape.timestamp_format)
    raise NotOfKind(f"{type(value).__name__} given where {shape.name} wants a {shape.kind}")


def _format_float(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)


def format_timestamp(moment: datetime, timestamp_format: str = "iso8601") -> str:
    """``2023-01-10T18:42:09.330Z``, milliseconds cut off rather than rounded, unless the model asks for another form.

    ``moment`` is aware.
    """
    moment = moment.astimezone(UTC)
    match timestamp_format:
        case "unixTimestamp":
            return f"{math.floor(moment.timestamp() * 1000) / 1000:.3f}".removesuffix(".000")
        case "rfc822":
            return format_datetime(moment.replace(microsecond=0), usegmt=True)
        case _:
            return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
