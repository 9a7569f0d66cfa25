"""Deployments of a source that has read replicas."""

from typing import Any

import pytest

from tests.unit.rds.world import APP_ARN, World
from verdigris.domain.model import BlueGreenDeployment
from verdigris.domain.statuses import InstanceStatus
from verdigris.workflows import membership

READERS = ("reader-a", "reader-b")
INVALID_STATE = "InvalidDBInstanceState"


@pytest.fixture(autouse=True)
def _replicated(world: World) -> None:
    world.create_instance()
    for reader in READERS:
        world.create_replica(reader, DBInstanceClass="db.t3.small")


def create(world: World, **params: Any) -> dict[str, Any]:
    params = {"BlueGreenDeploymentName": "up", "Source": APP_ARN, "TargetEngineVersion": "18.6", **params}
    view: dict[str, Any] = world.call("CreateBlueGreenDeployment", **params)["BlueGreenDeployment"]
    return view


def view(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.call("DescribeBlueGreenDeployments")["BlueGreenDeployments"][0]
    return found


def delete(world: World, deployment: BlueGreenDeployment, **params: Any) -> None:
    world.call("DeleteBlueGreenDeployment", BlueGreenDeploymentIdentifier=deployment.identifier, **params)


def switch_over(world: World, deployment: BlueGreenDeployment) -> None:
    world.call("SwitchoverBlueGreenDeployment", BlueGreenDeploymentIdentifier=deployment.identifier)


def arn(identifier: str | None) -> str:
    return APP_ARN.replace(":app", f":{identifier}")


class TestCreate:
    def test_a_member_each(self, world: World) -> None:
        shown = create(world)
        assert shown["SwitchoverDetails"] == [{"SourceMember": arn(name)} for name in ("app", *READERS)]
        assert shown["Tasks"][-1] == {"Name": "CREATING_TOPOLOGY_OF_SOURCE", "Status": "PENDING"}
        assert len(shown["Tasks"]) == 4

    def test_one_is_not_available(self, world: World) -> None:
        world.call("RebootDBInstance", DBInstanceIdentifier="reader-b")
        with world.refused(INVALID_STATE, "reader-b", "rebooting"):
            create(world)

    def test_each_is_as_its_counterpart(self, world: World) -> None:
        for number, reader in enumerate(READERS):
            name = f"group-{number}"
            world.call(
                "CreateDBParameterGroup",
                DBParameterGroupName=name,
                DBParameterGroupFamily="postgres17",
                Description="d",
            )
            world.change(reader, parameter_group=name)
        specs = self._specs(world, TargetEngineVersion="17.10")
        assert specs == [("db.t3.small", "group-0"), ("db.t3.small", "group-1")]
        world.change("reader-a", parameter_group="default.postgres17")
        with world.refused("InvalidDBParameterGroupState"):
            world.call("DeleteDBParameterGroup", DBParameterGroupName="group-0")

    def test_groups_of_another_family_stay_behind(self, world: World) -> None:
        assert self._specs(world) == [("db.t3.small", "default.postgres18")] * 2

    def test_what_is_named_holds_for_all(self, world: World) -> None:
        world.call(
            "CreateDBParameterGroup", DBParameterGroupName="mine", DBParameterGroupFamily="postgres18", Description="d"
        )
        asked = {"TargetDBInstanceClass": "db.m5.large", "TargetDBParameterGroupName": "mine"}
        assert self._specs(world, **asked) == [("db.m5.large", "mine")] * 2

    def _specs(self, world: World, **params: Any) -> list[tuple[str, str]]:
        create(world, **params)
        replicas = world.deployment().target.replicas
        specs = [replicas[world.instance(reader).resource_id] for reader in READERS]
        return [(spec.instance_class, spec.parameter_group) for spec in specs]


class TestWhileItWaits:
    def test_it_is_described(self, world: World) -> None:
        deployment = world.create_deployment()
        assert view(world)["SwitchoverDetails"] == [
            {
                "SourceMember": arn(member.source_identifier),
                "TargetMember": arn(member.target_identifier),
                "Status": "AVAILABLE",
            }
            for member in deployment.members
        ]
        for member in deployment.replicas:
            for identifier, source in (
                (member.source_identifier, "app"),
                (member.target_identifier, deployment.primary.target_identifier),
            ):
                [shown] = world.call("DescribeDBInstances", DBInstanceIdentifier=identifier)["DBInstances"]
                assert shown["ReadReplicaSourceDBInstanceIdentifier"] == source

    def test_nobody_is_promoted(self, world: World) -> None:
        deployment = world.create_deployment()
        for identifier in ("reader-a", deployment.replicas[0].target_identifier):
            with world.refused(INVALID_STATE, deployment.identifier):
                world.call("PromoteReadReplica", DBInstanceIdentifier=identifier)

    def test_nobody_is_deleted_while_it_is_made(self, world: World) -> None:
        create(world)
        with world.refused(INVALID_STATE, "PROVISIONING"):
            world.call("DeleteDBInstance", DBInstanceIdentifier="reader-a", SkipFinalSnapshot=True)


class TestDelete:
    def test_with_everybody_on_green(self, world: World) -> None:
        deployment = world.create_deployment()
        delete(world, deployment, DeleteTarget=True)
        greens = [world.instance(member.target_identifier or "") for member in deployment.members]
        assert {green.status for green in greens} == {InstanceStatus.DELETING}
        assert {world.instance(name).status for name in ("app", *READERS)} == {InstanceStatus.AVAILABLE}

    def test_one_is_protected(self, world: World) -> None:
        deployment = world.create_deployment()
        copy = deployment.replicas[1].target_identifier or ""
        world.change(copy, deletion_protection=True)
        with world.refused("InvalidBlueGreenDeploymentStateFault", copy):
            delete(world, deployment, DeleteTarget=True)
        delete(world, deployment)

    def test_not_with_a_replica_that_was_added_to_green(self, world: World) -> None:
        deployment = world.create_deployment()
        world.create_replica("more", source=deployment.primary.target_identifier or "")
        with world.refused("InvalidBlueGreenDeploymentStateFault", "more"):
            delete(world, deployment, DeleteTarget=True)
        delete(world, deployment)


class TestSwitchover:
    def test_everybody_has_to_be_there(self, world: World) -> None:
        deployment = world.create_deployment()
        for member in deployment.replicas:
            for identifier in (member.source_identifier, member.target_identifier or ""):
                world.change(identifier, status=InstanceStatus.REBOOTING)
                with world.refused("InvalidBlueGreenDeploymentStateFault", identifier):
                    switch_over(world, deployment)
                world.change(identifier, status=InstanceStatus.AVAILABLE)
        switch_over(world, deployment)

    def test_green_replicas_have_to_follow(self, world: World) -> None:
        """Blue's may lag behind for ever: their readers are better off with the new ones."""
        deployment = world.create_deployment()
        copy = deployment.replicas[0].target_identifier or ""
        world.change("reader-a", replication_error="its source does not run")
        world.change(copy, replication_error="it does not run")
        with world.refused("InvalidBlueGreenDeploymentStateFault", copy, "it does not run"):
            switch_over(world, deployment)
        world.change(copy, replication_error="")
        switch_over(world, deployment)

    def test_a_member_with_one_side_stays_behind(self, world: World) -> None:
        deployment = world.create_deployment()
        primary, one, other = deployment.members
        for missing, member in (("MISSING_SOURCE", one), ("MISSING_TARGET", other)):
            side = member.source_identifier if missing == "MISSING_SOURCE" else member.target_identifier or ""
            gone = world.instance(side)
            with world.store.transaction() as tx:
                tx.delete_instance(gone.resource_id)
                membership.deleted(tx, gone)
        statuses = [detail["Status"] for detail in view(world)["SwitchoverDetails"]]
        assert statuses == ["AVAILABLE", "MISSING_SOURCE", "MISSING_TARGET"]
        assert world.deployment().moving == (primary,)
        switch_over(world, deployment)

    def test_old_names_are_kept_free(self, world: World) -> None:
        switch_over(world, world.create_deployment())
        with world.refused("InvalidParameterCombination", "reader-b"):
            world.create_instance("reader-b-old1")
