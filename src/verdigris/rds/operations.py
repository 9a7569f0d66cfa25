"""Which handler serves which operation of the RDS API. What is not here is not built yet."""

from collections.abc import Callable, Mapping
from typing import Any

from verdigris.rds import (
    deployment_creation,
    deployments,
    engine_versions,
    event_subscriptions,
    events,
    instance_changes,
    instances,
    log_files,
    orderable,
    parameter_groups,
    parameters,
    quotas,
    read_replicas,
    start_stop,
    tags,
)
from verdigris.rds.context import Context

Handler = Callable[[Context, Mapping[str, Any]], dict[str, Any]]

HANDLERS: Mapping[str, Handler] = {
    "AddSourceIdentifierToSubscription": event_subscriptions.add_source_identifier_to_subscription,
    "AddTagsToResource": tags.add_tags_to_resource,
    "CopyDBParameterGroup": parameter_groups.copy_db_parameter_group,
    "CreateBlueGreenDeployment": deployment_creation.create_blue_green_deployment,
    "CreateDBInstance": instances.create_db_instance,
    "CreateDBInstanceReadReplica": read_replicas.create_db_instance_read_replica,
    "CreateDBParameterGroup": parameter_groups.create_db_parameter_group,
    "CreateEventSubscription": event_subscriptions.create_event_subscription,
    "DeleteBlueGreenDeployment": deployments.delete_blue_green_deployment,
    "DeleteDBInstance": instance_changes.delete_db_instance,
    "DeleteDBParameterGroup": parameter_groups.delete_db_parameter_group,
    "DeleteEventSubscription": event_subscriptions.delete_event_subscription,
    "DescribeAccountAttributes": quotas.describe_account_attributes,
    "DescribeBlueGreenDeployments": deployments.describe_blue_green_deployments,
    "DescribeDBEngineVersions": engine_versions.describe_db_engine_versions,
    "DescribeDBInstances": instances.describe_db_instances,
    "DescribeDBLogFiles": log_files.describe_db_log_files,
    "DescribeDBParameterGroups": parameter_groups.describe_db_parameter_groups,
    "DescribeDBParameters": parameters.describe_db_parameters,
    "DescribeEngineDefaultParameters": parameters.describe_engine_default_parameters,
    "DescribeEventCategories": events.describe_event_categories,
    "DescribeEventSubscriptions": event_subscriptions.describe_event_subscriptions,
    "DescribeEvents": events.describe_events,
    "DescribeOrderableDBInstanceOptions": orderable.describe_orderable_db_instance_options,
    "DownloadDBLogFilePortion": log_files.download_db_log_file_portion,
    "ListTagsForResource": tags.list_tags_for_resource,
    "ModifyDBInstance": instance_changes.modify_db_instance,
    "ModifyDBParameterGroup": parameters.modify_db_parameter_group,
    "ModifyEventSubscription": event_subscriptions.modify_event_subscription,
    "PromoteReadReplica": read_replicas.promote_read_replica,
    "RebootDBInstance": instance_changes.reboot_db_instance,
    "RemoveSourceIdentifierFromSubscription": event_subscriptions.remove_source_identifier_from_subscription,
    "RemoveTagsFromResource": tags.remove_tags_from_resource,
    "ResetDBParameterGroup": parameters.reset_db_parameter_group,
    "StartDBInstance": start_stop.start_db_instance,
    "StopDBInstance": start_stop.stop_db_instance,
    "SwitchoverBlueGreenDeployment": deployments.switchover_blue_green_deployment,
}
