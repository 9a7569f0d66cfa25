"""Event subscriptions through the API."""

from typing import Any

import pytest

from tests.unit.rds.world import TOPIC, World
from verdigris.domain import events as builders
from verdigris.rds.event_subscriptions import CATEGORIES

ARN = "arn:aws:rds:us-east-1:123456789012:es:Alerts"


def create(world: World, name: str = "Alerts", **params: Any) -> dict[str, Any]:
    answer = world.call("CreateEventSubscription", **{"SubscriptionName": name, "SnsTopicArn": TOPIC, **params})
    return dict(answer["EventSubscription"])


def modify(world: World, name: str = "Alerts", **params: Any) -> dict[str, Any]:
    return dict(world.call("ModifyEventSubscription", SubscriptionName=name, **params)["EventSubscription"])


def sources(world: World, operation: str, identifier: str) -> list[str]:
    answer = world.call(
        f"{operation}Subscription".replace("Identifier", "IdentifierTo" if operation[0] == "A" else "IdentifierFrom"),
        SubscriptionName="Alerts",
        SourceIdentifier=identifier,
    )
    return list(answer["EventSubscription"]["SourceIdsList"])


def waiting(world: World) -> list[str]:
    """Texts of the events that are to be told next."""
    with world.store.transaction() as tx:
        return [delivery.event.message for delivery in tx.next_deliveries()]


def test_a_new_one_as_rds_shows_it(world: World) -> None:
    world.create_instance()
    shown = create(
        world,
        SourceType="db-instance",
        SourceIds=["App"],
        EventCategories=["failure", "availability"],
        Tags=[{"Key": "k", "Value": "v"}],
    )
    assert shown == {
        "CustomerAwsId": "123456789012",
        "CustSubscriptionId": "Alerts",
        "SnsTopicArn": TOPIC,
        "Status": "active",
        "SubscriptionCreationTime": "Mon May 04 12:00:00 UTC 2026",
        "SourceType": "db-instance",
        "SourceIdsList": ["app"],
        "EventCategoriesList": ["availability", "failure"],
        "Enabled": True,
        "EventSubscriptionArn": ARN,
    }
    assert world.call("DescribeEventSubscriptions")["EventSubscriptionsList"] == [shown]
    assert world.call("DescribeEventSubscriptions", SubscriptionName="Alerts")["EventSubscriptionsList"] == [shown]
    world.call("AddTagsToResource", ResourceName=ARN, Tags=[{"Key": "own"}])
    tags = world.call("ListTagsForResource", ResourceName=ARN)["TagList"]
    assert tags == [{"Key": "k", "Value": "v"}, {"Key": "own", "Value": ""}]


def test_changes(world: World) -> None:
    world.create_instance()
    world.create_instance("other")
    create(world, SourceType="db-instance", SourceIds=["app"])
    assert sources(world, "AddSourceIdentifier", "Other") == ["app", "other"]
    assert sources(world, "RemoveSourceIdentifier", "App") == ["other"]
    assert modify(world, EventCategories=["creation"])["EventCategoriesList"] == ["creation"]
    shown = modify(world, SourceType="blue-green-deployment", Enabled=False)
    assert (shown["SourceType"], shown["SourceIdsList"], shown["Enabled"]) == ("blue-green-deployment", [], False)
    assert modify(world, EventCategories=[])["EventCategoriesList"] == []
    deleted = world.call("DeleteEventSubscription", SubscriptionName="Alerts")["EventSubscription"]
    assert deleted["Status"] == "deleting"
    assert world.call("DescribeEventSubscriptions")["EventSubscriptionsList"] == []


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"SnsTopicArn": "alerts"}, "SNSInvalidTopic"),
        ({"SnsTopicArn": "https://hooks.example/alerts"}, "SNSInvalidTopic"),
        ({"SnsTopicArn": TOPIC.replace("sns", "sqs")}, "SNSInvalidTopic"),
        ({"SnsTopicArn": TOPIC + "-2"}, "SNSTopicArnNotFound"),
        ({"SourceType": "weather"}, "InvalidParameterValue"),
        ({"SourceIds": ["app"]}, "InvalidParameterCombination"),
        ({"SourceType": "db-instance", "SourceIds": ["none"]}, "SourceNotFound"),
        ({"SourceType": "blue-green-deployment", "SourceIds": ["bgd-none"]}, "SourceNotFound"),
        ({"SourceType": "db-parameter-group", "SourceIds": ["none"]}, "SourceNotFound"),
        ({"SourceType": "db-snapshot", "SourceIds": ["none"]}, "SourceNotFound"),
        ({"SourceType": "db-proxy", "SourceIds": ["none"]}, "SourceNotFound"),
        ({"SourceType": "db-parameter-group", "EventCategories": ["creation"]}, "SubscriptionCategoryNotFound"),
        ({"EventCategories": ["weather"]}, "SubscriptionCategoryNotFound"),
        ({"SubscriptionName": "a" * 255}, "InvalidParameterValue"),
        ({"SubscriptionName": "Taken"}, "SubscriptionAlreadyExist"),
        ({"Tags": [{"Key": "aws:k"}]}, "InvalidParameterValue"),
    ],
    ids=repr,
)
def test_refused(world: World, params: dict[str, Any], code: str) -> None:
    create(world, "Taken")
    with world.refused(code):
        create(world, **params)


