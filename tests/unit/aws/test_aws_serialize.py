from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verdigris.aws.errors import Fault, internal_failure
from verdigris.aws.model import Service, load_service
from verdigris.aws.serialize import UnmodelledResult, serialize_fault, serialize_output


def result_of(tiny: Service, result: dict[str, Any]) -> str:
    text = serialize_output(tiny, tiny.operation("Play"), result, "rid").decode()
    ET.fromstring(text)  # noqa: S314 # our own
    return text.partition("<PlayResult>")[2].rpartition("</PlayResult>")[0]


class Pitch(StrEnum):
    LOW = "low"


@pytest.mark.parametrize(
    ("result", "xml"),
    [
        ({}, ""),
        ({"Title": None, "Count": 0}, "<Count>0</Count>"),
        ({"Title": ""}, "<Title></Title>"),
        ({"Title": "a&<b>\"'"}, "<Title>a&amp;&lt;b&gt;\"'</Title>"),
        ({"Title": "a\r\n\tb"}, "<Title>a&#xD;\n\tb</Title>"),
        ({"Loud": True}, "<Loud>true</Loud>"),
        ({"When": datetime(2023, 1, 10, 18, 42, 9, 330_000, tzinfo=UTC)}, "<When>2023-01-10T18:42:09.330Z</When>"),
        ({"Notes": []}, "<Notes></Notes>"),
        (
            {"Notes": ({"Text": "a", "Pitch": Pitch.LOW},)},
            "<Notes><Note><Text>a</Text><Pitch>low</Pitch></Note></Notes>",
        ),
        ({"FlatNames": ["a", "b"]}, "<Name>a</Name><Name>b</Name>"),
        ({"FlatNames": []}, ""),
        ({"Ages": {"a": 4}}, "<Ages><entry><key>a</key><value>4</value></entry></Ages>"),
        ({"FlatAges": {"a": 4}}, "<Age><Who>a</Who><Years>4</Years></Age>"),
        ({"Inner": {"Inner": {"Title": "x"}}}, "<Nested><Nested><Title>x</Title></Nested></Nested>"),
        # In the model's order, whatever the result's.
        ({"Count": 1, "Title": "x"}, "<Title>x</Title><Count>1</Count>"),
    ],
)
def test_output(tiny: Service, result: dict[str, Any], xml: str) -> None:
    assert result_of(tiny, result) == xml


def test_envelope(rds: Service) -> None:
    body = serialize_output(rds, rds.operation("DeleteDBParameterGroup"), None, "rid&1")
    assert body.decode() == (
        '<DeleteDBParameterGroupResponse xmlns="http://rds.amazonaws.com/doc/2014-10-31/">'
        "<ResponseMetadata><RequestId>rid&amp;1</RequestId></ResponseMetadata></DeleteDBParameterGroupResponse>"
    )


def test_output_without_wrapper(tiny: Service) -> None:
    body = serialize_output(tiny, tiny.operation("Bare"), {"Text": "x"}, "rid").decode()
    assert '2020-01-01/"><Text>x</Text><ResponseMetadata>' in body


@pytest.mark.parametrize(
    ("result", "where"),
    [
        ({"Titel": "x"}, "Play: Play has no member Titel"),
        ({"Notes": [{"Text": "a"}, {"Txt": "b"}]}, r"Play.Notes\[1\]: Note has no member Txt"),
        ({"Inner": {"Nested": {}}}, "Play.Inner: Play has no member Nested"),
        ({"Title": 5}, "Play.Title: int given where Title wants a string"),
        ({"Notes": "abc"}, "Play.Notes: str given where Notes wants a list"),
        ({"Notes": ["abc"]}, r"Play.Notes\[0\]: str given where Note wants a structure"),
        ({"Notes": [None]}, r"Play.Notes\[0\]: NoneType given"),
        ({"Ages": []}, "Play.Ages: list given where Ages wants a map"),
        ({"Ages": {"a": "4"}}, r"Play.Ages\['a'\]: str given"),
        ({1: 2}, "has no member 1"),
    ],
)
def test_what_the_model_has_not_is_refused(tiny: Service, result: dict[str, Any], where: str) -> None:
    with pytest.raises(UnmodelledResult, match=where):
        serialize_output(tiny, tiny.operation("Play"), result, "rid")


def test_result_of_an_operation_that_has_none(tiny: Service) -> None:
    with pytest.raises(UnmodelledResult, match="Silent has no output, but was given Text"):
        serialize_output(tiny, tiny.operation("Silent"), {"Text": "x"}, "rid")


def test_fault_body(rds: Service) -> None:
    body = serialize_fault(rds, Fault("DBInstanceNotFoundFault", "no <app>"), "rid").decode()
    assert body == (
        '<ErrorResponse xmlns="http://rds.amazonaws.com/doc/2014-10-31/"><Error><Type>Sender</Type>'
        "<Code>DBInstanceNotFound</Code><Message>no &lt;app&gt;</Message></Error><RequestId>rid</RequestId>"
        "</ErrorResponse>"
    )
    assert "<Type>Receiver</Type>" in serialize_fault(rds, internal_failure(), "rid").decode()


# Cs: lone surrogates, as from undecodable file names.
@given(st.text() | st.text(st.characters(categories=["Cs", "Cc", "Cn"])))
def test_any_text_makes_well_formed_xml(text: str) -> None:
    rds = load_service("rds")
    parsed = ET.fromstring(serialize_fault(rds, Fault("ValidationError", text), "rid"))  # noqa: S314 # our own
    message = parsed.find("{*}Error/{*}Message")
    assert message is not None
    assert len(message.text or "") == len(text)
