"""Log files, quotas, classes, categories: what there is to be looked at."""

from typing import Any

import pytest

from tests.unit.rds.world import World
from verdigris.domain.instance_classes import instance_classes, memory_bytes
from verdigris.rds import log_files

LINES = [f"line {number}\n".encode() for number in range(1, 101)]


@pytest.fixture
def logging(world: World) -> World:
    world.create_instance()
    world.servers.logs = {"error/postgresql.log": b"".join(LINES), "error/postgresql.log.1": b"old\n"}
    world.plant_server()
    return world


def portion(world: World, name: str = "error/postgresql.log", **params: Any) -> dict[str, Any]:
    return world.call("DownloadDBLogFilePortion", DBInstanceIdentifier="app", LogFileName=name, **params)


class TestLogFiles:
    @pytest.mark.parametrize(
        ("params", "found"),
        [
            ({}, ["error/postgresql.log", "error/postgresql.log.1"]),
            ({"FilenameContains": ".1"}, ["error/postgresql.log.1"]),
            ({"FileSize": 4}, ["error/postgresql.log"]),
            ({"FileLastWritten": 1_750_000_000_001}, []),
        ],
    )
    def test_which(self, logging: World, params: dict[str, Any], found: list[str]) -> None:
        shown = logging.call("DescribeDBLogFiles", DBInstanceIdentifier="app", **params)["DescribeDBLogFiles"]
        assert [file["LogFileName"] for file in shown] == found

    def test_of_an_instance_without_a_server(self, world: World) -> None:
        world.create_instance()
        with world.refused("DBInstanceNotReady"):
            world.call("DescribeDBLogFiles", DBInstanceIdentifier="app")

    def test_the_whole_file_by_portions(self, logging: World) -> None:
        marker, read, pending = "0", [], True
        while pending:
            answer = portion(logging, Marker=marker, NumberOfLines=7)
            read.append(answer["LogFileData"])
            marker, pending = answer["Marker"], answer["AdditionalDataPending"]
        assert len(read) == 15
        assert "".join(read).encode() == b"".join(LINES)
        logging.servers.logs["error/postgresql.log"] += b"one more\n"
        assert portion(logging, Marker=marker)["LogFileData"] == "one more\n"

    def test_without_a_marker_its_end(self, logging: World) -> None:
        answer = portion(logging, NumberOfLines=2)
        assert answer["LogFileData"] == "line 99\nline 100\n"
        assert answer["AdditionalDataPending"] is False
        assert portion(logging)["LogFileData"].encode() == b"".join(LINES)

    def test_never_more_than_the_limit_and_never_part_of_a_line(
        self, logging: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(log_files, "MAX_BYTES", 20)
        assert portion(logging, Marker="0")["LogFileData"] == "line 1\nline 2\n"
        assert portion(logging)["LogFileData"] == "line 99\nline 100\n"
        logging.servers.logs["error/postgresql.log"] = b"x" * 50
        answer = portion(logging, Marker="0")
        assert (answer["LogFileData"], answer["AdditionalDataPending"]) == ("x" * 20, True)

    def test_a_file_that_was_cut_begins_again(self, logging: World) -> None:
        logging.servers.logs["error/postgresql.log"] = b"new\n"
        assert portion(logging, Marker="891")["LogFileData"] == "new\n"

    @pytest.mark.parametrize(
        ("params", "code"),
        [
            ({"name": "error/other.log"}, "DBLogFileNotFoundFault"),
            ({"name": "../passfile"}, "DBLogFileNotFoundFault"),
            ({"Marker": "2:1"}, "InvalidParameterValue"),
            ({"NumberOfLines": 10_001}, "InvalidParameterValue"),
        ],
    )
    def test_refused(self, logging: World, params: dict[str, Any], code: str) -> None:
        with logging.refused(code):
            portion(logging, **params)


def test_every_class_is_offered_for_every_version(world: World) -> None:
    options: list[dict[str, Any]] = []
    marker: dict[str, str] = {}
    while True:
        answer = world.call("DescribeOrderableDBInstanceOptions", Engine="postgres", EngineVersion="18.6", **marker)
        options += answer["OrderableDBInstanceOptions"]
        if "Marker" not in answer:
            break
        marker = {"Marker": answer["Marker"]}
    names = [option["DBInstanceClass"] for option in options]
    assert names == instance_classes()
    assert all(memory_bytes(name) for name in names)
    (one,) = world.call(
        "DescribeOrderableDBInstanceOptions", Engine="postgres", EngineVersion="17.10", DBInstanceClass="db.r7g.large"
    )["OrderableDBInstanceOptions"]
    assert (one["EngineVersion"], one["DBInstanceClass"]) == ("17.10", "db.r7g.large")
    for params, some in (({"Vpc": True}, True), ({"Vpc": False}, False)):
        shown = world.call("DescribeOrderableDBInstanceOptions", Engine="postgres", **params)
        assert bool(shown["OrderableDBInstanceOptions"]) is some
    cluster = world.call("DescribeOrderableDBInstanceOptions", Engine="Aurora-PostgreSQL", EngineVersion="17.10")
    assert {each["Engine"] for each in cluster["OrderableDBInstanceOptions"]} == {"aurora-postgresql"}
    with world.refused("InvalidParameterValue"):
        world.call("DescribeOrderableDBInstanceOptions", Engine="oracle-ee")


def test_categories(world: World) -> None:
    shown = world.call("DescribeEventCategories")["EventCategoriesMapList"]
    types = ["blue-green-deployment", "db-cluster", "db-instance", "db-parameter-group", "db-snapshot"]
    assert [each["SourceType"] for each in shown] == types
    (one,) = world.call("DescribeEventCategories", SourceType="blue-green-deployment")["EventCategoriesMapList"]
    assert one["EventCategories"] == ["creation", "deletion", "failure", "notification"]
    assert world.call("DescribeEventCategories", SourceType="db-proxy")["EventCategoriesMapList"] == []
    with world.refused("InvalidParameterValue"):
        world.call("DescribeEventCategories", SourceType="weather")
