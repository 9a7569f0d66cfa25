"""The demo as a user of the RDS API: boto3 and nothing else."""

import secrets
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from verdigris.demo.environment import REGION, DemoFailed, Environment
from verdigris.demo.polling import NotInTime, wait_until
from verdigris.domain.statuses import DeploymentStatus

INSTANCE_TIMEOUT_S = 120
DEPLOYMENT_TIMEOUT_S = 900
POLL_S = 0.2
DATABASE = "app"
MASTER_USERNAME = "app_admin"


class Deployment(Struct, frozen=True, kw_only=True):
    """What DescribeBlueGreenDeployments shows of one."""

    identifier: str
    status: str
    details: str
    source_arn: str
    target_arn: str
    tasks: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, shape: dict[str, Any]) -> "Deployment":
        return cls(
            identifier=shape["BlueGreenDeploymentIdentifier"],
            status=shape["Status"],
            details=shape.get("StatusDetails") or "",
            source_arn=shape.get("Source") or "",
            target_arn=shape.get("Target") or "",
            tasks=tuple((task["Name"], task["Status"]) for task in shape.get("Tasks", ())),
        )


class Lifecycle:
    """One instance and its blue/green deployment. The master password is made here and never shown."""

    def __init__(self, environment: Environment) -> None:
        import boto3  # an extra: ``run.main`` has checked that it is there

        self._rds: Any = boto3.client(
            "rds",
            endpoint_url=environment.endpoint_url,
            region_name=REGION,
            aws_access_key_id=environment.access_key_id,
            aws_secret_access_key=environment.secret_access_key,
        )
        self._password = secrets.token_urlsafe(24)

    def create_instance(self, identifier: str, engine_version: str) -> str:
        """Returns the ARN once the instance is available."""
        created = self._rds.create_db_instance(
            DBInstanceIdentifier=identifier,
            Engine="postgres",
            EngineVersion=engine_version,
            DBInstanceClass="db.t3.medium",
            AllocatedStorage=20,
            BackupRetentionPeriod=0,  # nobody wants it back, and in the middle of the night one would be in the way
            DBName=DATABASE,
            MasterUsername=MASTER_USERNAME,
            MasterUserPassword=self._password,
        )
        waiter = self._rds.get_waiter("db_instance_available")
        waiter.wait(DBInstanceIdentifier=identifier, WaiterConfig={"Delay": 0.5, "MaxAttempts": INSTANCE_TIMEOUT_S * 2})
        return str(created["DBInstance"]["DBInstanceArn"])

    def dsn(self, identifier: str) -> str:
        """How a client reaches the database: the endpoint that DescribeDBInstances names (an ARN will do), with TLS."""
        instance = self._rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"][0]
        endpoint = instance["Endpoint"]
        return (
            f"host={endpoint['Address']} port={endpoint['Port']} dbname={DATABASE} user={MASTER_USERNAME}"
            f" password={self._password} sslmode=require application_name=verdigris-demo"
        )

    def engine_version(self, identifier: str) -> str:
        instances = self._rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"]
        return str(instances[0]["EngineVersion"])

    def create_deployment(self, source_arn: str, engine_version: str) -> Deployment:
        answer = self._rds.create_blue_green_deployment(
            BlueGreenDeploymentName="demo", Source=source_arn, TargetEngineVersion=engine_version
        )
        return Deployment.of(answer["BlueGreenDeployment"])

    def deployment(self, identifier: str) -> Deployment:
        answer = self._rds.describe_blue_green_deployments(BlueGreenDeploymentIdentifier=identifier)
        return Deployment.of(answer["BlueGreenDeployments"][0])

    def switch_over(self, identifier: str, timeout_s: int) -> None:
        self._rds.switchover_blue_green_deployment(
            BlueGreenDeploymentIdentifier=identifier, SwitchoverTimeout=timeout_s
        )

    def wait_for(
        self,
        identifier: str,
        wanted: DeploymentStatus,
        *,
        passing: DeploymentStatus,
        on_look: Callable[[Deployment], None] = lambda _deployment: None,
    ) -> Deployment:
        """Wait while the deployment is ``passing`` until it is ``wanted``; ``DemoFailed`` if it becomes anything else.

        ``on_look`` is called with what each poll showed.
        """
        seen = self.deployment(identifier)

        def arrived() -> bool:
            nonlocal seen
            seen = self.deployment(identifier)
            on_look(seen)
            if seen.status not in (wanted, passing):
                raise DemoFailed(f"the deployment is {seen.status}: {seen.details or 'no details'}")
            return seen.status == wanted

        try:
            wait_until(arrived, DEPLOYMENT_TIMEOUT_S, what=f"the deployment is {wanted}", interval_s=POLL_S)
        except NotInTime as error:
            raise DemoFailed(str(error)) from None
        return seen
