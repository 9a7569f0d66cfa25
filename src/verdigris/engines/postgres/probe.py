"""Asking a server at its door: would it let an ordinary user try to log in?

``pg_hba_file_rules`` shows what the file says, not what is in effect; the answer to a startup packet does.
"""

import asyncio
import contextlib
import struct
from enum import Enum, auto

# No such role exists and none is needed: pg_hba.conf is consulted before the role is looked up.
_STRANGER = "verdigris_stranger"
_PROTOCOL_3_0 = 196608
_INVALID_AUTHORIZATION = b"C28000\0"
_MESSAGE_MAX_BYTES = 10_000


class Admission(Enum):
    ADMITTED = auto()  # asked for a password
    REFUSED = auto()  # no entry in pg_hba.conf
    UNKNOWN = auto()  # starting up, too many clients, not there


async def admission(socket_path: str) -> Admission:
    """One round trip. Nothing is left behind but a line in the server's log."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket_path)
    except OSError:
        return Admission.UNKNOWN
    try:
        parameters = b"".join(part.encode() + b"\0" for part in ("user", _STRANGER, "database", "postgres")) + b"\0"
        writer.write(struct.pack("!ii", len(parameters) + 8, _PROTOCOL_3_0) + parameters)
        header = await reader.readexactly(5)
        kind, length = header[:1], int.from_bytes(header[1:])
        if kind == b"R":
            return Admission.ADMITTED
        if kind != b"E" or not 4 <= length <= _MESSAGE_MAX_BYTES:
            return Admission.UNKNOWN
        refused = _INVALID_AUTHORIZATION in await reader.readexactly(length - 4)
    except (OSError, asyncio.IncompleteReadError):
        return Admission.UNKNOWN
    else:
        return Admission.REFUSED if refused else Admission.UNKNOWN
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
