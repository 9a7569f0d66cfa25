"""From what a caller names to a record, or to RDS's own refusal."""

from verdigris.aws.errors import Fault, invalid_parameter_value
from verdigris.domain.identifiers import Arn, is_instance_identifier
from verdigris.domain.model import (
    BlueGreenDeployment,
    DBCluster,
    DBClusterEndpoint,
    DBInstance,
    DBSnapshot,
    DBSubnetGroup,
    ParameterGroup,
)
from verdigris.domain.ports import Transaction
from verdigris.domain.subscriptions import EventSubscription
from verdigris.rds.context import Context


def parse_own_arn(context: Context, text: str) -> Arn:
    """An ARN of this account and region. Raises ``InvalidParameterValue`` for any other text."""
    try:
        arn = Arn.parse(text)
    except ValueError:
        raise invalid_parameter_value(f"Invalid resource name: {text}") from None
    if (arn.region, arn.account_id) != (context.region, context.account_id):
        raise invalid_parameter_value(
            f"The specified resource name does not match an RDS resource in this region and account "
            f"({context.region}, {context.account_id}): {text}"
        )
    return arn


def instance_identifier_of(context: Context, text: str) -> str:
    return _name_of(context, text, "db", "DB instance")


def cluster_identifier_of(context: Context, text: str) -> str:
    return _name_of(context, text, "cluster", "DB cluster")


def snapshot_identifier_of(context: Context, text: str) -> str:
    return _name_of(context, text, "snapshot", "DB snapshot")


def deployment_identifier_of(context: Context, text: str) -> str:
    return _name_of(context, text, "deployment", "blue/green deployment")


def parameter_group_name_of(context: Context, text: str) -> str:
    return _name_of(context, text, "pg", "DB parameter group")


def _name_of(context: Context, text: str, kind: str, what: str) -> str:
    """The name, lower case, of what is named by its name or by its ARN."""
    if not text.startswith("arn:"):
        return text.lower()
    arn = parse_own_arn(context, text)
    if arn.kind != kind:
        raise invalid_parameter_value(f"The specified resource name is not that of a {what}: {text}")
    return arn.name.lower()


def require_own_parameter_group(tx: Transaction, name: str, verb: str) -> ParameterGroup:
    if name.startswith("default."):
        raise Fault("InvalidDBParameterGroupStateFault", f"The default parameter group {name} cannot be {verb}")
    group = tx.parameter_group(name)
    if group is None:
        raise parameter_group_not_found(name)
    return group


def parameter_group_not_found(name: str) -> Fault:
    return Fault("DBParameterGroupNotFoundFault", f"DBParameterGroup not found: {name}")


def require_instance(tx: Transaction, identifier: str) -> DBInstance:
    if not is_instance_identifier(identifier):
        raise invalid_parameter_value(identifier_rule("DBInstanceIdentifier"))
    instance = tx.instance_named(identifier)
    if instance is None:
        raise Fault("DBInstanceNotFoundFault", f"DBInstance {identifier.lower()} not found.")
    return instance


def require_cluster(tx: Transaction, identifier: str) -> DBCluster:
    if not is_instance_identifier(identifier):
        raise invalid_parameter_value(identifier_rule("DBClusterIdentifier"))
    cluster = tx.cluster_named(identifier)
    if cluster is None:
        raise cluster_not_found(identifier)
    return cluster


def cluster_not_found(identifier: str) -> Fault:
    return Fault("DBClusterNotFoundFault", f"DBCluster {identifier.lower()} not found.")


def require_snapshot(tx: Transaction, identifier: str) -> DBSnapshot:
    snapshot = tx.snapshot_named(identifier)
    if snapshot is None:
        raise Fault("DBSnapshotNotFoundFault", f"DBSnapshot {identifier.lower()} not found.")
    return snapshot


def require_cluster_endpoint(tx: Transaction, identifier: str) -> DBClusterEndpoint:
    endpoint = tx.cluster_endpoint_named(identifier)
    if endpoint is None:
        raise Fault("DBClusterEndpointNotFoundFault", f"DB cluster endpoint {identifier.lower()} not found.")
    return endpoint


def identifier_rule(parameter: str) -> str:
    return (
        f"The parameter {parameter} is not a valid identifier. Identifiers must begin with a letter; must contain only "
        "ASCII letters, digits, and hyphens; must not end with a hyphen or contain two consecutive hyphens; and must "
        "not be longer than 63 characters."
    )


def require_subnet_group(tx: Transaction, name: str) -> DBSubnetGroup:
    group = tx.subnet_group(name)
    if group is None:
        raise subnet_group_not_found(name)
    return group


def subnet_group_not_found(name: str) -> Fault:
    return Fault("DBSubnetGroupNotFoundFault", f"DB subnet group '{name.lower()}' does not exist.")


def require_event_subscription(tx: Transaction, name: str) -> EventSubscription:
    """Their names keep their case."""
    subscription = tx.event_subscription(name)
    if subscription is None:
        raise Fault("SubscriptionNotFoundFault", f"Event subscription {name} not found")
    return subscription


def require_deployment(context: Context, tx: Transaction, text: str) -> BlueGreenDeployment:
    identifier = deployment_identifier_of(context, text)
    deployment = tx.deployment(identifier)
    if deployment is None:
        raise Fault("BlueGreenDeploymentNotFoundFault", f"Blue/green deployment {identifier} not found.")
    return deployment


def deployment_of(tx: Transaction, resource_id: str) -> BlueGreenDeployment | None:
    """The deployment that an instance is a member of: at most one, since no member can be the source of another."""
    return next(iter(tx.deployments_of([resource_id])), None)


def cluster_deployment_of(tx: Transaction, resource_id: str) -> BlueGreenDeployment | None:
    """The same of a cluster."""
    for deployment in tx.deployments():
        cluster = deployment.cluster
        if cluster is not None and resource_id in cluster.resource_ids:
            return deployment
    return None
