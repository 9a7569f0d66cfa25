"""Deployments of clusters at the API."""

from typing import Any

import pytest

from tests.unit.rds.world import NEW_MEMBER, SHOP_ARN, World
from verdigris.domain.model import BlueGreenDeployment
from verdigris.domain.statuses import (
    ClusterEndpointStatus,
    ClusterStatus,
    DeploymentStatus,
    InstanceStatus,
    MemberStatus,
    ReplicationMode,
    WorkflowKind,
)
from verdigris.rds.access import needed
from verdigris.workflows import membership

MEMBERS = ("one", "three", "two")  # the writer, and readers by their names
INVALID_CLUSTER, INVALID_DEPLOYMENT = "InvalidDBClusterStateFault", "InvalidBlueGreenDeploymentStateFault"
COMBINATION = "InvalidParameterCombination"


@pytest.fixture(autouse=True)
def _shop(world: World) -> None:
    world.create_cluster(Tags=[{"Key": "stage", "Value": "prod"}])
    for identifier in MEMBERS:
        world.create_member(identifier)
    world.create_endpoint("far", EndpointType="READER", StaticMembers=["two"])


def create(world: World, **params: Any) -> dict[str, Any]:
    params = {"BlueGreenDeploymentName": "up", "Source": SHOP_ARN, "TargetEngineVersion": "18.6", **params}
    view: dict[str, Any] = world.call("CreateBlueGreenDeployment", **params)["BlueGreenDeployment"]
    return view


def built(world: World, **params: Any) -> BlueGreenDeployment:
    create(world, **params)
    world.finish()
    return world.deployment()


def view(world: World, **params: Any) -> dict[str, Any]:
    found: dict[str, Any] = world.call("DescribeBlueGreenDeployments", **params)["BlueGreenDeployments"][0]
    return found


def arn(kind: str, name: str | None) -> str:
    return SHOP_ARN.replace("cluster:shop", f"{kind}:{name}")


BLUE = [SHOP_ARN, *(arn("db", name) for name in MEMBERS), arn("cluster-endpoint", "far")]


class TestCreate:
    def test_what_is_shown(self, world: World) -> None:
        shown = create(world)
        assert shown["Source"] == SHOP_ARN
        assert "Target" not in shown
        assert shown["SwitchoverDetails"] == [{"SourceMember": each, "Status": "PROVISIONING"} for each in BLUE]
        assert shown["Tasks"] == [
            {"Name": name, "Status": "PENDING"}
            for name in (
                "CREATING_READ_REPLICA_OF_SOURCE",
                "DB_ENGINE_VERSION_UPGRADE",
                "CREATE_DB_INSTANCES_FOR_CLUSTER",
                "CREATE_CUSTOM_ENDPOINTS",
            )
        ]
        deployment, workflow = world.deployment(), world.workflow()
        assert (workflow.kind, workflow.subject) == (WorkflowKind.CREATE_DEPLOYMENT, deployment.identifier)
        assert deployment.mode is ReplicationMode.LOGICAL
        assert set(deployment.target.replicas) == {world.instance(name).resource_id for name in MEMBERS[1:]}

    def test_both_sides(self, world: World) -> None:
        deployment = built(world)
        assert deployment.cluster is not None
        shown = view(world)
        greens = [
            arn("cluster", deployment.cluster.target_identifier),
            *(arn("db", each.target_identifier) for each in deployment.members),
            *(arn("cluster-endpoint", each.target_identifier) for each in deployment.endpoints),
        ]
        assert [(each["SourceMember"], each["TargetMember"]) for each in shown["SwitchoverDetails"]] == list(
            zip(BLUE, greens, strict=True)
        )
        assert (shown["Source"], shown["Target"]) == (SHOP_ARN, greens[0])

    def test_filters_know_the_cluster(self, world: World) -> None:
        deployment = built(world)
        assert deployment.cluster is not None
        for name, values in {
            "source": [SHOP_ARN],
            "target": [deployment.cluster.target_identifier],
        }.items():
            assert view(world, Filters=[{"Name": name, "Values": values}])["BlueGreenDeploymentName"] == "up"

    def test_within_a_major_version(self, world: World) -> None:
        assert len(create(world, TargetEngineVersion="17.10")["Tasks"]) == 3
        assert world.deployment().mode is ReplicationMode.PHYSICAL

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("TargetDBInstanceClass", "db.t3.large"),
            ("TargetAllocatedStorage", 40),
            ("TargetIops", 3000),
            ("TargetStorageThroughput", 500),
            ("TargetStorageType", "gp3"),
        ],
    )
    def test_what_is_for_instances(self, world: World, name: str, value: object) -> None:
        with world.refused(COMBINATION, name):
            create(world, **{name: value})

    def test_its_parameter_groups(self, world: World) -> None:
        with world.refused("DBClusterParameterGroupNotFound", "mine"):
            create(world, TargetDBClusterParameterGroupName="mine")
        create(world, TargetDBClusterParameterGroupName="default.aurora-postgresql18")

    def test_a_member_is_no_source(self, world: World) -> None:
        with world.refused("SourceDatabaseNotSupportedFault", "one", "cluster"):
            create(world, Source=arn("db", "one"))

    def test_one_at_a_time(self, world: World) -> None:
        create(world)
        with world.refused(INVALID_CLUSTER, "shop", "(up)"):
            create(world, BlueGreenDeploymentName="again")

    def test_the_quota_counts_what_is_to_come(self, world: World) -> None:
        create(world)
        world.set_quotas(DBClusters=2)
        with world.refused("DBClusterQuotaExceededFault"):
            world.create_cluster("another")
        world.set_quotas(DBClusters=3)
        world.create_cluster("another")

    def test_room_for_all_members(self, world: World) -> None:
        world.set_quotas(DBInstances=5)
        with world.refused("InstanceQuotaExceeded"):
            create(world)


