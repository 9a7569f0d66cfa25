"""Verifying the tokens that log in to a database (``generate_db_auth_token``): a URL without its scheme, presigned with
Signature Version 4 for the action ``connect`` of the service ``rds-db``, which says to which endpoint and as whom.

What verifies holds no secrets: a signing key is good for this service on one day, and leads back to no secret.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from verdigris.aws import sigv4
from verdigris.aws.errors import Fault

SERVICE = "rds-db"
ACTION = f"{SERVICE}:connect"
MAX_BYTES = 8 * 1024
MAX_LIFETIME_S = 900

_HEAD = re.compile(rb"([^/?#@\s]{1,300})/?\?")
_LIFETIME = re.compile(r"[1-9][0-9]{0,2}")
_TIMESTAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_EMPTY_HASH = hashlib.sha256(b"").hexdigest()
# So that an unknown key id costs the same work as a known one.
_DUMMY_KEY = bytes(32)

_SIGNATURE_PARAMETER = "X-Amz-Signature"
_REQUIRED = frozenset(
    {
        "Action",
        "DBUser",
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-SignedHeaders",
        _SIGNATURE_PARAMETER,
    }
)
# Some SDKs say that nothing is in the body.
_OPTIONAL = frozenset({"X-Amz-Content-Sha256"})

# Given the id of an access key and a day (20260110): its signing key, None if there is no such key.
SigningKeys = Callable[[str, str], bytes | None]


class TokenRefused(Exception):
    """Says why for a log: nothing of the token, which whoever reads the log could use."""


class Login(Struct, frozen=True, kw_only=True):
    """What a token has to be for. ``endpoint``: ``ADDRESS:PORT`` as clients are told it."""

    endpoint: str
    user: bytes
    region: str


def verify(token: bytes, login: Login, signing_keys: SigningKeys, *, now: datetime) -> str:
    """The access key id that signed ``token``; whether it may connect is still to be asked. ``now`` is aware.

    Raises :class:`TokenRefused`.
    """
    host, query = _split(token)
    parameters = _parameters(query)
    if host.lower() != login.endpoint.lower().encode():
        raise TokenRefused("the token is for another endpoint")
    _check_request(parameters, login)
    access_key_id, date = _check_credential(parameters["X-Amz-Credential"], login.region)
    _check_time(parameters, date, now)
    key = signing_keys(access_key_id, date)
    scope = f"{date}/{login.region}/{SERVICE}/{sigv4.TERMINATOR}"
    canonical = _canonical_request(host.lower(), query)
    expected = sigv4.signature(key or _DUMMY_KEY, _text(parameters["X-Amz-Date"]), scope, canonical)
    given = _text(parameters[_SIGNATURE_PARAMETER])
    matches = hmac.compare_digest(expected, given)
    if key is None:
        raise TokenRefused("the access key is not known")
    if not matches:
        raise TokenRefused("the signature does not match")
    return access_key_id


def _split(token: bytes) -> tuple[bytes, bytes]:
    if len(token) > MAX_BYTES:
        raise TokenRefused(f"longer than {MAX_BYTES} bytes")
    head = _HEAD.match(token)
    if head is None or not token.isascii():
        raise TokenRefused("no token, but a password perhaps")
    return head[1], token[head.end() :]


def _parameters(query: bytes) -> Mapping[str, bytes]:
    parameters: dict[str, bytes] = {}
    for field in query.split(b"&"):
        raw_name, _, value = field.partition(b"=")
        name = _text(raw_name)
        if name in parameters:
            raise TokenRefused("a parameter is given twice")
        if name not in _REQUIRED and name not in _OPTIONAL:
            # A session token above all: there are no temporary credentials here.
            raise TokenRefused("there is a parameter that no token has, or a session token")
        parameters[name] = unquote_to_bytes(value)
    if not parameters.keys() >= _REQUIRED:
        raise TokenRefused("a parameter is missing")
    return parameters


def _check_request(parameters: Mapping[str, bytes], login: Login) -> None:
    if parameters["Action"] != b"connect":
        raise TokenRefused("the action is not connect")
    if parameters["DBUser"] != login.user:
        raise TokenRefused("the token is for another user")
    if parameters["X-Amz-Algorithm"] != sigv4.ALGORITHM.encode():
        raise TokenRefused(f"the algorithm is not {sigv4.ALGORITHM}")
    if parameters["X-Amz-SignedHeaders"] != b"host":
        raise TokenRefused("other headers are signed than the host")
    if parameters.get("X-Amz-Content-Sha256", _EMPTY_HASH.encode()) != _EMPTY_HASH.encode():
        raise TokenRefused("the token is for a request with a body")
    if not sigv4.SIGNATURE.fullmatch(_text(parameters[_SIGNATURE_PARAMETER])):
        raise TokenRefused("the signature is not 64 lower-case hexadecimal digits")


def _check_credential(credential: bytes, region: str) -> tuple[str, str]:
    """The access key id and the day."""
    parts = _text(credential).split("/")
    if len(parts) != 5 or not parts[0] or not parts[1]:
        raise TokenRefused("the credential is not KEYID/DATE/REGION/SERVICE/aws4_request")
    if parts[2:] != [region, SERVICE, sigv4.TERMINATOR]:
        raise TokenRefused(f"the credential is not for {region}/{SERVICE}")
    return parts[0], parts[1]


def _check_time(parameters: Mapping[str, bytes], date: str, now: datetime) -> None:
    timestamp, lifetime = _text(parameters["X-Amz-Date"]), _text(parameters["X-Amz-Expires"])
    if not _TIMESTAMP.fullmatch(timestamp) or timestamp[:8] != date:
        raise TokenRefused("the date is none, or not that of the credential")
    if not _LIFETIME.fullmatch(lifetime) or int(lifetime) > MAX_LIFETIME_S:
        raise TokenRefused(f"the lifetime is not 1 to {MAX_LIFETIME_S} seconds")
    try:
        signed_at = datetime.strptime(timestamp, sigv4.TIMESTAMP_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise TokenRefused("the date is no moment of the calendar") from None
    if now - signed_at > timedelta(seconds=int(lifetime)):
        raise TokenRefused("the token has expired")
    if signed_at - now > sigv4.MAX_CLOCK_SKEW:
        raise TokenRefused("the token is not valid yet")


def _canonical_request(host: bytes, query: bytes) -> bytes:
    signed = b"&".join(
        field for field in query.split(b"&") if field.partition(b"=")[0] != _SIGNATURE_PARAMETER.encode()
    )
    try:
        canonical_query = sigv4.canonical_query(signed)
    except Fault:
        raise TokenRefused("a percent sign does not begin an escape") from None
    return b"\n".join([b"GET", b"/", canonical_query, b"host:" + host, b"", b"host", _EMPTY_HASH.encode()])


def _text(raw: bytes) -> str:
    """Compared with ASCII alone: whatever else it is, it shall not be equal, and no error."""
    return raw.decode("ascii", "backslashreplace")
