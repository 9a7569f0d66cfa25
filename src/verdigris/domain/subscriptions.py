"""Event subscriptions: which events they want, and how these are told to a topic."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from verdigris.domain.errors import VerdigrisError
from verdigris.domain.events import ARN_KINDS
from verdigris.domain.identifiers import Arn
from verdigris.domain.model import Event, Tag

# Between attempts: each pause is twice the one before. As SNS does, a delivery is given up in the end.
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 300.0
GIVEN_UP_AFTER = timedelta(days=1)

_EVENT_PAGE = "http://docs.amazonwebservices.com/AmazonRDS/latest/UserGuide/USER_Events.html"


class EventSubscription(Struct, frozen=True, kw_only=True):
    """``source_type``: None for all of them. No ``source_identifiers``: all of the type; no ``categories``: all."""

    name: str
    topic_arn: str
    source_type: str | None = None
    source_identifiers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    enabled: bool = True
    created_at: datetime
    tags: tuple[Tag, ...] = ()

    def wants(self, event: Event) -> bool:
        return (
            self.enabled
            and self.source_type in (None, event.source_type)
            and (not self.source_identifiers or event.source_identifier in self.source_identifiers)
            and (not self.categories or not set(self.categories).isdisjoint(event.categories))
        )


class Delivery(Struct, frozen=True, kw_only=True):
    """One event on its way to one subscription's topic. The same ``message_id`` in every attempt tells a receiver what
    it has had already."""

    number: int
    message_id: str
    subscription: EventSubscription
    event: Event
    attempts: int
    due_at: datetime


class NotDelivered(VerdigrisError):
    """``final``: another attempt would be refused as well."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class Topics(Protocol):
    """Where messages go."""

    async def publish(self, topic_arn: str, headers: Mapping[str, str], body: bytes) -> None:
        """Raises ``NotDelivered``. The limit on its time is its own."""


def pause_s(attempts: int) -> float:
    """Before the next attempt, after so many that failed."""
    return min(FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 30), LONGEST_PAUSE_S)


def notification(delivery: Delivery, *, region: str, account_id: str, now: datetime) -> tuple[dict[str, str], bytes]:
    """Headers and body as SNS posts them to an HTTP endpoint, around the message that RDS gives to SNS. Without SNS's
    signature: the endpoint's URL is the secret here."""
    event, topic_arn = delivery.event, delivery.subscription.topic_arn
    arn = Arn(region=region, account_id=account_id, kind=ARN_KINDS[event.source_type], name=event.source_identifier)
    message: dict[str, Any] = {
        "Event Source": event.source_type,
        "Event Time": event.at.strftime("%Y-%m-%d %H:%M:%S.") + f"{event.at.microsecond // 1000:03}",
        "Source ID": event.source_identifier,
        "Source ARN": str(arn),
        "Event ID": f"{_EVENT_PAGE}#{event.event_id}",
        "Event Categories": event.categories,
        "Event Message": event.message,
    }
    body = {
        "Type": "Notification",
        "MessageId": delivery.message_id,
        "TopicArn": topic_arn,
        "Subject": "RDS Notification Message",
        "Message": msgspec.json.encode(message).decode(),
        "Timestamp": now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03}Z",
    }
    headers = {
        "Content-Type": "text/plain; charset=UTF-8",
        "x-amz-sns-message-type": "Notification",
        "x-amz-sns-message-id": delivery.message_id,
        "x-amz-sns-topic-arn": topic_arn,
        "x-amz-sns-subscription-arn": f"{topic_arn}:{delivery.subscription.name}",
    }
    return headers, msgspec.json.encode(body)
