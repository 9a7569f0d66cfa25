"""The page on what there is of the API, and what it is written from."""

import ast
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import verdigris
from tests.api_coverage import page
from tests.api_coverage.code import FOLLOWED
from tests.api_coverage.expressions import IDLE_FIELDS, Unfollowable
from tests.api_coverage.following import Found, follow
from tests.api_coverage.members import (
    ACTED_ON_LATER,
    WHY_IGNORED,
    Asked,
    Fate,
    Watched,
    all_given,
    coverage,
    overlooked,
)
from tests.api_coverage.value import constants_of
from verdigris.aws.errors import invalid_parameter_value
from verdigris.rds.filters import apply_filters
from verdigris.rds.operations import HANDLERS

PACKAGE = Path(verdigris.__file__).parent
of_the_page_s_model = pytest.mark.skipif(
    page.model() not in page.PAGE.read_text(), reason="botocore has another model than the page: write it anew"
)
RECORDS = {"DBInstance", "TargetSpec", "BlueGreenDeployment"}


@of_the_page_s_model
def test_the_page_is_what_the_code_says() -> None:
    assert page.PAGE.read_text() == page.render(), f"write it anew: {page.COMMAND}"


@of_the_page_s_model
@pytest.mark.parametrize("operation", sorted(HANDLERS))
def test_nothing_is_ignored_without_a_reason(operation: str) -> None:
    """A member that a newer model brings: somebody has to decide about it."""
    ignored = {asked.name for asked in coverage(operation).asked if asked.fate is Fate.IGNORED}
    assert ignored == WHY_IGNORED.get(operation, {}).keys()


def _asked(operation: str, member: str) -> Asked:
    (found,) = (asked for asked in coverage(operation).asked if asked.name == member)
    return found


@pytest.mark.parametrize(
    ("operation", "member", "fate", "remark"),
    [
        ("CreateDBInstance", "DBName", Fate.DOES, ""),
        ("CreateDBInstance", "Iops", Fate.KEPT, "kept"),
        ("CreateDBInstance", "AllocatedStorage", Fate.KEPT, "kept"),
        ("CreateDBInstance", "Engine", Fate.CHECKED, "This server offers: postgres"),
        ("CreateDBInstance", "MultiAZ", Fate.REFUSED, "refused, but for `false`"),
        ("CreateDBInstance", "TdeCredentialArn", Fate.REFUSED, "refused"),
        ("CreateBlueGreenDeployment", "TargetIops", Fate.KEPT, "kept"),
        ("DeleteDBInstance", "SkipFinalSnapshot", Fate.CHECKED, "is required unless SkipFinalSnapshot is true"),
        ("DeleteDBInstance", "FinalDBSnapshotIdentifier", Fate.DOES, ""),
        ("RebootDBInstance", "ForceFailover", Fate.REFUSED, "not configured for MultiAZ"),
        ("ModifyDBInstance", "ApplyImmediately", Fate.DOES, ""),
        ("ModifyDBInstance", "CertificateRotationRestart", Fate.IGNORED, "not rotated"),
        ("ResetDBParameterGroup", "ResetAllParameters", Fate.DOES, ""),
        ("DownloadDBLogFilePortion", "NumberOfLines", Fate.DOES, ""),
        ("DescribeDBEngineVersions", "ListSupportedTimezones", Fate.DOES, ""),
        ("DescribeDBInstances", "Filters", Fate.DOES, "`db-instance-id`"),
        ("DescribeDBLogFiles", "Filters", Fate.DOES, "RDS has no filters here either"),
    ],
)
def test_what_is_known_of_members(operation: str, member: str, fate: Fate, remark: str) -> None:
    asked = _asked(operation, member)
    assert asked.fate is fate
    assert remark in asked.remark


def test_what_is_known_of_answers() -> None:
    given = all_given()
    instance = given["DBInstance"]
    assert {"Endpoint", "StatusInfos", "VpcSecurityGroups", "PreferredBackupWindow", "TagList"} <= instance.keys()
    assert not {"DBSystemId", "TdeCredentialArn"} & instance.keys()
    assert constants_of(instance["MultiAZ"]) == frozenset({False})
    assert constants_of(instance["Engine"]) is None
    pending = given["PendingModifiedValues"]
    assert "EngineVersion" in pending
    assert "Iops" not in pending
    assert constants_of(pending["MasterUserPassword"]) == frozenset({None, "****"})
    assert {"SupportedTimezones", "ValidUpgradeTarget"} <= given["DBEngineVersion"].keys()
    assert given["EventCategoriesMessage"].keys() == {"EventCategoriesMapList"}


