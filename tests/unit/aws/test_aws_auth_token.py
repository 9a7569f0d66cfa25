"""Tokens as botocore makes them, and every way in which one may be another."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import boto3
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from verdigris.aws.auth_token import MAX_BYTES, SERVICE, Login, TokenRefused, verify
from verdigris.aws.sigv4 import MAX_CLOCK_SKEW, signing_key

KEY_ID = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
REGION = "us-east-1"
LOGIN = Login(endpoint="127.0.0.1:5433", user=b"jane", region=REGION)
SIGNED_AT = datetime(2026, 1, 10, 18, 42, 9, tzinfo=UTC)
PARAMETERS = {
    "Action": "connect",
    "DBUser": "jane",
    "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
    "X-Amz-Credential": f"{KEY_ID}/20260110/{REGION}/rds-db/aws4_request",
    "X-Amz-Date": "20260110T184209Z",
    "X-Amz-Expires": "900",
    "X-Amz-SignedHeaders": "host",
}


def keys(access_key_id: str, date: str) -> bytes | None:
    return signing_key(SECRET, date, REGION, SERVICE) if access_key_id == KEY_ID else None


def signed(parameters: dict[str, str], *, endpoint: str = LOGIN.endpoint, secret: str = SECRET) -> bytes:
    """A token whose signature is right, whatever else is not: by another hand than the verifier's."""
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in sorted(parameters.items()))
    headers = f"host:{endpoint}\n\nhost\n{hashlib.sha256(b'').hexdigest()}"
    digest = hashlib.sha256(f"GET\n/\n{query}\n{headers}".encode()).hexdigest()
    scope = parameters.get("X-Amz-Credential", "").partition("/")[2]
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    to_sign = "\n".join(["AWS4-HMAC-SHA256", parameters.get("X-Amz-Date", ""), scope, digest])
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return f"{endpoint}/?{query}&X-Amz-Signature={signature}".encode()


TOKEN = signed(PARAMETERS)


def check(token: bytes, login: Login = LOGIN, now: datetime = SIGNED_AT) -> str:
    return verify(token, login, keys, now=now)


def refusal(token: bytes, login: Login = LOGIN, now: datetime = SIGNED_AT) -> str:
    with pytest.raises(TokenRefused) as caught:
        check(token, login, now)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------- accepted


def from_boto3(user: str, host: str = "127.0.0.1", port: int = 5433) -> bytes:
    client = boto3.client("rds", region_name=REGION, aws_access_key_id=KEY_ID, aws_secret_access_key=SECRET)
    return str(client.generate_db_auth_token(host, port, user)).encode()


@pytest.mark.parametrize("user", ["jane", "jane.doe@example.com", "a b+c&d=e/f%?#", "Zoë", "~-_."])
def test_what_boto3_makes(user: str) -> None:
    login = Login(endpoint=LOGIN.endpoint, user=user.encode(), region=REGION)
    assert check(from_boto3(user), login, datetime.now(UTC)) == KEY_ID


def test_a_name_in_any_case() -> None:
    login = Login(endpoint="db.example.com:5433", user=b"jane", region=REGION)
    assert check(from_boto3("jane", "DB.Example.com"), login, datetime.now(UTC)) == KEY_ID


def test_the_other_hand_signs_alike() -> None:
    assert check(TOKEN) == KEY_ID


def test_without_a_slash() -> None:
    """An empty path is signed as the root."""
    assert check(TOKEN.replace(b"/?", b"?", 1)) == KEY_ID


def test_hash_of_an_empty_body() -> None:
    assert check(signed(PARAMETERS | {"X-Amz-Content-Sha256": hashlib.sha256(b"").hexdigest()})) == KEY_ID


@pytest.mark.parametrize("age", [timedelta(seconds=900), -MAX_CLOCK_SKEW])
def test_to_the_last_moment(age: timedelta) -> None:
    assert check(TOKEN, now=SIGNED_AT + age) == KEY_ID


# -------------------------------------------------------------------------------- refused though the signature is right


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("Action", "Connect", "action"),
        ("Action", "", "action"),
        ("DBUser", "john", "another user"),
        ("DBUser", "Jane", "another user"),
        ("DBUser", "jane ", "another user"),
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA1", "algorithm"),
        ("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD", "body"),
        ("X-Amz-Credential", f"{KEY_ID}/20260110/eu-west-1/rds-db/aws4_request", "not for"),
        ("X-Amz-Credential", f"{KEY_ID}/20260110/{REGION}/rds/aws4_request", "not for"),
        ("X-Amz-Credential", f"{KEY_ID}/20260110/{REGION}/rds-db/aws5_request", "not for"),
        ("X-Amz-Credential", f"{KEY_ID}/20260110/{REGION}/rds-db", "credential"),
        ("X-Amz-Credential", f"/20260110/{REGION}/rds-db/aws4_request", "credential"),
        ("X-Amz-Credential", f"{KEY_ID}/20260109/{REGION}/rds-db/aws4_request", "date"),
        ("X-Amz-Credential", f"AKIDOTHER/20260110/{REGION}/rds-db/aws4_request", "not known"),
        ("X-Amz-Date", "20260110T184209", "date"),
        ("X-Amz-Date", "20260110T246060Z", "calendar"),
        ("X-Amz-Expires", "901", "lifetime"),
        ("X-Amz-Expires", "0", "lifetime"),
        ("X-Amz-Expires", "-1", "lifetime"),
        ("X-Amz-Expires", "9e2", "lifetime"),
        ("X-Amz-Expires", "٩", "lifetime"),
        ("X-Amz-SignedHeaders", "host;x-amz-date", "headers"),
        ("X-Amz-SignedHeaders", "", "headers"),
        ("X-Amz-Security-Token", "FwoGZXIvYXdzEXAMPLE", "session token"),
        ("Debug", "1", "no token has"),
    ],
)
def test_a_parameter_that_is_another(name: str, value: str, reason: str) -> None:
    assert reason in refusal(signed(PARAMETERS | {name: value}))


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_that_is_missing(name: str) -> None:
    assert "missing" in refusal(signed({key: value for key, value in PARAMETERS.items() if key != name}))


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_given_twice(name: str) -> None:
    again = f"&{name}={quote(PARAMETERS[name], safe='')}".encode()
    assert "twice" in refusal(TOKEN + again)
    assert "twice" in refusal(TOKEN.replace(b"/?", b"/?" + again[1:] + b"&", 1))


