"""Bad input, through boto3 and through raw HTTP: RDS's own refusal, and nothing changed, lost or left."""

import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.installation import MASTER, PASSWORD, Installation, installation
from tests.acceptance.inventory import Unchanged, admin
from tests.acceptance.raw_requests import Answer, call, form, post
from tests.acceptance.serve_log import ServeLog

ARN = "arn:aws:rds:us-east-1:000000000000:"
INVALID_STATE = "InvalidBlueGreenDeploymentStateFault"


def _may_mount() -> bool:
    """CAP_SYS_ADMIN (capabilities(7): bit 21), which root lacks in many a container."""
    status = Path("/proc/self/status").read_text()
    return bool(int(status.partition("CapEff:")[2].split()[0], 16) >> 21 & 1)


_MOUNT, _UMOUNT = shutil.which("mount") or "mount", shutil.which("umount") or "umount"

INSTANCE = {
    "DBInstanceIdentifier": "other",
    "Engine": "postgres",
    "EngineVersion": "17.10",
    "DBInstanceClass": "db.t3.micro",
    "AllocatedStorage": 20,
    "MasterUsername": MASTER,
    "MasterUserPassword": PASSWORD,
}

# What AWS calls a number that is none, out of the model's range, or out of the documented one.
REFUSED_NUMBERS = {(400, code) for code in ("MalformedInput", "ValidationError", "InvalidParameterValue")}


@pytest.fixture(scope="module")
def shared() -> Iterator[Installation]:
    """One for the module, with one instance ``app`` that nobody may harm: in the end it is as it was."""
    with installation() as verdigris:
        verdigris.create_instance("app", "17.10")
        with verdigris.connect("app") as connection:
            connection.execute("CREATE TABLE kept AS SELECT g AS id FROM generate_series(1, 1000) g")
            connection.execute("ALTER TABLE kept ADD PRIMARY KEY (id)")
        with Unchanged(verdigris, "app"):
            yield verdigris


@pytest.fixture
def verdigris(shared: Installation) -> Iterator[Installation]:
    """Whatever a test of this file does: afterwards there is ``app``, as it was, and nothing else."""
    with Unchanged(shared, "app"):
        yield shared
    with shared.connect("app") as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchall() == [(1000,)]


@pytest.fixture
def tmp_home(verdigris_home: Path) -> Path:
    """For an installation of the test's own, where ``app`` itself is what is changed."""
    return verdigris_home


@contextmanager
def refused(code: str, status: int, *words: str) -> Iterator[None]:
    """The wire code and HTTP status of RDS, and words of the message that help."""
    with pytest.raises(ClientError) as caught:
        yield
    error = caught.value.response["Error"]
    assert (error["Code"], caught.value.response["ResponseMetadata"]["HTTPStatusCode"]) == (code, status), error
    for word in words:
        assert word in error["Message"]


def _short(value: object) -> str:
    return ascii(value)[:60] if isinstance(value, dict) else ""


# ------------------------------------------------------------------------------------------------- refused at the door


