"""What botocore signs is verified, and refused once any single thing about it has changed."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from verdigris.aws.errors import Fault
from verdigris.aws.sigv4 import SignedRequest, verify

KEY_ID, SECRET, REGION, SERVICE = "AKIAVERDIGRIS", "s3cr3t/with+signs", "eu-central-1", "rds"
BODY = b"Action=SwitchoverBlueGreenDeployment&Version=2014-10-31&BlueGreenDeploymentIdentifier=bgd-x"


def sign(
    method: str = "POST", url: str = "http://127.0.0.1:8432/", body: bytes = BODY, headers: dict[str, str] | None = None
) -> SignedRequest:
    given_headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"} if headers is None else headers
    request = AWSRequest(method=method, url=url, data=body, headers=given_headers)
    SigV4Auth(Credentials(KEY_ID, SECRET), SERVICE, REGION).add_auth(request)
    parts = urlsplit(url)
    wire: list[tuple[bytes, bytes]] = [(b"Host", parts.netloc.encode())]
    wire += [(name.encode(), value.encode()) for name, value in request.headers.items()]
    return SignedRequest(
        method=method, raw_path=parts.path.encode(), raw_query=parts.query.encode(), headers=wire, body=body
    )


def check(request: SignedRequest, **changed: Any) -> str:
    arguments: dict[str, Any] = {"now": datetime.now(UTC), "region": REGION, "service": SERVICE} | changed
    return verify(request, {KEY_ID: SECRET}.get, **arguments)


def test_botocore_is_verified() -> None:
    assert check(sign()) == KEY_ID


_TOKEN = st.text("abcXYZ019-_", min_size=1, max_size=8)
_PATH = st.lists(st.sampled_from(["a", "b c", "..", ".", "", "%41", "ü", "~", "a:b", "(x)", "+", "$"]), max_size=5)


@settings(max_examples=150, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    segments=_PATH,
    trailing=st.sampled_from(["", "/"]),
    query=st.lists(st.tuples(_TOKEN, st.sampled_from(["", "1", "a%20b", "%C3%BC", "~", "%2B", "x-y_z.w"])), max_size=4),
    headers=st.dictionaries(
        _TOKEN.map(lambda name: "Q-" + name.lower()), st.text("ab ,;=\t", max_size=12).map(str.strip), max_size=4
    ),
    body=st.binary(max_size=60),
)
def test_whatever_botocore_signs_is_verified(
    method: str, segments: list[str], trailing: str, query: list[tuple[str, str]], headers: dict[str, str], body: bytes
) -> None:
    path = "/" + "/".join(segments) + trailing
    # A URL with "//" first would be read as one with a host.
    path = "/" + path.lstrip("/")
    text = "&".join(f"{name}={value}" for name, value in query)
    url = f"http://127.0.0.1:8432{path}" + (f"?{text}" if text else "")
    assert check(sign(method, url, body, headers)) == KEY_ID


# ------------------------------------------------------------------------------------------------------------ mutations

Mutation = Callable[[SignedRequest], SignedRequest]


def with_header(name: bytes, change: Callable[[bytes], bytes]) -> Mutation:
    def mutate(request: SignedRequest) -> SignedRequest:
        headers = [(n, change(v) if n.lower() == name else v) for n, v in request.headers]
        assert headers != list(request.headers)
        return msgspec.structs.replace(request, headers=headers)

    return mutate


def with_authorization(old: bytes, new: bytes) -> Mutation:
    return with_header(b"authorization", lambda value: value.replace(old, new, 1))


def without(name: bytes) -> Mutation:
    return lambda request: msgspec.structs.replace(
        request, headers=[header for header in request.headers if header[0].lower() != name]
    )


def adding(name: bytes, value: bytes) -> Mutation:
    return lambda request: msgspec.structs.replace(request, headers=[*request.headers, (name, value)])


def field(**changed: Any) -> Mutation:
    return lambda request: msgspec.structs.replace(request, **changed)


def flip_signature(value: bytes) -> bytes:
    return value[:-1] + (b"0" if value[-1:] != b"0" else b"1")


def later(value: bytes) -> bytes:
    moment = datetime.strptime(value.decode(), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return (moment + timedelta(seconds=1)).strftime("%Y%m%dT%H%M%SZ").encode()


MUTATIONS: dict[str, Mutation] = {
    "method": field(method="PUT"),
    "method-case": field(method="post"),
    "path": field(raw_path=b"/x"),
    "path-trailing": field(raw_path=b"/x/.././y"),
    "query-added": field(raw_query=b"Action=DeleteDBInstance"),
    "query-empty-name": field(raw_query=b"="),
    "body-byte": field(body=BODY[:-1] + b"y"),
    "body-longer": field(body=BODY + b"&SwitchoverTimeout=30"),
    "body-shorter": field(body=BODY[:-1]),
    "body-gone": field(body=b""),
    "host": with_header(b"host", lambda _: b"127.0.0.1:8433"),
    "host-twice": adding(b"host", b"127.0.0.1:8432"),
    "host-gone": without(b"host"),
    "date": with_header(b"x-amz-date", later),
    "date-twice": adding(b"x-amz-date", b"20150830T123600Z"),
    "date-gone": without(b"x-amz-date"),
    "content-type": with_header(b"content-type", lambda _: b"text/plain"),
    "content-type-twice": adding(b"content-type", b"text/plain"),
    "content-type-gone": without(b"content-type"),
    "unsigned-amz-header": adding(b"x-amz-target", b"DeleteEverything"),
    "content-hash": adding(b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD"),
    "session-token": adding(b"x-amz-security-token", b"token"),
    "signature": with_header(b"authorization", flip_signature),
    "signature-case": with_header(b"authorization", lambda value: value[:-64] + b"A" + value[-63:].upper()),
    "signature-short": with_header(b"authorization", lambda value: value[:-1]),
    "signed-headers-fewer": with_authorization(b"content-type;host", b"host"),
    "signed-headers-no-host": with_authorization(b"content-type;host;", b"content-type;"),
    "signed-headers-order": with_authorization(b"content-type;host", b"host;content-type"),
    "signed-headers-case": with_authorization(b";host;", b";Host;"),
    "key-id": with_authorization(KEY_ID.encode(), b"AKIASOMEBODYELSE"),
    "key-id-case": with_authorization(KEY_ID.encode(), KEY_ID.lower().encode()),
    "scope-region": with_authorization(REGION.encode(), b"us-east-1"),
    "scope-service": with_authorization(b"/rds/", b"/iam/"),
    "scope-terminator": with_authorization(b"aws4_request", b"aws4_requesu"),
    "algorithm": with_authorization(b"AWS4-HMAC-SHA256", b"AWS4-HMAC-SHA512"),
    "authorization-gone": without(b"authorization"),
    "authorization-twice": adding(b"authorization", b"AWS4-HMAC-SHA256"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_one_change_is_refused(name: str) -> None:
    with pytest.raises(Fault) as caught:
        check(MUTATIONS[name](sign()))
    assert caught.value.status in (400, 403)


@pytest.mark.parametrize("changed", [{"region": "us-east-1"}, {"service": "iam"}])
def test_request_for_another_place_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(Fault, match="SignatureDoesNotMatch"):
        check(sign(), **changed)


@pytest.mark.parametrize("minutes", [6, -6])
def test_request_for_another_time_is_refused(minutes: int) -> None:
    with pytest.raises(Fault, match="SignatureDoesNotMatch"):
        check(sign(), now=datetime.now(UTC) + timedelta(minutes=minutes))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_bit_of_the_signed_parts_counts(data: st.DataObject) -> None:
    request = sign()
    name = data.draw(st.sampled_from(["body", "host", "x-amz-date", "content-type"]))
    if name == "body":
        mutated = msgspec.structs.replace(request, body=_flip_bit(request.body, data))
    else:
        mutated = with_header(name.encode(), lambda value: _flip_bit(value, data))(request)
    try:
        check(mutated)
    except Fault:
        return
    # The one change that may pass: white space that canonicalisation takes away.
    assert _squeezed(mutated) == _squeezed(request)


def _flip_bit(value: bytes, data: st.DataObject) -> bytes:
    index = data.draw(st.integers(0, len(value) - 1))
    flipped = value[index] ^ 1 << data.draw(st.integers(0, 7))
    return value[:index] + bytes([flipped]) + value[index + 1 :]


def _squeezed(request: SignedRequest) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    return request.body, [(name, b" ".join(value.split())) for name, value in request.headers]
