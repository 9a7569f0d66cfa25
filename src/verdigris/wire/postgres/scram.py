"""SCRAM-SHA-256 as PostgreSQL speaks it (RFC 5802, RFC 7677): watching a login, and repeating it elsewhere.

A client proves its password with ``ClientProof = ClientKey XOR HMAC(StoredKey, AuthMessage)``. Who holds the role's
stored verifier (it contains StoredKey) and saw the proof pass by can take the XOR away again and has ClientKey: enough
to log in as that user on a server with the same verifier, while the password itself is never seen. The verifier alone
is not enough, which is why only users who have logged in can be carried.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
from typing import Self

from msgspec import Struct

from verdigris.wire.postgres.errors import RemoteProtocolError

MECHANISM = b"SCRAM-SHA-256"
_KEY_BYTES = 32
_NONCE_BYTES = 18
# The server's own bounds on a verifier are wide; an honest one is far below this.
_MAX_FIELD_BYTES = 4096


class Verifier(Struct, frozen=True):
    """``SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`` of ``pg_authid.rolpassword``."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ``ValueError`` if ``text`` is not a SCRAM-SHA-256 verifier."""
        match = re.fullmatch(r"SCRAM-SHA-256\$([0-9]{1,9}):([^$:]+)\$([^$:]+):([^$:]+)", text, re.ASCII)
        if match is None:
            raise ValueError("not a SCRAM-SHA-256 verifier")
        salt, stored_key, server_key = (base64.b64decode(part, validate=True) for part in match.groups()[1:])
        if len(stored_key) != _KEY_BYTES or len(server_key) != _KEY_BYTES:
            raise ValueError("SCRAM-SHA-256 keys have 32 bytes")
        return cls(int(match[1]), salt, stored_key, server_key)


class Transcript(Struct, frozen=True):
    """What has to be remembered of a login that passed through: no secret without the verifier."""

    auth_message: bytes
    proof: bytes

    def client_key(self, stored_key: bytes) -> bytes | None:
        """ClientKey, or None if this login was not proved against ``stored_key`` (the password has changed since)."""
        signature = _hmac(stored_key, self.auth_message)
        client_key = bytes(a ^ b for a, b in zip(self.proof, signature, strict=True))
        return client_key if hmac.compare_digest(hashlib.sha256(client_key).digest(), stored_key) else None


def read_transcript(client_first: bytes, server_first: bytes, client_final: bytes) -> Transcript:
    """From the three messages that carry the proof. Raises ``RemoteProtocolError`` if they do not parse."""
    if max(len(client_first), len(server_first), len(client_final)) > _MAX_FIELD_BYTES:
        raise RemoteProtocolError("SCRAM message of unreasonable size")
    # gs2-header is "n,," or "y,,": two fields, then the bare message.
    bare = client_first.split(b",", 2)
    without_proof, mark, proof_text = client_final.rpartition(b",p=")
    if len(bare) != 3 or not mark:
        raise RemoteProtocolError("malformed SCRAM message")
    proof = _decode(proof_text)
    if len(proof) != _KEY_BYTES:
        raise RemoteProtocolError("SCRAM proof of a wrong length")
    return Transcript(b",".join((bare[2], server_first, without_proof)), proof)


class KeyClient:
    """The client's side of an exchange, run with ClientKey in place of the password.

    ``server_key`` (of the verifier) makes it mutual: a server that does not hold the verifier is not believed.
    """

    __slots__ = ("_auth_message", "_client_key", "_first_bare", "_nonce", "_verifier")

    def __init__(self, client_key: bytes, verifier: Verifier, *, username: str = "", nonce: str | None = None) -> None:
        self._client_key = client_key
        self._verifier = verifier
        self._nonce = (nonce or base64.b64encode(os.urandom(_NONCE_BYTES)).decode()).encode()
        # PostgreSQL takes the user from the StartupMessage and ignores this one.
        self._first_bare = b"n=" + username.encode() + b",r=" + self._nonce
        self._auth_message = b""

    def first(self) -> bytes:
        return b"n,," + self._first_bare

    def final(self, server_first: bytes) -> bytes:
        fields = _fields(server_first)
        nonce = fields.get(b"r", b"")
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise RemoteProtocolError("SCRAM nonce of the server does not continue ours")
        if (_decode(fields.get(b"s", b"")), fields.get(b"i")) != (
            self._verifier.salt,
            str(self._verifier.iterations).encode(),
        ):
            raise RemoteProtocolError("the server holds another verifier for this role")
        without_proof = b"c=biws,r=" + nonce
        self._auth_message = b",".join((self._first_bare, server_first, without_proof))
        signature = _hmac(self._verifier.stored_key, self._auth_message)
        proof = bytes(a ^ b for a, b in zip(self._client_key, signature, strict=True))
        return without_proof + b",p=" + base64.b64encode(proof)

    def check(self, server_final: bytes) -> None:
        """Raises ``RemoteProtocolError`` unless the server has proved that it holds the verifier."""
        signature = _decode(_fields(server_final).get(b"v", b""))
        if not hmac.compare_digest(signature, _hmac(self._verifier.server_key, self._auth_message)):
            raise RemoteProtocolError("the server's SCRAM signature is wrong")


def _fields(text: bytes) -> dict[bytes, bytes]:
    return {part[:1]: part[2:] for part in text.split(b",") if part[1:2] == b"="}


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise RemoteProtocolError("malformed base64 in a SCRAM message") from None


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")
