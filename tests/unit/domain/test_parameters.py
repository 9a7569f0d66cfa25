from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verdigris.domain.parameters import (
    MEMORY,
    ApplyType,
    DataType,
    InvalidValue,
    ParameterInfo,
    check,
    evaluate,
    is_formula,
)

GIB = 1024**3


def info(data_type: DataType, **fields: Any) -> ParameterInfo:
    return ParameterInfo(
        name="thing", description="", data_type=data_type, apply_type=ApplyType.DYNAMIC, is_modifiable=True, **fields
    )


# The formulas of RDS's own default groups, for an instance of 8 GiB.
@pytest.mark.parametrize(
    ("formula", "number"),
    [
        ("{DBInstanceClassMemory/32768}", 8 * GIB // 32768),
        ("LEAST({DBInstanceClassMemory/9531392},5000)", 901),
        ("GREATEST({DBInstanceClassMemory/63963136*1024},65536)", 8 * GIB // 63963136 * 1024),
        ("{DBInstanceClassMemory*3/4}", 6 * GIB),
        ("{log(DBInstanceClassMemory/8187281418)*1000}", 0),
        ("SUM({DBInstanceClassMemory/GREATEST(1,1024)}, -1 + 2)", None),
        ("sum(1,2,{3 + 4 * 5 - 6 / 4})", 1 + 2 + 3 + 20 - 1),
        (" { dbinstanceclassmemory / 8 } ", GIB),
    ],
)
def test_formulas(formula: str, number: int | None) -> None:
    if number is None:
        with pytest.raises(InvalidValue):
            evaluate(formula, {MEMORY: 8 * GIB})
    else:
        assert is_formula(formula)
        assert evaluate(formula, {MEMORY: 8 * GIB}) == str(number)


@pytest.mark.parametrize(
    "text",
    [
        "{", "{}", "{1", "{1}}", "{1/0}", "{x}", "{DBInstanceClassMemory", "LEAST()", "LEAST(1,)", "LOG(0)", "LOG(1,2)",
        "{1 2}", "{1;2}", "{" * 30 + "1" + "}" * 30, "{9999999999999999999}",
    ],
)  # fmt: skip
def test_what_is_no_formula_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="not a formula"):
        evaluate(text, {MEMORY: GIB})


@given(st.text(alphabet="{}()+-*/,0123456789DBInstaceClMryLEASTGOU ", max_size=60))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    """Never another error, whatever it is."""
    try:
        answer = evaluate("{" + text, {MEMORY: GIB})
    except InvalidValue:
        return
    assert answer.lstrip("-").isdigit()


@pytest.mark.parametrize("plain", ["", "5", "on", "least", "a {b}", "'$user', public"])
def test_other_values_stand_for_themselves(plain: str) -> None:
    assert evaluate(plain, {}) == plain


@pytest.mark.parametrize(
    ("parameter", "good", "bad"),
    [
        (info(DataType.BOOLEAN), ["0", "1", "on", "FALSE"], ["2", "yes!", "", "{1}"]),
        (info(DataType.INTEGER, minimum="-1", maximum="10"), ["-1", "10", "{3}"], ["11", "-2", "1.5", "64MB", "", "x"]),
        (info(DataType.FLOAT, minimum="0", maximum="1"), ["0", "0.25", "1e-3"], ["1.1", "-0.1", "nan", "inf", ""]),
        (info(DataType.STRING, choices=("off", "LOCAL")), ["off", "local"], ["remote", ""]),
        (info(DataType.STRING), ["", "'$user', public", "%m [%p]"], ["two\nlines", "a\0b", "x" * 9000]),
        (info(DataType.LIST, choices=("pg_stat_statements", "auto_explain")), ["", "auto_explain,pg_stat_statements"],
         ["../evil", "auto_explain,evil"]),
    ],
    ids=lambda value: value.data_type + ("" if not value.choices else "-choices") if hasattr(value, "name") else "",
)  # fmt: skip
def test_values(parameter: ParameterInfo, good: list[str], bad: list[str]) -> None:
    for value in good:
        check(parameter, value)
    for value in bad:
        with pytest.raises(InvalidValue, match="thing"):
            check(parameter, value)
