"""DescribeAccountAttributes: what there may be, and what there is."""

from collections.abc import Mapping
from typing import Any

from verdigris.rds.context import Context
from verdigris.rds.parameter_groups import MAX_GROUPS


def describe_account_attributes(context: Context, _params: Mapping[str, Any]) -> dict[str, Any]:
    """Only of what exists here. Instances are bounded by their ports, each of which has one of the configured range."""
    with context.store.transaction() as tx:
        instances, groups = tx.instances(), tx.parameter_groups()
    quotas = {
        "DBInstances": (len(instances), context.ports.count),
        "DBParameterGroups": (len(groups), MAX_GROUPS),
    }
    return {
        "AccountQuotas": [
            {"AccountQuotaName": name, "Used": used, "Max": most} for name, (used, most) in quotas.items()
        ]
    }
