"""What a server asks of a newcomer, and what the router asks in its place of one who is asked nothing.

A server lets in without a question whom it leaves to the router (members of ``rds_iam``, see decision 37). Its answer
is kept back until a token has come and is good. A client that no token lets in has heard nothing of the server's.
"""

from struct import Struct as Packing

from msgspec import Struct

from verdigris.aws import auth_token
from verdigris.wire.postgres.errors import RemoteProtocolError

_HEADER = Packing("!cI")
_INT32 = Packing("!I")
_AUTHENTICATION, _ERROR, _PASSWORD = b"R", b"E", b"p"
_OK = 0
# Before it asks, a server says at most which version of the protocol it speaks.
_MAX_PRELUDE_BYTES = 64 * 1024
_MAX_PASSWORD_BYTES = auth_token.MAX_BYTES + 1


class Words(Struct, frozen=True):
    """``asked``: the server has asked for something, or refused; else it lets the client in as it is. ``prelude``: how
    many bytes came before that."""

    asked: bool
    prelude: int


def first_words(data: bytes) -> Words | None:
    """None: it takes more to tell. Raises ``RemoteProtocolError``."""
    pos = 0
    while len(data) >= pos + _HEADER.size:
        code, length = _HEADER.unpack_from(data, pos)
        if code == _ERROR:
            return Words(True, pos)
        if code == _AUTHENTICATION:
            if len(data) < pos + _HEADER.size + _INT32.size:
                return None
            return Words(_INT32.unpack_from(data, pos + _HEADER.size)[0] != _OK, pos)
        pos += 1 + length
        if length < _INT32.size or pos > _MAX_PRELUDE_BYTES:
            raise RemoteProtocolError("the server does not begin with what it asks for")
    return None


def read_password(data: bytes) -> tuple[bytes, int] | None:
    """The password that a client sends, and the size of its message; None: it takes more.

    Raises ``RemoteProtocolError``. A password that is too long for a token is not waited for: it is empty then.
    """
    if data[:1] not in (b"", _PASSWORD):
        raise RemoteProtocolError("a password was asked for, and something else came")
    if len(data) < _HEADER.size:
        return None
    _, length = _HEADER.unpack_from(data)
    size = 1 + length
    if size <= _HEADER.size:
        raise RemoteProtocolError("malformed password message")
    if size - _HEADER.size > _MAX_PASSWORD_BYTES:
        return b"", size
    if len(data) < size:
        return None
    if data[size - 1] != 0:
        raise RemoteProtocolError("malformed password message")
    return data[_HEADER.size : size - 1], size
