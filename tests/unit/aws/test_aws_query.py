from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verdigris.aws.errors import Fault
from verdigris.aws.model import Service, load_service
from verdigris.aws.query import Limits, parse_form, parse_input, select_operation


def play(tiny: Service, body: str) -> dict[str, Any]:
    return parse_input(tiny.operation("Play"), parse_form(body.encode()))


def code_of(tiny: Service, body: str) -> str:
    with pytest.raises(Fault) as caught:
        play(tiny, body)
    assert caught.value.status == 400
    return caught.value.code


# ---------------------------------------------------------------------------------------------------------------- form


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", {}),
        (b"a=1&b=2", {"a": "1", "b": "2"}),
        (b"a=1&&b=2&", {"a": "1", "b": "2"}),
        (b"a", {"a": ""}),
        (b"a=b=c", {"a": "b=c"}),
        (b"a=b+c%20d%2B", {"a": "b c d+"}),
        (b"a=%c3%A9\xc3\xa9", {"a": "éé"}),
        (b"a=%F0%9F%90%98", {"a": "🐘"}),
        (b"%41=1", {"A": "1"}),
    ],
)
def test_form(body: bytes, fields: dict[str, str]) -> None:
    assert parse_form(body) == fields


@pytest.mark.parametrize(
    "body",
    [
        b"a=%",
        b"a=%4",
        b"a=%zz",
        b"a=%c3%28",
        b"a=\xff",
        b"a=%ed%a0%80",  # a surrogate
        b"a=%00",
        b"a=\x00",
        b"a=%1b",
        b"a%00=1",
        b"a=%ef%bf%bf",  # U+FFFF is no character of XML
        b"=1",
        b"a=1&a=1",
        b"a=1&%61=2",
        b"\x1f\x8b\x08\x00",
    ],
)
def test_form_refused(body: bytes) -> None:
    with pytest.raises(Fault) as caught:
        parse_form(body)
    assert (caught.value.code, caught.value.status) == ("MalformedQueryString", 400)


def test_limits_are_parameters() -> None:
    limits = Limits(body_bytes=9, fields=2, depth=2)
    assert parse_form(b"a=1&b=222", limits) == {"a": "1", "b": "222"}
    with pytest.raises(Fault, match="RequestEntityTooLarge"):
        parse_form(b"a=1&b=2222", limits)
    with pytest.raises(Fault, match="more than 2 parameters"):
        parse_form(b"a&b&c", limits)
    operation = load_service("rds").operation("DescribeDBInstances")
    with pytest.raises(Fault, match="more than 2 levels"):
        parse_input(operation, {"a.b.c": "1"}, limits)


# ----------------------------------------------------------------------------------------------------------- operation


def test_operation_is_selected(rds: Service) -> None:
    assert select_operation(rds, {"Action": "DescribeEvents", "Version": "2014-10-31"}).name == "DescribeEvents"
    assert select_operation(rds, {"Action": "DescribeEvents"}).name == "DescribeEvents"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "MissingAction"),
        ({"Action": ""}, "MissingAction"),
        ({"action": "DescribeEvents"}, "MissingAction"),
        ({"Action": "describeevents"}, "InvalidAction"),
        ({"Action": "x" * 500_000}, "InvalidAction"),
        ({"Action": "DescribeEvents", "Version": "2013-09-09"}, "InvalidAction"),
        ({"Action": "DescribeEvents", "Version": ""}, "InvalidAction"),
    ],
)
def test_operation_is_refused(rds: Service, fields: dict[str, str], code: str) -> None:
    with pytest.raises(Fault) as caught:
        select_operation(rds, fields)
    assert caught.value.code == code
    assert len(caught.value.message) < 1_000


# --------------------------------------------------------------------------------------------------------------- input


@pytest.mark.parametrize(
    ("body", "params"),
    [
        ("Title=x&Count=3&Size=-9223372036854775808", {"Title": "x", "Count": 3, "Size": -(1 << 63)}),
        ("Title=", {"Title": ""}),
        ("Loud=true", {"Loud": True}),
        ("Loud=False", {"Loud": False}),
        ("Ratio=0.5", {"Ratio": 0.5}),
        ("Data=AP8%3D", {"Data": b"\x00\xff"}),
        ("When=2009-07-08T18%3A00Z", {"When": datetime(2009, 7, 8, 18, tzinfo=UTC)}),
        ("Notes.Note.1.Text=a&Notes.Note.2.Text=b", {"Notes": [{"Text": "a"}, {"Text": "b"}]}),
        ("Notes.member.1.Text=a&Notes.member.2.Pitch=low", {"Notes": [{"Text": "a"}, {"Pitch": "low"}]}),
        ("Notes.Note.10.Text=c&Notes.Note.9.Text=b&Notes.Note.1.Text=a", {"Notes": [{"Text": t} for t in "abc"]}),
        ("Notes=", {"Notes": []}),
        ("Notes.Note=", {"Notes": []}),
        ("Name.1=a&Name.2=b", {"FlatNames": ["a", "b"]}),
        ("FlatNames=", {"FlatNames": []}),
        ("FlatNames.1=a&FlatNames.2=b", {"FlatNames": ["a", "b"]}),
        ("FlatCounts.1=7", {"FlatCounts": [7]}),
        ("Ages.entry.1.key=a&Ages.entry.1.value=4", {"Ages": {"a": 4}}),
        ("Age.1.Who=a&Age.1.Years=4&Age.2.Who=b&Age.2.Years=5", {"FlatAges": {"a": 4, "b": 5}}),
        ("Ages=", {"Ages": {}}),
        ("Nested.Nested.Title=x", {"Inner": {"Inner": {"Title": "x"}}}),
        ("Nested=", {"Inner": {}}),
        # Ignored: no member of the operation, or of the structure.
        ("Title=x&Titles=y&Title2.member.1=z", {"Title": "x"}),
        ("Inner.Title=x", {}),
        ("Nested.Sound=x", {"Inner": {}}),
        ("NotesX.Note.1.Text=a", {}),
    ],
)
def test_input(tiny: Service, body: str, params: dict[str, Any]) -> None:
    assert play(tiny, body) == params


