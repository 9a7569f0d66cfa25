"""DescribeAccountAttributes: what there may be, and what there is."""

from collections.abc import Mapping
from typing import Any

from verdigris.rds.context import Context
from verdigris.rds.event_subscriptions import MAX_SUBSCRIPTIONS
from verdigris.rds.parameter_groups import MAX_GROUPS


def describe_account_attributes(context: Context, _params: Mapping[str, Any]) -> dict[str, Any]:
    """Only of what exists here. Instances are bounded by their ports, each of which has one of the configured range."""
    with context.store.transaction() as tx:
        instances, groups, subscriptions = tx.instances(), tx.parameter_groups(), tx.event_subscriptions()
    quotas = {
        "DBInstances": (len(instances), context.ports.count),
        "DBParameterGroups": (len(groups), MAX_GROUPS),
        "EventSubscriptions": (len(subscriptions), MAX_SUBSCRIPTIONS),
    }
    return {
        "AccountQuotas": [
            {"AccountQuotaName": name, "Used": used, "Max": most} for name, (used, most) in quotas.items()
        ]
    }
