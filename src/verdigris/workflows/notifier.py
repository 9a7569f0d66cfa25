"""Tells subscribers what happens: each event at least once, in the order of events, for a day if need be.

What is to be told is in the store, written together with the event. It is crossed out after the topic has taken it: a
control plane that dies in between tells it again, with the same message id.
"""

import asyncio
from datetime import timedelta

import structlog

from verdigris.domain.ports import Clock, Store
from verdigris.domain.subscriptions import (
    GIVEN_UP_AFTER,
    Delivery,
    NotDelivered,
    Topics,
    notification,
    pause_s,
)

log = structlog.get_logger(__name__)

INTERVAL_S = 1.0


class Notifier:
    def __init__(self, store: Store, clock: Clock, topics: Topics, *, region: str, account_id: str) -> None:
        self._store = store
        self._clock = clock
        self._topics = topics
        self._region = region
        self._account_id = account_id

    async def run(self) -> None:
        while True:
            try:
                while await self.look():
                    pass
            except Exception:
                log.exception("notifications.failed")
            await asyncio.sleep(INTERVAL_S)

    async def look(self) -> int:
        """One round: of each subscription the oldest event, if it is due. How many were done with.

        One that cannot be told holds up those behind it, and no other subscription's."""
        now = self._clock.now()
        with self._store.transaction() as tx:
            due = [delivery for delivery in tx.next_deliveries() if delivery.due_at <= now]
        return sum(await asyncio.gather(*(self._deliver(delivery) for delivery in due)))

    async def _deliver(self, delivery: Delivery) -> bool:
        now = self._clock.now()
        headers, body = notification(delivery, region=self._region, account_id=self._account_id, now=now)
        try:
            await self._topics.publish(delivery.subscription.topic_arn, headers, body)
        except NotDelivered as refusal:
            if not self._give_up(delivery, refusal):
                self._postpone(delivery, refusal)
                return False
        with self._store.transaction() as tx:
            tx.delete_delivery(delivery.number)
        return True

    def _give_up(self, delivery: Delivery, refusal: NotDelivered) -> bool:
        over = refusal.final or self._clock.now() - delivery.event.at >= GIVEN_UP_AFTER
        if over:
            log.warning(
                "notification.given_up",
                subscription=delivery.subscription.name,
                message_id=delivery.message_id,
                reason=str(refusal),
            )
        return over

    def _postpone(self, delivery: Delivery, refusal: NotDelivered) -> None:
        attempts = delivery.attempts + 1
        pause = timedelta(seconds=pause_s(attempts))
        with self._store.transaction() as tx:
            tx.postpone_delivery(delivery.number, attempts=attempts, due_at=self._clock.now() + pause)
        log.info(
            "notification.postponed",
            subscription=delivery.subscription.name,
            attempts=attempts,
            pause_s=pause.total_seconds(),
            reason=str(refusal),
        )