@pytest.mark.parametrize(
    ("operation", "params"),
    [
        ("ModifyEventSubscription", {}),
        ("DeleteEventSubscription", {}),
        ("DescribeEventSubscriptions", {}),
        ("AddSourceIdentifierToSubscription", {"SourceIdentifier": "app"}),
        ("RemoveSourceIdentifierFromSubscription", {"SourceIdentifier": "app"}),
    ],
)
def test_one_that_is_not_there(world: World, operation: str, params: dict[str, Any]) -> None:
    create(world)
    with world.refused("SubscriptionNotFound"):
        world.call(operation, SubscriptionName="alerts", **params)


def test_refused_changes(world: World) -> None:
    world.create_instance()
    create(world, SourceType="db-instance", SourceIds=["app"])
    create(world, "All")
    with world.refused("SourceNotFound"):
        sources(world, "AddSourceIdentifier", "none")
    with world.refused("SourceNotFound"):
        sources(world, "RemoveSourceIdentifier", "none")
    with world.refused("InvalidParameterCombination"):
        world.call("AddSourceIdentifierToSubscription", SubscriptionName="All", SourceIdentifier="app")
    with world.refused("SNSTopicArnNotFound"):
        modify(world, SnsTopicArn=TOPIC + "-2")
    with world.refused("SubscriptionCategoryNotFound"):
        modify(world, SourceType="db-parameter-group", EventCategories=["creation"])


def test_pages(world: World) -> None:
    world.set_quotas(EventSubscriptions=21)
    for number in range(21):
        create(world, f"s{number:02}")
    page = world.call("DescribeEventSubscriptions", MaxRecords=20)
    assert [each["CustSubscriptionId"] for each in page["EventSubscriptionsList"]] == [f"s{n:02}" for n in range(20)]
    (last,) = world.call("DescribeEventSubscriptions", Marker=page["Marker"])["EventSubscriptionsList"]
    assert last["CustSubscriptionId"] == "s20"


def test_a_topic_that_the_operator_has_taken_away(world: World) -> None:
    create(world)
    object.__setattr__(world.context, "topics", ())
    (shown,) = world.call("DescribeEventSubscriptions")["EventSubscriptionsList"]
    assert shown["Status"] == "topic-not-exist"


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({}, True),
        ({"SourceType": "db-instance"}, True),
        ({"SourceType": "db-instance", "SourceIds": ["app"]}, True),
        ({"SourceType": "db-instance", "EventCategories": ["creation"]}, True),
        ({"EventCategories": ["creation", "failure"]}, True),
        ({"SourceType": "db-instance", "SourceIds": ["other"]}, False),
        ({"SourceType": "db-instance", "EventCategories": ["failure"]}, False),
        ({"SourceType": "blue-green-deployment"}, False),
        ({"Enabled": False}, False),
    ],
    ids=repr,
)
def test_who_is_told_of_a_new_instance(world: World, params: dict[str, Any], told: bool) -> None:
    app = world.create_instance()
    world.create_instance("other")
    create(world, **params)
    with world.store.transaction() as tx:
        tx.add_event(builders.instance_created(app, world.clock.now()))
    assert bool(waiting(world)) is told


def test_every_category_of_an_event_here_can_be_asked_for() -> None:
    for source_type, categories in builders.CATEGORIES.items():
        assert categories <= CATEGORIES[source_type]
