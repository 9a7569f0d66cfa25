"""Event subscriptions, and what is to be delivered to them: queued in the transaction that writes the event."""

import uuid
from datetime import datetime

import sqlalchemy as sa

from verdigris.domain.model import Event
from verdigris.domain.subscriptions import Delivery, EventSubscription
from verdigris.store import schema
from verdigris.store.records import from_row, to_row


class SubscriptionQueries:
    """The part of ``domain.ports.Transaction`` that is about them."""

    _connection: sa.Connection

    def event_subscription(self, name: str) -> EventSubscription | None:
        found = self._subscriptions(schema.event_subscriptions.c.name == name)
        return found[0] if found else None

    def event_subscriptions(self) -> list[EventSubscription]:
        return sorted(self._subscriptions(sa.true()), key=lambda subscription: subscription.name)

    def put_event_subscription(self, subscription: EventSubscription) -> None:
        table, row = schema.event_subscriptions, to_row(subscription)
        updated = self._connection.execute(sa.update(table).where(table.c.name == subscription.name), row)
        if updated.rowcount == 0:
            self._connection.execute(sa.insert(table), row)
        if not subscription.enabled:
            deliveries = schema.deliveries
            self._connection.execute(sa.delete(deliveries).where(deliveries.c.subscription_name == subscription.name))

    def delete_event_subscription(self, name: str) -> None:
        table = schema.event_subscriptions
        self._connection.execute(sa.delete(table).where(table.c.name == name))

    def _subscriptions(self, condition: sa.ColumnElement[bool]) -> list[EventSubscription]:
        rows = self._connection.execute(sa.select(schema.event_subscriptions).where(condition)).mappings()
        return [from_row(row, EventSubscription) for row in rows]

    # ----------------------------------------------------------------------------------------------------- deliveries

    def _queue(self, event: Event, event_number: int) -> None:
        rows = [
            {
                "message_id": str(uuid.uuid4()),
                "subscription_name": subscription.name,
                "event_number": event_number,
                "attempts": 0,
                "due_at": event.at,
            }
            for subscription in self.event_subscriptions()
            if subscription.wants(event)
        ]
        if rows:
            self._connection.execute(sa.insert(schema.deliveries), rows)

    def next_deliveries(self) -> list[Delivery]:
        table = schema.deliveries
        oldest = sa.select(sa.func.min(table.c.number)).group_by(table.c.subscription_name)
        rows = self._connection.execute(sa.select(table).where(table.c.number.in_(oldest))).mappings().all()
        return [self._delivery(row) for row in rows]

    def _delivery(self, row: sa.RowMapping) -> Delivery:
        events, subscriptions = schema.events, schema.event_subscriptions
        event = self._connection.execute(sa.select(events).where(events.c.number == row["event_number"]))
        subscription = sa.select(subscriptions).where(subscriptions.c.name == row["subscription_name"])
        return Delivery(
            number=row["number"],
            message_id=row["message_id"],
            subscription=from_row(self._connection.execute(subscription).mappings().one(), EventSubscription),
            event=from_row(event.mappings().one(), Event),
            attempts=row["attempts"],
            due_at=row["due_at"],
        )

    def postpone_delivery(self, number: int, *, attempts: int, due_at: datetime) -> None:
        table = schema.deliveries
        self._connection.execute(
            sa.update(table).where(table.c.number == number).values(attempts=attempts, due_at=due_at)
        )

    def delete_delivery(self, number: int) -> None:
        table = schema.deliveries
        self._connection.execute(sa.delete(table).where(table.c.number == number))
