"""One request on its way through the control plane, and what is done about every request: its size and its signer."""

import asyncio
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from verdigris.aws import query, sigv4
from verdigris.aws.errors import request_expired, request_too_large, throttling
from verdigris.aws.model import Operation, Service
from verdigris.domain.access import AccessKey
from verdigris.rds.context import Context
from verdigris.rds.throttle import Throttle

SIGNING_NAME = "rds"
# Nobody holds a connection by sending a byte now and then.
BODY_WITHIN_S = 20.0

FindKey = Callable[[str], AccessKey | None]  # by its id


@dataclass
class Exchange:
    """One request on its way; each step fills in what the next ones need."""

    request: Request
    service: Service
    context: Context
    find_key: FindKey
    throttle: Throttle
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    body: bytes = b""
    key: AccessKey | None = None  # that has signed it
    fields: Mapping[str, str] = field(default_factory=dict)
    operation: Operation | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    answer: bytes = b""

    def require_operation(self) -> Operation:
        if self.operation is None:
            raise RuntimeError("no operation was selected")
        return self.operation

    def require_key(self) -> AccessKey:
        if self.key is None:
            raise RuntimeError("no signature was checked")
        return self.key

    @property
    def access_key_id(self) -> str:
        return "" if self.key is None else self.key.access_key_id


async def read_body(exchange: Exchange) -> None:
    """At most as much as a request may have; the header is believed only when it says too much."""
    limit = query.DEFAULT_LIMITS.body_bytes
    announced = exchange.request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:19]) > limit:
        raise request_too_large(limit)
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for chunk in exchange.request.stream():
                size += len(chunk)
                if size > limit:
                    raise request_too_large(limit)
                chunks.append(chunk)
    except TimeoutError:
        raise request_expired(f"The request's body was not there after {BODY_WITHIN_S:g} s") from None
    exchange.body = b"".join(chunks)


async def check_signature(exchange: Exchange) -> None:
    scope = exchange.request.scope
    key: AccessKey | None = None

    def secret_of(access_key_id: str) -> str | None:
        nonlocal key
        key = exchange.find_key(access_key_id)
        return None if key is None else key.secret_access_key

    sigv4.verify(
        sigv4.SignedRequest(
            method=scope["method"],
            raw_path=scope["raw_path"],
            raw_query=scope["query_string"],
            headers=scope["headers"],
            body=exchange.body,
        ),
        secret_of,
        now=exchange.context.clock.now(),
        region=exchange.context.region,
        service=SIGNING_NAME,
    )
    exchange.key = key


async def check_rate(exchange: Exchange) -> None:
    if not exchange.throttle.admits(exchange.access_key_id):
        raise throttling()
