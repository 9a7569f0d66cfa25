import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from verdigris.aws.errors import Fault
from verdigris.aws.model import Service
from verdigris.aws.validate import validate_input

ARN = "arn:aws:rds:us-east-1:000000000000:db:app"


def refusal(service: Service, operation: str, params: dict[str, Any]) -> str:
    with pytest.raises(Fault) as caught:
        validate_input(service.operation(operation), params)
    assert (caught.value.code, caught.value.status) == ("ValidationError", 400)
    return caught.value.message


def test_fitting_input_passes(rds: Service) -> None:
    params = {
        "BlueGreenDeploymentName": "upgrade-to-18",
        "Source": ARN,
        "TargetEngineVersion": "18.6",
        "TargetDBParameterGroupName": "default.postgres18",
        "Tags": [{"Key": "team", "Value": "x"}],
    }
    validate_input(rds.operation("CreateBlueGreenDeployment"), params)


def test_operation_without_input(tiny: Service) -> None:
    validate_input(tiny.operation("Silent"), {})


def test_message_is_worded_as_by_aws(rds: Service) -> None:
    assert refusal(rds, "CreateBlueGreenDeployment", {"BlueGreenDeploymentName": "a_b", "Source": ARN}) == (
        "1 validation error detected: Value 'a_b' at 'blueGreenDeploymentName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [a-zA-Z](?:-?[a-zA-Z0-9]+)*"
    )


@pytest.mark.parametrize(
    ("params", "parts"),
    [
        ({}, ["1 validation error detected", "Value null at 'title' failed", "Member must not be null"]),
        ({"Title": "a"}, ["Value 'a' at 'title'", "length greater than or equal to 2"]),
        ({"Title": "abcdefghi"}, ["length less than or equal to 8"]),
        ({"Title": "ab", "Count": 0}, ["Value '0' at 'count'", "value greater than or equal to 1"]),
        ({"Title": "ab", "Count": 11}, ["value less than or equal to 10"]),
        ({"Title": "ab", "Ratio": float("nan")}, ["2 validation errors detected"]),
        ({"Title": "ab", "Data": b"12345"}, ["at 'data'", "length less than or equal to 4"]),
        ({"Title": "ab", "Notes": [{"Text": "ab"}] * 3}, ["Value at 'notes' failed", "length less than or equal to 2"]),
        ({"Title": "ab", "Notes": [{"Text": "ab"}, {}]}, ["Value null at 'notes.2.member.text'"]),
        ({"Title": "ab", "Notes": [{"Text": "ab", "Pitch": "mid"}]}, ["Value 'mid'", "enum value set: [high, low]"]),
        ({"Title": "ab", "FlatNames": ["ab", "A"]}, ["'flatNames.2.member'"]),
        ({"Title": "ab", "Ages": {"x": 11}}, ["'ages.key'", "'ages.x.member'", "2 validation errors"]),
        ({"Title": "ab", "Inner": {}}, ["Value null at 'inner.title'"]),
        ({"Title": "!"}, ["2 validation errors detected", "length greater", "pattern"]),
    ],
)
def test_constraints(tiny: Service, params: dict[str, Any], parts: list[str]) -> None:
    message = refusal(tiny, "Play", params)
    for part in parts:
        assert part in message


def test_bounds_themselves_are_allowed(tiny: Service) -> None:
    for title, count, ratio in (("ab", 1, 0.0), ("abcdefgh", 10, 1.0)):
        validate_input(tiny.operation("Play"), {"Title": title, "Count": count, "Ratio": ratio, "Data": b"1234"})


# What botocore lets a client send all the same.
@pytest.mark.parametrize(
    ("operation", "params", "part"),
    [
        ("DescribeBlueGreenDeployments", {"MaxRecords": 101}, "less than or equal to 100"),
        ("DescribeBlueGreenDeployments", {"MaxRecords": 19}, "greater than or equal to 20"),
        ("CreateBlueGreenDeployment", {"BlueGreenDeploymentName": "a", "Source": "notarn"}, "at 'source'"),
        ("CreateBlueGreenDeployment", {"BlueGreenDeploymentName": "a" * 61, "Source": ARN}, "less than or equal to 60"),
        (
            "SwitchoverBlueGreenDeployment",
            {"BlueGreenDeploymentIdentifier": "bgd-x", "SwitchoverTimeout": 29},
            "'switchoverTimeout' failed to satisfy constraint: Member must have value greater than or equal to 30",
        ),
        ("DescribeEvents", {"SourceType": "db-thing"}, "Member must satisfy enum value set: [db-instance,"),
        ("DeleteDBInstance", {}, "Value null at 'dBInstanceIdentifier'"),
    ],
)
def test_rds(rds: Service, operation: str, params: dict[str, Any], part: str) -> None:
    assert part in refusal(rds, operation, params)


def test_secrets_stay_out_of_messages(tiny: Service) -> None:
    message = refusal(tiny, "Play", {"Title": "ab", "Secret": "hunter2"})
    assert "hunter2" not in message
    assert "Value at 'secret' failed to satisfy constraint" in message


@pytest.mark.timeout(10)
@pytest.mark.parametrize("value", ["a" * 65_536, "a" * 59 + "!", "a-" * 30, "a" * 65_535 + "!"])
def test_hostile_values_cannot_stall(rds: Service, value: str) -> None:
    started_at = time.process_time()
    message = refusal(rds, "CreateBlueGreenDeployment", {"BlueGreenDeploymentName": value, "Source": ARN})
    assert time.process_time() - started_at < 0.5
    assert ("pattern" in message) == (len(value) <= 60)
    assert len(message) < 1_000


def test_many_violations_make_a_short_message(tiny: Service) -> None:
    message = refusal(tiny, "Play", {"Title": "ab", "FlatCounts": [0] * 5_000})
    assert message.startswith("5000 validation errors detected")
    assert message.count("flatCounts") == 10


def test_pattern_that_cannot_be_used_is_logged_and_let_through(tiny: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    operation = tiny.operation("Play")
    assert operation.input is not None
    monkeypatch.setattr(operation.input.members["Title"].shape, "pattern", "(a+)+")
    with capture_logs() as logs:
        validate_input(operation, {"Title": "bb"})
    assert [entry["event"] for entry in logs] == ["pattern.unsupported"]