def test_a_real_call_is_held_against_it() -> None:
    request = Watched({"DBInstanceIdentifier": "app"})
    assert request.get("CertificateRotationRestart") is None
    assert overlooked("ModifyDBInstance", request, {"DBInstance": {"MultiAZ": False, "DBSystemId": "x"}}) == {
        "CertificateRotationRestart",
        "DBInstance.DBSystemId",
    }
    assert overlooked("ModifyDBInstance", Watched({}), {"DBInstance": {"MultiAZ": False}}) == set()
    another = {"DBInstance": {"MultiAZ": True, "DomainMemberships": ["d"], "AssociatedRoles": []}}
    assert overlooked("ModifyDBInstance", Watched({}), another) == {
        "DBInstance.DomainMemberships ['d']",
        "DBInstance.MultiAZ True",
    }


# --------------------------------------------------------------------------------------------------------- idle fields


def test_nothing_acts_on_what_is_only_kept() -> None:
    """Workflows copy it from one record to another, and read by its name what is acted on; no other layer is given the
    records."""
    for path in sorted((PACKAGE / "workflows").glob("*.py")):
        assert list(_reads_of_idle_fields(ast.parse(path.read_text()))) == [], path
    for layer in ("engines", "router"):
        for path in (PACKAGE / layer).rglob("*.py"):
            assert not RECORDS & set(_imported(ast.parse(path.read_text()))), path


def test_what_is_acted_on_later_is_read_by_its_name() -> None:
    read = "".join(
        path.read_text() for layer in ("rds", "workflows", "domain") for path in (PACKAGE / layer).glob("*.py")
    )
    for name in ACTED_ON_LATER:
        assert f'.settings.get("{name}"' in read


def _reads_of_idle_fields(tree: ast.AST) -> Iterator[str]:
    copied = {
        id(node)
        for keyword in ast.walk(tree)
        if isinstance(keyword, ast.keyword)
        for node in ast.walk(keyword.value)
        if isinstance(node, ast.Attribute) and node.attr == keyword.arg
    }
    named = {
        id(call.func.value)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "get"
        and isinstance(call.args[0], ast.Constant)
        and call.args[0].value in ACTED_ON_LATER
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in IDLE_FIELDS and id(node) not in copied | named:
            yield f"{node.attr}, line {node.lineno}"


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


# ----------------------------------------------------------------------------------------------------------- following

_TABLE = {"B": "b", "C": "c"}


def _followed(handler: Callable[..., Any]) -> Found:
    return follow(handler, frozenset("ABCDE"))


@pytest.fixture(autouse=True)
def _gone_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers of this file, too."""
    monkeypatch.setattr("tests.api_coverage.code.FOLLOWED", (FOLLOWED, __name__))


def test_members_that_a_table_names() -> None:
    def handler(_context: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        return {"X": {own: params[name] for name, own in _TABLE.items() if name in params}, "Y": _TABLE.get("B")}

    found = _followed(handler)
    assert found.read == found.does == {"B", "C"}
    assert {name: value.live for name, value in found.answer.fields["X"].fields.items()} == {"b": {"B"}, "c": {"C"}}
    assert constants_of(found.answer.fields["Y"]) == frozenset({"b", None})


def _refuse(params: Mapping[str, Any], name: str) -> None:
    if params.get(name):
        raise invalid_parameter_value(f"no {name}, said {params['A']}")


def test_what_is_refused_in_another_function() -> None:
    def handler(context: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        _refuse(params, "B")
        if params.get("C"):
            _refuse(params, "D")
        if params["E"] == 1:
            context.store.put(1)
        return {}

    found = _followed(handler)
    assert found.does == {"E"}
    assert found.refused == {"B"}
    assert {name: list(texts) for name, texts in found.refusals.items()} == {
        "B": ["no B, said …"],
        "C": [],
        "D": ["no D, said …"],
    }
    assert found.read == set("ABCDE")


def test_what_goes_through_names_tuples_records_and_filters() -> None:
    def handler(context: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        a, b = params["A"], params.get("B", 5)
        for each in apply_filters(params.get("C"), [{"K": a}], {"name": lambda _: [], "kind": lambda _: []}):
            view = {"L": each["K"]}
            view["M"] = None
        context.store.put(context.record(settings=[b], size=len(view)))
        return {"N": [view for _ in range(3)]}

    found = _followed(handler)
    assert (found.does, found.kept, found.filters) == ({"A", "C"}, {"B"}, {"name", "kind"})
    assert found.answer.fields["N"].fields.keys() == {"L", "M"}


def test_what_is_added_to_a_list() -> None:
    def handler(_context: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        found = []
        for name in ("A", "B"):
            found.append((name, params[name]))  # noqa: PERF401  this is what it is about
        return {"X": [{"Y": value} for _, value in found], "Z": []}

    answer = _followed(handler).answer
    assert answer.fields["X"].fields["Y"].live == {"A", "B"}
    assert constants_of(answer.fields["X"].fields["Y"]) is None
    assert constants_of(answer.fields["Z"]) == frozenset({"(empty)"})


def test_what_cannot_be_followed_is_an_error() -> None:
    def elsewhere(_context: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        return dict(params)

    def unnamed(context: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        return {"X": params[context.name]}

    for handler in (elsewhere, unnamed):
        with pytest.raises(Unfollowable, match=Path(__file__).name):
            _followed(handler)
