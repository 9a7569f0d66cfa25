"""Versions, tags, events, pages: what is listed."""

import base64
from datetime import timedelta
from typing import Any

import pytest
from msgspec import structs

from tests.unit.rds.world import APP_ARN, World
from verdigris.aws.errors import Fault
from verdigris.aws.model import load_service
from verdigris.domain.model import Event
from verdigris.domain.statuses import SourceType
from verdigris.rds import cluster_changes, clusters, read_replicas
from verdigris.rds.instance_changes import MODIFY_MEMBERS
from verdigris.rds.instances import CREATE_MEMBERS
from verdigris.rds.operations import HANDLERS
from verdigris.rds.restores import RESTORE_MEMBERS
from verdigris.rds.settings import CLUSTER_KEPT, CLUSTER_OFF_ONLY, KEPT, OFF_ONLY


def versions(world: World, **params: Any) -> list[str]:
    params = {"Engine": "postgres"} | params
    return [view["EngineVersion"] for view in world.call("DescribeDBEngineVersions", **params)["DBEngineVersions"]]


class TestEngineVersions:
    @pytest.mark.parametrize(
        ("params", "found"),
        [
            ({}, ["16.14", "17.9", "17.10", "18.6"]),
            ({"Engine": "Postgres"}, ["16.14", "17.9", "17.10", "18.6"]),
            ({"EngineVersion": "17"}, ["17.9", "17.10"]),
            ({"EngineVersion": "17.10"}, ["17.10"]),
            ({"EngineVersion": "1"}, []),
            ({"DBParameterGroupFamily": "postgres16"}, ["16.14"]),
            ({"DefaultOnly": True}, ["18.6"]),
            ({"DefaultOnly": True, "EngineVersion": "17"}, ["17.10"]),
            ({"DefaultOnly": True, "EngineVersion": "9"}, []),
            ({"Engine": "mysql"}, []),
            ({"Filters": [{"Name": "engine-version", "Values": ["17.9", "18.6"]}]}, ["17.9", "18.6"]),
            ({"Filters": [{"Name": "db-parameter-group-family", "Values": ["postgres17"]}]}, ["17.9", "17.10"]),
            ({"Filters": [{"Name": "status", "Values": ["deprecated"]}]}, []),
        ],
        ids=repr,
    )
    def test_which(self, world: World, params: dict[str, Any], found: list[str]) -> None:
        assert versions(world, **params) == found

    def test_what_they_can_be_upgraded_to(self, world: World) -> None:
        (view,) = world.call("DescribeDBEngineVersions", Engine="postgres", EngineVersion="17.9")["DBEngineVersions"]
        targets = [(t["EngineVersion"], t["IsMajorVersionUpgrade"]) for t in view["ValidUpgradeTarget"]]
        assert targets == [("17.10", False), ("18.6", True)]
        assert (view["MajorEngineVersion"], view["DBParameterGroupFamily"]) == ("17", "postgres17")

    def test_one_version_of_several_sources_is_shown_once(self, world: World) -> None:
        world.servers.catalogue *= 2
        assert versions(world) == ["16.14", "17.9", "17.10", "18.6"]

    @pytest.mark.parametrize(
        ("params", "engines"),
        [
            ({}, ["aurora-postgresql", "postgres"]),
            ({"Engine": "Aurora-PostgreSQL"}, ["aurora-postgresql"]),
            ({"Filters": [{"Name": "engine", "Values": ["postgres"]}]}, ["postgres"]),
        ],
        ids=repr,
    )
    def test_a_cluster_has_the_same_by_another_name(
        self, world: World, params: dict[str, Any], engines: list[str]
    ) -> None:
        views = world.call("DescribeDBEngineVersions", EngineVersion="17.10", **params)["DBEngineVersions"]
        assert [(view["Engine"], view["ValidUpgradeTarget"][0]["Engine"]) for view in views] == [
            (engine, engine) for engine in engines
        ]

    def test_pages_go_on_from_one_engine_to_the_next(self, world: World) -> None:
        known = world.servers.catalogue
        known += [structs.replace(known[0], version=f"16.{minor}") for minor in range(20, 35)]
        pages: list[list[tuple[str, str]]] = []
        marker: dict[str, str] = {}
        while not pages or marker:
            answer = world.call("DescribeDBEngineVersions", MaxRecords=20, **marker)
            pages.append([(view["Engine"], view["EngineVersion"]) for view in answer["DBEngineVersions"]])
            marker = {"Marker": answer["Marker"]} if "Marker" in answer else {}
        shown = [each for page in pages for each in page]
        assert ([len(page) for page in pages], len(set(shown))) == ([20, 18], 38)
        assert [engine for engine, _ in shown] == ["aurora-postgresql"] * 19 + ["postgres"] * 19

    def test_an_engine_that_nobody_has(self, world: World) -> None:
        with world.refused("InvalidParameterValue", "postgers"):
            versions(world, Engine="postgers")


