"""The whole path over HTTP: boto3 as it is, against the application on uvicorn."""

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
import uvicorn
from botocore.config import Config
from botocore.exceptions import ClientError, WaiterError
from msgspec.structs import replace

from tests.unit.rds.world import APP_ARN, NEW_INSTANCE, World
from verdigris.clock import SystemClock
from verdigris.domain.access import AccessKey, Rule
from verdigris.domain.statuses import InstanceStatus, SnapshotStatus
from verdigris.rds import exchange
from verdigris.rds.asgi import create_app
from verdigris.rds.throttle import Throttle

# More than any test here makes but the one that is about it.
REQUESTS_ADMITTED = 200
KEY_ID, SECRET = "VDKAEXAMPLE", "a-secret-for-tests"
DEV_ID, DEV_SECRET = "VDKADEVELOPER", "another-secret"
KEYS = {
    KEY_ID: AccessKey(access_key_id=KEY_ID, secret_access_key=SECRET, user="root", is_root=True),
    DEV_ID: AccessKey(
        access_key_id=DEV_ID,
        secret_access_key=DEV_SECRET,
        user="dev",
        rules=(
            Rule(actions=("rds:describe*",)),
            Rule(actions=("rds:*DBInstance",), resources=("arn:aws:rds:*:*:db:dev-*",)),
        ),
    ),
}


