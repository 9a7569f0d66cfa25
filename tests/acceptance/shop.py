"""A cluster called ``shop``."""

import contextlib
import os
import signal
from collections import Counter
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from tests.acceptance.installation import MASTER, PASSWORD, Installation

ENGINE = "aurora-postgresql"


class Shop:
    """The cluster as its clients see it."""

    def __init__(self, verdigris: Installation) -> None:
        self.verdigris = verdigris
        self.password = PASSWORD
        self.read_endpoints()

    def read_endpoints(self) -> None:
        """What they are told once, and then need no control plane for."""
        cluster = self.view()
        self.port = cluster["Port"]
        self.hosts = {"Endpoint": cluster["Endpoint"], "ReaderEndpoint": cluster["ReaderEndpoint"]}

    def view(self) -> dict[str, Any]:
        found: dict[str, Any] = self.verdigris.rds.describe_db_clusters(DBClusterIdentifier="shop")["DBClusters"][0]
        return found

    def dsn(self, endpoint: str) -> str:
        return make_conninfo(
            host=self.hosts[endpoint],
            port=self.port,
            user=MASTER,
            password=self.password,
            dbname="app",
            sslmode="require",
        )

    def connect(self, endpoint: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn(endpoint), autocommit=True)

    def reached(self, endpoint: str, sessions: int = 4) -> Counter[object]:
        """By servers: of so many sessions at a time."""
        with contextlib.ExitStack() as stack:
            return Counter([server_of(stack.enter_context(self.connect(endpoint))) for _ in range(sessions)])


def create_shop(verdigris: Installation, version: str, *members: str) -> Shop:
    """The first member is its writer."""
    verdigris.rds.create_db_cluster(
        DBClusterIdentifier="shop",
        Engine=ENGINE,
        EngineVersion=version,
        MasterUsername=MASTER,
        MasterUserPassword=PASSWORD,
        DatabaseName="app",
    )
    verdigris.rds.get_waiter("db_cluster_available").wait(DBClusterIdentifier="shop", WaiterConfig={"Delay": 1})
    for identifier in members:
        create_member(verdigris, identifier)
    for identifier in members:
        verdigris.await_instance(identifier)
    return Shop(verdigris)


def server_of(connection: psycopg.Connection[Any]) -> object:
    """What only one server has said."""
    return connection.execute("SELECT pg_postmaster_start_time()").fetchall()[0][0]


def server_named(verdigris: Installation, identifier: str) -> object:
    with verdigris.connect(identifier) as connection:
        return server_of(connection)


def create_member(verdigris: Installation, identifier: str, **members: Any) -> None:
    verdigris.rds.create_db_instance(
        DBInstanceIdentifier=identifier,
        DBClusterIdentifier="shop",
        DBInstanceClass="db.t3.micro",
        Engine=ENGINE,
        **members,
    )


def kill_server(verdigris: Installation, resource_id: str) -> None:
    pidfile = verdigris.home / "instances" / resource_id / "data" / "postmaster.pid"
    os.kill(int(pidfile.read_text().split()[0]), signal.SIGKILL)
