"""The RDS API over HTTP: each request goes through ``STEPS``, from its first byte to the body of its answer."""

import time
from collections.abc import Awaitable, Callable

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from verdigris.aws import query
from verdigris.aws.errors import Fault, internal_failure, not_implemented
from verdigris.aws.model import load_service
from verdigris.aws.serialize import serialize_fault, serialize_output
from verdigris.aws.validate import validate_input
from verdigris.domain.errors import ControllerSuperseded
from verdigris.rds import operator
from verdigris.rds.access import authorize
from verdigris.rds.context import Context
from verdigris.rds.exchange import Exchange, FindKey, check_rate, check_signature, read_body
from verdigris.rds.operations import HANDLERS
from verdigris.rds.throttle import Throttle

log = structlog.get_logger(__name__)

_MEDIA_TYPE = "text/xml"


async def select_operation(exchange: Exchange) -> None:
    exchange.fields = query.parse_form(exchange.body)
    exchange.operation = query.select_operation(exchange.service, exchange.fields)
    if exchange.operation.name not in HANDLERS:
        raise not_implemented(exchange.operation.name)


async def parse_parameters(exchange: Exchange) -> None:
    exchange.params = query.parse_input(exchange.require_operation(), exchange.fields)


async def validate_parameters(exchange: Exchange) -> None:
    validate_input(exchange.require_operation(), exchange.params)


async def check_access(exchange: Exchange) -> None:
    key = exchange.require_key()
    if not key.is_root:
        name = exchange.require_operation().name
        await run_in_threadpool(authorize, exchange.context, key, name, exchange.params)


async def dispatch(exchange: Exchange) -> None:
    """In a thread: handlers are plain functions that wait for the store."""
    handler = HANDLERS[exchange.require_operation().name]
    exchange.result = await run_in_threadpool(handler, exchange.context, exchange.params)


async def serialize(exchange: Exchange) -> None:
    exchange.answer = serialize_output(
        exchange.service, exchange.require_operation(), exchange.result, exchange.request_id
    )


STEPS: tuple[Callable[[Exchange], Awaitable[None]], ...] = (
    read_body,
    check_signature,
    check_rate,
    select_operation,
    parse_parameters,
    validate_parameters,
    check_access,
    dispatch,
    serialize,
)


def create_app(context: Context, find_key: FindKey, throttle: Throttle | None = None) -> Starlette:
    """``POST /`` is the API, what is below ``/verdigris/`` the operator's; ``GET /healthz`` answers 200 to anybody,
    while the process serves requests."""
    service = load_service("rds")
    throttle = throttle or Throttle()

    async def handle(request: Request) -> Response:
        return await _answer(Exchange(request, service, context, find_key, throttle))

    async def cancel(request: Request) -> Response:
        return await operator.cancel_switchover(Exchange(request, service, context, find_key, throttle))

    return Starlette(
        routes=[
            Route("/", handle, methods=["POST"]),
            Route("/verdigris/deployments/{identifier}/cancel", cancel, methods=["POST"]),
            Route("/healthz", _healthz, methods=["GET"]),
        ]
    )


async def _healthz(_request: Request) -> Response:
    return PlainTextResponse("ok")


async def _answer(exchange: Exchange) -> Response:
    began = time.perf_counter()
    fault: Fault | None = None
    try:
        for step in STEPS:
            await step(exchange)
    except Fault as refusal:
        fault = refusal
    except ControllerSuperseded as error:
        fault = Fault("ServiceUnavailable", str(error))
    except ClientDisconnect:
        fault = Fault("MalformedInput", "The client went away")
    except Exception:
        log.exception("request.crashed", **_described(exchange))
        fault = internal_failure()
    status = 200 if fault is None else fault.status
    # Clients poll: at three in the morning the log shall show what was changed and what was refused.
    read = exchange.operation is not None and exchange.operation.name.startswith(("Describe", "List"))
    (log.debug if read and fault is None else log.info)(
        "request.answered",
        **_described(exchange),
        status=status,
        code=None if fault is None else fault.code,
        duration_ms=round((time.perf_counter() - began) * 1000, 3),
    )
    body = exchange.answer if fault is None else serialize_fault(exchange.service, fault, exchange.request_id)
    headers = {"x-amzn-RequestId": exchange.request_id}
    if fault is not None and fault.code in ("RequestEntityTooLarge", "RequestExpired"):
        headers["connection"] = "close"  # the rest of the body is on its way, and nobody will read it
    return Response(body, status_code=status, media_type=_MEDIA_TYPE, headers=headers)


def _described(exchange: Exchange) -> dict[str, str | None]:
    """Parameters stay out of the log: they may hold passwords."""
    return {
        "request_id": exchange.request_id,
        "operation": None if exchange.operation is None else exchange.operation.name,
        "access_key_id": exchange.access_key_id,
    }
