"""Requests as no SDK would send them: any body, signed with any key at any time, or not at all."""

import contextlib
import http.client
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlencode
from xml.etree import ElementTree

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.acceptance.installation import Installation

_NAMESPACE = "{http://rds.amazonaws.com/doc/2014-10-31/}"


class Answer(NamedTuple):
    status: int
    code: str


class _ShiftedAuth(SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """Signs for another moment than now."""

    def __init__(self, credentials: Credentials, skew: timedelta) -> None:
        super().__init__(credentials, "rds", "us-east-1")
        self._skew = skew

    def add_auth(self, request: AWSRequest) -> None:
        at = datetime.now(UTC) + self._skew
        request.context["timestamp"] = at.strftime("%Y%m%dT%H%M%SZ")
        self._inject_signature_headers(request, at)

    def _inject_signature_headers(self, request: AWSRequest, at: datetime) -> None:
        self._modify_request_before_signing(request)
        canonical = self.canonical_request(request)
        signature = self.signature(self.string_to_sign(request, canonical), request)
        self._inject_signature_to_request(request, signature)


def call(verdigris: Installation, action: str, **members: str) -> Answer:
    """A well-signed call with members that boto3 would refuse to send."""
    return post(verdigris, form(action, **members))


def form(action: str, **members: str) -> bytes:
    return urlencode({"Action": action, "Version": "2014-10-31", **members}).encode()


def post(
    verdigris: Installation,
    body: bytes,
    *,
    signed: bool = True,
    key_id: str | None = None,
    secret: str | None = None,
    skew: timedelta = timedelta(),
    tamper: bool = False,
) -> Answer:
    request = AWSRequest(
        method="POST",
        url=f"http://127.0.0.1:{verdigris.port}/",
        data=body,
        headers={"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"},
    )
    if signed:
        own_id, own_secret = verdigris.access_key
        _ShiftedAuth(Credentials(key_id or own_id, secret or own_secret), skew).add_auth(request)
    return _exchange(verdigris.port, body.replace(b"app", b"apq") if tamper else body, dict(request.headers))


def _exchange(port: int, body: bytes, headers: dict[str, str]) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has answered already, and reads no more
            connection.request("POST", "/", body, headers)
        response = connection.getresponse()
        return Answer(response.status, _code(response.read()))
    finally:
        connection.close()


def _code(document: bytes) -> str:
    root = ElementTree.fromstring(document)  # noqa: S314 - our own server's answer
    return root.findtext(f"{_NAMESPACE}Error/{_NAMESPACE}Code") or root.findtext("Error/Code") or ""