def tags(world: World, arn: str = APP_ARN) -> dict[str, str]:
    found = world.call("ListTagsForResource", ResourceName=arn)["TagList"]
    return {tag["Key"]: tag["Value"] for tag in found}


class TestTags:
    def test_added_replaced_and_removed(self, world: World) -> None:
        deployment = world.create_deployment()
        for arn in (APP_ARN, f"arn:aws:rds:us-east-1:123456789012:deployment:{deployment.identifier}"):
            world.call("AddTagsToResource", ResourceName=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b"}])
            world.call("AddTagsToResource", ResourceName=arn, Tags=[{"Key": "a", "Value": "ü / 2"}])
            assert tags(world, arn) == {"a": "ü / 2", "b": ""}
            world.call("RemoveTagsFromResource", ResourceName=arn, TagKeys=["b", "never"])
            assert tags(world, arn) == {"a": "ü / 2"}

    @pytest.mark.parametrize(
        ("given", "part"),
        [
            ([{"Key": "aws:mine"}], "reserved"),
            ([{"Key": "AWS:mine"}], "reserved"),
            ([{"Key": ""}], "1 to 128"),
            ([{"Key": "k" * 129}], "1 to 128"),
            ([{"Key": "k", "Value": "v" * 257}], "256"),
            ([{"Key": "k", "Value": "<v>"}], "value"),
            ([{"Key": "k\t"}], "key"),
            ([{"Key": "k"}, {"Key": "k"}], "more than once"),
            ([{"Key": f"k{n}"} for n in range(50)], "50"),
        ],
        ids=lambda value: repr(value)[:40] if isinstance(value, list) else "",
    )
    def test_refused(self, world: World, given: list[dict[str, str]], part: str) -> None:
        world.create_instance(Tags=[{"Key": "present"}])
        with world.refused("InvalidParameterValue", part):
            world.call("AddTagsToResource", ResourceName=APP_ARN, Tags=given)

    def test_there_are_no_filters(self, world: World) -> None:
        world.create_instance()
        with world.refused("InvalidParameterValue", "tag-key"):
            world.call("ListTagsForResource", ResourceName=APP_ARN, Filters=[{"Name": "tag-key", "Values": ["stage"]}])

    @pytest.mark.parametrize(
        ("arn", "code"),
        [
            (APP_ARN + "x", "DBInstanceNotFound"),
            (APP_ARN.replace(":db:app", ":deployment:bgd-x"), "BlueGreenDeploymentNotFoundFault"),
            (APP_ARN.replace(":db:", ":cluster:"), "DBClusterNotFoundFault"),
            (APP_ARN.replace(":db:", ":snapshot:"), "DBSnapshotNotFound"),
            (APP_ARN.replace(":db:", ":pg:"), "DBParameterGroupNotFound"),
            (APP_ARN.replace(":db:app", ":pg:default.postgres17"), "InvalidDBParameterGroupState"),
            (APP_ARN.replace(":db:", ":og:"), "InvalidParameterValue"),
            (APP_ARN.replace("us-east-1", "us-east-2"), "InvalidParameterValue"),
            ("app", "InvalidParameterValue"),
        ],
    )
    def test_resources_that_are_not_there(self, world: World, arn: str, code: str) -> None:
        world.create_instance()
        with world.refused(code):
            tags(world, arn)


class TestEvents:
    @pytest.fixture(autouse=True)
    def _events(self, world: World) -> None:
        """One every ten minutes for two hours: number 12 is now."""
        with world.store.transaction() as tx:
            for number in range(13):
                world.clock.advance(minutes=10 if number else 0)
                tx.add_event(
                    Event(
                        event_id="RDS-EVENT-0000",
                        source_type=SourceType.DB_INSTANCE if number % 2 else SourceType.BLUE_GREEN_DEPLOYMENT,
                        source_identifier="app" if number % 2 else "bgd-1",
                        source_resource_id="db-X",
                        categories=("creation",) if number % 4 else ("failure",),
                        message=str(number),
                        at=world.clock.now(),
                    )
                )

    def numbers(self, world: World, **params: Any) -> list[int]:
        return [int(event["Message"]) for event in world.call("DescribeEvents", **params)["Events"]]

    @pytest.mark.parametrize(
        ("params", "found"),
        [
            ({}, [6, 7, 8, 9, 10, 11, 12]),
            ({"Duration": 20}, [10, 11, 12]),
            ({"Duration": 20160}, list(range(13))),
            ({"SourceType": "db-instance"}, [7, 9, 11]),
            ({"SourceType": "db-instance", "SourceIdentifier": "APP"}, [7, 9, 11]),
            ({"SourceType": "db-instance", "SourceIdentifier": "bgd-1"}, []),
            ({"SourceType": "blue-green-deployment", "SourceIdentifier": "bgd-1"}, [6, 8, 10, 12]),
            ({"SourceType": "db-cluster"}, []),
            ({"EventCategories": ["failure"]}, [8, 12]),
            ({"EventCategories": ["failure", "creation"]}, [6, 7, 8, 9, 10, 11, 12]),
        ],
        ids=repr,
    )
    def test_which(self, world: World, params: dict[str, Any], found: list[int]) -> None:
        assert self.numbers(world, **params) == found

    @pytest.mark.parametrize(
        ("start", "end", "minutes", "found"),
        [
            (-30, None, None, [9, 10, 11, 12]),
            (-30, None, 10, [9, 10]),
            (None, -60, None, [0, 1, 2, 3, 4, 5, 6]),
            (None, -60, 10, [5, 6]),
            (-30, -20, None, [9, 10]),
        ],
    )
    def test_times(
        self, world: World, start: int | None, end: int | None, minutes: int | None, found: list[int]
    ) -> None:
        params: dict[str, Any] = {"Duration": minutes}
        for name, offset in (("StartTime", start), ("EndTime", end)):
            params[name] = None if offset is None else world.clock.now() + timedelta(minutes=offset)
        given = {name: value for name, value in params.items() if value is not None}
        assert self.numbers(world, **given) == found

    def test_times_that_make_no_sense(self, world: World) -> None:
        now = world.clock.now()
        early = now - timedelta(minutes=5)
        for params, code in (
            ({"StartTime": now, "EndTime": early}, "InvalidParameterValue"),
            ({"StartTime": early, "EndTime": now, "Duration": 5}, "InvalidParameterCombination"),
            ({"Duration": 0}, "InvalidParameterValue"),
            ({"Duration": 20161}, "InvalidParameterValue"),
            ({"Duration": -1}, "InvalidParameterValue"),
            ({"SourceIdentifier": "app"}, "InvalidParameterCombination"),
            ({"Filters": [{"Name": "source-id", "Values": ["app"]}]}, "InvalidParameterValue"),
        ):
            with world.refused(code):
                world.call("DescribeEvents", **params)

    def test_the_edge_of_the_calendar(self, world: World) -> None:
        first = world.clock.now().replace(year=1, month=1, day=1, hour=0)
        with pytest.raises(Fault, match="calendar"):
            world.call("DescribeEvents", EndTime=first)

    def test_a_page_breaks_between_events_of_one_moment(self, world: World) -> None:
        with world.store.transaction() as tx:
            (template,) = tx.events(since=world.clock.now(), until=world.clock.now())
            for number in range(100, 145):
                tx.add_event(Event(**{**_fields(template), "message": str(number)}))
        found: list[int] = []
        marker: dict[str, str] = {}
        while True:
            page = world.call("DescribeEvents", MaxRecords=20, Duration=1, **marker)
            found += [int(event["Message"]) for event in page["Events"]]
            if "Marker" not in page:
                break
            marker = {"Marker": page["Marker"]}
        assert found == [12, *range(100, 145)]


def _fields(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


class TestPages:
    def test_all_of_them_once_while_others_come_and_go(self, world: World) -> None:
        for number in range(45):
            world.create_instance(f"i{number:02}")
        first, last_shown = world.call("DescribeDBInstances", MaxRecords=20), world.instance("i19")
        for name in ("a0", "z9"):
            world.create_instance(name)
        with world.store.transaction() as tx:
            tx.delete_instance(last_shown.resource_id)
        second = world.call("DescribeDBInstances", MaxRecords=20, Marker=first["Marker"])
        third = world.call("DescribeDBInstances", MaxRecords=20, Marker=second["Marker"])
        names = [i["DBInstanceIdentifier"] for page in (first, second, third) for i in page["DBInstances"]]
        assert names == [*(f"i{number:02}" for number in range(45)), "z9"]
        assert "Marker" not in third

    @pytest.mark.parametrize(
        "marker",
        [
            "nonsense",
            "ünicode",
            "=",
            base64.urlsafe_b64encode(b'["DescribeEvents",["a"]]').decode(),
            base64.urlsafe_b64encode(b'["DescribeDBInstances",[1]]').decode(),
            base64.urlsafe_b64encode(b'["DescribeDBInstances",[[]]]').decode(),
            base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        ],
    )
    def test_a_marker_that_we_never_gave(self, world: World, marker: str) -> None:
        world.create_instance()
        with world.refused("InvalidParameterValue", "Marker"):
            world.call("DescribeDBInstances", Marker=marker)

    @pytest.mark.parametrize("size", [19, 101, -1])
    def test_page_sizes(self, world: World, size: int) -> None:
        with world.refused("InvalidParameterValue", "MaxRecords", str(size)):
            world.call("DescribeDBInstances", MaxRecords=size)


class TestMembers:
    """A member that newer models bring is not ignored in silence: somebody has to decide about it."""

    @pytest.mark.parametrize(
        ("operation", "handled"),
        [
            ("CreateDBInstance", CREATE_MEMBERS),
            ("CreateDBInstanceReadReplica", read_replicas.CREATE_MEMBERS),
            ("ModifyDBInstance", MODIFY_MEMBERS),
            ("PromoteReadReplica", frozenset({"DBInstanceIdentifier"})),
            ("RestoreDBInstanceFromDBSnapshot", RESTORE_MEMBERS),
        ],
    )
    def test_each_is_handled_kept_or_off_only(self, operation: str, handled: frozenset[str]) -> None:
        shape = load_service("rds").operation(operation).input
        assert shape is not None
        assert not handled & KEPT.keys()
        assert not handled & OFF_ONLY.keys()
        assert not KEPT.keys() & OFF_ONLY.keys()
        assert set(shape.members) - handled - KEPT.keys() - OFF_ONLY.keys() == set()

    def test_so_is_each_of_clusters(self) -> None:
        handled = {"CreateDBCluster": clusters.CREATE_MEMBERS, "ModifyDBCluster": cluster_changes.MODIFY_MEMBERS}
        assert not CLUSTER_KEPT.keys() & CLUSTER_OFF_ONLY.keys()
        known: set[str] = set()
        for operation, own in handled.items():
            shape = load_service("rds").operation(operation).input
            assert shape is not None
            assert not own & (CLUSTER_KEPT.keys() | CLUSTER_OFF_ONLY.keys())
            assert set(shape.members) - own - CLUSTER_KEPT.keys() - CLUSTER_OFF_ONLY.keys() == set()
            known |= set(shape.members)
        assert CLUSTER_KEPT.keys() | CLUSTER_OFF_ONLY.keys() <= known

    def test_every_operation_of_ours_is_one_of_rds(self) -> None:
        assert set(HANDLERS) <= set(load_service("rds").operation_names)
