"""What Terraform's AWS provider does for an ``aws_db_instance`` with ``blue_green_update``, call by call.

The order of the calls, their members, what is asked again upon which refusal, and which statuses a wait takes for "not
yet" are the provider's (terraform-provider-aws, ``internal/service/rds/instance.go`` and ``blue_green.go``). Of each
wait only the pace is ours.
"""

from collections.abc import Callable, Collection
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.installation import MASTER, PASSWORD, Installation, wait_until

# waitDBInstanceAvailable, waitDBInstanceDeleted, waitBlueGreenDeployment...: any other status is an error.
_INSTANCE_PENDING = {
    "backing-up",
    "configuring-enhanced-monitoring",
    "configuring-iam-database-auth",
    "configuring-log-exports",
    "creating",
    "maintenance",
    "modifying",
    "moving-to-vpc",
    "rebooting",
    "renaming",
    "resetting-master-credentials",
    "starting",
    "stopping",
    "storage-full",
    "upgrading",
}
_DELETION_PENDING = {
    "available",
    "backing-up",
    "configuring-enhanced-monitoring",
    "configuring-log-exports",
    "creating",
    "delete-precheck",
    "deleting",
    "incompatible-parameters",
    "incompatible-restore",
    "modifying",
    "starting",
    "stopping",
    "storage-full",
    "storage-optimization",
}
_DEPLOYMENT_DELETION_PENDING = {
    "PROVISIONING",
    "AVAILABLE",
    "SWITCHOVER_IN_PROGRESS",
    "SWITCHOVER_COMPLETED",
    "INVALID_CONFIGURATION",
    "SWITCHOVER_FAILED",
    "DELETING",
}
_IN_A_ROW = 3  # ContinuousTargetOccurence


