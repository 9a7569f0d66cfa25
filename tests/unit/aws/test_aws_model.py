import pickle
from pathlib import Path

import pytest
from botocore.loaders import Loader

from verdigris.aws import errors
from verdigris.aws.errors import Fault
from verdigris.aws.model import (
    Blame,
    ListShape,
    Service,
    StructureShape,
    UnknownError,
    UnknownOperation,
    load_service,
)


def test_rds_model_is_complete(rds: Service) -> None:
    assert rds.xml_namespace == "http://rds.amazonaws.com/doc/2014-10-31/"
    assert rds.api_version == "2014-10-31"
    assert {"CreateBlueGreenDeployment", "SwitchoverBlueGreenDeployment"} <= set(rds.operation_names)


def test_model_is_loaded_once() -> None:
    assert load_service("rds") is load_service("rds")
    assert load_service("rds").operation("DeleteDBInstance") is load_service("rds").operation("DeleteDBInstance")


def test_models_of_clients_are_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "rds" / "2099-01-01"
    planted.mkdir(parents=True)
    (planted / "service-2.json").write_text('{"metadata": {}, "operations": {}, "shapes": {}}')
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    monkeypatch.setattr(Loader, "CUSTOMER_DATA_PATH", str(tmp_path))  # ~/.aws/models, found out at import
    load_service.cache_clear()
    try:
        assert load_service("rds").api_version == "2014-10-31"
    finally:
        load_service.cache_clear()


def test_other_protocols_are_refused() -> None:
    with pytest.raises(ValueError, match="does not speak the Query protocol"):
        load_service("dynamodb")


@pytest.mark.parametrize("name", ["", "Nothing", "describeDBInstances", "__class__", "x" * 100_000])
def test_unknown_operation(rds: Service, name: str) -> None:
    with pytest.raises(UnknownOperation):
        rds.operation(name)


def test_wire_names(tiny: Service) -> None:
    shape = tiny.operation("Play").input
    assert isinstance(shape, StructureShape)
    assert shape.members["FlatNames"].wire_name == "Name"
    assert shape.members["FlatCounts"].wire_name == "FlatCounts"
    assert shape.members["Inner"].wire_name == "Nested"
    notes = shape.members["Notes"].shape
    assert isinstance(notes, ListShape)
    assert notes.element_name == "Note"


def test_namespace_of_a_model_without_one(tiny: Service) -> None:
    assert tiny.xml_namespace == "http://tiny.amazonaws.com/doc/2020-01-01/"


# Codes and statuses as RDS sends them: about half of the codes are not the name of their shape.
@pytest.mark.parametrize(
    ("name", "code", "status"),
    [
        ("DBInstanceNotFoundFault", "DBInstanceNotFound", 404),
        ("DBClusterNotFoundFault", "DBClusterNotFoundFault", 404),
        ("DBInstanceAlreadyExistsFault", "DBInstanceAlreadyExists", 400),
        ("InvalidDBInstanceStateFault", "InvalidDBInstanceState", 400),
        ("InstanceQuotaExceededFault", "InstanceQuotaExceeded", 400),
        ("DBClusterQuotaExceededFault", "DBClusterQuotaExceededFault", 403),
        ("BlueGreenDeploymentNotFoundFault", "BlueGreenDeploymentNotFoundFault", 404),
        ("InvalidBlueGreenDeploymentStateFault", "InvalidBlueGreenDeploymentStateFault", 400),
        ("ValidationError", "ValidationError", 400),
        ("AccessDenied", "AccessDenied", 403),
    ],
)
def test_fault_takes_code_and_status_from_the_model(name: str, code: str, status: int) -> None:
    fault = Fault(name, "why")
    assert (fault.name, fault.code, fault.status, fault.blame) == (name, code, status, Blame.SENDER)
    assert str(fault) == f"{code}: why"


def test_misspelt_fault_is_loud() -> None:
    with pytest.raises(UnknownError):
        Fault("DBInstanceNotFound", "the code, not the shape's name")


def test_fault_survives_pickling() -> None:
    fault = pickle.loads(pickle.dumps(Fault("DBInstanceNotFoundFault", "gone")))  # noqa: S301 # our own bytes
    assert (fault.code, fault.message) == ("DBInstanceNotFound", "gone")


def test_common_errors_shadow_no_modelled_one(rds: Service) -> None:
    assert errors.common_error_names().isdisjoint(rds.errors)


def test_server_errors_blame_the_receiver() -> None:
    assert errors.internal_failure().blame is Blame.RECEIVER
    assert errors.internal_failure().status == 500


def test_missing_operation_is_not_retried_by_sdks() -> None:
    fault = errors.not_implemented("CreateDBCluster")
    assert fault.status == 501
    assert "CreateDBCluster" in fault.message


def test_constructors_agree_with_their_codes() -> None:
    assert {
        fault.code
        for fault in [
            errors.validation_error("x"),
            errors.invalid_parameter_value("x"),
            errors.invalid_parameter_combination("x"),
            errors.missing_parameter("X"),
            errors.missing_action(),
            errors.invalid_action("X", "1"),
            errors.not_implemented("X"),
            errors.malformed_query_string("x"),
            errors.malformed_input("x"),
            errors.request_too_large(1),
            errors.access_denied("x"),
            errors.missing_authentication_token(),
            errors.incomplete_signature("x"),
            errors.invalid_client_token_id(),
            errors.signature_does_not_match("x"),
            errors.request_expired("x"),
            errors.throttling(),
            errors.internal_failure(),
        ]
    } == errors.common_error_names() - {"ServiceUnavailable"}
