"""Blue/green deployments as the API shows them."""

from collections.abc import Callable, Iterable
from typing import Protocol

from verdigris.domain.model import BlueGreenDeployment, Member
from verdigris.domain.ports import Transaction
from verdigris.rds.context import Context
from verdigris.rds.views import View, tags_view


def deployment_view(context: Context, deployment: BlueGreenDeployment, tx: Transaction) -> View:
    """ARNs follow present names; the record's names stand in for what is gone. A cluster comes before its members, and
    its custom endpoints after them."""
    members = _members_shown(context, deployment, tx)
    _, source, target = members[0]
    return {
        "BlueGreenDeploymentIdentifier": deployment.identifier,
        "BlueGreenDeploymentName": deployment.name,
        "Source": source,
        "Target": target,
        "SwitchoverDetails": [
            {"SourceMember": source, "TargetMember": target, "Status": member.status}
            for member, source, target in members
        ],
        "Tasks": [{"Name": task.name, "Status": task.status} for task in deployment.tasks],
        "Status": deployment.status,
        "StatusDetails": deployment.status_details,
        "CreateTime": deployment.created_at,
        "DeleteTime": deployment.deleted_at,
        "TagList": tags_view(deployment.tags),
    }


class _Named(Protocol):
    @property
    def identifier(self) -> str: ...


def _members_shown(
    context: Context, deployment: BlueGreenDeployment, tx: Transaction
) -> list[tuple[Member, str, str | None]]:
    """With the ARNs of their sources and targets."""
    kinds: list[tuple[Iterable[Member], Callable[[str], _Named | None], Callable[[str], str]]] = [
        ([] if deployment.cluster is None else [deployment.cluster], tx.cluster, context.cluster_arn),
        (deployment.members, tx.instance, context.instance_arn),
        (deployment.endpoints, tx.cluster_endpoint, context.cluster_endpoint_arn),
    ]

    def present_name(find: Callable[[str], _Named | None], resource_id: str, recorded: str) -> str:
        found = find(resource_id)
        return recorded if found is None else found.identifier

    shown = []
    for members, find, arn in kinds:
        for each in members:
            target = None
            if each.target_resource_id is not None and each.target_identifier is not None:
                target = arn(present_name(find, each.target_resource_id, each.target_identifier))
            shown.append((each, arn(present_name(find, each.source_resource_id, each.source_identifier)), target))
    return shown