class Provider:
    """The part of it that an ``aws_db_instance`` needs."""

    def __init__(self, verdigris: Installation) -> None:
        self._rds = verdigris.rds

    # -- finding; instances by their resource id, which is the provider's own id of them

    def _instance(self, name: str, value: str) -> dict[str, Any] | None:
        found = self._rds.describe_db_instances(Filters=[{"Name": name, "Values": [value]}])["DBInstances"]
        return found[0] if found else None

    def _named(self, identifier: str) -> dict[str, Any] | None:
        try:
            found: list[dict[str, Any]] = self._rds.describe_db_instances(DBInstanceIdentifier=identifier)[
                "DBInstances"
            ]
        except self._rds.exceptions.DBInstanceNotFoundFault:
            return None
        return found[0]

    def _deployment(self, identifier: str) -> dict[str, Any] | None:
        named = {"BlueGreenDeploymentIdentifier": identifier}
        try:
            found: list[dict[str, Any]] = self._rds.describe_blue_green_deployments(**named)["BlueGreenDeployments"]
        except self._rds.exceptions.BlueGreenDeploymentNotFoundFault:
            return None
        return found[0]

    # -- waiting

    def _await(
        self,
        find: Callable[[], dict[str, Any] | None],
        status: str,
        pending: Collection[str],
        targets: Collection[str],
        *,
        in_a_row: int = 1,
    ) -> dict[str, Any]:
        """``targets`` empty: until it is gone."""
        last: dict[str, Any] = {}
        hits = 0

        def arrived() -> bool:
            nonlocal last, hits
            found = find()
            if found is None:
                assert not targets, "not found"
                return True
            last = found
            hits = hits + 1 if found[status] in targets else 0
            details = found.get("StatusDetails", "")
            assert found[status] in targets or found[status] in pending, f"unexpected: {found[status]} {details}"
            return hits >= in_a_row

        wait_until(arrived, f"{sorted(targets) or 'gone'}", limit_s=120)
        return last

    def await_available(self, resource_id: str) -> dict[str, Any]:
        return self._await(
            lambda: self._instance("dbi-resource-id", resource_id),
            "DBInstanceStatus",
            _INSTANCE_PENDING,
            {"available", "storage-optimization"},
            in_a_row=_IN_A_ROW,
        )

    # -- the resource

    def read(self, resource_id: str) -> dict[str, Any]:
        """``terraform refresh``; {}: gone."""
        found = self._instance("dbi-resource-id", resource_id)
        if found is None:
            return {}
        tags = self._rds.list_tags_for_resource(ResourceName=found["DBInstanceArn"])["TagList"]
        return {**found, "tags": {tag["Key"]: tag["Value"] for tag in tags}}

    def create(self, **members: Any) -> str:
        created = self._rds.create_db_instance(**members)["DBInstance"]
        self.await_available(created["DbiResourceId"])
        return str(created["DbiResourceId"])

    def update(self, resource_id: str, **changes: Any) -> str:
        """With ``blue_green_update``; the id afterwards, which is another one."""
        before = self.read(resource_id)
        identifier, protected = before["DBInstanceIdentifier"], before["DeletionProtection"]
        group = changes.pop("DBParameterGroupName", before["DBParameterGroups"][0]["DBParameterGroupName"])
        version = changes.pop("EngineVersion", None)
        if before["BackupRetentionPeriod"] == 0 and changes.get("BackupRetentionPeriod"):
            self._modify(identifier, resource_id, BackupRetentionPeriod=changes["BackupRetentionPeriod"])
        made = self._rds.create_blue_green_deployment(
            BlueGreenDeploymentName=identifier,
            Source=before["DBInstanceArn"],
            TargetDBParameterGroupName=group,
            **({"TargetEngineVersion": version} if version else {}),
        )["BlueGreenDeployment"]
        named = {"BlueGreenDeploymentIdentifier": made["BlueGreenDeploymentIdentifier"]}
        deployment = made
        waits: list[Callable[[], object]] = []
        try:
            deployment = self._await_deployment(named, {"PROVISIONING"}, "AVAILABLE")
            green = deployment["Target"].rpartition(":")[2]
            found = self._named(green)
            assert found is not None
            self.await_available(found["DbiResourceId"])
            if changes:
                # The provider waits for the old instance here, not for green.
                self._modify(green, resource_id, DeletionProtection=protected, **changes)
            deployment = self._switch_over(named)
            target = self._named(identifier)
            assert target is not None
            waits.append(self._delete_source(deployment["Source"].rpartition(":")[2], resource_id, protected=protected))
            return str(target["DbiResourceId"])
        finally:
            unfinished = {} if deployment["Status"] == "SWITCHOVER_COMPLETED" else {"DeleteTarget": True}
            self._rds.delete_blue_green_deployment(**named, **unfinished)
            self._await(lambda: self._deployment(named["BlueGreenDeploymentIdentifier"]), "Status",
                        _DEPLOYMENT_DELETION_PENDING, ())  # fmt: skip
            for wait in waits:
                wait()

    def _modify(self, identifier: str, awaited: str, **members: Any) -> None:
        self._rds.modify_db_instance(DBInstanceIdentifier=identifier, ApplyImmediately=True, **members)
        self.await_available(awaited)

    def _await_deployment(self, named: dict[str, str], pending: Collection[str], target: str) -> dict[str, Any]:
        identifier = named["BlueGreenDeploymentIdentifier"]
        return self._await(lambda: self._deployment(identifier), "Status", pending, {target})

    def _switch_over(self, named: dict[str, str]) -> dict[str, Any]:
        def accepted() -> bool:
            try:
                self._rds.switchover_blue_green_deployment(**named)
            except self._rds.exceptions.InvalidBlueGreenDeploymentStateFault as refused:
                print(refused)  # shown if the test fails
                return False  # green is still being changed: for ten minutes the provider asks again
            return True

        wait_until(accepted, "the switchover is accepted", limit_s=120)
        return self._await_deployment(named, {"AVAILABLE", "SWITCHOVER_IN_PROGRESS"}, "SWITCHOVER_COMPLETED")

    def _delete_source(self, old: str, resource_id: str, *, protected: bool) -> Callable[[], object]:
        """While the deployment is still there. The wait for its end."""
        if protected:
            self._modify(old, resource_id, DeletionProtection=False)
        self._rds.delete_db_instance(DBInstanceIdentifier=old, SkipFinalSnapshot=True)
        return lambda: self._await(lambda: self._named(old), "DBInstanceStatus", _DELETION_PENDING, ())

    def delete(self, resource_id: str) -> None:
        identifier = self.read(resource_id)["DBInstanceIdentifier"]
        self._rds.delete_db_instance(
            DBInstanceIdentifier=identifier, SkipFinalSnapshot=True, DeleteAutomatedBackups=True
        )
        self._await(lambda: self._instance("dbi-resource-id", resource_id), "DBInstanceStatus", _DELETION_PENDING, ())