@pytest.mark.parametrize(
    "value", ["abc", "", " 1", "1.0", "0x10", "1e3", "٣", "2147483648", "-2147483649", "9" * 4_000]
)
def test_integer_garbage_is_a_clear_error(tiny: Service, value: str) -> None:
    with pytest.raises(Fault) as caught:
        play(tiny, f"Count={quote_plus(value)}")
    assert caught.value.code == "InvalidParameterValue"
    assert "for Count: it must be an integer" in caught.value.message
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    "body",
    [
        "Loud=yes",
        "Loud=1",
        "Loud=",
        "Ratio=x",
        "Ratio=",
        "Ratio=1e99999",
        "When=yesterday",
        "When=",
        "Data=%2A",
        "Data=A",
    ],
)
def test_scalar_garbage(tiny: Service, body: str) -> None:
    assert code_of(tiny, body) == "InvalidParameterValue"


@pytest.mark.parametrize(
    "body",
    [
        "Title.1=x",
        "Title=x&Title.1=y",
        "Count.member.1=1",
        "Notes=x",
        "Notes=x&Notes.Note.1.Text=a",
        "Notes.Note=x",
        "Notes.Note.1=x",
        "Notes.1.Text=x",
        "Notes.Notes.1.Text=x",
        "Notes.NoteX.1.Text=x",
        "Notes.Note.1.Text=a&Notes.member.2.Text=b",
        "Notes.Note.x.Text=a",
        "Notes.Note.-1.Text=a",
        "Notes.Note.%C2%B2.Text=a",
        "Notes.Note..Text=a",
        "Notes.Note.1.Text=a&Notes.Note.01.Text=b",
        f"Notes.Note.{'9' * 5_000}.Text=a",
        "Name.x=a",
        "Ages.1.key=a&Ages.1.value=4",
        "Ages.entry.1.key=a",
        "Ages.entry.1=x&Ages.entry.1.key=a&Ages.entry.1.value=4",
        "Ages.entry.1.value=4",
        "Ages.entry.1.key=a&Ages.entry.1.value=4&Ages.entry.1.more=5",
        "Ages.entry.1.key=a&Ages.entry.1.value=4&Ages.entry.2.key=a&Ages.entry.2.value=5",
        "Nested=x",
        "Nested=x&Nested.Title=y",
    ],
)
def test_wrong_nesting(tiny: Service, body: str) -> None:
    assert code_of(tiny, body) == "MalformedInput"


def test_secrets_stay_out_of_messages(tiny: Service, rds: Service) -> None:
    for operation, name in (
        (tiny.operation("Play"), "Pin"),
        (rds.operation("CreateDBInstance"), "MasterUserPassword.1"),
    ):
        with pytest.raises(Fault) as caught:
            parse_input(operation, {name: "hunter2"})
        assert "hunter2" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------- hostile


def attempt(body: bytes) -> None:
    """Whatever the body is, the only exception is a Fault that blames the sender."""
    service = load_service("rds")
    try:
        fields = parse_form(body)
        parse_input(select_operation(service, fields), fields)
    except Fault as fault:
        assert fault.status in (400, 413)  # noqa: PT017 # a parse that succeeds is as good


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_noise(body: bytes) -> None:
    attempt(body)
    attempt(b"Action=CreateDBInstance&" + body)


_NAMES = [
    "Tags",
    "Tag",
    "member",
    "Key",
    "Filters",
    "Filter",
    "Values",
    "Value",
    "1",
    "01",
    "2",
    "x",
    "",
    "Port",
    "%31",
]
_FIELD = st.builds(
    lambda parts, value: ".".join(parts).encode() + b"=" + value,
    st.lists(st.sampled_from(_NAMES), max_size=6),
    st.sampled_from([b"", b"1", b"true", b"x", b"%ff", b"NaN", b"-", b"2020-01-01"]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_FIELD, max_size=8), st.sampled_from(["CreateDBInstance", "DescribeDBInstances", "AddTagsToResource"]))
def test_well_formed_nonsense(fields: list[bytes], action: str) -> None:
    attempt(b"&".join([f"Action={action}".encode(), *fields]))


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "body",
    [
        b"A" * 10_000_000,
        b"Action=CreateDBInstance&" + b"&".join(b"p%d=1" % n for n in range(10_000)),
        b"Action=CreateDBInstance&" + b"&" * 1_000_000,
        b"Action=CreateDBInstance&" + b"Tags." * 200_000 + b"=1",
        b"Action=CreateDBInstance&" + b"&".join(b"Tags.Tag.%d.Key=a" % n for n in range(4_900)),
        b"Action=CreateDBInstance&" + b"&".join(b".".join([b"%d" % n] * 24) + b"=" for n in range(4_900)),
        b"Action=CreateDBInstance&Port=" + b"1" * 1_000_000,
        b"Action=CreateDBInstance&Tags.Tag." + b"1" * 1_000_000 + b"=1",
    ],
    ids=["10MB", "10000-fields", "ampersands", "deep", "long-list", "many-nodes", "long-integer", "long-index"],
)
def test_sizes(body: bytes) -> None:
    attempt(body)
