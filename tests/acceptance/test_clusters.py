"""A cluster through the API, on real servers: its life, and where its two endpoints lead whoever dies."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.acceptance.installation import MASTER, PASSWORD, Installation, installation, wait_until
from tests.acceptance.serve_log import ServeLog
from tests.acceptance.shop import ENGINE, Shop, create_member, kill_server, server_named, server_of

VERSION = "17.10"
NEW_PASSWORD = "another-secret-1"


@pytest.fixture(scope="module")
def verdigris() -> Iterator[Installation]:
    with installation() as verdigris:
        yield verdigris


def rename(verdigris: Installation, identifier: str, new: str) -> None:
    verdigris.rds.modify_db_instance(
        DBInstanceIdentifier=identifier, NewDBInstanceIdentifier=new, ApplyImmediately=True
    )

    def is_done() -> bool:
        found = verdigris.rds.describe_db_instances()["DBInstances"]
        return {"available"} == {each["DBInstanceStatus"] for each in found if each["DBInstanceIdentifier"] == new}

    wait_until(is_done, f"{identifier} is called {new}")


def comes_to_be(shop: Shop, endpoint: str, servers: set[object], what: str) -> None:
    def is_so() -> bool:
        try:
            return set(shop.reached(endpoint)) == servers
        except psycopg.OperationalError:
            return False

    wait_until(is_so, what)


def test_a_life(verdigris: Installation) -> None:
    rds, log = verdigris.rds, ServeLog(verdigris.log_path)
    rds.create_db_cluster(
        DBClusterIdentifier="shop",
        Engine=ENGINE,
        EngineVersion=VERSION,
        MasterUsername=MASTER,
        MasterUserPassword=PASSWORD,
        DatabaseName="app",
    )
    rds.get_waiter("db_cluster_available").wait(DBClusterIdentifier="shop", WaiterConfig={"Delay": 1})
    shop = Shop(verdigris)
    with pytest.raises(psycopg.OperationalError, match="not accepting connections"):
        shop.connect("Endpoint")

    # All at once, as Terraform does it, and a control plane that dies in the middle.
    for identifier in ("one", "two", "three"):
        create_member(verdigris, identifier)
    log.wait_for("workflow.step_started", kind="create_read_replica", step="copy")
    verdigris.kill()
    verdigris.start()
    for identifier in ("one", "two", "three"):
        rds.get_waiter("db_instance_available").wait(DBInstanceIdentifier=identifier, WaiterConfig={"Delay": 1})
    roles = {each["DBInstanceIdentifier"]: each["IsClusterWriter"] for each in shop.view()["DBClusterMembers"]}
    assert roles == {"one": True, "two": False, "three": False}
    one, two, three = (server_named(verdigris, identifier) for identifier in ("one", "two", "three"))

    assert shop.reached("Endpoint") == {one: 4}
    wait_until(lambda: shop.reached("ReaderEndpoint") == {two: 2, three: 2}, "sessions are spread over the readers")
    with shop.connect("Endpoint") as writer:
        writer.execute("CREATE TABLE t AS SELECT 1 AS id")
    with shop.connect("ReaderEndpoint") as reader, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        reader.execute("CREATE TABLE u ()")
    for identifier in ("two", "three"):
        await_row(verdigris, identifier)

    follows_its_list(shop, {"one": one, "two": two, "three": three})

    rds.modify_db_cluster(DBClusterIdentifier="shop", MasterUserPassword=NEW_PASSWORD)
    rds.get_waiter("db_cluster_available").wait(DBClusterIdentifier="shop", WaiterConfig={"Delay": 1})
    shop.password = NEW_PASSWORD
    comes_to_be(shop, "ReaderEndpoint", {two, three}, "readers take the new password")

    # Nobody starts it again meanwhile, and nobody tells the router.
    resource_ids = {identifier: verdigris.resource_id(identifier) for identifier in ("two", "three")}
    verdigris.kill()
    kill_server(verdigris, resource_ids["two"])
    assert shop.reached("ReaderEndpoint") == {three: 4}
    with shop.connect("ReaderEndpoint") as reader:
        kill_server(verdigris, resource_ids["three"])
        with pytest.raises(psycopg.OperationalError):
            ask_for_ever(reader)
    assert shop.reached("ReaderEndpoint") == {one: 4}
    verdigris.start()
    for identifier in ("two", "three"):
        verdigris.await_connection(identifier, password=NEW_PASSWORD)
    wait_until(lambda: len(shop.reached("ReaderEndpoint")) == 2, "both are readers again")

    rds.delete_db_instance(DBInstanceIdentifier="three")
    verdigris.await_no_instance("three")
    assert len(shop.reached("ReaderEndpoint")) == 1
    rds.delete_db_instance(DBInstanceIdentifier="two")
    rds.delete_db_instance(DBInstanceIdentifier="one", SkipFinalSnapshot=True)
    rds.delete_db_cluster(DBClusterIdentifier="shop", SkipFinalSnapshot=True)
    rds.get_waiter("db_cluster_deleted").wait(DBClusterIdentifier="shop", WaiterConfig={"Delay": 1})
    assert rds.describe_db_instances()["DBInstances"] == []
    for endpoint in ("Endpoint", "ReaderEndpoint"):
        with pytest.raises(psycopg.OperationalError, match="refused"):
            shop.connect(endpoint)
    for directory in ("instances", "run"):
        assert list((verdigris.home / directory).iterdir()) == []
    told = rds.describe_events(SourceIdentifier="shop", SourceType="db-cluster", Duration=60)["Events"]
    assert [event["Message"] for event in told] == [
        "DB cluster created",
        "Reset master credentials",
        "DB cluster deleted",
    ]


def follows_its_list(shop: Shop, servers: dict[str, object]) -> None:
    """A custom endpoint: whom it leads to is changed, and named anew, under a session that came by it."""
    rds, far = shop.verdigris.rds, "far"

    def statuses() -> list[str]:
        found = rds.describe_db_cluster_endpoints(DBClusterEndpointIdentifier=far)["DBClusterEndpoints"]
        return [endpoint["Status"] for endpoint in found]

    created = rds.create_db_cluster_endpoint(
        DBClusterIdentifier="shop", DBClusterEndpointIdentifier=far, EndpointType="ANY", StaticMembers=["two", "one"]
    )
    wait_until(lambda: statuses() == ["available"], "the custom endpoint is available")
    shop.hosts[far] = created["Endpoint"]
    assert shop.view()["CustomEndpoints"] == [created["Endpoint"]]
    assert shop.reached(far) == {servers["one"]: 2, servers["two"]: 2}
    with shop.connect(far) as session:
        there = server_of(session)
        rds.modify_db_cluster_endpoint(DBClusterEndpointIdentifier=far, ExcludedMembers=["one", "two"])
        wait_until(lambda: statuses() == ["available"], "the custom endpoint is available")
        assert shop.reached(far) == {servers["three"]: 4}
        rename(shop.verdigris, "three", "third")
        assert shop.reached(far) == {servers["three"]: 4}
        rename(shop.verdigris, "third", "three")
        rds.delete_db_cluster_endpoint(DBClusterEndpointIdentifier=far)
        wait_until(lambda: statuses() == [], "the custom endpoint is gone")
        assert server_of(session) == there
    with pytest.raises(psycopg.OperationalError, match="refused"):
        shop.connect(far)


def ask_for_ever(connection: psycopg.Connection[Any]) -> None:
    while True:
        connection.execute("SELECT 1")


def await_row(verdigris: Installation, identifier: str) -> None:
    def has_it() -> bool:
        with verdigris.connect(identifier) as connection:
            return connection.execute("SELECT to_regclass('t') IS NOT NULL").fetchall() == [(True,)]

    wait_until(has_it, f"{identifier} has what was written")
