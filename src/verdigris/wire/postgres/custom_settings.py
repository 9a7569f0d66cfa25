"""Which custom settings (``SET app.user = ...``) a client may have set: no catalogue of the server lists them.

Names are collected, never values: whether a setting really exists and what it is worth is asked of the server when the
session moves. So a false find costs nothing, and a name in a comment or a string is no harm.

A name that is a parameter of a prepared statement (``set_config($1, $2, false)``) comes with each Bind of it. Only such
statements are looked for in Bind messages, and only in sessions that have prepared one.
"""

import re
from collections.abc import Iterable
from struct import Struct, error
from typing import Final

# Whatever else may set one but SET itself; see ``session.NEEDLES``.
NEEDLES: Final = (b"set_config",)

# What is remembered of one session; a client that makes up names without end is told apart as "unknown".
MAX_NAMES = 64
# Statements whose parameters are names; beyond that, "unknown" again.
MAX_STATEMENTS = 64
# Of a Bind message: the parameters that are names stand in front of the values, as a rule.
MAX_BIND_BYTES = 64 * 1024

_PART = rb"(?:[A-Za-z_\x80-\xff][\w$\x80-\xff]*|\"[^\"]{1,63}\")"
_FIND = re.compile(
    rb"""\bset\s+(?:session\s+|local\s+)?(%(part)s(?:\.%(part)s)+)\s*(?:=|\bto\b)  # SET a.b = , SET a.b TO
         # set_config('a.b', or set_config($1, or a computed name
       | \bset_config"?\s*\(\s*(?:E?'([^']{1,128})'\s*(?:::\s*\w+\s*)?,|\$(\d{1,5})\s*(?:::\s*(?:text|varchar)\s*)?,|.)
    """
    % {b"part": _PART},
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


# What the server takes for the name of one (``valid_custom_variable_name``): few values of anything else look like it.
_VALID = re.compile(rb"[A-Za-z_\x80-\xff][\w$\x80-\xff]*(?:\.[A-Za-z_\x80-\xff][\w$\x80-\xff]*)+")

_INT16 = Struct("!H")
_LENGTH = Struct("!i")

_TOKEN = re.compile(rb"""'(?:[^']|'')*'|"[^"]*"|[(),]""")
_TRUE = re.compile(rb"\s*(?:true|'t(?:rue)?')\s*(?:::\s*bool(?:ean)?\s*)?", re.IGNORECASE)


def _is_local(text: bytes, opening: int) -> bool:
    """Whether the call whose parenthesis opens there has a literal true for its third argument."""
    depth = 0
    commas: list[int] = []
    for token in _TOKEN.finditer(text, opening):
        if token[0] == b"(":
            depth += 1
        elif token[0] == b")":
            depth -= 1
            if depth == 0:
                return len(commas) == 2 and _TRUE.fullmatch(text, commas[1], token.start()) is not None
        elif token[0] == b"," and depth == 1:
            commas.append(token.end())
    return False


class CustomSettings:
    """The names seen in one session's statements."""

    __slots__ = ("bound", "names", "unknown")

    def __init__(self) -> None:
        self.names: set[bytes] = set()
        # Prepared statements by name, and which of their parameters (the first is 1) are names of settings.
        self.bound: dict[bytes, tuple[int, ...]] = {}
        self.unknown = False  # a name was computed, or there were too many: no list can be complete

    def scan(self, text: bytes, *, prepares: bool) -> None:
        """Look at the body of a Query message, or of a Parse message, which ``prepares`` a statement."""
        # Searching without regard to case is slow; most statements of most programs end here.
        if b"set" not in text.lower():
            return
        bound: set[int] = set()
        for match in _FIND.finditer(text):
            name = match[1] or match[2]
            if name is not None:
                self._add_literal(name)
            # What is set for the length of a transaction is nobody's at a safe point.
            elif not _is_local(text, text.index(b"(", match.start())):
                if match[3] is not None and prepares:
                    bound.add(int(match[3]))
                else:
                    self.unknown = True
        if bound:
            self._watch(text.partition(b"\0")[0], bound)

    def forget_unnamed(self) -> None:
        """The unnamed statement is another one now."""
        self.bound.pop(b"", None)

    def bind(self, body: bytes) -> None:
        """Look at the body of a Bind message, of which the end may be missing."""
        _portal, _, rest = body.partition(b"\0")
        statement, _, rest = rest.partition(b"\0")
        wanted = self.bound.get(statement)
        if wanted is None:
            return
        try:
            self._add_bound(parameters(rest, max(wanted)), wanted)
        except (LookupError, error):
            self.unknown = True

    def _watch(self, statement: bytes, numbers: Iterable[int]) -> None:
        """A name that is prepared again without having been closed is refused, and stays what it was: so both count."""
        if len(self.bound) < MAX_STATEMENTS or statement in self.bound:
            self.bound[statement] = tuple(sorted({*self.bound.get(statement, ()), *numbers}))
        else:
            self.unknown = True

    def _add_bound(self, values: "list[bytes | None]", wanted: tuple[int, ...]) -> None:
        """Text is sent alike in both formats."""
        for number in wanted:
            value = values[number - 1]
            if value is not None and _VALID.fullmatch(value) is not None:
                self._add(value.lower())

    def _add_literal(self, name: bytes) -> None:
        if b"." in name:
            self._add(name.replace(b'"', b"").lower())

    def _add(self, name: bytes) -> None:
        if len(self.names) < MAX_NAMES:
            self.names.add(name)
        elif name not in self.names:
            self.unknown = True


def parameters(body: bytes, count: int) -> "list[bytes | None]":
    """The first ``count`` values of a Bind message, of which ``body`` is what follows the names.

    Raises ``LookupError`` or ``struct.error`` if they are not all there.
    """
    (formats,) = _INT16.unpack_from(body)
    position = 2 + 2 * formats
    (there,) = _INT16.unpack_from(body, position)
    if there < count:
        raise LookupError(f"{there} parameters")
    position += 2
    values: list[bytes | None] = []
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(body, position)
        position += 4
        if position + length > len(body):
            raise LookupError("cut off")
        values.append(None if length < 0 else body[position : position + length])
        position += max(length, 0)
    return values
