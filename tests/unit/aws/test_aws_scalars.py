import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from verdigris.aws.model import Service, Shape, StructureShape
from verdigris.aws.scalars import BadScalar, NotOfKind, format_scalar, format_timestamp, parse_scalar


@pytest.fixture
def shapes(tiny: Service) -> dict[str, Shape]:
    shape = tiny.operation("Play").input
    assert isinstance(shape, StructureShape)
    return {name: member.shape for name, member in shape.members.items()}


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2023-01-10T18:42:09.330Z", datetime(2023, 1, 10, 18, 42, 9, 330_000, tzinfo=UTC)),
        ("2023-01-10T18:42:09.123456789Z", datetime(2023, 1, 10, 18, 42, 9, 123_456, tzinfo=UTC)),
        ("2023-01-10T18:42:09Z", datetime(2023, 1, 10, 18, 42, 9, tzinfo=UTC)),
        ("2023-01-10t18:42:09z", datetime(2023, 1, 10, 18, 42, 9, tzinfo=UTC)),
        ("2023-01-10T18:42Z", datetime(2023, 1, 10, 18, 42, tzinfo=UTC)),
        ("2023-01-10T20:42:09+02:00", datetime(2023, 1, 10, 18, 42, 9, tzinfo=UTC)),
        ("2023-01-10T20:42:09+0200", datetime(2023, 1, 10, 18, 42, 9, tzinfo=UTC)),
        ("2023-01-10 18:42:09", datetime(2023, 1, 10, 18, 42, 9, tzinfo=UTC)),
        ("2023-01-10", datetime(2023, 1, 10, tzinfo=UTC)),
        ("1673376129", datetime(2023, 1, 10, 18, 42, 9, tzinfo=UTC)),
        ("1673376129.5", datetime(2023, 1, 10, 18, 42, 9, 500_000, tzinfo=UTC)),
        ("Tue, 10 Jan 2023 18:42:09 GMT", datetime(2023, 1, 10, 18, 42, 9, tzinfo=UTC)),
    ],
)
def test_timestamps_in(shapes: dict[str, Shape], text: str, moment: datetime) -> None:
    parsed = parse_scalar(shapes["When"], text)
    assert parsed == moment
    assert isinstance(parsed, datetime)
    assert parsed.tzinfo is UTC


def test_timestamp_without_a_zone_is_utc_wherever_we_run(
    shapes: dict[str, Shape], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "XYZ-9")
    time.tzset()
    try:
        assert parse_scalar(shapes["When"], "2023-01-10T18:42:09") == datetime(2023, 1, 10, 18, 42, 9, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2023",
        "20230110",
        "2023-13-01",
        "2023-02-30T00:00:00Z",
        "2023-01-10T25:00:00Z",
        "2023-W02-2",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "999999999999",
        "-999999999999",
        "Mon, 99 Jan 2023 18:42:09 GMT",
        "٢٠٢٣-01-10",
        "x" * 10_000,
    ],
)
def test_timestamps_refused(shapes: dict[str, Shape], text: str) -> None:
    with pytest.raises(BadScalar, match="timestamp"):
        parse_scalar(shapes["When"], text)


def test_milliseconds_are_cut_not_rounded() -> None:
    assert format_timestamp(datetime(2023, 1, 10, 18, 42, 9, 330_999, tzinfo=UTC)) == "2023-01-10T18:42:09.330Z"
    assert format_timestamp(datetime(2023, 1, 10, 18, 42, 9, tzinfo=UTC)) == "2023-01-10T18:42:09.000Z"


def test_timestamps_go_out_in_utc() -> None:
    moment = datetime(2023, 1, 10, 20, 42, 9, 330_000, tzinfo=timezone(timedelta(hours=2)))
    assert format_timestamp(moment) == "2023-01-10T18:42:09.330Z"


@pytest.mark.parametrize(
    ("member", "value", "text"),
    [
        ("Title", "a<b", "a<b"),
        ("Loud", False, "false"),
        ("Count", 5, "5"),
        ("Ratio", 0.25, "0.25"),
        ("Ratio", 1, "1.0"),
        ("Ratio", float("inf"), "Infinity"),
        ("Ratio", float("-inf"), "-Infinity"),
        ("Ratio", float("nan"), "NaN"),
        ("Data", b"\x00\xff", "AP8="),
        ("WhenUnix", datetime(2023, 1, 10, 18, 42, 9, tzinfo=UTC), "1673376129"),
        ("WhenUnix", datetime(2023, 1, 10, 18, 42, 9, 330_999, tzinfo=UTC), "1673376129.330"),
        ("WhenMail", datetime(2023, 1, 10, 18, 42, 9, 330_000, tzinfo=UTC), "Tue, 10 Jan 2023 18:42:09 GMT"),
    ],
)
def test_out(shapes: dict[str, Shape], member: str, value: Any, text: str) -> None:
    assert format_scalar(shapes[member], value) == text


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("Title", 5),
        ("Title", b"x"),
        ("Title", None),
        ("Count", "5"),
        ("Count", True),
        ("Count", 5.0),
        ("Loud", 1),
        ("Loud", "true"),
        ("Ratio", True),
        ("Data", "x"),
        ("When", "2023-01-10T18:42:09.330Z"),
        ("When", datetime(2023, 1, 10)),  # noqa: DTZ001 # naive is what is refused
    ],
)
def test_nothing_is_made_a_string_that_is_not_one(shapes: dict[str, Shape], member: str, value: Any) -> None:
    with pytest.raises(NotOfKind):
        format_scalar(shapes[member], value)