@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.2:5433", "127.0.0.1:5434", "127.0.0.1", "127.0.0.1:05433", "127.0.0.1:5433.", "x@127.0.0.1:5433"],
)
def test_another_endpoint(endpoint: str) -> None:
    assert refusal(signed(PARAMETERS, endpoint=endpoint)) in (
        "the token is for another endpoint",
        "no token, but a password perhaps",
    )


@pytest.mark.parametrize("age", [timedelta(seconds=901), timedelta(days=1), timedelta(days=365)])
def test_expired(age: timedelta) -> None:
    assert refusal(TOKEN, now=SIGNED_AT + age) == "the token has expired"


def test_expires_when_it_says() -> None:
    token = signed(PARAMETERS | {"X-Amz-Expires": "10"})
    assert check(token, now=SIGNED_AT + timedelta(seconds=10)) == KEY_ID
    assert refusal(token, now=SIGNED_AT + timedelta(seconds=11)) == "the token has expired"


def test_not_valid_yet() -> None:
    assert "yet" in refusal(TOKEN, now=SIGNED_AT - MAX_CLOCK_SKEW - timedelta(seconds=1))


# ----------------------------------------------------------------------------------------------- refused for what it is


def test_signed_with_another_secret() -> None:
    assert refusal(signed(PARAMETERS, secret="x" * 40)) == "the signature does not match"


@pytest.mark.parametrize(("date", "service"), [("20260110", "rds"), ("20260111", SERVICE)])
def test_a_signing_key_of_another_service_or_day(date: str, service: str) -> None:
    key = signing_key(SECRET, date, REGION, service)
    with pytest.raises(TokenRefused, match="does not match"):
        verify(TOKEN, LOGIN, lambda _id, _date: key, now=SIGNED_AT)


def test_one_digit_of_the_signature() -> None:
    for place in range(1, 65):
        digit = b"0" if TOKEN[-place : len(TOKEN) - place + 1] != b"0" else b"1"
        tampered = TOKEN[: len(TOKEN) - place] + digit + TOKEN[len(TOKEN) - place + 1 :]
        assert refusal(tampered) == "the signature does not match"


@pytest.mark.parametrize("signature", ["", "0" * 63, "0" * 65, "A" * 64, "%30" * 63])
def test_a_signature_that_is_none(signature: str) -> None:
    assert "hexadecimal" in refusal(TOKEN[:-64] + signature.encode())


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"secret",
        b"?",
        b"/?",
        b"https://" + TOKEN,
        b" " + TOKEN,
        TOKEN.replace(b"/?", b"/x?", 1),
        "ü".encode() + TOKEN,
    ],
)
def test_a_password(token: bytes) -> None:
    assert refusal(token) == "no token, but a password perhaps"


def test_an_escape_that_is_none() -> None:
    login = Login(endpoint=LOGIN.endpoint, user=b"%zz", region=REGION)
    assert "percent" in refusal(TOKEN.replace(b"DBUser=jane", b"DBUser=%zz"), login)


def test_a_fragment_or_a_zero_byte_at_the_end() -> None:
    for end in (b"#", b"\0", b"&", b"\n"):
        assert refusal(TOKEN + end)


def test_longest() -> None:
    token = TOKEN.ljust(MAX_BYTES, b"0")
    assert "hexadecimal" in refusal(token)
    assert "longer" in refusal(token + b"0")


# ----------------------------------------------------------------------------------------------------------------- fuzz

pieces = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([TOKEN[:40], TOKEN, *TOKEN.split(b"&"), b"&", b"=", b"%", b"?", b"/", b"%00", b"\0"]),
    ),
    max_size=12,
)


@given(pieces)
@example([TOKEN, b"&"])
def test_anything_else_is_refused_and_not_repeated(parts: list[bytes]) -> None:
    token = b"".join(parts)
    if token == TOKEN:
        return
    reason = refusal(token)
    assert KEY_ID not in reason
    assert TOKEN[-64:].decode() not in reason


@given(st.integers(0, len(TOKEN) - 1), st.integers(0, 255))
def test_a_byte_that_is_another(place: int, byte: int) -> None:
    """Letters in the name of a host, in hexadecimal escapes: nothing else may be written in two ways."""
    token = TOKEN[:place] + bytes([byte]) + TOKEN[place + 1 :]
    if token.lower() == TOKEN.lower() and TOKEN[place - 1 : place] != b"=":
        return
    assert refusal(token)
