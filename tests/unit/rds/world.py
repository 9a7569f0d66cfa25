"""The API's handlers on a real store, with the servers faked and workflows that end when a test says so."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import botocore.parsers
import botocore.session
import pytest
from msgspec import structs

from tests.api_coverage.members import Watched, overlooked
from verdigris.aws.errors import Fault
from verdigris.aws.model import load_service
from verdigris.aws.serialize import serialize_output
from verdigris.aws.validate import validate_input
from verdigris.domain import events
from verdigris.domain.identifiers import (
    green_identifier,
    new_cluster_endpoint_resource_id,
    new_cluster_resource_id,
    new_resource_id,
)
from verdigris.domain.model import (
    BlueGreenDeployment,
    DBCluster,
    DBClusterEndpoint,
    DBInstance,
    DBSnapshot,
    Member,
    Workflow,
)
from verdigris.domain.ports import ServerSpec, Transaction
from verdigris.domain.quotas import Quota
from verdigris.domain.statuses import (
    ClusterEndpointStatus,
    ClusterStatus,
    DeploymentStatus,
    InstanceStatus,
    MemberStatus,
    SnapshotStatus,
    WorkflowKind,
    WorkflowStatus,
)
from verdigris.rds.context import Context
from verdigris.rds.operations import HANDLERS
from verdigris.store import SqlStore
from verdigris.testing.fakes import FakeClock, FakePorts, FakeRandomText, FakeServers, fake_parameters
from verdigris.workflows import cluster_members
from verdigris.workflows.cancellation import CannotCancel

PASSWORD = "correct-horse-7"
NEW_INSTANCE = {
    "DBInstanceIdentifier": "app",
    "DBInstanceClass": "db.t3.medium",
    "Engine": "postgres",
    "EngineVersion": "17.10",
    "MasterUsername": "boss",
    "MasterUserPassword": PASSWORD,
}
NEW_CLUSTER = {
    "DBClusterIdentifier": "shop",
    "Engine": "aurora-postgresql",
    "EngineVersion": "17.10",
    "MasterUsername": "boss",
    "MasterUserPassword": PASSWORD,
}
NEW_MEMBER = {"DBInstanceClass": "db.t3.medium", "Engine": "aurora-postgresql"}
SHOP_ARN = "arn:aws:rds:us-east-1:123456789012:cluster:shop"
TOPIC = "arn:aws:sns:us-east-1:123456789012:alerts"
APP_ARN = "arn:aws:rds:us-east-1:123456789012:db:app"
SNAPSHOT_ARN = "arn:aws:rds:us-east-1:123456789012:snapshot:monday"

_MODEL = botocore.session.get_session().get_service_model("rds")
_PARSER = botocore.parsers.create_parser("query")


_STATUS_AFTER = {WorkflowKind.STOP_INSTANCE: InstanceStatus.STOPPED}


class World:
    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.clock = FakeClock()
        self.ports = FakePorts()
        self.servers = FakeServers()
        self.wakes = 0
        self.cancelled: list[str] = []
        self.random_text = FakeRandomText()
        self.context = Context(
            store=store,
            parameters=fake_parameters,
            servers=self.servers,
            ports=self.ports,
            clock=self.clock,
            random_text=self.random_text,
            wake=self._wake,
            cancel_switchover=self._cancel,
            region="us-east-1",
            account_id="123456789012",
            endpoint_host="db.example.net",
            topics=(TOPIC,),
        )

    def _wake(self) -> None:
        with self.store.transaction():  # fails if the handler is still inside its own
            self.wakes += 1

    async def _cancel(self, identifier: str) -> None:
        """Too late, for one of that name."""
        if identifier == "bgd-late":
            raise CannotCancel("past its point of no return")
        self.cancelled.append(identifier)

    def call(self, operation_name: str, **params: Any) -> dict[str, Any]:
        """Check, handle, serialise, and read the answer back as an SDK would. What is read and answered has to be what
        the page on the API's coverage says."""
        service = load_service("rds")
        operation = service.operation(operation_name)
        validate_input(operation, params)
        request = Watched(params)
        result = HANDLERS[operation_name](self.context, request)
        body = serialize_output(service, operation, result, "test")
        shape = _MODEL.operation_model(operation_name).output_shape
        parsed: dict[str, Any] = _PARSER.parse({"body": body, "headers": {}, "status_code": 200}, shape)
        del parsed["ResponseMetadata"]
        assert overlooked(operation_name, request, parsed) == set()
        return parsed

    @contextlib.contextmanager
    def refused(self, code: str, *parts: str) -> Iterator[None]:
        """The block ends in a fault with ``code`` and a message that has ``parts``; nothing was written."""
        before = self.snapshot()
        with pytest.raises(Fault) as caught:
            yield
        assert caught.value.code == code
        for part in parts:
            assert part in caught.value.message
        assert self.snapshot() == before

    def snapshot(self) -> object:
        now = self.clock.now()
        with self.store.transaction() as tx:
            recent = tx.events(since=now.replace(year=2020), until=now.replace(year=2030))
            lists = tx.parameter_groups(), tx.subnet_groups(), tx.event_subscriptions(), tx.snapshots()
            clusters = tx.clusters()
            endpoints = tx.cluster_endpoints([each.resource_id for each in clusters])
            return tx.instances(), clusters, endpoints, tx.deployments(), tx.unfinished_workflows(), lists, recent

    def set_quotas(self, **quotas: int) -> None:
        changed = {Quota(name): value for name, value in quotas.items()}
        object.__setattr__(self.context, "quotas", {**self.context.quotas, **changed})

    # -- looking

    def instance(self, identifier: str = "app") -> DBInstance:
        with self.store.transaction() as tx:
            found = tx.instance_named(identifier)
        assert found is not None
        return found

    def cluster(self, identifier: str = "shop") -> DBCluster:
        with self.store.transaction() as tx:
            found = tx.cluster_named(identifier)
        assert found is not None
        return found

    def snapshot_of(self, identifier: str = "monday") -> DBSnapshot:
        with self.store.transaction() as tx:
            found = tx.snapshot_named(identifier)
        assert found is not None
        return found

    def cluster_endpoint(self, identifier: str) -> DBClusterEndpoint:
        with self.store.transaction() as tx:
            found = tx.cluster_endpoint_named(identifier)
        assert found is not None
        return found

    def instances(self) -> list[DBInstance]:
        with self.store.transaction() as tx:
            return tx.instances()

    def deployment(self) -> BlueGreenDeployment:
        with self.store.transaction() as tx:
            (found,) = tx.deployments()
        return found

    def workflows(self) -> list[Workflow]:
        with self.store.transaction() as tx:
            return tx.unfinished_workflows()

    def workflow(self) -> Workflow:
        (found,) = self.workflows()
        return found

    # -- making

    def change(self, identifier: str, **changes: object) -> None:
        with self.store.transaction() as tx:
            instance = tx.instance_named(identifier)
            assert instance is not None
            tx.put_instance(structs.replace(instance, **changes))

    def change_cluster(self, identifier: str = "shop", **changes: object) -> None:
        cluster = self.cluster(identifier)
        with self.store.transaction() as tx:
            tx.put_cluster(structs.replace(cluster, **changes))

    def change_cluster_endpoint(self, identifier: str, **changes: object) -> None:
        endpoint = self.cluster_endpoint(identifier)
        with self.store.transaction() as tx:
            tx.put_cluster_endpoint(structs.replace(endpoint, **changes))

    def change_deployment(self, **changes: object) -> None:
        deployment = self.deployment()
        with self.store.transaction() as tx:
            tx.put_deployment(structs.replace(deployment, **changes))

    def create_instance(self, identifier: str = "app", **params: Any) -> DBInstance:
        self.call("CreateDBInstance", **{**NEW_INSTANCE, "DBInstanceIdentifier": identifier, **params})
        self.finish()
        return self.instance(identifier)

    def create_replica(self, identifier: str = "copy", *, source: str = "app", **params: Any) -> DBInstance:
        self.call(
            "CreateDBInstanceReadReplica",
            **{"DBInstanceIdentifier": identifier, "SourceDBInstanceIdentifier": source, **params},
        )
        self.finish()
        return self.instance(identifier)

    def create_cluster(self, identifier: str = "shop", **params: Any) -> DBCluster:
        self.call("CreateDBCluster", **{**NEW_CLUSTER, "DBClusterIdentifier": identifier, **params})
        self.finish()
        return self.cluster(identifier)

    def create_member(self, identifier: str, *, cluster: str = "shop", **params: Any) -> DBInstance:
        member = {**NEW_MEMBER, "DBInstanceIdentifier": identifier, "DBClusterIdentifier": cluster}
        self.call("CreateDBInstance", **{**member, **params})
        self.finish()
        return self.instance(identifier)

    def create_snapshot(self, identifier: str = "monday", *, instance: str = "app", **params: Any) -> DBSnapshot:
        named = {"DBSnapshotIdentifier": identifier, "DBInstanceIdentifier": instance}
        self.call("CreateDBSnapshot", **named, **params)
        self.finish()
        return self.snapshot_of(identifier)

    def change_snapshot(self, identifier: str = "monday", **changes: object) -> None:
        snapshot = self.snapshot_of(identifier)
        with self.store.transaction() as tx:
            tx.put_snapshot(structs.replace(snapshot, **changes))

    def create_endpoint(self, identifier: str, **params: Any) -> DBClusterEndpoint:
        wanted = {"DBClusterIdentifier": "shop", "DBClusterEndpointIdentifier": identifier, "EndpointType": "ANY"}
        self.call("CreateDBClusterEndpoint", **{**wanted, **params})
        self.finish()
        return self.cluster_endpoint(identifier)

    def plant_server(self) -> None:
        """As the workflow that creates ``app`` does."""
        instance = self.instance()
        spec = ServerSpec(
            resource_id=instance.resource_id,
            engine_version=instance.engine_version,
            instance_class=instance.instance_class,
            master_username=instance.master_username,
            master_password_verifier="",
        )
        asyncio.run(self.servers.create(spec))

    def create_deployment(self, **params: Any) -> BlueGreenDeployment:
        """A deployment of ``app`` to 18.6 with its green, ready to be switched over."""
        with self.store.transaction() as tx:
            missing = tx.instance_named("app") is None
        if missing:
            self.create_instance()
        self.call(
            "CreateBlueGreenDeployment",
            **{"BlueGreenDeploymentName": "up", "Source": APP_ARN, "TargetEngineVersion": "18.6", **params},
        )
        self.finish()
        return self.deployment()

    # -- ending workflows

    def finish(self) -> None:
        """What the real workflows do to the records when they succeed."""
        with self.store.transaction() as tx:
            for workflow in tx.unfinished_workflows():
                self._end(tx, workflow)
                tx.put_workflow(structs.replace(workflow, status=WorkflowStatus.COMPLETED))

    def _end(self, tx: Transaction, workflow: Workflow) -> None:
        instance, deployment = tx.instance(workflow.subject), tx.deployment(workflow.subject)
        cluster = tx.cluster(workflow.subject)
        if cluster is not None and workflow.kind is WorkflowKind.DELETE_CLUSTER:
            tx.delete_cluster(cluster.resource_id)
        elif cluster is not None:
            port = workflow.arguments.get("port") or cluster.port
            tx.put_cluster(structs.replace(cluster, status=ClusterStatus.AVAILABLE, port=port))
        self._end_snapshot(tx, workflow)
        endpoint = tx.cluster_endpoint(workflow.subject)
        if endpoint is not None and workflow.kind is WorkflowKind.DELETE_CLUSTER_ENDPOINT:
            tx.delete_cluster_endpoint(endpoint.resource_id)
        elif endpoint is not None:
            tx.put_cluster_endpoint(structs.replace(endpoint, status=ClusterEndpointStatus.AVAILABLE))
        if instance is not None:
            self._end_instance(tx, workflow, instance)
        elif deployment is not None and workflow.kind is WorkflowKind.CREATE_DEPLOYMENT:
            self.add_green(tx, deployment, InstanceStatus.AVAILABLE)
        elif deployment is not None and workflow.kind is WorkflowKind.SWITCH_OVER:
            self._switch_over(tx, deployment)
        elif deployment is not None:
            tx.delete_deployment(deployment.identifier)

    def _end_snapshot(self, tx: Transaction, workflow: Workflow) -> None:
        """Of one that it has made or deleted."""
        if workflow.kind is WorkflowKind.DELETE_SNAPSHOT:
            tx.delete_snapshot(workflow.subject)
        for snapshot_id in (workflow.subject, *map(str, workflow.arguments.values())):
            snapshot = tx.snapshot(snapshot_id)
            if snapshot is not None and snapshot.status is SnapshotStatus.CREATING:
                now = self.clock.now()
                done = structs.replace(snapshot, status=SnapshotStatus.AVAILABLE, taken_at=now, size_bytes=1 << 20)
                tx.put_snapshot(structs.replace(done, data_of=done.data_of or now))

    def _end_instance(self, tx: Transaction, workflow: Workflow, instance: DBInstance) -> None:
        if workflow.kind is WorkflowKind.DELETE_INSTANCE:
            cluster_members.deleted(tx, instance)
            tx.delete_instance(instance.resource_id)
            tx.add_event(events.instance_deleted(instance, self.clock.now()))
            return
        if workflow.kind is WorkflowKind.CREATE_INSTANCE:
            tx.add_event(events.instance_created(instance, self.clock.now()))
        if workflow.kind is WorkflowKind.PROMOTE_READ_REPLICA:
            instance = structs.replace(instance, replica_of=None, read_only=False)
        told = workflow.arguments
        tx.put_instance(
            structs.replace(
                instance,
                status=_STATUS_AFTER.get(workflow.kind, InstanceStatus.AVAILABLE),
                identifier=told.get("new_identifier") or instance.identifier,
                port=told.get("port") or instance.port,
                engine_version=told.get("engine_version") or instance.engine_version,
                instance_class=told.get("instance_class") or instance.instance_class,
            )
        )

    def add_green(self, tx: Transaction, deployment: BlueGreenDeployment, status: InstanceStatus) -> None:
        """With a replica for each that blue has."""
        ready, members, primary = status is InstanceStatus.AVAILABLE, [], ""
        for member in deployment.members:
            source = tx.instance(member.source_resource_id)
            assert source is not None
            spec = deployment.target.replicas.get(source.resource_id, deployment.target)
            green = structs.replace(
                source,
                resource_id=new_resource_id(self.random_text),
                identifier=green_identifier(source.identifier, self.random_text),
                port=self.ports.allocate({instance.port for instance in tx.instances()}),
                status=status,
                read_only=True,
                engine_version=deployment.target.engine_version,
                instance_class=spec.instance_class,
                parameter_group=spec.parameter_group,
                replica_of=primary or None,
                settings={**source.settings, **deployment.target.settings},
            )
            primary = primary or green.resource_id
            tx.put_instance(green)
            members.append(
                structs.replace(
                    member,
                    target_resource_id=green.resource_id,
                    target_identifier=green.identifier,
                    status=MemberStatus.AVAILABLE if ready else MemberStatus.PROVISIONING,
                )
            )
        if deployment.cluster is not None:
            deployment = self._add_green_cluster(tx, deployment, members, ready=ready)
        tx.put_deployment(
            structs.replace(
                deployment,
                members=tuple(members),
                status=DeploymentStatus.AVAILABLE if ready else DeploymentStatus.PROVISIONING,
            )
        )

    def _add_green_cluster(
        self, tx: Transaction, deployment: BlueGreenDeployment, members: list[Member], *, ready: bool
    ) -> BlueGreenDeployment:
        assert deployment.cluster is not None
        blue = tx.cluster(deployment.cluster.source_resource_id)
        assert blue is not None
        green = structs.replace(
            blue,
            resource_id=new_cluster_resource_id(self.random_text),
            identifier=green_identifier(blue.identifier, self.random_text),
            port=blue.port + 1000,
            status=ClusterStatus.AVAILABLE if ready else ClusterStatus.CREATING,
            writer=members[0].target_resource_id,
        )
        tx.put_cluster(green)
        for member in members:
            found = tx.instance(member.target_resource_id or "")
            assert found is not None
            tx.put_instance(structs.replace(found, cluster=green.resource_id))
        endpoints = tuple(self._add_green_endpoint(tx, each, green) for each in deployment.endpoints)
        cluster = structs.replace(
            deployment.cluster,
            target_resource_id=green.resource_id,
            target_identifier=green.identifier,
            status=MemberStatus.AVAILABLE if ready else MemberStatus.PROVISIONING,
        )
        return structs.replace(deployment, cluster=cluster, endpoints=endpoints)

    def _add_green_endpoint(self, tx: Transaction, member: Member, cluster: DBCluster) -> Member:
        blue = tx.cluster_endpoint(member.source_resource_id)
        assert blue is not None
        green = structs.replace(
            blue,
            resource_id=new_cluster_endpoint_resource_id(self.random_text),
            identifier=green_identifier(blue.identifier, self.random_text),
            cluster=cluster.resource_id,
        )
        tx.put_cluster_endpoint(green)
        return structs.replace(
            member,
            target_resource_id=green.resource_id,
            target_identifier=green.identifier,
            status=MemberStatus.AVAILABLE,
        )

    def _switch_over(self, tx: Transaction, deployment: BlueGreenDeployment) -> None:
        member = deployment.primary
        blue, green = tx.instance(member.source_resource_id), tx.instance(member.target_resource_id or "")
        assert blue is not None
        assert green is not None
        old = f"{blue.identifier}-old1"
        tx.put_instance(structs.replace(blue, identifier=old, port=green.port, read_only=True))
        tx.put_instance(structs.replace(green, identifier=blue.identifier, port=blue.port, read_only=False))
        member = structs.replace(
            member,
            source_identifier=old,
            target_identifier=blue.identifier,
            status=MemberStatus.SWITCHOVER_COMPLETED,
        )
        tx.put_deployment(structs.replace(deployment, members=(member,), status=DeploymentStatus.SWITCHOVER_COMPLETED))
