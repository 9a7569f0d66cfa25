"""Event subscriptions: create, modify, describe, delete, and the sources that they are limited to."""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import structs

from verdigris.aws.errors import Fault, invalid_parameter_combination, invalid_parameter_value
from verdigris.domain.ports import Transaction
from verdigris.domain.quotas import Quota
from verdigris.domain.statuses import SourceType
from verdigris.domain.subscriptions import EventSubscription
from verdigris.rds import views
from verdigris.rds.context import Context
from verdigris.rds.filters import apply_filters
from verdigris.rds.lookups import require_event_subscription
from verdigris.rds.pagination import paginate
from verdigris.rds.quotas import require_less
from verdigris.rds.tags import parse_tags

MAX_NAME = 255

# By source type (RDS user guide, "Amazon RDS event categories and event messages"). Of many of them nothing happens
# here, and a script that asks for them all the same gets what does.
CATEGORIES: Mapping[str, frozenset[str]] = {
    "db-instance": frozenset(
        {
            "availability", "backtrack", "backup", "configuration change", "creation", "deletion", "failover",
            "failure", "low storage", "maintenance", "notification", "read replica", "recovery", "restoration",
            "security", "security patching",
        }
    ),
    "db-parameter-group": frozenset({"configuration change"}),
    "db-security-group": frozenset({"configuration change", "failure"}),
    "db-snapshot": frozenset({"creation", "deletion", "notification", "restoration"}),
    "db-cluster": frozenset(
        {
            "configuration change", "creation", "deletion", "failover", "failure", "global-failover", "maintenance",
            "migration", "notification", "serverless",
        }
    ),
    "db-cluster-snapshot": frozenset({"backup", "creation", "deletion", "notification"}),
    "custom-engine-version": frozenset({"creation", "failure", "restoring"}),
    "db-proxy": frozenset({"configuration change", "creation", "deletion", "failure"}),
    "blue-green-deployment": frozenset({"creation", "deletion", "failure", "notification"}),
    "zero-etl": frozenset({"creation", "deletion", "failure", "notification"}),
}  # fmt: skip


