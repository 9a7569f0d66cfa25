from typing import Any

import botocore.model
import pytest

from verdigris.aws.model import Service, load_service


def _ref(shape: str, **traits: Any) -> dict[str, Any]:
    return {"shape": shape, **traits}


# What the protocol allows and the RDS model happens not to use, plus every kind of constraint.
_TINY: dict[str, Any] = {
    "metadata": {"protocol": "query", "apiVersion": "2020-01-01", "endpointPrefix": "tiny", "serviceId": "Tiny"},
    "operations": {
        "Play": {"name": "Play", "http": {}, "input": _ref("Play"), "output": _ref("Play", resultWrapper="PlayResult")},
        "Bare": {"name": "Bare", "http": {}, "output": _ref("Note")},
        "Silent": {"name": "Silent", "http": {}},
    },
    "shapes": {
        "Play": {
            "type": "structure",
            "required": ["Title"],
            "members": {
                "Title": _ref("Title"),
                "Count": _ref("Count"),
                "Size": _ref("Size"),
                "Ratio": _ref("Ratio"),
                "Loud": _ref("Loud"),
                "When": _ref("When"),
                "WhenUnix": _ref("WhenUnix"),
                "WhenMail": _ref("WhenMail"),
                "Data": _ref("Data"),
                "Secret": _ref("Secret"),
                "Pin": _ref("Pin"),
                "Notes": _ref("Notes"),
                "FlatNames": _ref("FlatNames"),
                "FlatCounts": _ref("FlatCounts"),
                "Ages": _ref("Ages"),
                "FlatAges": _ref("FlatAges", locationName="Age"),
                "Inner": _ref("Play", locationName="Nested"),
            },
        },
        "Note": {"type": "structure", "required": ["Text"], "members": {"Text": _ref("Title"), "Pitch": _ref("Pitch")}},
        "Title": {"type": "string", "min": 2, "max": 8, "pattern": "[a-z](?:-?[a-z0-9]+)*"},
        "Pitch": {"type": "string", "enum": ["high", "low"]},
        "Secret": {"type": "string", "min": 8, "max": 16, "sensitive": True},
        "Pin": {"type": "integer", "sensitive": True},
        "Count": {"type": "integer", "min": 1, "max": 10},
        "Size": {"type": "long"},
        "Ratio": {"type": "double", "min": 0, "max": 1},
        "Loud": {"type": "boolean"},
        "When": {"type": "timestamp"},
        "WhenUnix": {"type": "timestamp", "timestampFormat": "unixTimestamp"},
        "WhenMail": {"type": "timestamp", "timestampFormat": "rfc822"},
        "Data": {"type": "blob", "max": 4},
        "Notes": {"type": "list", "member": _ref("Note", locationName="Note"), "max": 2},
        "FlatNames": {"type": "list", "flattened": True, "member": _ref("Title", locationName="Name")},
        "FlatCounts": {"type": "list", "flattened": True, "member": _ref("Count")},
        "Ages": {"type": "map", "key": _ref("Title"), "value": _ref("Count")},
        "FlatAges": {
            "type": "map",
            "flattened": True,
            "key": _ref("Title", locationName="Who"),
            "value": _ref("Count", locationName="Years"),
        },
    },
}


@pytest.fixture(scope="session")
def tiny() -> Service:
    return Service(botocore.model.ServiceModel(_TINY, "tiny"))


@pytest.fixture(scope="session")
def rds() -> Service:
    return load_service("rds")