@pytest.mark.parametrize(
    ("members", "code", "status"),
    [
        ({"Source": f"{ARN}db:nobody"}, "DBInstanceNotFound", 404),
        ({"Source": f"{ARN}cluster:nobody"}, "DBClusterNotFoundFault", 404),
        ({"Source": "app"}, "ValidationError", 400),
        ({"Source": "arn:aws:rds:eu-west-3:000000000000:db:app"}, "InvalidParameterValue", 400),
        ({"Source": "arn:aws:rds:us-east-1:123456789012:db:app"}, "InvalidParameterValue", 400),
        ({"Source": "arn:aws:s3:::app"}, "InvalidParameterValue", 400),
        ({"Source": f"{ARN}pg:default.postgres17"}, "InvalidParameterValue", 400),
        ({"Source": f"{ARN}db:app\u0000"}, "MalformedQueryString", 400),
        ({"Source": f"{ARN}db:{'a' * 3000}"}, "ValidationError", 400),
        ({"BlueGreenDeploymentName": "9lives"}, "ValidationError", 400),
        ({"BlueGreenDeploymentName": "a" * 61}, "ValidationError", 400),
        ({"TargetEngineVersion": "16.15"}, "InvalidParameterCombination", 400),
        ({"TargetEngineVersion": "17.9"}, "InvalidParameterCombination", 400),
        ({"TargetEngineVersion": "99.1"}, "InvalidParameterCombination", 400),
        ({"TargetEngineVersion": "8.0.36"}, "InvalidParameterCombination", 400),  # MySQL's
        ({"TargetEngineVersion": "18.6; rm"}, "ValidationError", 400),
        ({"TargetDBParameterGroupName": "nobodys-group"}, "DBParameterGroupNotFound", 404),
        ({"TargetDBParameterGroupName": "default.postgres18"}, "InvalidParameterCombination", 400),
        ({"TargetDBClusterParameterGroupName": "default.aurora-postgresql17"}, "InvalidParameterCombination", 400),
        ({"TargetDBInstanceClass": "db.x9.mega"}, "InvalidParameterValue", 400),
        ({"TargetAllocatedStorage": 1}, "InvalidParameterValue", 400),
        ({"Tags": [{"Key": "aws:mine", "Value": "x"}]}, "InvalidParameterValue", 400),
        ({"Tags": [{"Key": "k" * 129, "Value": "x"}]}, "InvalidParameterValue", 400),
        ({"Tags": [{"Key": "k", "Value": "v" * 257}]}, "InvalidParameterValue", 400),
        ({"Tags": [{"Key": "semi;colon", "Value": "x"}]}, "InvalidParameterValue", 400),
        ({"Tags": [{"Key": "k", "Value": "pipe|"}]}, "InvalidParameterValue", 400),
        ({"Tags": [{"Key": f"k{n}", "Value": ""} for n in range(51)]}, "InvalidParameterValue", 400),
    ],
    ids=_short,
)
def test_a_deployment_that_cannot_be(shared: Installation, members: dict[str, Any], code: str, status: int) -> None:
    with refused(code, status):
        shared.rds.create_blue_green_deployment(
            **{"BlueGreenDeploymentName": "bad", "Source": f"{ARN}db:app", **members}
        )
    assert shared.rds.describe_blue_green_deployments()["BlueGreenDeployments"] == []
    assert shared.instance("app")["DBInstanceStatus"] == "available"


@pytest.mark.parametrize(
    ("members", "code", "status"),
    [
        ({"DBInstanceIdentifier": "APP"}, "DBInstanceAlreadyExists", 400),
        ({"DBInstanceIdentifier": "no_underscores"}, "InvalidParameterValue", 400),
        ({"DBInstanceIdentifier": "ends-"}, "InvalidParameterValue", 400),
        ({"Engine": "mysql"}, "InvalidParameterValue", 400),
        ({"EngineVersion": "17.99"}, "InvalidParameterCombination", 400),
        ({"DBInstanceClass": "db.none.small"}, "InvalidParameterValue", 400),
        ({"MasterUsername": "rdsadmin"}, "InvalidParameterValue", 400),
        ({"MasterUserPassword": "short"}, "InvalidParameterValue", 400),
        ({"Port": 80}, "InvalidParameterValue", 400),
        ({"DBParameterGroupName": "nobodys-group"}, "DBParameterGroupNotFound", 404),
    ],
    ids=_short,
)
def test_an_instance_that_cannot_be(shared: Installation, members: dict[str, Any], code: str, status: int) -> None:
    with refused(code, status):
        shared.rds.create_db_instance(**INSTANCE | members)


def test_a_port_in_use(shared: Installation) -> None:
    app_port = shared.instance("app")["Endpoint"]["Port"]
    with refused("InvalidParameterValue", 400, "belongs to the DB instance app"):
        shared.rds.create_db_instance(**INSTANCE, Port=app_port)
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        refused("InvalidParameterValue", 400, "another program"),
    ):
        shared.rds.create_db_instance(**INSTANCE, Port=other.getsockname()[1])


