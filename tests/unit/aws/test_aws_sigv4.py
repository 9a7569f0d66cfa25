"""Hand-made requests and AWS's published vectors; requests signed by botocore are in tests/conformance/aws."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verdigris.aws.errors import Fault
from verdigris.aws.sigv4 import SignedRequest, verify

# The credentials, moment and signatures of AWS's Signature V4 test suite (facts, "header" form).
KEY_ID = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
HOST = (b"Host", b"example.amazonaws.com")
DATE = (b"X-Amz-Date", b"20150830T123600Z")


def authorization(
    signature: str, signed: str = "host;x-amz-date", credential: str | None = None
) -> tuple[bytes, bytes]:
    credential = credential or f"{KEY_ID}/20150830/us-east-1/service/aws4_request"
    value = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed}, Signature={signature}"
    return b"Authorization", value.encode()


def correctly_signed(
    *headers: tuple[bytes, bytes], secret: str = SECRET, scope: str = "20150830/us-east-1/service"
) -> tuple[bytes, bytes]:
    """The authorization of a GET of / with no more than ``headers`` signed, right for ``scope``."""
    key = f"AWS4{secret}".encode()
    for name in (*scope.split("/"), "aws4_request"):
        key = hmac.digest(key, name.encode(), "sha256")
    lines = "".join(f"{name.decode().lower()}:{value.decode()}\n" for name, value in headers)
    names = ";".join(name.decode().lower() for name, _ in headers)
    canonical = f"GET\n/\n\n{lines}\n{names}\n{hashlib.sha256(b'').hexdigest()}"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n20150830T123600Z\n{scope}/aws4_request\n{digest}"
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return authorization(signature, names, f"{KEY_ID}/{scope}/aws4_request")


VANILLA = authorization("5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31")


def request(*headers: tuple[bytes, bytes], path: bytes = b"/", query: bytes = b"", **rest: Any) -> SignedRequest:
    return SignedRequest(**{"method": "GET", "raw_path": path, "raw_query": query, "headers": headers} | rest)


def check(request: SignedRequest, now: datetime = NOW, secrets: dict[str, str] | None = None) -> str:
    known = {KEY_ID: SECRET} if secrets is None else secrets
    return verify(request, known.get, now=now, region="us-east-1", service="service")


def code_of(request: SignedRequest, now: datetime = NOW, secrets: dict[str, str] | None = None) -> str:
    with pytest.raises(Fault) as caught:
        check(request, now, secrets)
    return caught.value.code


# -------------------------------------------------------------------------------------------------------- AWS's vectors


def test_vanilla() -> None:
    assert check(request(HOST, DATE, VANILLA)) == KEY_ID


@pytest.mark.parametrize("path", [b"/example/..", b"/example1/example2/../..", b"/./", b"//", b""])
def test_paths_that_normalise_to_the_root(path: bytes) -> None:
    assert check(request(HOST, DATE, VANILLA, path=path)) == KEY_ID


def test_header_values_are_trimmed_and_joined() -> None:
    signature = "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"
    signed = "host;my-header1;my-header2;x-amz-date"
    trimmed = ((b"My-Header1", b" value1"), (b"My-Header2", b' "a   b   c"'))
    assert check(request(HOST, *trimmed, DATE, authorization(signature, signed))) == KEY_ID
    signature = "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"
    order = tuple((b"My-Header1", value) for value in (b"value4", b"value1", b"value3", b"value2"))
    assert check(request(HOST, *order, DATE, authorization(signature, "host;my-header1;x-amz-date"))) == KEY_ID


@pytest.mark.parametrize(
    ("query", "signature"),
    [
        (b"Param2=value2&Param1=value1", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
        (b"Param1=value1&Param2=value2", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
        (b"%E1%88%B4=bar", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
        (b"%e1%88%b4=bar", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
        ("\u1234=bar".encode(), "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
    ],
)
def test_query_is_canonicalised(query: bytes, signature: str) -> None:
    assert check(request(HOST, DATE, authorization(signature), query=query)) == KEY_ID


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ((HOST, DATE), "MissingAuthenticationToken"),
        ((HOST, VANILLA), "IncompleteSignature"),
        ((DATE, VANILLA), "SignatureDoesNotMatch"),
        ((HOST, DATE, VANILLA, VANILLA), "IncompleteSignature"),
        ((HOST, HOST, DATE, VANILLA), "IncompleteSignature"),
        ((HOST, DATE, (b"x-amz-date", b"20150830T123601Z"), VANILLA), "IncompleteSignature"),
        ((HOST, (b"X-Amz-Date", b"20150830T123601Z"), VANILLA), "SignatureDoesNotMatch"),
        ((HOST, (b"X-Amz-Date", b"2015-08-30T12:36:00Z"), VANILLA), "IncompleteSignature"),
        ((HOST, (b"X-Amz-Date", b"20150830T993600Z"), VANILLA), "IncompleteSignature"),
        ((HOST, DATE, (b"X-Amz-Target", b"x"), VANILLA), "SignatureDoesNotMatch"),
        ((HOST, DATE, (b"X-Amz-\xff", b"x"), VANILLA), "SignatureDoesNotMatch"),
        ((HOST, DATE, authorization("0" * 64, "x-amz-date")), "SignatureDoesNotMatch"),
        ((HOST, DATE, authorization("0" * 64, "host")), "SignatureDoesNotMatch"),
        ((HOST, DATE, authorization("0" * 64, "host;more;x-amz-date")), "SignatureDoesNotMatch"),
        ((HOST, DATE, authorization("0" * 64, "x-amz-date;host")), "IncompleteSignature"),
        ((HOST, DATE, authorization("0" * 64, "host;host;x-amz-date")), "IncompleteSignature"),
        ((HOST, DATE, authorization("0" * 64, "Host;x-amz-date")), "IncompleteSignature"),
        ((HOST, DATE, authorization("0" * 64, "")), "IncompleteSignature"),
        ((HOST, DATE, authorization("F" * 64)), "IncompleteSignature"),
        ((HOST, DATE, authorization("0" * 63)), "IncompleteSignature"),
        (
            (HOST, DATE, authorization("0" * 64, credential=f"{KEY_ID}/20150830/us-east-1/service")),
            "IncompleteSignature",
        ),
        (
            (HOST, DATE, authorization("0" * 64, credential="/20150830/us-east-1/service/aws4_request")),
            "IncompleteSignature",
        ),
        ((HOST, DATE, (b"Authorization", b"Basic dXNlcjpwYXNz")), "IncompleteSignature"),
        ((HOST, DATE, (b"Authorization", b"")), "IncompleteSignature"),
        ((HOST, DATE, (b"Authorization", b"AWS4-HMAC-SHA256")), "IncompleteSignature"),
        ((HOST, DATE, (b"Authorization", b"AWS4-HMAC-SHA256 " + b"," * 9_000)), "IncompleteSignature"),
        ((HOST, DATE, (b"Authorization", VANILLA[1] + b"\xc3\xa9")), "IncompleteSignature"),
        ((HOST, DATE, (b"Authorization", VANILLA[1] + b", Extra=1")), "IncompleteSignature"),
        ((HOST, DATE, (b"Authorization", VANILLA[1] + b", Signature=" + b"0" * 64)), "IncompleteSignature"),
        ((HOST, DATE, (b"Authorization", VANILLA[1].replace(b"SHA256", b"SHA1"))), "IncompleteSignature"),
    ],
)
def test_headers_refused(headers: tuple[tuple[bytes, bytes], ...], code: str) -> None:
    assert code_of(request(*headers)) == code


@pytest.mark.parametrize("part", ["20150831/us-east-1/service", "20150830/us-west-2/service", "20150830/us-east-1/iam"])
def test_scope_is_this_servers_even_if_the_signature_is_right(part: str) -> None:
    assert code_of(request(HOST, DATE, correctly_signed(HOST, DATE, scope=part))) == "SignatureDoesNotMatch"


def test_correctly_signed_is_correct() -> None:
    assert correctly_signed(HOST, DATE) == VANILLA


def test_host_and_date_must_be_signed_even_if_the_signature_is_right() -> None:
    for signed in (HOST, DATE):
        assert code_of(request(HOST, DATE, correctly_signed(signed))) == "SignatureDoesNotMatch"


def test_clock_skew() -> None:
    vanilla = request(HOST, DATE, VANILLA)
    for skew in (timedelta(minutes=5), timedelta(minutes=-5)):
        assert check(vanilla, NOW + skew) == KEY_ID
    with pytest.raises(Fault, match="SignatureDoesNotMatch: Signature expired"):
        check(vanilla, NOW + timedelta(minutes=5, seconds=1))
    with pytest.raises(Fault, match="SignatureDoesNotMatch: Signature not yet current"):
        check(vanilla, NOW - timedelta(minutes=5, seconds=1))


def test_unknown_and_empty_keys() -> None:
    vanilla = request(HOST, DATE, VANILLA)
    assert code_of(vanilla, secrets={}) == "InvalidClientTokenId"
    assert code_of(vanilla, secrets={KEY_ID: ""}) == "InvalidClientTokenId"
    assert code_of(vanilla, secrets={KEY_ID: SECRET + "x"}) == "SignatureDoesNotMatch"


def test_unknown_key_signed_with_the_stand_in_secret() -> None:
    # The secret that stands in for the missing one is in the source: whoever reads it must gain nothing.
    signed = correctly_signed(HOST, DATE, secret="0" * 40)
    assert code_of(request(HOST, DATE, signed), secrets={}) == "InvalidClientTokenId"


def test_session_tokens_are_refused_in_clear_words() -> None:
    signed = authorization("0" * 64, "host;x-amz-date;x-amz-security-token")
    with pytest.raises(Fault, match="InvalidClientTokenId: This server issues no session tokens"):
        check(request(HOST, DATE, (b"X-Amz-Security-Token", b"FwoG"), signed))


@pytest.mark.parametrize("claimed", [b"UNSIGNED-PAYLOAD", b"STREAMING-UNSIGNED-PAYLOAD-TRAILER", b"0" * 64, b""])
def test_body_hash_is_ours(claimed: bytes) -> None:
    signed = authorization("0" * 64, "host;x-amz-content-sha256;x-amz-date")
    with pytest.raises(Fault, match="is not the hash of the body"):
        check(request(HOST, DATE, (b"X-Amz-Content-SHA256", claimed), signed, body=b"Action=DeleteDBInstance"))


def test_broken_escape_in_the_query() -> None:
    assert code_of(request(HOST, DATE, VANILLA, query=b"a=%zz")) == "MalformedQueryString"


@given(
    st.lists(
        st.tuples(st.sampled_from([b"host", b"x-amz-date", b"authorization", b"x-amz-\xff"]), st.binary()), max_size=5
    ),
    st.binary(max_size=40),
    st.binary(max_size=40),
)
def test_noise_is_a_fault(headers: list[tuple[bytes, bytes]], path: bytes, query: bytes) -> None:
    for noisy in (
        headers,
        [HOST, DATE, VANILLA, *headers],
        [*headers, (b"Authorization", b"AWS4-HMAC-SHA256 " + query)],
    ):
        try:
            check(request(*noisy, path=path, query=query))
        except Fault as fault:
            assert fault.status in (400, 403)  # noqa: PT017 # noise that changes nothing may pass
