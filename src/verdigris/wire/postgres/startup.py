"""The packets that open a connection: they have no type byte, and come from anyone who can reach the port."""

from enum import Enum, auto
from struct import Struct as Packing

from msgspec import Struct

from verdigris.wire.postgres.errors import RemoteProtocolError
from verdigris.wire.postgres.messages import BackendKey

_INT32 = Packing("!I")
_HEAD = Packing("!II")

# MAX_STARTUP_PACKET_LENGTH of the server.
MAX_STARTUP_BYTES = 10_000
# Length and code: what has to be seen to know which packet this is.
PREAMBLE_BYTES = 8

PROTOCOL_3_0 = 3 << 16
PROTOCOL_3_2 = 3 << 16 | 2

_CANCEL = 1234 << 16 | 5678
_SSL = 1234 << 16 | 5679
_GSSENC = 1234 << 16 | 5680

SSL_REQUEST = _HEAD.pack(8, _SSL)
GSSENC_REQUEST = _HEAD.pack(8, _GSSENC)

TLS_HANDSHAKE = 0x16  # the first byte of a TLS record of a client that did not ask first (sslnegotiation=direct)
ALPN = "postgresql"


class Opening(Enum):
    """How a connection begins, told from its first bytes."""

    TLS = auto()
    SSL_REQUEST = auto()
    GSSENC_REQUEST = auto()
    PACKET = auto()  # a StartupMessage or a CancelRequest


class CancelRequest(Struct, frozen=True):
    key: BackendKey


class StartupMessage(Struct, frozen=True):
    """``parameters`` as the client wrote them: bytes in an encoding that only the database knows."""

    version: int
    parameters: dict[bytes, bytes]

    @property
    def user(self) -> bytes:
        return self.parameters.get(b"user", b"")

    @property
    def database(self) -> bytes:
        return self.parameters.get(b"database") or self.user

    @property
    def asks_for_replication(self) -> bool:
        """Anything but what the server reads as false, ``database`` included."""
        value = self.parameters.get(b"replication", b"false").lower()
        return value not in _FALSE


# parse_bool() of the server takes unique prefixes.
_FALSE = frozenset({b"0", b"of", b"off", b"n", b"no", b"f", b"fa", b"fal", b"fals", b"false"})


def recognise(first_bytes: bytes) -> Opening | None:
    """Which opening this is; None: more bytes are needed (at most ``PREAMBLE_BYTES``)."""
    if first_bytes[:1] == bytes([TLS_HANDSHAKE]):
        return Opening.TLS
    if len(first_bytes) < PREAMBLE_BYTES:
        return None
    head = first_bytes[:PREAMBLE_BYTES]
    if head == SSL_REQUEST:
        return Opening.SSL_REQUEST
    if head == GSSENC_REQUEST:
        return Opening.GSSENC_REQUEST
    return Opening.PACKET


def packet_size(buffer: bytes) -> int | None:
    """Size of the packet that ``buffer`` begins with, None if that cannot be told yet.

    Raises ``RemoteProtocolError`` for a length that no start-up packet has.
    """
    if len(buffer) < 4:
        return None
    (length,) = _INT32.unpack_from(buffer)
    if not PREAMBLE_BYTES <= length <= MAX_STARTUP_BYTES:
        raise RemoteProtocolError(f"start-up packet of {length} bytes")
    return int(length)


def read_packet(packet: bytes) -> StartupMessage | CancelRequest:
    """Raises ``RemoteProtocolError`` for anything but a well-formed StartupMessage 3.x or CancelRequest."""
    _, code = _HEAD.unpack_from(packet)
    if code == _CANCEL:
        if not 16 <= len(packet) <= 12 + 256:
            raise RemoteProtocolError(f"CancelRequest of {len(packet)} bytes")
        return CancelRequest(BackendKey(_INT32.unpack_from(packet, 8)[0], packet[12:]))
    if code >> 16 != 3:
        raise RemoteProtocolError(f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}")
    return StartupMessage(code, _read_parameters(packet[8:]))


def _read_parameters(body: bytes) -> dict[bytes, bytes]:
    parts = body.split(b"\0")
    # "name\0value\0" any number of times, then one more zero: split leaves two empty strings at the end.
    if len(parts) < 2 or len(parts) % 2 or parts[-1] or parts[-2]:
        raise RemoteProtocolError("invalid startup packet layout: expected terminator as last byte")
    parameters: dict[bytes, bytes] = {}
    for name, value in zip(parts[:-2:2], parts[1:-2:2], strict=True):
        if not name:
            raise RemoteProtocolError("start-up parameter without a name")
        parameters[name] = value
    if not parameters.get(b"user"):
        raise RemoteProtocolError("no PostgreSQL user name specified in startup packet")
    return parameters


def startup_message(version: int, parameters: dict[bytes, bytes]) -> bytes:
    body = b"".join(name + b"\0" + value + b"\0" for name, value in parameters.items()) + b"\0"
    return _HEAD.pack(len(body) + 8, version) + body


def cancel_request(key: BackendKey) -> bytes:
    return _HEAD.pack(12 + len(key.secret), _CANCEL) + _INT32.pack(key.pid) + key.secret