class TestSourcesThatAreNotAtRest:
    def test_the_cluster(self, world: World) -> None:
        world.change_cluster(status=ClusterStatus.MODIFYING)
        with world.refused(INVALID_CLUSTER, "modifying"):
            create(world)

    def test_without_members(self, world: World) -> None:
        world.create_cluster("empty")
        with world.refused(INVALID_CLUSTER, "no DB instances"):
            create(world, Source=arn("cluster", "empty"))

    def test_its_writer(self, world: World) -> None:
        world.change("one", status=InstanceStatus.REBOOTING)
        with world.refused(INVALID_CLUSTER, "one", "rebooting"):
            create(world)

    def test_a_reader(self, world: World) -> None:
        world.change("two", status=InstanceStatus.REBOOTING)
        with world.refused("InvalidDBInstanceState", "two", "rebooting"):
            create(world)

    def test_a_custom_endpoint(self, world: World) -> None:
        world.call("ModifyDBClusterEndpoint", DBClusterEndpointIdentifier="far", StaticMembers=["three"])
        with world.refused(INVALID_CLUSTER, "far", "modifying"):
            create(world)

    @pytest.mark.parametrize("status", [ClusterEndpointStatus.CREATING, ClusterEndpointStatus.DELETING])
    def test_what_an_endpoint_s_status_says(self, world: World, status: ClusterEndpointStatus) -> None:
        world.change_cluster_endpoint("far", status=status)
        with world.refused(INVALID_CLUSTER, "far", status):
            create(world)
        world.change_cluster_endpoint("far", status=ClusterEndpointStatus.INACTIVE)  # nobody works on it
        create(world)

    def test_what_a_status_does_not_say(self, world: World) -> None:
        """Something is still being undone behind it."""
        world.call("ModifyDBClusterEndpoint", DBClusterEndpointIdentifier="far", StaticMembers=["three"])
        world.change_cluster_endpoint("far", status=ClusterEndpointStatus.INACTIVE)
        with world.refused(INVALID_CLUSTER, "far"):
            create(world)
        world.finish()
        world.call("RebootDBInstance", DBInstanceIdentifier="two")
        world.change("two", status=InstanceStatus.AVAILABLE)
        with world.refused("InvalidDBInstanceState", "two", "cleaned up"):
            create(world)
        world.finish()
        create(world)

    def test_switched_over_away_from(self, world: World) -> None:
        world.change("one", read_only=True)
        with world.refused("SourceClusterNotSupportedFault", "read-only"):
            create(world)
        with world.refused(INVALID_CLUSTER, "read-only"):
            world.create_member("four")


_NEW_ENDPOINT = {"DBClusterEndpointIdentifier": "near", "EndpointType": "ANY"}
_CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("ModifyDBCluster", {"MasterUserPassword": "new-secret-9"}),
    ("DeleteDBCluster", {"SkipFinalSnapshot": True}),
    ("CreateDBInstance", {**NEW_MEMBER, "DBInstanceIdentifier": "four"}),
    ("CreateDBClusterEndpoint", _NEW_ENDPOINT),
]


