"""Verifying AWS Signature Version 4 in its header form, with the standard library alone.

Independent of botocore's signer on purpose: a verifier that shared its code would share its mistakes.
A captured request can be repeated within the clock skew: AWS's Query services allow that too.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import quote_from_bytes, unquote_to_bytes

from msgspec import Struct

from verdigris.aws.errors import (
    incomplete_signature,
    invalid_client_token_id,
    malformed_query_string,
    missing_authentication_token,
    signature_does_not_match,
)

MAX_CLOCK_SKEW = timedelta(minutes=5)

ALGORITHM = "AWS4-HMAC-SHA256"
TERMINATOR = "aws4_request"
TIMESTAMP_FORMAT = "%Y%m%dT%H%M%SZ"
SIGNATURE = re.compile(r"[0-9a-f]{64}")
_TIMESTAMP = re.compile(rb"[0-9]{8}T[0-9]{6}Z")
_HEADER_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+(?:;[!#$%&'*+.^_`|~0-9a-z-]+)*")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SPACES = re.compile(rb"[ \t]+")
_MAX_AUTHORIZATION_BYTES = 8 * 1024
# So that an unknown key id costs the same work as a known one.
_DUMMY_SECRET = "0" * 40
# What decides who asks for what; each has one meaning only if it is there once.
_SINGLE = (b"host", b"authorization", b"x-amz-date", b"x-amz-content-sha256")


class SignedRequest(Struct, frozen=True, kw_only=True):
    """A request as it came over the wire, nothing decoded. Header names may have any case."""

    method: str
    raw_path: bytes  # without the query
    raw_query: bytes = b""
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes = b""


class _Authorization(Struct, frozen=True):
    access_key_id: str
    date: str
    region: str
    service: str
    signed_headers: tuple[bytes, ...]
    signature: str

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/{TERMINATOR}"


def verify(
    request: SignedRequest,
    credentials: Callable[[str], str | None],
    *,
    now: datetime,
    region: str,
    service: str,
) -> str:
    """The access key id that signed ``request``. ``credentials`` gives the secret of an id, or None. ``now`` is aware.

    Raises :class:`Fault`: ``MissingAuthenticationToken``, ``IncompleteSignature``, ``InvalidClientTokenId`` or
    ``SignatureDoesNotMatch`` (a skewed clock too, as from AWS).
    """
    headers = _collect(request.headers)
    authorization = _parse_authorization(headers)
    timestamp = _timestamp(headers)
    _check_headers(headers, authorization)
    _check_scope(authorization, timestamp, region, service)
    _check_clock(timestamp, now)
    canonical = _canonical_request(request, headers, authorization.signed_headers)
    secret = credentials(authorization.access_key_id)
    expected = _signature(secret or _DUMMY_SECRET, timestamp, authorization, canonical)
    matches = hmac.compare_digest(expected, authorization.signature)
    if not secret:
        raise invalid_client_token_id()
    if not matches:
        raise signature_does_not_match(
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method."
        )
    return authorization.access_key_id


# ------------------------------------------------------------------------------------------------------------- headers


def _collect(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    collected: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        collected.setdefault(name.lower(), []).append(value)
    for name in _SINGLE:
        if len(collected.get(name, ())) > 1:
            raise incomplete_signature(f"The header {name.decode()} is given more than once")
    return collected


def _parse_authorization(headers: dict[bytes, list[bytes]]) -> _Authorization:
    values = headers.get(b"authorization")
    if not values:
        raise missing_authentication_token()
    if len(values[0]) > _MAX_AUTHORIZATION_BYTES or not values[0].isascii():
        raise incomplete_signature("The Authorization header cannot be read")
    algorithm, _, rest = values[0].decode("ascii").strip().partition(" ")
    if algorithm != ALGORITHM:
        raise incomplete_signature(f"The Authorization header must use {ALGORITHM}")
    parameters = _parameters(rest)
    credential = parameters["Credential"].split("/")
    if len(credential) != 5 or not all(credential) or credential[4] != TERMINATOR:
        raise incomplete_signature(f"Credential must be KEYID/DATE/REGION/SERVICE/{TERMINATOR}")
    if not SIGNATURE.fullmatch(parameters["Signature"]):
        raise incomplete_signature("Signature must be 64 lower-case hexadecimal digits")
    access_key_id, date, region, service, _ = credential
    signed_headers = _parse_signed_headers(parameters["SignedHeaders"])
    return _Authorization(access_key_id, date, region, service, signed_headers, parameters["Signature"])


def _parameters(text: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for part in text.split(","):
        name, separator, value = part.strip().partition("=")
        if not separator or name in parameters:
            raise incomplete_signature("The Authorization header is not a list of distinct NAME=VALUE")
        parameters[name] = value
    if parameters.keys() != {"Credential", "SignedHeaders", "Signature"}:
        raise incomplete_signature("The Authorization header must have Credential, SignedHeaders and Signature alone")
    return parameters


def _parse_signed_headers(text: str) -> tuple[bytes, ...]:
    names = text.split(";")
    if not _HEADER_NAMES.fullmatch(text) or names != sorted(set(names)):
        raise incomplete_signature("SignedHeaders must be lower-case names, sorted, each once, with ';' between them")
    return tuple(name.encode("ascii") for name in names)


def _check_headers(headers: dict[bytes, list[bytes]], authorization: _Authorization) -> None:
    signed = set(authorization.signed_headers)
    if b"host" not in signed:
        raise signature_does_not_match("'host' must be a 'SignedHeader' in the AWS Authorization")
    for name in signed - headers.keys():
        raise signature_does_not_match(f"The signed header '{name.decode()}' is not in the request")
    for name in headers.keys() - signed:
        # X-Amz-Date above all; but none of the headers that steer AWS services may be added on the way.
        if name.startswith(b"x-amz-"):
            shown = name.decode("ascii", "replace")
            raise signature_does_not_match(f"'{shown}' must be a 'SignedHeader' in the AWS Authorization")
    if b"x-amz-security-token" in headers:
        raise invalid_client_token_id("This server issues no session tokens: send none (AWS_SESSION_TOKEN)")


# ------------------------------------------------------------------------------------------------------ time and scope


def _timestamp(headers: dict[bytes, list[bytes]]) -> str:
    values = headers.get(b"x-amz-date")
    if not values:
        raise incomplete_signature("The request must have an X-Amz-Date header")
    if not _TIMESTAMP.fullmatch(values[0]):
        raise incomplete_signature("X-Amz-Date must be in the ISO 8601 basic format, such as 20230110T184209Z")
    return values[0].decode("ascii")


def _check_scope(authorization: _Authorization, timestamp: str, region: str, service: str) -> None:
    if authorization.date != timestamp[:8]:
        raise signature_does_not_match("Date in Credential scope does not match YYYYMMDD of X-Amz-Date")
    if authorization.region != region:
        raise signature_does_not_match(f"Credential should be scoped to a valid region, this server's is '{region}'.")
    if authorization.service != service:
        raise signature_does_not_match(f"Credential should be scoped to correct service: '{service}'.")


def _check_clock(timestamp: str, now: datetime) -> None:
    try:
        signed_at = datetime.strptime(timestamp, TIMESTAMP_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise incomplete_signature("X-Amz-Date is no moment of the calendar") from None
    now = now.astimezone(UTC)
    skew_text = f"{now.strftime(TIMESTAMP_FORMAT)}; at most 5 minutes may lie between"
    if signed_at < now - MAX_CLOCK_SKEW:
        raise signature_does_not_match(f"Signature expired: it is of {timestamp}, the clock here says {skew_text}")
    if signed_at > now + MAX_CLOCK_SKEW:
        raise signature_does_not_match(
            f"Signature not yet current: it is of {timestamp}, the clock here says {skew_text}"
        )


# ------------------------------------------------------------------------------------------------------- canonical form


def _canonical_request(
    request: SignedRequest, headers: dict[bytes, list[bytes]], signed_headers: tuple[bytes, ...]
) -> bytes:
    body_hash = hashlib.sha256(request.body).hexdigest().encode("ascii")
    claimed_hash = headers.get(b"x-amz-content-sha256")
    # UNSIGNED-PAYLOAD and the streaming forms are S3's. Here a body that nobody signed is nobody's request.
    if claimed_hash and claimed_hash[0].strip() != body_hash:
        raise signature_does_not_match("X-Amz-Content-SHA256 is not the hash of the body")
    lines = [request.method.encode("utf-8"), _canonical_path(request.raw_path)]
    lines.append(canonical_query(request.raw_query))
    lines.extend(name + b":" + _canonical_value(headers[name]) for name in signed_headers)
    lines += [b"", b";".join(signed_headers), body_hash]
    return b"\n".join(lines)


def _canonical_path(raw_path: bytes) -> bytes:
    """Dot segments and empty ones resolved, then each encoded once more: what every service but S3 does."""
    kept: list[bytes] = []
    for segment in raw_path.split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    path = b"/" + b"/".join(kept) + (b"/" if kept and raw_path.endswith(b"/") else b"")
    return quote_from_bytes(path, safe="/-_.~").encode("ascii")


def canonical_query(raw_query: bytes) -> bytes:
    """Raises :class:`Fault` for escapes that are none."""
    if not raw_query:
        return b""
    if _BAD_ESCAPE.search(raw_query):
        raise malformed_query_string("The query string holds a percent sign that does not begin an escape")
    pairs = []
    for field in raw_query.split(b"&"):
        name, _, value = field.partition(b"=")
        pairs.append((_recoded(name), _recoded(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs)).encode("ascii")


def _recoded(raw: bytes) -> str:
    return quote_from_bytes(unquote_to_bytes(raw), safe="-_.~")


def _canonical_value(values: list[bytes]) -> bytes:
    return b",".join(_SPACES.sub(b" ", value.strip()) for value in values)


def _signature(secret: str, timestamp: str, authorization: _Authorization, canonical: bytes) -> str:
    key = signing_key(secret, authorization.date, authorization.region, authorization.service)
    return signature(key, timestamp, authorization.scope, canonical)


def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """Signs for one service, region and day, and leads back to no secret."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, TERMINATOR):
        key = hmac.digest(key, part.encode("utf-8"), "sha256")
    return key


def signature(key: bytes, timestamp: str, scope: str, canonical: bytes) -> str:
    to_sign = "\n".join([ALGORITHM, timestamp, scope, hashlib.sha256(canonical).hexdigest()])
    return hmac.digest(key, to_sign.encode("utf-8"), "sha256").hex()