def create_event_subscription(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    name, source_type = params["SubscriptionName"], _source_type(params)
    if not 0 < len(name) < MAX_NAME:
        raise invalid_parameter_value(f"SubscriptionName must have 1 to {MAX_NAME - 1} characters")
    subscription = EventSubscription(
        name=name,
        topic_arn=_topic(context, params["SnsTopicArn"]),
        source_type=source_type,
        source_identifiers=_normal(params.get("SourceIds", ())),
        categories=_categories(source_type, params.get("EventCategories", ())),
        enabled=params.get("Enabled", True),
        created_at=context.clock.now(),
        tags=parse_tags(params.get("Tags")),
    )
    with context.store.transaction() as tx:
        if tx.event_subscription(name) is not None:
            raise Fault("SubscriptionAlreadyExistFault", f"Event subscription {name} already exists")
        present = len(tx.event_subscriptions())
        require_less(context, Quota.EVENT_SUBSCRIPTIONS, present, "EventSubscriptionQuotaExceededFault")
        for identifier in subscription.source_identifiers:
            _require_source(tx, source_type, identifier)
        tx.put_event_subscription(subscription)
    return {"EventSubscription": views.event_subscription_view(context, subscription)}


def modify_event_subscription(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """Sources are of one type: a subscription that gets another type has none any more."""
    topic_arn = _topic(context, params["SnsTopicArn"]) if "SnsTopicArn" in params else None
    with context.store.transaction() as tx:
        before = require_event_subscription(tx, params["SubscriptionName"])
        source_type = _source_type(params) if "SourceType" in params else before.source_type
        after = structs.replace(
            before,
            topic_arn=topic_arn or before.topic_arn,
            source_type=source_type,
            source_identifiers=before.source_identifiers if source_type == before.source_type else (),
            categories=_categories(source_type, params.get("EventCategories", before.categories)),
            enabled=params.get("Enabled", before.enabled),
        )
        tx.put_event_subscription(after)
    return {"EventSubscription": views.event_subscription_view(context, after)}


def add_source_identifier_to_subscription(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    identifier = params["SourceIdentifier"].lower()
    with context.store.transaction() as tx:
        before = require_event_subscription(tx, params["SubscriptionName"])
        _require_source(tx, before.source_type, identifier)
        after = structs.replace(before, source_identifiers=_normal((*before.source_identifiers, identifier)))
        tx.put_event_subscription(after)
    return {"EventSubscription": views.event_subscription_view(context, after)}


def remove_source_identifier_from_subscription(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """Without any it is about all sources of its type, like one that was made without."""
    identifier = params["SourceIdentifier"].lower()
    with context.store.transaction() as tx:
        before = require_event_subscription(tx, params["SubscriptionName"])
        left = tuple(each for each in before.source_identifiers if each != identifier)
        if left == before.source_identifiers:
            raise _source_not_found(identifier)
        after = structs.replace(before, source_identifiers=left)
        tx.put_event_subscription(after)
    return {"EventSubscription": views.event_subscription_view(context, after)}


def delete_event_subscription(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    with context.store.transaction() as tx:
        subscription = require_event_subscription(tx, params["SubscriptionName"])
        tx.delete_event_subscription(subscription.name)
    return {"EventSubscription": {**views.event_subscription_view(context, subscription), "Status": "deleting"}}


def describe_event_subscriptions(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    apply_filters(params.get("Filters"), (), {})  # "This parameter isn't currently supported", says the reference
    named = params.get("SubscriptionName")
    with context.store.transaction() as tx:
        found = tx.event_subscriptions() if named is None else [require_event_subscription(tx, named)]
    page, marker = paginate("DescribeEventSubscriptions", params, found, lambda subscription: [subscription.name])
    return {"EventSubscriptionsList": [views.event_subscription_view(context, each) for each in page], "Marker": marker}


# --------------------------------------------------------------------------------------------------------------- checks


def _topic(context: Context, arn: str) -> str:
    parts = arn.split(":")
    if len(parts) != 6 or parts[:3] != ["arn", "aws", "sns"] or not all(parts):
        raise Fault("SNSInvalidTopicFault", f"Invalid SNS topic: {arn}. It must be arn:aws:sns:REGION:ACCOUNT:NAME")
    if arn not in context.topics:
        raise Fault(
            "SNSTopicArnNotFoundFault", f"SNS topic {arn} does not exist. Topics of this server are in VERDIGRIS_TOPICS"
        )
    return arn


def _source_type(params: Mapping[str, Any]) -> str | None:
    source_type: str | None = params.get("SourceType")
    if source_type is not None and source_type not in CATEGORIES:
        raise invalid_parameter_value(f"Invalid source type: {source_type}")
    if source_type is None and params.get("SourceIds"):
        raise invalid_parameter_combination("SourceType must be given together with SourceIds")
    return source_type


def _categories(source_type: str | None, wanted: Iterable[str]) -> tuple[str, ...]:
    known = frozenset[str]().union(*CATEGORIES.values()) if source_type is None else CATEGORIES[source_type]
    categories = tuple(sorted(set(wanted)))
    for category in categories:
        if category not in known:
            raise Fault(
                "SubscriptionCategoryNotFoundFault", f"There is no event category {category} of the source type"
            )
    return categories


def _normal(identifiers: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({identifier.lower() for identifier in identifiers}))


def _require_source(tx: Transaction, source_type: str | None, identifier: str) -> None:
    match source_type:
        case SourceType.DB_INSTANCE:
            known = tx.instance_named(identifier) is not None
        case SourceType.DB_CLUSTER:
            known = tx.cluster_named(identifier) is not None
        case SourceType.DB_SNAPSHOT:
            known = tx.snapshot_named(identifier) is not None
        case SourceType.BLUE_GREEN_DEPLOYMENT:
            known = tx.deployment(identifier) is not None
        case SourceType.DB_PARAMETER_GROUP:
            known = tx.parameter_group(identifier) is not None
        case None:
            raise invalid_parameter_combination("The subscription has no source type, so it is about all sources")
        case _:
            known = False
    if not known:
        raise _source_not_found(identifier)


def _source_not_found(identifier: str) -> Fault:
    return Fault("SourceNotFoundFault", f"Source {identifier} not found")
