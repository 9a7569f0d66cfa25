import itertools
import re
import time

import pytest

from verdigris.aws.model import ListShape, MapShape, Service, Shape, StructureShape, load_service
from verdigris.aws.patterns import Unsupported, compile_pattern


def constrained(shape: Shape | None) -> dict[str, Shape]:
    match shape:
        case StructureShape():
            inner = [constrained(member.shape) for member in shape.members.values()]
        case ListShape():
            inner = [constrained(shape.member)]
        case MapShape():
            inner = [constrained(shape.key), constrained(shape.value)]
        case Shape() if shape.pattern:
            return {shape.pattern: shape}
        case _:
            return {}
    return {pattern: found for part in inner for pattern, found in part.items()}


def rds_patterns() -> dict[str, Shape]:
    rds = load_service("rds")
    found: dict[str, Shape] = {}
    for name in rds.operation_names:
        found |= constrained(rds.operation(name).input)
    return found


PATTERNS = rds_patterns()


def test_every_pattern_of_the_model_is_found(rds: Service) -> None:
    assert len(PATTERNS) >= 18
    assert "[a-zA-Z](?:-?[a-zA-Z0-9]+)*" in PATTERNS


@pytest.mark.parametrize("pattern", PATTERNS)
def test_rds_patterns_are_supported(pattern: str) -> None:
    compile_pattern(pattern)


# A pattern that blows up would run for ever: the limit is what fails then.
@pytest.mark.timeout(10)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_value_stalls_a_pattern(pattern: str) -> None:
    compiled = compile_pattern(pattern)
    longest = int(PATTERNS[pattern].maximum or 0)
    assert longest, "a pattern without a greatest length has to be looked at by hand"
    prefixes = ["", "a", "db.", "default", "arn:", "arn:aws:rds:", "arn:aws:rds::1:db:", "arn:aws:iam::1:role/"]
    pumps = ["a", "-", "a-", "-a", "aa-", "1", ":", ".", "a1", "--", " ", "\u00e9", "A.-_:"]
    started_at = time.process_time()
    for prefix, pump, suffix in itertools.product(prefixes, pumps, ["", "!", "-", "\n"]):
        compiled.fullmatch((prefix + pump * longest)[: longest - 1] + suffix)
    assert time.process_time() - started_at < 2


@pytest.mark.parametrize(
    "pattern",
    ["[a-z](?:-?[a-z0-9]+)*", "[a-z](?:-?[a-z0-9]+){0,2}", "[a-z](-[a-z0-9]+)+", "(?:-?[a-z0-9]+){1,3}"],
)
def test_rewritten_idiom_means_the_same(pattern: str) -> None:
    compiled = compile_pattern(pattern)
    assert compiled.pattern != pattern
    for length in range(8):
        for text in map("".join, itertools.product("a1-", repeat=length)):
            assert bool(compiled.fullmatch(text)) == bool(re.fullmatch(pattern, text)), text


@pytest.mark.parametrize("pattern", ["(-[a-z]+)?abc", "(?:-[a-z]+)b", "(?:-?[a-z-]{2})*"])
def test_other_groups_are_left_alone(pattern: str) -> None:
    assert compile_pattern(pattern).pattern == pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(a*)*b",
        "((a+))*",
        "(?:a|a)*",
        "(a?b+)+c",
        "([a-z]+){2,}",
        "(?:-?[a-z]+)*x",
        "(?:-?[a-z-]+)*",
        "(?:-?[a-z]+){2,}",
        "((?:-?[a-z]+)*)*",
        "[a-z&&[^b]]+",
        "[a[bc]]",
        r"[\p{L}]+",
        r"\Qa.b\E",
        "(",
        "[",
    ],
)
def test_what_is_not_safe_or_not_the_same_is_refused(pattern: str) -> None:
    with pytest.raises(Unsupported):
        compile_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        (".*", "a b", True),
        (".*", "a\nb", False),
        (".*", "a\u2028b", False),
        ("[.]", ".", True),
        ("[.]", "a", False),
        (r"\.", "a", False),
        (r"\d+", "٣", False),
        (r"\w+", "é", False),
        ("[a-z]+", "abc\n", False),
        ("[a-z]+$", "abc\n", False),
        (r"[\s\S]*", "a\nb", True),
        ("[0-9A-Za-z-_.]+", "18.6-rc_1", True),
        (
            "[A-Za-z](?!.*--)[0-9A-Za-z-]*[^-]|^default(?!.*--)(?!.*\\.\\.)[0-9A-Za-z-.]*[^-]",
            "default.postgres17",
            True,
        ),
        ("[A-Za-z](?!.*--)[0-9A-Za-z-]*[^-]|^default(?!.*--)(?!.*\\.\\.)[0-9A-Za-z-.]*[^-]", "default..x", False),
        ("[A-Za-z](?!.*--)[0-9A-Za-z-]*[^-]|^default(?!.*--)(?!.*\\.\\.)[0-9A-Za-z-.]*[^-]", "a--b", False),
    ],
)
def test_java_meaning(pattern: str, text: str, fits: bool) -> None:
    assert bool(compile_pattern(pattern).fullmatch(text)) == fits
