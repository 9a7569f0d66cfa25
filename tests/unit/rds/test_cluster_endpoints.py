"""Custom endpoints of clusters at the API. Where they lead is tested with the workflows."""

from typing import Any

import pytest

from tests.unit.rds.world import NEW_INSTANCE, World
from verdigris.domain.statuses import ClusterEndpointStatus, ClusterStatus, InstanceStatus, WorkflowKind

NEW = {"DBClusterIdentifier": "Shop", "DBClusterEndpointIdentifier": "Far", "EndpointType": "reader"}
FAR_ARN = "arn:aws:rds:us-east-1:123456789012:cluster-endpoint:far"


@pytest.fixture
def shop(world: World) -> World:
    """A cluster with a writer and two readers."""
    world.create_cluster()
    for identifier in ("one", "two", "three"):
        world.create_member(identifier)
    return world


def shown(world: World, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.call("DescribeDBClusterEndpoints", **params)["DBClusterEndpoints"]
    return found


def far(world: World) -> dict[str, Any]:
    (found,) = shown(world, DBClusterEndpointIdentifier="FAR")
    return found


class TestCreate:
    def test_the_record_the_workflow_and_the_answer(self, shop: World) -> None:
        tags = [{"Key": "stage", "Value": "prod"}]
        answer = shop.call("CreateDBClusterEndpoint", **NEW, StaticMembers=["Two", "three", "two"], Tags=tags)
        endpoint, workflow = shop.cluster_endpoint("far"), shop.workflow()
        assert (workflow.kind, workflow.subject) == (WorkflowKind.CREATE_CLUSTER_ENDPOINT, endpoint.resource_id)
        expected = {
            "DBClusterEndpointIdentifier": "far",
            "DBClusterIdentifier": "shop",
            "DBClusterEndpointResourceIdentifier": endpoint.resource_id,
            "DBClusterEndpointArn": FAR_ARN,
            "Endpoint": "127.0.0.3",
            "Status": "creating",
            "EndpointType": "CUSTOM",
            "CustomEndpointType": "READER",
            "StaticMembers": ["three", "two"],
            "ExcludedMembers": [],
        }
        assert answer == expected
        shop.finish()
        assert far(shop) == {**expected, "Status": "available"}
        assert shop.call("ListTagsForResource", ResourceName=FAR_ARN)["TagList"] == tags

    def test_each_has_an_address_of_its_own(self, shop: World) -> None:
        hosts = [shop.create_endpoint(f"e{number}").host for number in range(5)]
        assert hosts == [f"127.0.0.{number}" for number in range(3, 8)]
        (cluster,) = shop.call("DescribeDBClusters")["DBClusters"]
        assert cluster["CustomEndpoints"] == hosts
        with shop.refused("DBClusterEndpointQuotaExceededFault", "5"):
            shop.call("CreateDBClusterEndpoint", **NEW)
        shop.call("DeleteDBClusterEndpoint", DBClusterEndpointIdentifier="e1")
        shop.finish()
        assert shop.create_endpoint("again").host == hosts[1]
        shop.create_cluster("depot")
        assert shop.create_endpoint("elsewhere", DBClusterIdentifier="depot").host == hosts[0]

    def test_there_may_be_too_few_addresses(self, shop: World) -> None:
        shop.ports.custom_hosts = ()
        with shop.refused("DBClusterEndpointQuotaExceededFault", "VERDIGRIS_CUSTOM_HOSTS"):
            shop.call("CreateDBClusterEndpoint", **NEW)

    @pytest.mark.parametrize(
        ("params", "code", "part"),
        [
            ({"DBClusterEndpointIdentifier": "f--ar"}, "InvalidParameterValue", "DBClusterEndpointIdentifier"),
            ({"EndpointType": "WRITER"}, "InvalidParameterValue", "WRITER"),
            ({"StaticMembers": ["one"], "ExcludedMembers": ["two"]}, "InvalidParameterCombination", "exclusion list"),
            ({"StaticMembers": ["app"]}, "InvalidDBInstanceState", "app"),
            ({"ExcludedMembers": ["three"]}, "InvalidDBInstanceState", "deleting"),
        ],
    )
    def test_refusals(self, shop: World, params: dict[str, Any], code: str, part: str) -> None:
        shop.call("CreateDBInstance", **NEW_INSTANCE)
        shop.finish()
        shop.change("three", status=InstanceStatus.DELETING)
        with shop.refused(code, part):
            shop.call("CreateDBClusterEndpoint", **{**NEW, **params})

    def test_a_name_is_taken_whichever_cluster_has_it(self, shop: World) -> None:
        shop.create_endpoint("far")
        shop.create_cluster("depot")
        with shop.refused("DBClusterEndpointAlreadyExistsFault", "far"):
            shop.call("CreateDBClusterEndpoint", **{**NEW, "DBClusterIdentifier": "depot"})


class TestModify:
    def test_a_list_takes_the_place_of_the_other(self, shop: World) -> None:
        shop.create_endpoint("far", StaticMembers=["two"])
        answer = shop.call("ModifyDBClusterEndpoint", DBClusterEndpointIdentifier="FAR", ExcludedMembers=["one"])
        assert (answer["Status"], answer["StaticMembers"], answer["ExcludedMembers"]) == ("modifying", [], ["one"])
        assert shop.workflow().kind is WorkflowKind.MODIFY_CLUSTER_ENDPOINT
        shop.finish()
        shop.call("ModifyDBClusterEndpoint", DBClusterEndpointIdentifier="far", EndpointType="READER")
        shop.finish()
        assert far(shop)["CustomEndpointType"] == "READER"
        assert far(shop)["ExcludedMembers"] == ["one"]
        shop.call("ModifyDBClusterEndpoint", DBClusterEndpointIdentifier="far", StaticMembers=["three"])
        shop.finish()
        assert (far(shop)["StaticMembers"], far(shop)["ExcludedMembers"]) == (["three"], [])

    def test_one_that_could_not_be_opened(self, shop: World) -> None:
        shop.create_endpoint("far")
        shop.change_cluster_endpoint("far", status=ClusterEndpointStatus.INACTIVE)
        shop.call("ModifyDBClusterEndpoint", DBClusterEndpointIdentifier="far", StaticMembers=["three"])
        shop.finish()
        assert far(shop)["Status"] == "available"

    def test_members_under_the_names_they_have_now(self, shop: World) -> None:
        shop.create_endpoint("far", StaticMembers=["two", "three"])
        renamed = {"DBInstanceIdentifier": "two", "NewDBInstanceIdentifier": "moved", "ApplyImmediately": True}
        shop.call("ModifyDBInstance", **renamed)
        shop.finish()
        assert far(shop)["StaticMembers"] == ["moved", "three"]
        shop.call("DeleteDBInstance", DBInstanceIdentifier="moved")
        shop.finish()
        assert far(shop)["StaticMembers"] == ["three"]


class TestDelete:
    def test_it_is_gone_with_its_workflow(self, shop: World) -> None:
        shop.create_endpoint("far")
        assert shop.call("DeleteDBClusterEndpoint", DBClusterEndpointIdentifier="Far")["Status"] == "deleting"
        assert shop.workflow().kind is WorkflowKind.DELETE_CLUSTER_ENDPOINT
        with shop.refused("InvalidDBClusterEndpointStateFault", "deleting"):
            shop.call("DeleteDBClusterEndpoint", DBClusterEndpointIdentifier="far")
        shop.finish()
        assert shown(shop, DBClusterEndpointIdentifier="far") == []


class TestDescribe:
    def test_those_that_every_cluster_has(self, shop: World) -> None:
        shop.create_cluster("depot")
        shop.create_endpoint("far")
        found = [(e["DBClusterIdentifier"], e["EndpointType"], e["Endpoint"], e["Status"]) for e in shown(shop)]
        assert found == [
            ("depot", "READER", "127.0.0.2", "available"),
            ("depot", "WRITER", "db.example.net", "available"),
            ("shop", "READER", "127.0.0.2", "available"),
            ("shop", "WRITER", "db.example.net", "available"),
            ("shop", "CUSTOM", "127.0.0.3", "available"),
        ]
        assert len(shown(shop, DBClusterIdentifier="depot")) == 2

    @pytest.mark.parametrize(
        ("status", "shows"),
        [
            (ClusterStatus.CREATING, "creating"),
            (ClusterStatus.FAILED, "inactive"),
            (ClusterStatus.DELETING, "deleting"),
            (ClusterStatus.MODIFYING, "available"),
        ],
    )
    def test_they_are_what_their_cluster_is(self, shop: World, status: ClusterStatus, shows: str) -> None:
        shop.change_cluster(status=status)
        assert {endpoint["Status"] for endpoint in shown(shop)} == {shows}

    @pytest.mark.parametrize(
        ("name", "value", "number"),
        [
            ("db-cluster-endpoint-type", "custom", 2),
            ("db-cluster-endpoint-type", "writer", 1),
            ("db-cluster-endpoint-custom-type", "reader", 1),
            ("db-cluster-endpoint-id", "near", 1),
            ("db-cluster-endpoint-status", "available", 4),
            ("db-cluster-endpoint-status", "deleting", 0),
        ],
    )
    def test_filters(self, shop: World, name: str, value: str, number: int) -> None:
        shop.create_endpoint("far")
        shop.create_endpoint("near", EndpointType="READER")
        assert len(shown(shop, Filters=[{"Name": name, "Values": [value]}])) == number

    def test_pages(self, world: World) -> None:
        names = [f"c{number:02}" for number in range(11)]
        for name in names:
            world.create_cluster(name)
        first = world.call("DescribeDBClusterEndpoints", MaxRecords=20)
        rest = world.call("DescribeDBClusterEndpoints", MaxRecords=20, Marker=first["Marker"])
        found = first["DBClusterEndpoints"] + rest["DBClusterEndpoints"]
        assert [each["DBClusterIdentifier"] for each in found] == sorted(names * 2)
        assert "Marker" not in rest