@pytest.mark.parametrize("protected", [False, True], ids=["", "protected"])
def test_blue_green_update(verdigris: Installation, protected: bool) -> None:
    """A major upgrade with another parameter group and class; refreshed before and after, and destroyed."""
    terraform = Provider(verdigris)
    for family in ("postgres17", "postgres18"):
        verdigris.rds.create_db_parameter_group(
            DBParameterGroupName=f"app-{family}", DBParameterGroupFamily=family, Description="Managed by Terraform"
        )
        verdigris.rds.modify_db_parameter_group(
            DBParameterGroupName=f"app-{family}",
            Parameters=[{"ParameterName": "work_mem", "ParameterValue": "8192", "ApplyMethod": "immediate"}],
        )
    before = terraform.create(
        DBInstanceIdentifier="app",
        DBName="app",
        Engine="postgres",
        EngineVersion="17.10",
        DBInstanceClass="db.t3.micro",
        AllocatedStorage=20,
        AutoMinorVersionUpgrade=True,
        BackupRetentionPeriod=7,
        CopyTagsToSnapshot=False,
        DBParameterGroupName="app-postgres17",
        DeletionProtection=protected,
        MasterUsername=MASTER,
        MasterUserPassword=PASSWORD,
        MaxAllocatedStorage=100,
        PreferredBackupWindow="03:00-04:00",
        PreferredMaintenanceWindow="mon:05:00-mon:06:00",
        PubliclyAccessible=False,
        StorageEncrypted=False,
        StorageType="gp3",
        Tags=[{"Key": "env", "Value": "production"}],
        VpcSecurityGroupIds=["sg-0123456789abcdef0"],
    )
    with verdigris.connect("app") as client:
        client.execute("CREATE TABLE t (id int PRIMARY KEY)")
        client.execute("INSERT INTO t VALUES (1)")
        shown = terraform.read(before)
        after = terraform.update(
            before, EngineVersion="18.6", DBParameterGroupName="app-postgres18", DBInstanceClass="db.t3.small"
        )
        # Terraform never knew of the connection, and neither did the connection of Terraform.
        assert client.execute("SELECT id, current_setting('work_mem') FROM t").fetchall() == [(1, "8MB")]
        assert client.execute("SHOW server_version").fetchall()[0][0].split()[0] == "18.6"
        client.execute("INSERT INTO t VALUES (2)")
    assert after != before
    assert terraform.read(before) == {}
    now = terraform.read(after)
    assert {name for name in shown if shown[name] != now[name]} == {
        "DbiResourceId",
        "InstanceCreateTime",
        "EngineVersion",
        "DBInstanceClass",
        "DBParameterGroups",
    } | ({"OptionGroupMemberships"} & shown.keys())
    groups = [(group["DBParameterGroupName"], group["ParameterApplyStatus"]) for group in now["DBParameterGroups"]]
    assert (now["EngineVersion"], now["DBInstanceClass"], groups) == (
        "18.6",
        "db.t3.small",
        [("app-postgres18", "in-sync")],
    )
    if protected:
        verdigris.rds.modify_db_instance(DBInstanceIdentifier="app", DeletionProtection=False)
    terraform.delete(after)
    assert verdigris.rds.describe_db_instances()["DBInstances"] == []
    assert verdigris.rds.describe_blue_green_deployments()["BlueGreenDeployments"] == []


def test_an_update_that_cannot_be_made_leaves_all_as_it_was(verdigris: Installation) -> None:
    """Green's change is refused after green has been made: the provider deletes the deployment with green."""
    terraform = Provider(verdigris)
    app = terraform.create(
        DBInstanceIdentifier="app",
        DBName="app",
        Engine="postgres",
        EngineVersion="17.9",
        DBInstanceClass="db.t3.micro",
        AllocatedStorage=20,
        MasterUsername=MASTER,
        MasterUserPassword=PASSWORD,
    )
    before = terraform.read(app)
    with pytest.raises(ClientError, match=r"db\.huge"):
        terraform.update(app, EngineVersion="17.10", DBInstanceClass="db.huge")
    assert terraform.read(app) == before
    (left,) = verdigris.rds.describe_db_instances()["DBInstances"]
    assert left["DbiResourceId"] == app
    assert verdigris.rds.describe_blue_green_deployments()["BlueGreenDeployments"] == []
