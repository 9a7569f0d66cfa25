"""botocore as the oracle, in both directions: it sends to our parser, and it reads what we serialise."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

import botocore.parsers
import botocore.serialize
import botocore.session
import pytest
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from verdigris.aws.errors import Fault, validation_error
from verdigris.aws.model import Kind, ListShape, MapShape, Service, Shape, StructureShape, load_service
from verdigris.aws.query import parse_form, parse_input, select_operation
from verdigris.aws.serialize import serialize_fault, serialize_output
from verdigris.aws.validate import validate_input

# Flattened lists, maps and blobs are not in the RDS model: SimpleDB's and SNS's have them.
SERVICES = ("rds", "sdb", "sns")
OPERATIONS = [(service, name) for service in SERVICES for name in load_service(service).operation_names]
MAX_DEPTH = 4

# Few examples of each of many operations. No shrinking: the failing operation's name says most.
quick = settings(
    max_examples=4,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)

_TEXT = st.text("aZ09 <>&\"'+%=.-_/:é\u2028🐘\t\n\r", max_size=12)
_SCALARS: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.STRING: _TEXT,
    Kind.BOOLEAN: st.booleans(),
    Kind.INTEGER: st.integers(-(1 << 31), (1 << 31) - 1),
    Kind.LONG: st.integers(-(1 << 63), (1 << 63) - 1),
    Kind.FLOAT: st.floats(allow_nan=False),
    Kind.DOUBLE: st.floats(allow_nan=False),
    Kind.BLOB: st.binary(max_size=12),
    # botocore writes no leading zeros before the year 1000.
    Kind.TIMESTAMP: st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
}


def values(shape: Shape, depth: int = 0) -> st.SearchStrategy[Any]:
    match shape:
        case StructureShape():
            members = shape.members.values() if depth < MAX_DEPTH else ()
            # A handful of members at once: enough to meet each other, and quick even for the largest structures.
            return (
                st.lists(st.sampled_from(sorted(member.name for member in members)), unique=True, max_size=6).flatmap(
                    lambda names: st.fixed_dictionaries(
                        {name: values(shape.members[name].shape, depth + 1) for name in names}
                    )
                )
                if members
                else st.just({})
            )
        case ListShape():
            return st.lists(values(shape.member, depth + 1), max_size=3)
        case MapShape():
            return st.dictionaries(_TEXT, values(shape.value, depth + 1), max_size=3)
        case _:
            return _SCALARS[shape.kind]


# ------------------------------------------------------------------------------------------------------------- requests


@cache
def botocore_model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


def sent_by_botocore(service: str, operation: str, params: dict[str, Any]) -> bytes:
    serializer = botocore.serialize.create_serializer("query", include_validation=False)
    request = serializer.serialize_to_request(params, botocore_model(service).operation_model(operation))
    prepared = AWSRequest(method="POST", url="http://localhost/", data=request["body"]).prepare()
    body: str | bytes = prepared.body
    return body.encode() if isinstance(body, str) else body


def sendable(shape: Shape, value: Any) -> Any:
    """What is left of ``value`` on the wire, None if nothing: botocore sends no empty structures and maps, and so no
    entries of a list that are nothing else."""
    match shape:
        case StructureShape():
            kept = {name: sendable(shape.members[name].shape, part) for name, part in value.items()}
            return {name: part for name, part in kept.items() if part is not None} or None
        case ListShape():
            elements = [part for part in (sendable(shape.member, part) for part in value) if part is not None]
            return None if value and not elements else elements
        case MapShape():
            nothing: Any = [] if isinstance(shape.value, ListShape) else {}
            entries = {key: sendable(shape.value, part) for key, part in value.items()}
            return {key: nothing if part is None else part for key, part in entries.items()} or None
        case _:
            return value


@pytest.mark.parametrize(("service_name", "name"), OPERATIONS)
@quick
@given(data=st.data())
def test_what_botocore_sends_is_parsed(service_name: str, name: str, data: st.DataObject) -> None:
    service = load_service(service_name)
    shape = service.operation(name).input
    params = data.draw(values(shape)) if shape else {}
    fields = parse_form(sent_by_botocore(service_name, name, params))
    operation = select_operation(service, fields)
    assert operation.name == name
    parsed = parse_input(operation, fields)
    assert parsed == ((sendable(shape, params) or {}) if shape else {})
    try:
        validate_input(operation, parsed)
    except Fault as fault:
        assert fault.code == "ValidationError"  # noqa: PT017 # random values seldom fit the constraints


# ------------------------------------------------------------------------------------------------------------ responses


def read_by_botocore(service: str, operation: str, body: bytes, status: int = 200) -> dict[str, Any]:
    shape = botocore_model(service).operation_model(operation).output_shape
    parser = botocore.parsers.create_parser("query")
    parsed: dict[str, Any] = parser.parse({"body": body, "headers": {}, "status_code": status}, shape)
    return parsed


def receivable(shape: Shape, value: Any) -> Any:
    """``value`` as a reader can know it: milliseconds, and nothing where a flattened list or map was empty."""
    match shape:
        case StructureShape():
            kept = {name: receivable(shape.members[name].shape, part) for name, part in value.items()}
            return {name: part for name, part in kept.items() if part is not None}
        case ListShape():
            return None if shape.flattened and not value else [receivable(shape.member, part) for part in value]
        case MapShape():
            entries = {key: receivable(shape.value, part) for key, part in value.items()}
            return None if shape.flattened and not value else entries
        case Shape(kind=Kind.TIMESTAMP):
            return value.replace(microsecond=value.microsecond // 1000 * 1000)
        case _:
            return value


@pytest.mark.parametrize(("service_name", "name"), OPERATIONS)
@quick
@given(data=st.data())
def test_what_we_serialise_is_read_by_botocore(service_name: str, name: str, data: st.DataObject) -> None:
    service = load_service(service_name)
    operation = service.operation(name)
    result = data.draw(values(operation.output)) if operation.output else {}
    body = serialize_output(service, operation, result, "rid-1")
    parsed = read_by_botocore(service_name, name, body)
    assert parsed.pop("ResponseMetadata") == {"RequestId": "rid-1", "HTTPStatusCode": 200, "HTTPHeaders": {}}
    assert parsed == (receivable(operation.output, result) if operation.output else {})


def test_every_modelled_fault_is_read_by_botocore() -> None:
    rds = load_service("rds")
    for name in rds.errors:
        fault = Fault(name, f"about <{name}> & more")
        parsed = read_by_botocore("rds", "DescribeDBInstances", serialize_fault(rds, fault, "rid"), fault.status)
        assert parsed["Error"] == {"Type": "Sender", "Code": fault.code, "Message": f"about <{name}> & more"}
        assert parsed["ResponseMetadata"]["RequestId"] == "rid"


def test_non_finite_numbers_are_read_by_botocore() -> None:
    rds = load_service("rds")
    operation = rds.operation("DescribeDBClusters")
    result = {"DBClusters": [{"ServerlessV2ScalingConfiguration": {"MinCapacity": math.inf}}]}
    parsed = read_by_botocore("rds", operation.name, serialize_output(rds, operation, result, "rid"))
    assert parsed["DBClusters"] == result["DBClusters"]


# -------------------------------------------------------------------------------------------------------- whole clients


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._body


@pytest.fixture
def client() -> Any:
    """A botocore client whose requests are answered by this package, without a network."""
    session = botocore.session.Session()
    session.set_credentials("AKIAVERDIGRIS", "secret")
    client = session.create_client(
        "rds", region_name="us-east-1", endpoint_url="http://localhost:1", config=Config(retries={"max_attempts": 0})
    )

    def answer(request: Any, **_: Any) -> AWSResponse:
        rds: Service = load_service("rds")
        body = request.body.encode() if isinstance(request.body, str) else request.body
        try:
            fields = parse_form(body)
            operation = select_operation(rds, fields)
            params = parse_input(operation, fields)
            validate_input(operation, params)
            if params["BlueGreenDeploymentIdentifier"] == "bgd-gone":
                raise Fault("BlueGreenDeploymentNotFoundFault", "no such deployment")
            result = {
                "BlueGreenDeployment": {"BlueGreenDeploymentIdentifier": "bgd-x", "Tasks": [], "Status": "AVAILABLE"}
            }
            return AWSResponse(request.url, 200, {}, _Raw(serialize_output(rds, operation, result, "rid")))
        except Fault as fault:
            return AWSResponse(request.url, fault.status, {}, _Raw(serialize_fault(rds, fault, "rid")))

    client.meta.events.register("before-send.rds.*", answer)
    return client


def test_client_gets_its_answer(client: Any) -> None:
    answer = client.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier="bgd-x", SwitchoverTimeout=60)
    assert answer["BlueGreenDeployment"]["Tasks"] == []
    assert answer["ResponseMetadata"]["RequestId"] == "rid"


def test_client_raises_the_modelled_exception(client: Any) -> None:
    with pytest.raises(client.exceptions.BlueGreenDeploymentNotFoundFault, match="no such deployment"):
        client.delete_blue_green_deployment(BlueGreenDeploymentIdentifier="bgd-gone")


def test_client_shows_what_does_not_fit(client: Any) -> None:
    with pytest.raises(ClientError, match="at 'blueGreenDeploymentIdentifier' failed to satisfy constraint") as caught:
        client.delete_blue_green_deployment(BlueGreenDeploymentIdentifier="0")
    assert caught.value.response["Error"]["Code"] == validation_error("").code