@pytest.fixture
def port(world: World) -> Iterator[int]:
    """The application, with the real clock because SDKs sign with it."""
    world.clock = SystemClock()  # type: ignore[assignment]  # FakeClock's user interface is not needed here
    context = world.context
    object.__setattr__(context, "clock", world.clock)
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(context, KEYS.get, Throttle(per_s=0.001, burst=REQUESTS_ADMITTED))
    config = uvicorn.Config(app, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()


def make_client(port: int, *, key_id: str = KEY_ID, secret: str = SECRET, region: str = "us-east-1") -> Any:
    return boto3.client(
        "rds",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=region,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
    )


@pytest.fixture
def client(port: int) -> Iterator[Any]:
    with contextlib.closing(make_client(port)) as client:
        yield client


@contextlib.contextmanager
def refused(code: str, status: int) -> Iterator[None]:
    with pytest.raises(ClientError) as caught:
        yield
    response = caught.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    assert response["ResponseMetadata"]["RequestId"]


class Runner(threading.Thread):
    """Stands in for the workflow runner: ends whatever was started, soon after it was."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.woken, self.stopped = threading.Event(), False
        object.__setattr__(world.context, "wake", self.woken.set)

    def run(self) -> None:
        while not self.stopped:
            self.woken.wait()
            self.woken.clear()
            self.world.finish()

    def __enter__(self) -> "Runner":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped = True
        self.woken.set()
        self.join()


QUICK = {"Delay": 0.01, "MaxAttempts": 500}


class TestSdk:
    def test_the_main_job(self, world: World, client: Any) -> None:
        with Runner(world):
            client.create_db_instance(**NEW_INSTANCE, Tags=[{"Key": "k", "Value": "v"}])
            client.get_waiter("db_instance_available").wait(DBInstanceIdentifier="app", WaiterConfig=QUICK)
            created = client.create_blue_green_deployment(
                BlueGreenDeploymentName="up", Source=APP_ARN, TargetEngineVersion="18.6"
            )["BlueGreenDeployment"]
            identifier = created["BlueGreenDeploymentIdentifier"]
            wait_for(client, identifier, "AVAILABLE")
            client.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier=identifier, SwitchoverTimeout=300)
            wait_for(client, identifier, "SWITCHOVER_COMPLETED")
            (app,) = client.describe_db_instances(DBInstanceIdentifier="app")["DBInstances"]
            assert app["EngineVersion"] == "18.6"
            assert app["TagList"] == [{"Key": "k", "Value": "v"}]
            client.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=identifier)
            client.delete_db_instance(DBInstanceIdentifier="app-old1", SkipFinalSnapshot=True)
            client.get_waiter("db_instance_deleted").wait(DBInstanceIdentifier="app-old1", WaiterConfig=QUICK)

    def test_the_waiters_of_snapshots(self, world: World, client: Any) -> None:
        world.create_instance()
        named = {"DBSnapshotIdentifier": "monday"}
        with Runner(world):
            client.create_db_snapshot(DBInstanceIdentifier="app", **named)
            for waiter in ("db_snapshot_available", "db_snapshot_completed"):
                client.get_waiter(waiter).wait(**named, WaiterConfig=QUICK)
            client.delete_db_snapshot(**named)
            client.get_waiter("db_snapshot_deleted").wait(**named, WaiterConfig=QUICK)
        world.create_snapshot()
        world.change_snapshot(status=SnapshotStatus.FAILED)
        with pytest.raises(WaiterError, match="terminal failure"):
            client.get_waiter("db_snapshot_available").wait(**named, WaiterConfig=QUICK)

    def test_a_waiter_sees_a_failure(self, world: World, client: Any) -> None:
        client.create_db_instance(**NEW_INSTANCE)
        world.change("app", status=InstanceStatus.FAILED)
        with pytest.raises(WaiterError, match="terminal failure"):
            client.get_waiter("db_instance_available").wait(DBInstanceIdentifier="app", WaiterConfig=QUICK)

    def test_the_paginators(self, world: World, client: Any) -> None:
        template = world.create_instance("i00")
        with world.store.transaction() as tx:
            for number in range(1, 45):
                name = f"i{number:02}"
                tx.put_instance(replace(template, resource_id=f"db-{number}", identifier=name, port=21000 + number))
        pages = list(client.get_paginator("describe_db_instances").paginate(PaginationConfig={"PageSize": 20}))
        assert [len(page["DBInstances"]) for page in pages] == [20, 20, 5]
        names = [instance["DBInstanceIdentifier"] for page in pages for instance in page["DBInstances"]]
        assert names == [f"i{number:02}" for number in range(45)]
        assert [*client.get_paginator("describe_db_engine_versions").paginate().search("DBEngineVersions[]")]
        assert list(client.get_paginator("describe_db_snapshots").paginate().search("DBSnapshots[]")) == []
        assert list(client.get_paginator("describe_blue_green_deployments").paginate().search("Marker")) == [None]

    def test_times_come_back_as_they_are(self, world: World, client: Any) -> None:
        instance = world.create_instance()
        (view,) = client.describe_db_instances()["DBInstances"]
        difference = instance.created_at - view["InstanceCreateTime"]
        assert 0 <= difference.total_seconds() < 0.001
        (event,) = client.describe_events(StartTime=instance.created_at, Duration=5)["Events"]
        assert event["SourceArn"] == APP_ARN

    @pytest.mark.parametrize(
        ("operation", "params", "code", "status"),
        [
            ("describe_db_instances", {"DBInstanceIdentifier": "none"}, "DBInstanceNotFound", 404),
            ("describe_db_instances", {"MaxRecords": 5}, "InvalidParameterValue", 400),
            ("describe_blue_green_deployments", {"MaxRecords": 5}, "ValidationError", 400),
            (
                "describe_blue_green_deployments",
                {"BlueGreenDeploymentIdentifier": "bgd-x"},
                "BlueGreenDeploymentNotFoundFault",
                404,
            ),
            (
                "switchover_blue_green_deployment",
                {"BlueGreenDeploymentIdentifier": "bgd-x", "SwitchoverTimeout": "abc"},
                "InvalidParameterValue",
                400,
            ),
            (
                "switchover_blue_green_deployment",
                {"BlueGreenDeploymentIdentifier": "bgd-x", "SwitchoverTimeout": 29},
                "ValidationError",
                400,
            ),
            ("create_db_instance", {"DBInstanceIdentifier": "app"}, "ValidationError", 400),
            ("create_db_instance", {**NEW_INSTANCE, "Engine": "oracle"}, "InvalidParameterValue", 400),
            ("describe_db_cluster_snapshots", {}, "NotImplemented", 501),
            ("add_tags_to_resource", {"ResourceName": APP_ARN, "Tags": []}, "DBInstanceNotFound", 404),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_refusals(self, client: Any, operation: str, params: dict[str, Any], code: str, status: int) -> None:
        with refused(code, status):
            getattr(client, operation)(**params)

    @pytest.mark.parametrize(
        ("different", "code"),
        [
            ({"key_id": "SOMEBODY"}, "InvalidClientTokenId"),
            ({"secret": "wrong"}, "SignatureDoesNotMatch"),
            ({"region": "eu-west-1"}, "SignatureDoesNotMatch"),
        ],
    )
    def test_strangers(self, port: int, different: dict[str, str], code: str) -> None:
        with contextlib.closing(make_client(port, **different)) as client, refused(code, 403):
            client.describe_db_instances()

    def test_a_fault_of_ours_is_an_internal_failure_without_details(
        self, world: World, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def explode() -> None:
            raise ZeroDivisionError("the secret of the house")

        monkeypatch.setattr(world.servers, "versions", explode)
        with pytest.raises(ClientError) as caught:
            client.describe_db_engine_versions()
        response = caught.value.response
        assert response["Error"]["Code"] == "InternalFailure"
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 500
        assert "secret" not in str(response)

    def test_a_superseded_control_plane_refers_to_its_successor(self, world: World, client: Any) -> None:
        world.store.raise_epoch()
        with world.store._begin() as connection:
            connection.exec_driver_sql("UPDATE epoch SET epoch = epoch + 1")
        with refused("ServiceUnavailable", 503):
            client.describe_db_instances()


def wait_for(client: Any, identifier: str, status: str) -> None:
    for _ in range(500):
        (view,) = client.describe_blue_green_deployments(BlueGreenDeploymentIdentifier=identifier)[
            "BlueGreenDeployments"
        ]
        if view["Status"] == status:
            return
    pytest.fail(f"{identifier} did not become {status}")


def send(
    port: int, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def signed(port: int, body: bytes) -> dict[str, str]:
    request = botocore.awsrequest.AWSRequest(
        "POST",
        f"http://127.0.0.1:{port}/",
        data=body,
        headers={"Content-Type": "application/x-www-form-urlencoded", "Host": f"127.0.0.1:{port}"},
    )
    credentials = botocore.credentials.Credentials(KEY_ID, SECRET)
    botocore.auth.SigV4Auth(credentials, "rds", "us-east-1").add_auth(request)
    return dict(request.headers)


class TestAccess:
    """A key that may describe everything, and do anything with instances whose names begin with dev-."""

    @pytest.fixture
    def dev(self, port: int) -> Iterator[Any]:
        with contextlib.closing(make_client(port, key_id=DEV_ID, secret=DEV_SECRET)) as client:
            yield client

    def test_what_is_allowed(self, world: World, dev: Any) -> None:
        assert dev.describe_db_instances()["DBInstances"] == []
        created = dev.create_db_instance(**{**NEW_INSTANCE, "DBInstanceIdentifier": "Dev-1"})["DBInstance"]
        assert created["DBInstanceIdentifier"] == "dev-1"

    def test_what_is_not_is_refused_in_the_words_of_aws(self, world: World, dev: Any) -> None:
        world.create_instance()
        before = world.snapshot()
        with pytest.raises(ClientError) as caught:
            dev.reboot_db_instance(DBInstanceIdentifier="App")
        assert caught.value.response["Error"]["Message"] == (
            "User: arn:aws:iam::123456789012:user/dev is not authorized to perform: rds:RebootDBInstance on resource: "
            f"{APP_ARN} because no identity-based policy allows the rds:RebootDBInstance action"
        )
        for operation, params in (
            ("delete_db_instance", {"DBInstanceIdentifier": "none"}),
            ("add_tags_to_resource", {"ResourceName": APP_ARN.replace("app", "dev-1"), "Tags": []}),
            ("create_blue_green_deployment", {"BlueGreenDeploymentName": "up", "Source": APP_ARN}),
        ):
            with refused("AccessDenied", 403):
                getattr(dev, operation)(**params)
        assert world.snapshot() == before

    def test_the_operator_s_requests_are_for_the_root_key(self, world: World, port: int) -> None:
        status, code, message = cancel(port, "bgd-1", DEV_SECRET, DEV_ID)
        assert (status, code) == (403, "AccessDenied")
        assert message == (
            "User: arn:aws:iam::123456789012:user/dev is not authorized to perform: verdigris:CancelSwitchover because"
            " no identity-based policy allows the verdigris:CancelSwitchover action"
        )
        assert world.cancelled == []


class TestWire:
    def test_health_needs_no_key(self, port: int) -> None:
        assert send(port, "GET", "/healthz") == (200, b"ok")

    @pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 405), ("POST", "/x", 404), ("PUT", "/", 405)])
    def test_other_places(self, port: int, method: str, path: str, status: int) -> None:
        assert send(port, method, path)[0] == status

    def test_nobody_gets_anything_without_a_signature(self, port: int) -> None:
        status, body = send(port, "POST", "/", b"Action=DescribeDBInstances&Version=2014-10-31")
        assert status == 403
        assert b"<Code>MissingAuthenticationToken</Code>" in body

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"", b"MissingAction"),
            (b"Action=Dance&Version=2014-10-31", b"InvalidAction"),
            (b"Action=DescribeDBInstances&Version=1999-01-01", b"InvalidAction"),
            (b"Action=DescribeDBInstances&MaxRecords=many", b"InvalidParameterValue"),
            (b"Action=DescribeDBInstances&Marker=%zz", b"MalformedQueryString"),
            (b"\x00\xff\xfe", b"MalformedQueryString"),
            (b"&".join(b"a%d=1" % n for n in range(6000)), b"MalformedQueryString"),
        ],
    )
    def test_forms_that_make_no_sense(self, port: int, body: bytes, code: bytes) -> None:
        status, answer = send(port, "POST", "/", body, signed(port, body))
        assert status == 400
        assert b"<Code>" + code + b"</Code>" in answer

    def test_a_body_that_is_too_large(self, port: int) -> None:
        """Refused by its announced length; the signature is not even looked at."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.putrequest("POST", "/")
        connection.putheader("Content-Length", str(10**7))
        connection.endheaders()
        response = connection.getresponse()
        assert response.status == 413
        assert b"RequestEntityTooLarge" in response.read()
        connection.close()

    def test_a_body_that_grows_too_large(self, port: int) -> None:
        """In chunks, without a length to go by."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.putrequest("POST", "/")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
        for _ in range(17):
            connection.send(chunk)
        response = connection.getresponse()
        assert response.status == 413
        connection.close()


class TestLimits:
    def test_too_many_requests_are_refused_and_cancelling_is_not(self, world: World, port: int, client: Any) -> None:
        for _ in range(REQUESTS_ADMITTED):
            client.describe_db_instances()
        with refused("Throttling", 400):
            client.describe_db_instances()
        with contextlib.closing(make_client(port, secret="wrong")) as stranger, refused("SignatureDoesNotMatch", 403):
            stranger.describe_db_instances()
        assert cancel(port, "bgd-1", SECRET) == (200, "", "")

    def test_a_body_that_does_not_come_is_not_waited_for(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(exchange, "BODY_WITHIN_S", 0.2)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nAction=")
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"<Code>RequestExpired</Code>" in answer


class TestOperator:
    """What the command line asks for, beside RDS's API."""

    def test_cancelling_wants_a_signature(self, world: World, port: int) -> None:
        for secret, expected in (
            (None, (403, "MissingAuthenticationToken")),
            ("wrong", (403, "SignatureDoesNotMatch")),
        ):
            assert cancel(port, "bgd-1", secret)[:2] == expected
        assert world.cancelled == []

    def test_cancelling(self, world: World, port: int) -> None:
        assert cancel(port, "bgd-1", SECRET) == (200, "", "")
        assert world.cancelled == ["bgd-1"]
        assert cancel(port, "bgd-late", SECRET) == (409, "CannotCancel", "past its point of no return")

    def test_a_signature_is_for_one_deployment(self, world: World, port: int) -> None:
        signed = sign_cancel(port, "bgd-1", SECRET)
        assert send_cancel(port, "bgd-2", signed)[:2] == (403, "SignatureDoesNotMatch")
        assert world.cancelled == []


def cancel(port: int, identifier: str, secret: str | None, key_id: str = KEY_ID) -> tuple[int, str, str]:
    return send_cancel(port, identifier, sign_cancel(port, identifier, secret, key_id) if secret else {})


def sign_cancel(port: int, identifier: str, secret: str, key_id: str = KEY_ID) -> dict[str, str]:
    url = f"http://127.0.0.1:{port}/verdigris/deployments/{identifier}/cancel"
    request = botocore.awsrequest.AWSRequest(method="POST", url=url, data=b"")
    credentials = botocore.credentials.Credentials(key_id, secret)
    botocore.auth.SigV4Auth(credentials, "rds", "us-east-1").add_auth(request)
    return dict(request.headers)


def send_cancel(port: int, identifier: str, headers: dict[str, str]) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", f"/verdigris/deployments/{identifier}/cancel", b"", headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    return response.status, answer["code"], answer["message"]
