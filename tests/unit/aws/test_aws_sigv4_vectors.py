"""AWS's published signing vectors (aws-signing-test-suite, v4: 38 requests as signed), in ``sigv4_vectors.json``.

``signed`` carries its signature in a header, ``presigned`` in the query. ``normalize``: its path was signed with dot
segments resolved, as every service but S3 wants it.
"""

import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from verdigris.aws.errors import Fault
from verdigris.aws.sigv4 import SignedRequest, verify

KEY_ID, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)


class Vector(Struct, frozen=True):
    name: str
    normalize: bool
    signed: str
    presigned: str
    token: bool = False


VECTORS = msgspec.json.decode((Path(__file__).parent / "sigv4_vectors.json").read_bytes(), type=list[Vector])


def parse(text: str) -> SignedRequest:
    """A request as an HTTP server hands it on: folded lines unfolded, nothing decoded."""
    head, _, body = text.encode().partition(b"\n\n")
    first, *lines = re.sub(rb"\n[ \t]+", b" ", head).splitlines()
    method, _, rest = first.partition(b" ")
    path, _, query = rest.rpartition(b" ")[0].partition(b"?")
    headers = [(name, value) for name, _, value in (line.partition(b":") for line in lines)]
    return SignedRequest(method=method.decode(), raw_path=path, raw_query=query, headers=headers, body=body)


def check(request: SignedRequest) -> str:
    return verify(request, {KEY_ID: SECRET}.get, now=NOW, region="us-east-1", service="service")


def resolves(vector: Vector) -> bool:
    """Whether there is anything in its path that resolving changes."""
    path = parse(vector.signed).raw_path
    return bool(re.search(rb"//|/\.", path))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_as_signed(vector: Vector) -> None:
    request = parse(vector.signed)
    if vector.token:
        with pytest.raises(Fault, match=r"InvalidClientTokenId|X-Amz-Security-Token|x-amz-security-token"):
            check(request)
    elif resolves(vector) and not vector.normalize:
        with pytest.raises(Fault, match="SignatureDoesNotMatch"):
            check(request)
    else:
        assert check(request) == KEY_ID


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_no_signature_in_the_query(vector: Vector) -> None:
    """RDS takes its calls as POST, signed in headers, and SDKs send no others. A signed URL is a password in a log."""
    with pytest.raises(Fault, match="MissingAuthenticationToken"):
        check(parse(vector.presigned))


@pytest.mark.parametrize("vector", [v for v in VECTORS if not v.token], ids=lambda vector: vector.name)
def test_one_digit_of_the_signature(vector: Vector) -> None:
    spoilt = re.sub(r"Signature=(\w)", lambda found: f"Signature={'0' if found[1] != '0' else '1'}", vector.signed)
    assert spoilt != vector.signed
    with pytest.raises(Fault, match="SignatureDoesNotMatch"):
        check(parse(spoilt))


def test_there_are_as_many_as_published() -> None:
    assert len(VECTORS) == 38
