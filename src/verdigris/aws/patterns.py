"""The models' regular expressions, which are Java's, made safe and equal in meaning for Python.

Python's matcher backtracks, and AWS's favourite idiom, ``(?:-?[a-zA-Z0-9]+)*``, makes it try every way to cut a run of
letters in pieces: 60 letters and a wrong character, well within the model's own length limit, take longer than anyone
will wait. So the idiom is rewritten (below), and a pattern in which anything else repeats a repetition is not used.
Lengths have to be checked before a pattern is matched; the rest is then a polynomial of small degree.
"""

import re
from collections.abc import Iterator
from functools import cache

# ``(?:-?[...]+)*`` or ``(-[...]+){0,15}`` at the very end: after a run of the class can only come a hyphen, which the
# class has not, or the end. Giving back a part of the run can therefore never help, and the run may be possessive.
_HYPHENATED = re.compile(
    r"(?P<run>\((?:\?:)?-\??\[(?:[a-zA-Z0-9_](?:-[a-zA-Z0-9])?)+\]\+)(?P<loop>\)(?:[*+]|\{[01],\d*\}))\Z"
)

_TOKEN = re.compile(
    r"(?P<cls>\[\^?\]?(?:\\.|[^\]\\])*\])"
    r"|(?P<escape>\\.)"
    r"|(?P<open>\((?:\?(?:[:=!>]|<[=!]))?)"
    r"|(?P<close>\))"
    r"|(?P<loop>(?:[*+]|\{\d+(?:,\d*)?\})[+?]?)"
    r"|(?P<option>\?[+?]?)"
    r"|(?P<alternative>\|)"
    r"|(?P<dot>\.)"
    r"|(?P<literal>.)",
    re.DOTALL,
)

# Java's dot leaves out more line ends than Python's.
_DOT = "[^\n\r\u0085\u2028\u2029]"
# Java's nested classes and intersections mean other things, or nothing, in Python.
_JAVA_CLASS = re.compile(r"(?<!\\)&&|(?<=.)(?<!\\)\[")


class Unsupported(ValueError):
    """The pattern cannot be used here; the text says why."""


@cache  # as many as the model has patterns
def compile_pattern(java: str) -> re.Pattern[str]:
    """A compiled pattern for ``fullmatch``, which is what AWS means. Raises :class:`Unsupported`."""
    rewritten = _HYPHENATED.sub(r"\g<run>+\g<loop>", java)
    _refuse_nested_loops(java, rewritten)
    python = "".join(_translated(match, java) for match in _tokens(rewritten))
    try:
        return re.compile(python, re.ASCII)  # \d, \w and \s are ASCII in Java
    except re.error as error:
        raise Unsupported(f"{java}: {error}") from None


def _tokens(pattern: str) -> Iterator[re.Match[str]]:
    return _TOKEN.finditer(pattern)


def _translated(match: re.Match[str], java: str) -> str:
    text = match[0]
    match match.lastgroup:
        case "dot":
            return _DOT
        case "cls" if _JAVA_CLASS.search(text):
            raise Unsupported(f"{java}: nested class or intersection {text}")
        case _:
            return text


def _refuse_nested_loops(java: str, pattern: str) -> None:
    """A repeated group may hold neither a repetition that can give back nor alternatives.

    A group that is optional at most is not repeated; possessive loops cannot give back.
    """
    can_vary = [False]  # of the pattern itself, then of each open group
    closed = False  # whether the last closed group is what a following loop repeats
    for token in _tokens(pattern):
        kind = token.lastgroup
        if kind == "loop" and closed:
            raise Unsupported(f"{java}: a repetition is repeated")
        if kind == "open":
            can_vary.append(False)
        elif kind == "alternative" or (kind == "loop" and not _cannot_give_back(token[0])):
            can_vary[-1] = True
        closed = False
        if kind == "close" and len(can_vary) > 1:
            closed = can_vary.pop()
            can_vary[-1] = can_vary[-1] or closed


def _cannot_give_back(loop: str) -> bool:
    """Possessive (``*+``, ``{2,}+``) or of one length (``{12}``)."""
    return loop.endswith("+", 1) or (loop.startswith("{") and "," not in loop)
