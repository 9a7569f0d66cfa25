"""How commands ask something of the control plane that runs: over its own listener, signed with its own key."""

import asyncio
import http.client
import ssl
from http import HTTPStatus

import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from verdigris.app import store_url
from verdigris.config import Settings, find_credentials
from verdigris.domain.errors import VerdigrisError
from verdigris.domain.model import BlueGreenDeployment
from verdigris.domain.statuses import DeploymentStatus
from verdigris.lock import Presence, find_presence
from verdigris.rds.exchange import SIGNING_NAME
from verdigris.rds.operator import Answer
from verdigris.store.sql_store import open_store

# Longer than the control plane takes to say that it does not know.
_ANSWER_LIMIT_S = 30.0
# For undoing what a cancelled switchover has done: some tens of milliseconds, unless a server does not answer.
_UNDO_LIMIT_S = 60.0
_POLL_S = 0.05


async def cancel_switchover(settings: Settings, identifier: str) -> str:
    """Have a running switchover rolled back, and wait for that; what became of it, for a person."""
    presence = find_presence(settings.home)
    if presence is None:
        raise VerdigrisError(
            f"no control plane runs on {settings.home}: start it, and it takes back a switchover that it finds"
            " interrupted before the point of no return"
        )
    await asyncio.to_thread(_post, settings, presence, f"/verdigris/deployments/{identifier}/cancel")
    deployment = await _settled(settings, identifier)
    return f"{deployment.identifier}: {deployment.status}. {deployment.status_details or ''}".rstrip()


async def _settled(settings: Settings, identifier: str) -> BlueGreenDeployment:
    store = open_store(store_url(settings))
    try:
        async with asyncio.timeout(_UNDO_LIMIT_S):
            while True:
                with store.transaction() as tx:
                    deployment = tx.deployment(identifier)
                if deployment is None:
                    raise VerdigrisError(f"there is no blue/green deployment {identifier}")
                if deployment.status is not DeploymentStatus.SWITCHOVER_IN_PROGRESS:
                    return deployment
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise VerdigrisError(
            f"{identifier} is cancelled, and what it did is not undone after {_UNDO_LIMIT_S:g} s: does a server not"
            " answer? It is tried until it works"
        ) from None
    finally:
        store.close()


def _post(settings: Settings, presence: Presence, path: str) -> None:
    """Raises ``VerdigrisError`` with the control plane's own words if it refuses."""
    key = find_credentials(settings)
    if key is None:
        raise VerdigrisError("there is no access key: set VERDIGRIS_ACCESS_KEY_ID and VERDIGRIS_SECRET_ACCESS_KEY")
    signed = AWSRequest(method="POST", url=presence.endpoint_url + path, data=b"")
    SigV4Auth(Credentials(key.access_key_id, key.secret_access_key), SIGNING_NAME, settings.region).add_auth(signed)
    connection = _connection(presence)
    try:
        connection.request("POST", path, b"", dict(signed.headers))
        answer = connection.getresponse()
        if answer.status != HTTPStatus.OK:
            raise VerdigrisError(_words(answer.read()) or f"the control plane answered {answer.status} {answer.reason}")
    except OSError as error:
        raise VerdigrisError(f"the control plane at {presence.endpoint_url} does not answer: {error}") from None
    finally:
        connection.close()


def _connection(presence: Presence) -> http.client.HTTPConnection:
    """With TLS only to a certificate that is in the file that the control plane says it shows, or is signed by one
    there; its names are those that other machines call it by, and do not matter here."""
    if presence.certificate is None:
        return http.client.HTTPConnection(presence.host, presence.port, timeout=_ANSWER_LIMIT_S)
    try:
        context = ssl.create_default_context(cafile=presence.certificate)
    except OSError as error:
        raise VerdigrisError(f"{presence.certificate} cannot be used: {error.strerror or error}") from None
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return http.client.HTTPSConnection(presence.host, presence.port, timeout=_ANSWER_LIMIT_S, context=context)


def _words(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=Answer).message
    except msgspec.MsgspecError:
        return ""
