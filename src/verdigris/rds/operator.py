"""What the control plane offers its operators beside RDS's API: over the same listener, signed with the root key."""

import asyncio

import msgspec
import structlog
from msgspec import Struct
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from verdigris.aws.errors import Fault
from verdigris.domain.errors import VerdigrisError
from verdigris.rds.access import require_root
from verdigris.rds.exchange import Exchange, check_signature, read_body

log = structlog.get_logger(__name__)

# The commit of a route is a matter of milliseconds. Whoever waits longer for its outcome looks at the status instead.
_ANSWER_WITHIN_S = 20.0


class Answer(Struct, frozen=True):
    """``code`` is empty if what was asked for is granted."""

    code: str = ""
    message: str = ""


async def cancel_switchover(exchange: Exchange) -> Response:
    identifier = exchange.request.path_params["identifier"]
    status, answer = 200, Answer()
    try:
        await read_body(exchange)
        await check_signature(exchange)
        require_root(exchange.context, exchange.require_key(), "verdigris:CancelSwitchover")
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            await exchange.context.cancel_switchover(identifier)
    except Fault as fault:
        status, answer = fault.status, Answer(fault.code, fault.message)
    except VerdigrisError as refusal:
        status, answer = 409, Answer("CannotCancel", str(refusal))
    except TimeoutError:
        status, answer = 503, Answer("NotDecided", f"whether {identifier} can be cancelled is not decided yet")
    except ClientDisconnect:
        status = 400
    log.info(
        "request.answered",
        request_id=exchange.request_id,
        operation="cancel",
        access_key_id=exchange.access_key_id,
        deployment=identifier,
        status=status,
        code=answer.code or None,
    )
    return Response(msgspec.json.encode(answer), status_code=status, media_type="application/json")
