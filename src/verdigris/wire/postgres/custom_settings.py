"""Which custom settings (``SET app.user = ...``) a client may have set: no catalogue of the server lists them.

Names are collected, never values: whether a setting really exists and what it is worth is asked of the server when the
session moves. So a false find costs nothing, and a name in a comment or a string is no harm.
"""

import re
from typing import Final

# Whatever else may set one but SET itself; see ``session.NEEDLES``.
NEEDLES: Final = (b"set_config",)

# What is remembered of one session; a client that makes up names without end is told apart as "unknown".
MAX_NAMES = 64

_PART = rb"(?:[A-Za-z_\x80-\xff][\w$\x80-\xff]*|\"[^\"]{1,63}\")"
_FIND = re.compile(
    rb"""\bset\s+(?:session\s+|local\s+)?(%(part)s(?:\.%(part)s)+)\s*(?:=|\bto\b)  # SET a.b = , SET a.b TO
       | \bset_config"?\s*\(\s*(?:E?'([^']{1,128})'\s*(?:::\s*\w+\s*)?,|.)  # set_config('a.b', or a computed name
    """
    % {b"part": _PART},
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


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

    __slots__ = ("names", "unknown")

    def __init__(self) -> None:
        self.names: set[bytes] = set()
        self.unknown = False  # a name was computed, or there were too many: no list can be complete

    def scan(self, text: bytes) -> None:
        """Look at the body of a Query or Parse message."""
        # Searching without regard to case is slow; most statements of most programs end here.
        if b"set" not in text.lower():
            return
        for match in _FIND.finditer(text):
            name = match[1] or match[2]
            if name is None:
                # What is set for the length of a transaction is nobody's at a safe point.
                if not _is_local(text, text.index(b"(", match.start())):
                    self.unknown = True
            elif b"." in name:
                self._add(name.replace(b'"', b"").lower())

    def _add(self, name: bytes) -> None:
        if len(self.names) < MAX_NAMES:
            self.names.add(name)
        elif name not in self.names:
            self.unknown = True
