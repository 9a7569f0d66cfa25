"""What is to be told to subscribers, from the event to its receipt."""

from datetime import timedelta

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from tests.unit.store.test_store import NOON, an_event
from verdigris.domain.model import Event, Tag
from verdigris.domain.subscriptions import EventSubscription
from verdigris.store import SqlStore, open_store


def a_subscription(name: str = "alerts", **fields: object) -> EventSubscription:
    made = EventSubscription(name=name, topic_arn="arn:aws:sns:us-east-1:0:t", created_at=NOON, tags=(Tag("a", "b"),))
    return replace(made, **fields)


def happen(store: SqlStore, *events: Event) -> None:
    with store.transaction() as transaction:
        for event in events:
            transaction.add_event(event)


def waiting(store: SqlStore) -> dict[str, str]:
    """Of each subscription the text of the oldest event that it has not been told."""
    with store.transaction() as transaction:
        return {d.subscription.name: d.event.message for d in transaction.next_deliveries()}


@pytest.fixture
def subscribed(store: SqlStore) -> SqlStore:
    with store.transaction() as transaction:
        transaction.put_event_subscription(a_subscription())
    return store


def test_a_subscription_comes_back_as_it_was_put(store: SqlStore) -> None:
    one = a_subscription(source_type="db-instance", source_identifiers=("app",), categories=("creation",))
    with store.transaction() as transaction:
        transaction.put_event_subscription(one)
        transaction.put_event_subscription(a_subscription("Beta"))
    with store.transaction() as transaction:
        assert transaction.event_subscription("alerts") == one
        assert transaction.event_subscription("Alerts") is None
        assert [each.name for each in transaction.event_subscriptions()] == ["Beta", "alerts"]
        transaction.put_event_subscription(replace(one, categories=()))
    with store.transaction() as transaction:
        assert transaction.event_subscription("alerts") == replace(one, categories=())
        transaction.delete_event_subscription("alerts")
        assert [each.name for each in transaction.event_subscriptions()] == ["Beta"]


def test_an_event_waits_in_order_for_each_that_wants_it_and_outlives_the_process(
    subscribed: SqlStore, url: str
) -> None:
    with subscribed.transaction() as transaction:
        transaction.put_event_subscription(a_subscription("failures", categories=("failure",)))
    happen(subscribed, an_event(message="one"), replace(an_event(message="two"), categories=("failure",)))
    again = open_store(url)
    try:
        assert waiting(again) == {"alerts": "one", "failures": "two"}
    finally:
        again.close()


def test_nobody_is_told_of_what_did_not_happen(subscribed: SqlStore) -> None:
    def fail() -> None:
        with subscribed.transaction() as transaction:
            transaction.add_event(an_event())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert waiting(subscribed) == {}


def test_postponed_and_crossed_out(subscribed: SqlStore) -> None:
    happen(subscribed, an_event(message="one"), an_event(message="two"))
    with subscribed.transaction() as transaction:
        (first,) = transaction.next_deliveries()
        assert (first.attempts, first.due_at) == (0, NOON)
        transaction.postpone_delivery(first.number, attempts=3, due_at=NOON + timedelta(seconds=4))
    with subscribed.transaction() as transaction:
        (again,) = transaction.next_deliveries()  # nothing overtakes it
        assert again == replace(first, attempts=3, due_at=NOON + timedelta(seconds=4))
        transaction.delete_delivery(again.number)
        (second,) = transaction.next_deliveries()
        assert second.event.message == "two"
        assert second.message_id != first.message_id


@pytest.mark.parametrize("how", ["deleted", "disabled", "forgotten"])
def test_what_nobody_waits_for_any_more_is_gone(subscribed: SqlStore, how: str) -> None:
    happen(subscribed, an_event())
    with subscribed.transaction() as transaction:
        match how:
            case "deleted":
                transaction.delete_event_subscription("alerts")
            case "disabled":
                transaction.put_event_subscription(a_subscription(enabled=False))
            case _:
                transaction.add_event(replace(an_event(message="later"), at=NOON + timedelta(days=15)))
    assert waiting(subscribed) == ({"alerts": "later"} if how == "forgotten" else {})


def test_the_schema_refuses_sources_without_a_type(store: SqlStore) -> None:
    with pytest.raises(sa.exc.IntegrityError), store.transaction() as transaction:
        transaction.put_event_subscription(a_subscription(source_identifiers=("app",)))