class TestWhatIsKeptAway:
    @pytest.mark.parametrize(("operation", "params"), _CHANGES)
    @pytest.mark.parametrize(
        "status", [DeploymentStatus.PROVISIONING, DeploymentStatus.SWITCHOVER_IN_PROGRESS, DeploymentStatus.DELETING]
    )
    @pytest.mark.parametrize("side", ["blue", "green"])
    def test_while_it_is_worked_on(
        self, world: World, operation: str, params: dict[str, Any], status: DeploymentStatus, side: str
    ) -> None:
        deployment = built(world)
        assert deployment.cluster is not None
        world.change_deployment(status=status, deleted_at=world.clock.now())
        if "EngineVersion" not in params and side == "green" and operation == "CreateDBInstance":
            params = {**params, "EngineVersion": "18.6"}
        name = deployment.cluster.target_identifier if side == "green" else "shop"
        with world.refused(INVALID_CLUSTER, deployment.identifier, status):
            world.call(operation, DBClusterIdentifier=name, **params)

    @pytest.mark.parametrize("operation", ["ModifyDBClusterEndpoint", "DeleteDBClusterEndpoint"])
    def test_endpoints_while_it_is_worked_on(self, world: World, operation: str) -> None:
        deployment = built(world)
        world.change_deployment(status=DeploymentStatus.SWITCHOVER_IN_PROGRESS)
        for name in ("far", deployment.endpoints[0].target_identifier):
            with world.refused(INVALID_CLUSTER, deployment.identifier):
                world.call(operation, DBClusterEndpointIdentifier=name)

    def test_blue_gets_nothing_more(self, world: World) -> None:
        built(world)
        with world.refused(INVALID_CLUSTER, "switch it over or delete it"):
            world.create_member("four")
        with world.refused(INVALID_CLUSTER, "switch it over or delete it"):
            world.create_endpoint("near")
        with world.refused(INVALID_CLUSTER, "switch it over or delete it"):
            world.call("ModifyDBClusterEndpoint", DBClusterEndpointIdentifier="far", StaticMembers=["three"])
        world.call("ModifyDBCluster", DBClusterIdentifier="shop", DeletionProtection=True)
        world.call("DeleteDBClusterEndpoint", DBClusterEndpointIdentifier="far")

    def test_green_gets_whatever_it_is_given(self, world: World) -> None:
        deployment = built(world)
        assert deployment.cluster is not None
        green = deployment.cluster.target_identifier or ""
        world.create_endpoint("near", DBClusterIdentifier=green)
        world.create_member("four", cluster=green)
        world.call("ModifyDBClusterEndpoint", DBClusterEndpointIdentifier="near", EndpointType="READER")
        world.finish()
        world.change_deployment(status=DeploymentStatus.INVALID_CONFIGURATION)
        with world.refused(INVALID_CLUSTER, "switch it over or delete it"):
            world.create_member("five", cluster=green)

    def test_a_password_of_a_green_that_is_a_standby(self, world: World) -> None:
        deployment = built(world, TargetEngineVersion="17.10")
        assert deployment.cluster is not None
        with world.refused(COMBINATION, "shop", "change it there"):
            world.call(
                "ModifyDBCluster",
                DBClusterIdentifier=deployment.cluster.target_identifier,
                MasterUserPassword="new-secret-9",
            )

    def test_afterwards_blue_is_free_and_read_only(self, world: World) -> None:
        deployment = built(world)
        assert deployment.cluster is not None
        members = tuple(
            each.__class__(
                source_resource_id=each.source_resource_id,
                source_identifier=each.source_identifier,
                target_resource_id=each.target_resource_id,
                target_identifier=each.target_identifier,
                status=MemberStatus.SWITCHOVER_COMPLETED,
            )
            for each in deployment.members
        )
        world.change_deployment(status=DeploymentStatus.SWITCHOVER_COMPLETED, members=members)
        world.create_endpoint("near")
        world.change("one", read_only=True)
        with world.refused(INVALID_CLUSTER, "read-only"):
            world.create_member("four")


class TestMissing:
    def test_an_endpoint(self, world: World) -> None:
        deployment = built(world)
        blue = world.cluster_endpoint("far")
        with world.store.transaction() as tx:
            membership.endpoint_deleted(tx, blue)
        assert world.deployment().endpoints[0].status is MemberStatus.MISSING_SOURCE
        assert world.deployment().moving_endpoints == ()
        green = world.cluster_endpoint(deployment.endpoints[0].target_identifier or "")
        with world.store.transaction() as tx:
            membership.endpoint_deleted(tx, green)
        assert view(world)["SwitchoverDetails"][-1]["Status"] == "MISSING_TARGET"

    def test_the_cluster(self, world: World) -> None:
        deployment = built(world)
        assert deployment.cluster is not None
        green = world.cluster(deployment.cluster.target_identifier or "")
        with world.store.transaction() as tx:
            membership.cluster_deleted(tx, green)
        assert view(world)["SwitchoverDetails"][0]["Status"] == "MISSING_TARGET"