def test_tags_outside_the_pattern(shared: Installation) -> None:
    before = shared.instance("app")["TagList"]
    for tag in ({"Key": "aws:x", "Value": ""}, {"Key": "k", "Value": "a|b"}, {"Key": "", "Value": "x"}):
        members = {"ResourceName": f"{ARN}db:app", "Tags.Tag.1.Key": tag["Key"], "Tags.Tag.1.Value": tag["Value"]}
        answer = call(shared, "AddTagsToResource", **members)
        assert answer in (Answer(400, "InvalidParameterValue"), Answer(400, "ValidationError")), tag
    assert shared.instance("app")["TagList"] == before


# --------------------------------------------------------------------------------------------------------- raw requests


def test_requests_that_are_not_requests(shared: Installation) -> None:
    """Signed or not: refused with a code, and the API serves the next one."""
    noise = random.Random(1).randbytes(100_000)
    huge = form("DescribeDBInstances", Filler="x" * (10 << 20))
    many = form("DescribeDBInstances", **{f"Filters.Filter.{n}.Name": "engine" for n in range(10_000)})
    too_large = Answer(413, "RequestEntityTooLarge")
    for signed in (True, False):
        assert post(shared, huge, signed=signed) == too_large
    assert post(shared, noise) == Answer(400, "MalformedQueryString")
    assert post(shared, many) == Answer(400, "MalformedQueryString")
    for body in (noise, many, b""):
        assert post(shared, body, signed=False) == Answer(403, "MissingAuthenticationToken")
    assert post(shared, form("DescribeDBInstances")).status == 200


def test_requests_by_others(shared: Installation) -> None:
    wish = form("DeleteDBInstance", DBInstanceIdentifier="app", SkipFinalSnapshot="true")
    assert post(shared, wish, key_id="AKIDSOMEBODYELSE") == Answer(403, "InvalidClientTokenId")
    assert post(shared, wish, secret="guessed") == Answer(403, "SignatureDoesNotMatch")
    assert post(shared, wish, tamper=True) == Answer(403, "SignatureDoesNotMatch")
    for minutes in (-20, 20):
        assert post(shared, wish, skew=timedelta(minutes=minutes)) == Answer(403, "SignatureDoesNotMatch")
    assert post(shared, wish, signed=False) == Answer(403, "MissingAuthenticationToken")
    assert post(shared, form("NoSuchAction")) == Answer(400, "InvalidAction")


# ------------------------------------------------------------------------------------------------- at the wrong moment


def test_switchover_and_deletion_at_the_wrong_moment(tmp_home: Path) -> None:
    """Before AVAILABLE, with impossible timeouts, during, twice, and after completion."""
    with installation(home=tmp_home) as verdigris:
        verdigris.create_instance("app", "17.10")
        rds = verdigris.rds
        unknown = {"BlueGreenDeploymentIdentifier": "bgd-0000000000000000"}
        for operation in (rds.switchover_blue_green_deployment, rds.delete_blue_green_deployment):
            with refused("BlueGreenDeploymentNotFoundFault", 404):
                operation(**unknown)
        deployment = verdigris.create_deployment("app")
        named = {"BlueGreenDeploymentIdentifier": deployment}
        with refused(INVALID_STATE, 400, "PROVISIONING"):
            rds.switchover_blue_green_deployment(**named)
        with refused("InvalidDBInstanceState", 400, deployment):
            verdigris.create_deployment("app", BlueGreenDeploymentName="another")
        with refused("BlueGreenDeploymentAlreadyExistsFault", 400):
            verdigris.create_deployment("app")
        green = verdigris.await_deployment(deployment, "AVAILABLE")["Target"].rpartition(":")[2]
        with Unchanged(verdigris, "app"):
            for timeout in ("29", "3601", "abc", "-1", "30.5", "", "99999999999999999999"):
                answer = call(verdigris, "SwitchoverBlueGreenDeployment", **named, SwitchoverTimeout=timeout)
                assert (answer.status, answer.code) in REFUSED_NUMBERS, timeout
            assert verdigris.deployment(deployment)["Status"] == "AVAILABLE"
        with verdigris.connect("app") as straggler:
            # It keeps the switchover going for as long as we need to ask for what is not allowed meanwhile.
            straggler.execute("CREATE TABLE t (id int PRIMARY KEY)")
            straggler.execute("BEGIN")
            straggler.execute("SELECT 1")
            rds.switchover_blue_green_deployment(**named, SwitchoverTimeout=60)
            _refuse_during_switchover(verdigris, deployment, green)
            straggler.execute("COMMIT")
        verdigris.await_deployment(deployment, "SWITCHOVER_COMPLETED")
        with refused(INVALID_STATE, 400, "SWITCHOVER_COMPLETED"):
            rds.switchover_blue_green_deployment(**named)
        with refused(INVALID_STATE, 400, "Deleting target is not allowed"):
            rds.delete_blue_green_deployment(**named, DeleteTarget=True)
        assert verdigris.deployment(deployment)["Status"] == "SWITCHOVER_COMPLETED"


