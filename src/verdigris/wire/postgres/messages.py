"""The messages that the router itself writes or reads, named as in the manual's "Message Formats"."""

import struct
from collections.abc import Mapping, Sequence
from struct import Struct as Packing

from msgspec import Struct

from verdigris.wire.postgres.errors import LocalProtocolError, RemoteProtocolError

_INT16 = Packing("!H")
_INT32 = Packing("!I")
_LENGTH = Packing("!i")
_FIELD = Packing("!IhIhih")

NULL_LENGTH = -1


def message(code: bytes, body: bytes = b"") -> bytes:
    return code + _INT32.pack(len(body) + 4) + body


def _string(text: bytes) -> bytes:
    if b"\0" in text:
        raise LocalProtocolError("a protocol string cannot hold a zero byte")
    return text + b"\0"


# ------------------------------------------------------------------------------------------------------------- written

SYNC = message(b"S")
TERMINATE = message(b"X")
FLUSH = message(b"H")


def parse(name: bytes, query: bytes, parameter_types: Sequence[int] = ()) -> bytes:
    types = b"".join(_INT32.pack(oid) for oid in parameter_types)
    return message(b"P", _string(name) + _string(query) + _INT16.pack(len(parameter_types)) + types)


def bind(statement: bytes, values: Sequence[bytes | None] = ()) -> bytes:
    """To the unnamed portal; parameters and results in text format."""
    parts = [b"\0", _string(statement), b"\0\0", _INT16.pack(len(values))]
    for value in values:
        parts.append(_LENGTH.pack(NULL_LENGTH if value is None else len(value)))
        parts.append(value or b"")
    parts.append(b"\0\0")
    return message(b"B", b"".join(parts))


EXECUTE = message(b"E", b"\0\0\0\0\0")  # the unnamed portal, all rows


def describe_statement(name: bytes) -> bytes:
    return message(b"D", b"S" + _string(name))


def describe_portal(name: bytes) -> bytes:
    return message(b"D", b"P" + _string(name))


def close_statement(name: bytes) -> bytes:
    return message(b"C", b"S" + _string(name))


def password(payload: bytes) -> bytes:
    """PasswordMessage and SASLResponse differ only in what they carry."""
    return message(b"p", payload)


CLEARTEXT_PASSWORD = message(b"R", _INT32.pack(3))  # AuthenticationCleartextPassword


def sasl_initial_response(mechanism: bytes, payload: bytes) -> bytes:
    return message(b"p", _string(mechanism) + _LENGTH.pack(len(payload)) + payload)


def parameter_status(name: bytes, value: bytes) -> bytes:
    return message(b"S", _string(name) + _string(value))


def error_response(severity: str, sqlstate: str, text: str, *, detail: str = "", hint: str = "") -> bytes:
    """What a server would send: ``severity`` twice, because clients read the one that is never translated."""
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": text, "D": detail, "H": hint}
    return message(
        b"E", b"".join(key.encode() + _string(value.encode()) for key, value in fields.items() if value) + b"\0"
    )


# ---------------------------------------------------------------------------------------------------------------- read


class BackendKey(Struct, frozen=True):
    """``BackendKeyData``: the secret has 4 bytes in protocol 3.0 and up to 256 in 3.2."""

    pid: int
    secret: bytes


class ServerError(Struct, frozen=True):
    """An ``ErrorResponse``."""

    severity: str
    sqlstate: str
    text: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.severity} {self.sqlstate}: {self.text}"

    @property
    def discreet(self) -> str:
        """For a log: what is wrong with data (classes 22 and 23) is told by quoting it."""
        return f"{self.severity} {self.sqlstate}" if self.sqlstate[:2] in ("22", "23") else str(self)


def read_backend_key(body: bytes) -> BackendKey:
    if not 8 <= len(body) <= 4 + 256:
        raise RemoteProtocolError(f"BackendKeyData of {len(body)} bytes")
    return BackendKey(_INT32.unpack_from(body)[0], body[4:])


def read_parameter_status(body: bytes) -> tuple[bytes, bytes]:
    name, _, rest = body.partition(b"\0")
    value, end, _ = rest.partition(b"\0")
    if not end:
        raise RemoteProtocolError("ParameterStatus without its terminators")
    return name, value


def read_error(body: bytes) -> ServerError:
    fields: Mapping[bytes, str] = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    severity = fields.get(b"V") or fields.get(b"S", "")
    return ServerError(severity, fields.get(b"C", ""), fields.get(b"M", ""), fields.get(b"D", ""))


def takes_nobody(data: bytes) -> bool:
    """Whether a server's first words are that it is starting up, or shutting down (``cannot_connect_now``)."""
    return data[:1] == b"E" and read_error(data[5:]).sqlstate == "57P03"


class Field(Struct, frozen=True):
    """Of a ``RowDescription``: what does not depend on where the value comes from."""

    name: bytes
    type_oid: int
    modifier: int


def read_row_description(body: bytes) -> list[Field]:
    try:
        (count,) = _INT16.unpack_from(body)
        pos = 2
        fields: list[Field] = []
        for _ in range(count):
            end = body.index(b"\0", pos)
            _table, _column, type_oid, _size, modifier, _format = _FIELD.unpack_from(body, end + 1)
            fields.append(Field(body[pos:end], type_oid, modifier))
            pos = end + 1 + _FIELD.size
    except (struct.error, ValueError):
        raise RemoteProtocolError("RowDescription cut short") from None
    return fields


def read_data_row(body: bytes) -> list[bytes | None]:
    try:
        (columns,) = _INT16.unpack_from(body)
        pos = 2
        values: list[bytes | None] = []
        for _ in range(columns):
            (length,) = _LENGTH.unpack_from(body, pos)
            pos += 4
            values.append(None if length < 0 else body[pos : pos + length])
            pos += max(length, 0)
    except struct.error:
        raise RemoteProtocolError("DataRow cut short") from None
    if pos != len(body):
        raise RemoteProtocolError("DataRow whose lengths do not add up")
    return values