def switch_over(world: World) -> None:
    world.call("SwitchoverBlueGreenDeployment", BlueGreenDeploymentIdentifier=world.deployment().identifier)


class TestSwitchover:
    @pytest.mark.parametrize("side", ["blue", "green"])
    def test_a_cluster_is_busy(self, world: World, side: str) -> None:
        deployment = built(world)
        assert deployment.cluster is not None
        name = deployment.cluster.target_identifier if side == "green" else "shop"
        world.change_cluster(name or "", status=ClusterStatus.MODIFYING)
        with world.refused(INVALID_DEPLOYMENT, name or "", "available"):
            switch_over(world)

    def test_an_endpoint_is_busy(self, world: World) -> None:
        deployment = built(world)
        green = deployment.endpoints[0].target_identifier
        world.call("ModifyDBClusterEndpoint", DBClusterEndpointIdentifier=green, EndpointType="ANY")
        with world.refused(INVALID_DEPLOYMENT, green or "", "changed"):
            switch_over(world)
        world.finish()
        world.call("DeleteDBClusterEndpoint", DBClusterEndpointIdentifier="far")
        with world.refused(INVALID_DEPLOYMENT, "far", "changed"):
            switch_over(world)

    def test_begins(self, world: World) -> None:
        built(world)
        switch_over(world)
        assert world.workflow().kind is WorkflowKind.SWITCH_OVER


def delete(world: World, **params: Any) -> None:
    world.call("DeleteBlueGreenDeployment", BlueGreenDeploymentIdentifier=world.deployment().identifier, **params)


class TestDelete:
    def test_green_is_shown_to_go(self, world: World) -> None:
        deployment = built(world)
        assert deployment.cluster is not None
        delete(world, DeleteTarget=True)
        assert world.cluster(deployment.cluster.target_identifier or "").status is ClusterStatus.DELETING
        green = world.cluster_endpoint(deployment.endpoints[0].target_identifier or "")
        assert green.status is ClusterEndpointStatus.DELETING
        assert world.cluster().status is ClusterStatus.AVAILABLE
        assert world.cluster_endpoint("far").status is ClusterEndpointStatus.AVAILABLE

    def test_green_stays(self, world: World) -> None:
        deployment = built(world)
        assert deployment.cluster is not None
        delete(world)
        assert world.cluster(deployment.cluster.target_identifier or "").status is ClusterStatus.AVAILABLE

    def test_protected(self, world: World) -> None:
        deployment = built(world)
        assert deployment.cluster is not None
        world.change_cluster(deployment.cluster.target_identifier or "", deletion_protection=True)
        with world.refused(INVALID_DEPLOYMENT, "protected DB Cluster"):
            delete(world, DeleteTarget=True)

    def test_an_endpoint_of_green_is_busy(self, world: World) -> None:
        deployment = built(world)
        green = deployment.endpoints[0].target_identifier
        world.call("ModifyDBClusterEndpoint", DBClusterEndpointIdentifier=green, EndpointType="ANY")
        with world.refused(INVALID_DEPLOYMENT, "available"):
            delete(world, DeleteTarget=True)


class TestAccess:
    def test_creation(self, world: World) -> None:
        actions = [action for action, _ in needed(world.context, "CreateBlueGreenDeployment", {"Source": SHOP_ARN})]
        assert actions == [
            "rds:CreateBlueGreenDeployment",
            "rds:CreateDBCluster",
            "rds:CreateDBInstance",
            "rds:CreateDBClusterEndpoint",
        ]

    def test_the_rest(self, world: World) -> None:
        deployment = built(world)
        assert deployment.cluster is not None
        named = {"BlueGreenDeploymentIdentifier": deployment.identifier}
        green = arn("cluster", deployment.cluster.target_identifier)
        switching = list(needed(world.context, "SwitchoverBlueGreenDeployment", named))[1:]
        actions = ("rds:ModifyDBCluster", "rds:PromoteReadReplicaDBCluster")
        assert sorted(switching) == sorted((action, each) for each in (SHOP_ARN, green) for action in actions)
        deleting = list(needed(world.context, "DeleteBlueGreenDeployment", {**named, "DeleteTarget": True}))[1:]
        assert sorted(deleting) == sorted(
            [
                *(("rds:DeleteDBInstance", arn("db", each.target_identifier)) for each in deployment.members),
                ("rds:DeleteDBCluster", green),
                ("rds:DeleteDBClusterEndpoint", arn("cluster-endpoint", deployment.endpoints[0].target_identifier)),
            ]
        )