def _refuse_during_switchover(verdigris: Installation, deployment: str, green: str) -> None:
    rds, named = verdigris.rds, {"BlueGreenDeploymentIdentifier": deployment}
    with refused(INVALID_STATE, 400, "SWITCHOVER_IN_PROGRESS"):
        rds.switchover_blue_green_deployment(**named)
    for delete_target in (True, False):
        with refused(INVALID_STATE, 400, "SWITCHOVER_IN_PROGRESS"):
            rds.delete_blue_green_deployment(**named, DeleteTarget=delete_target)
    for identifier in ("app", green):
        with refused("InvalidDBInstanceState", 400):
            rds.delete_db_instance(DBInstanceIdentifier=identifier, SkipFinalSnapshot=True)
        with refused("InvalidDBInstanceState", 400):
            rds.reboot_db_instance(DBInstanceIdentifier=identifier)
        with refused("InvalidDBInstanceState", 400):
            rds.modify_db_instance(DBInstanceIdentifier=identifier, NewDBInstanceIdentifier="elsewhere")
    assert verdigris.deployment(deployment)["Status"] == "SWITCHOVER_IN_PROGRESS"


def test_a_source_that_is_not_available(verdigris: Installation) -> None:
    verdigris.rds.create_db_instance(**INSTANCE)
    with refused("InvalidDBInstanceState", 400, "not in available state"):
        verdigris.create_deployment("other")
    verdigris.await_instance("other")
    verdigris.rds.delete_db_instance(DBInstanceIdentifier="other", SkipFinalSnapshot=True)
    with refused("InvalidDBInstanceState", 400):
        verdigris.rds.reboot_db_instance(DBInstanceIdentifier="other")
    verdigris.await_no_instance("other")


# ----------------------------------------------------------------------------------------------- found while it is made


def fails_by_name(verdigris: Installation, *words: str, **members: Any) -> None:
    """A deployment of ``app`` becomes INVALID_CONFIGURATION and says why; deleting it leaves nothing."""
    deployment = verdigris.create_deployment("app", **members)
    _is_invalid(verdigris, deployment, *words)
    verdigris.delete_deployment(deployment)


def _is_invalid(verdigris: Installation, deployment: str, *words: str) -> None:
    shown = verdigris.await_deployment(deployment, "INVALID_CONFIGURATION")
    for word in words:
        assert word in shown["StatusDetails"]
    with refused(INVALID_STATE, 400, "INVALID_CONFIGURATION"):
        verdigris.rds.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment)


def test_tables_without_a_primary_key_whose_rows_cannot_be_compared(verdigris: Installation) -> None:
    with verdigris.connect("app") as connection:
        connection.execute('CREATE TABLE keyless (j json); CREATE SCHEMA s; CREATE TABLE s."Bad Name" (p point)')
        try:
            fails_by_name(verdigris, "keyless", "Bad Name", "primary key", "Database app", TargetEngineVersion="18.6")
        finally:
            connection.execute("DROP TABLE keyless; DROP SCHEMA s CASCADE")


def test_an_extension_that_another_source_of_the_target_has(verdigris: Installation) -> None:
    """The first 18.6 of the catalogue lacks pgcrypto."""
    with verdigris.connect("app") as connection:
        connection.execute("CREATE EXTENSION pgcrypto")
        deployment, green = verdigris.build_green("app", TargetEngineVersion="18.6")
        with verdigris.connect(green) as other:
            assert other.execute("SELECT encode(digest('a', 'md5'), 'hex')").fetchone() == (
                "0cc175b9c0f1b6a831c399e269772661",
            )
        verdigris.delete_deployment(deployment, DeleteTarget=True)
        connection.execute("DROP EXTENSION pgcrypto")


