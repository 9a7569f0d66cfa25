"""Whether the key that signed a request may have what it asks for.

Which ARNs a request is about, and which further actions it takes, is as AWS has it ("Actions, resources, and condition
keys for Amazon RDS"; RDS user guide, "Authorizing access to blue/green deployment operations"): all of them have to be
allowed. That is looked at before the handler looks at anything, so a refusal tells nothing about what there is.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from verdigris.aws.errors import Fault, access_denied
from verdigris.domain.access import AccessKey
from verdigris.domain.model import Member
from verdigris.rds.context import Context
from verdigris.rds.lookups import deployment_identifier_of, parse_own_arn

# Members of requests that name what the request is about, and the kind in the ARN of that.
_KINDS = {
    "BlueGreenDeploymentIdentifier": "deployment",
    "DBClusterEndpointIdentifier": "cluster-endpoint",
    "DBClusterIdentifier": "cluster",
    "DBClusterParameterGroupName": "cluster-pg",
    "DBInstanceIdentifier": "db",
    "DBParameterGroupName": "pg",
    "DBSnapshotIdentifier": "snapshot",
    "DBSubnetGroupName": "subgrp",
    "ResourceName": "db",
    "Source": "db",
    "SourceDBClusterIdentifier": "cluster",
    "SourceDBInstanceIdentifier": "db",
    "SourceDBParameterGroupIdentifier": "pg",
    "SourceDBSnapshotIdentifier": "snapshot",
    "SubscriptionName": "es",
    "TargetDBClusterParameterGroupName": "cluster-pg",
    "TargetDBParameterGroupIdentifier": "pg",
    "TargetDBParameterGroupName": "pg",
    "TargetDBSnapshotIdentifier": "snapshot",
}

# Named, but not what it is about: who may stop an instance may do so with a snapshot.
_NOT_ABOUT = frozenset({("StopDBInstance", "DBSnapshotIdentifier")})

# What an operation is about that names nothing: all of a kind. Any other one is about no resource.
_KIND_OF_ALL = {
    "DescribeBlueGreenDeployments": "deployment",
    "DescribeDBClusterEndpoints": "cluster-endpoint",
    "DescribeDBClusters": "cluster",
    "DescribeDBInstances": "db",
    "DescribeDBParameterGroups": "pg",
    "DescribeDBSnapshots": "snapshot",
    "DescribeDBSubnetGroups": "subgrp",
    "DescribeEventSubscriptions": "es",
}


# What a deployment takes, by the kind of what it is taken on. Those of clusters: Aurora user guide, as above.
_CREATING = {
    "db": ("rds:CreateDBInstanceReadReplica",),
    "cluster": ("rds:CreateDBCluster", "rds:CreateDBInstance", "rds:CreateDBClusterEndpoint"),
}
_SWITCHING_OVER = {
    "db": ("rds:ModifyDBInstance", "rds:PromoteReadReplica"),
    "cluster": ("rds:ModifyDBCluster", "rds:PromoteReadReplicaDBCluster"),
}
_DELETING = {
    "db": "rds:DeleteDBInstance",
    "cluster": "rds:DeleteDBCluster",
    "cluster-endpoint": "rds:DeleteDBClusterEndpoint",
}


def authorize(context: Context, key: AccessKey, operation: str, params: Mapping[str, Any]) -> None:
    """Raises ``AccessDenied`` in AWS's words for the first thing that is not allowed."""
    if key.is_root:
        return
    for action, resource in needed(context, operation, params):
        if not key.allows(action, resource):
            raise denied(context, key, action, resource)


def require_root(context: Context, key: AccessKey, action: str) -> None:
    """For what is not of RDS's API."""
    if not key.is_root:
        raise denied(context, key, action, "*")


def denied(context: Context, key: AccessKey, action: str, resource: str) -> Fault:
    user = f"arn:aws:iam::{context.account_id}:user/{key.user}"
    return access_denied(
        f"User: {user} is not authorized to perform: {action}"
        + ("" if resource == "*" else f" on resource: {resource}")
        + f" because no identity-based policy allows the {action} action"
    )


def needed(context: Context, operation: str, params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Actions and the resources they are taken on."""
    named = [
        _arn(context, kind, params[member])
        for member, kind in _KINDS.items()
        if isinstance(params.get(member), str) and (operation, member) not in _NOT_ABOUT
    ]
    kind_of_all = _KIND_OF_ALL.get(operation)
    resources = named or ["*" if kind_of_all is None else context.arn(kind_of_all, "*")]
    for resource in resources:
        yield f"rds:{operation}", resource
    if params.get("Tags") and operation != "AddTagsToResource":
        for resource in resources:
            yield "rds:AddTagsToResource", resource
    match operation:
        case "CreateBlueGreenDeployment":
            source = _arn(context, "db", params["Source"])
            kind = "cluster" if source.startswith(context.arn("cluster", "")) else "db"
            for action in _CREATING[kind]:
                yield action, source
        case "SwitchoverBlueGreenDeployment":
            for kind, member in _members(context, params["BlueGreenDeploymentIdentifier"], targets_only=False):
                for action in _SWITCHING_OVER.get(kind, ()):
                    yield action, member
        case "DeleteBlueGreenDeployment" if params.get("DeleteTarget"):
            for kind, member in _members(context, params["BlueGreenDeploymentIdentifier"], targets_only=True):
                yield _DELETING[kind], member


def _arn(context: Context, kind: str, text: str) -> str:
    """Names in lower case, as they are kept: another spelling is the same resource, and no way around a rule."""
    try:
        arn = parse_own_arn(context, text)
    except Fault:
        return context.arn(kind, text.lower())
    return context.arn(arn.kind, arn.name.lower())


def _members(context: Context, text: str, *, targets_only: bool) -> list[tuple[str, str]]:
    """Kinds and ARNs. None of a deployment that is not there: saying so is the handler's business."""
    try:
        identifier = deployment_identifier_of(context, text)
    except Fault:
        return []
    with context.store.transaction() as tx:
        deployment = tx.deployment(identifier)
        if deployment is None:
            return []
        names = {"db": list(tx.identifiers(_ends(deployment.members, targets_only=targets_only)).values())}
        if deployment.cluster is not None:
            clusters = [tx.cluster(end) for end in _ends([deployment.cluster], targets_only=targets_only)]
            endpoints = [tx.cluster_endpoint(end) for end in _ends(deployment.endpoints, targets_only=targets_only)]
            names["cluster"] = [each.identifier for each in clusters if each is not None]
            names["cluster-endpoint"] = [each.identifier for each in endpoints if each is not None]
    if deployment.cluster is not None and not targets_only:
        del names["db"]  # they are switched over as their cluster
    return [(kind, context.arn(kind, name)) for kind, found in names.items() for name in found]


def _ends(members: Iterable[Member], *, targets_only: bool) -> list[str]:
    if targets_only:
        return [each.target_resource_id for each in members if each.target_resource_id is not None]
    return [resource_id for each in members for resource_id in each.resource_ids]
