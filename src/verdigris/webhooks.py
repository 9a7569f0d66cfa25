"""Topics as webhooks: a message to a topic is posted to the URL that the operator has set for it.

No more of HTTP than that takes: one request a connection, of whose answer the status says it all.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from verdigris import __version__
from verdigris.domain.subscriptions import NotDelivered

# As SNS has it: an endpoint that takes longer has not answered.
LIMIT_S = 15.0
# Refusals that may be others next time: too slow, too early, too many requests.
_PASSING = frozenset({408, 425, 429})


class Webhooks:
    """``domain.subscriptions.Topics``. ``urls``: by topic ARN; each has passed ``check_url``."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = {arn: urlsplit(url) for arn, url in urls.items()}

    async def publish(self, topic_arn: str, headers: Mapping[str, str], body: bytes) -> None:
        url = self._urls.get(topic_arn)
        if url is None:
            raise NotDelivered("the topic has no webhook any more: see VERDIGRIS_TOPICS")
        try:
            async with asyncio.timeout(LIMIT_S):
                status = await _post(url, headers, body)
        except TimeoutError:
            raise NotDelivered(f"no answer in {LIMIT_S:g} s") from None
        except (OSError, EOFError, ValueError) as error:
            raise NotDelivered(f"no answer: {error or type(error).__name__}") from None
        if not 200 <= status < 300:
            raise NotDelivered(f"answered with status {status}", final=status < 500 and status not in _PASSING)


def check_url(url: str, *, insecure: bool) -> str | None:
    """What is wrong with it; None if nothing is. ``insecure``: plain HTTP may leave this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("http", "https") or not host:
        return "it is no http: or https: URL"
    if not url.isascii() or any(character <= " " for character in url):
        return "it has characters that a URL has to escape"
    if parts.username is not None or parts.fragment:
        return "it has a user's name or a fragment, of which nothing would be sent"
    if parts.scheme == "http" and not insecure and not _is_loopback(host):
        return "it would leave this machine in clear: use https, or set VERDIGRIS_INSECURE_TOPICS=1"
    return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _post(url: SplitResult, headers: Mapping[str, str], body: bytes) -> int:
    tls = ssl.create_default_context() if url.scheme == "https" else None
    port = url.port or (443 if tls else 80)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=tls, limit=8192)
    try:
        writer.write(_request(url, headers, body))
        await writer.drain()
        return _status(await reader.readuntil(b"\r\n"))
    finally:
        writer.close()


def _request(url: SplitResult, headers: Mapping[str, str], body: bytes) -> bytes:
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    lines = [
        f"POST {target} HTTP/1.1",
        f"Host: {url.netloc}",
        f"User-Agent: verdigris/{__version__}",
        *(f"{name}: {value}" for name, value in headers.items()),
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _status(line: bytes) -> int:
    version, _, rest = line.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise ValueError("what came back is not HTTP")
    return int(rest[:3])