def test_an_extension_that_no_source_of_the_target_has(verdigris: Installation) -> None:
    """PostgreSQL 17 dropped old_snapshot."""
    verdigris.create_instance("older", "16.15")
    with admin(verdigris, verdigris.resource_id("older"), "app") as connection:
        connection.execute("CREATE EXTENSION old_snapshot")
    with Unchanged(verdigris, "older", host=False):
        deployment = verdigris.create_deployment("older", TargetEngineVersion="17.10")
        _is_invalid(verdigris, deployment, "old_snapshot")
        verdigris.delete_deployment(deployment)
    verdigris.delete_instance("older")


def test_a_source_that_is_killed_while_it_is_copied(verdigris: Installation) -> None:
    """It is started again, and the deployment either went on or says what happened: nothing in between."""
    server = verdigris.home / "instances" / verdigris.resource_id("app") / "data"
    log = ServeLog(verdigris.log_path)
    deployment = verdigris.create_deployment("app", TargetEngineVersion="18.6")
    log.wait_for("workflow.step_started", step="copy")
    os.kill(int((server / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    settled = verdigris.await_settled(deployment)
    assert settled["Status"] in ("AVAILABLE", "INVALID_CONFIGURATION"), settled
    verdigris.await_connection("app")
    verdigris.delete_deployment(deployment, DeleteTarget=True)


@pytest.mark.skipif(not _may_mount(), reason="needs the right to mount a file system of its own")
def test_no_disk_space_for_green(tmp_home: Path) -> None:
    """Refused beforehand where it can be known; and where it comes as a surprise, blue has it back at once."""
    subprocess.run([_MOUNT, "-t", "tmpfs", "-o", "size=400m,mode=711", "tmpfs", str(tmp_home)], check=True)
    try:
        with installation(home=tmp_home) as verdigris:
            verdigris.create_instance("app", "17.10")
            ballast = tmp_home / "ballast"
            with Unchanged(verdigris, "app"):
                _fill(ballast, leave_bytes=30 << 20)
                fails_by_name(verdigris, "Storage", "MiB", TargetEngineVersion="18.6")
                ballast.unlink()
                # Enough for the check, and then not enough for the copy.
                _fill(ballast, leave_bytes=int(_size_bytes(verdigris) * 1.1) + (12 << 20))
                _run_out_of_space(verdigris, tmp_home / "more")
                ballast.unlink()
            verdigris.build_green("app", TargetEngineVersion="18.6")
    finally:
        subprocess.run([_UMOUNT, str(tmp_home)], check=True)


def _size_bytes(verdigris: Installation) -> int:
    data = verdigris.home / "instances" / verdigris.resource_id("app") / "data"
    return sum(path.lstat().st_blocks * 512 for path in data.rglob("*"))


def _run_out_of_space(verdigris: Installation, ballast: Path) -> None:
    """The ballast stays: green has to go by itself, and its going is what gives blue room again."""
    blue = verdigris.home / "instances" / verdigris.resource_id("app") / "data" / "postmaster.pid"
    started = blue.read_text().splitlines()[:3]
    log = ServeLog(verdigris.log_path)
    deployment = verdigris.create_deployment("app", TargetEngineVersion="18.6")
    log.wait_for("workflow.step_started", step="copy")
    _fill(ballast, leave_bytes=30 << 20)
    _is_invalid(verdigris, deployment, "No space left on device")
    assert verdigris.await_connection("app") == "17.10"
    assert blue.read_text().splitlines()[:3] == started, "blue has been started again"
    verdigris.delete_deployment(deployment)
    ballast.unlink()


def _fill(ballast: Path, *, leave_bytes: int) -> None:
    """In small pieces, because others are writing at the same time."""
    piece_bytes = 4 << 20
    with ballast.open("wb") as file:
        while shutil.disk_usage(ballast.parent).free >= leave_bytes + piece_bytes:
            os.posix_fallocate(file.fileno(), file.tell(), piece_bytes)
            file.seek(piece_bytes, os.SEEK_CUR)
