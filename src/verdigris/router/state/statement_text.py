"""Finding one statement in a string of several.

A statement made by ``PREPARE`` is remembered with the whole string that the client sent (``p_sourcetext``): if that
held other statements too, they must not run again. A string is only taken apart where there is no doubt how the server
has read it; what a backslash in it means, say, depends on what ``standard_conforming_strings`` was then.
"""

import re
from typing import Final

_IDENTIFIER: Final = rb"[A-Za-z_\x80-\xff][\w$\x80-\xff]*"
_TOKEN: Final = re.compile(
    rb"""
      %(identifier)s | \$\d+   # first: a dollar in one of them begins no string
    | '[^']*' | "[^"]*"        # a quote that is doubled is the end of one and the beginning of another
    | (?P<tag>\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?\$).*?(?P=tag)
    | --[^\n]*
    | /\*(?:(?!/\*).)*?\*/
    | (?P<end>;)
    | (?P<doubtful>['"\\] | \$ | /\* )
    """
    % {b"identifier": _IDENTIFIER},
    re.VERBOSE | re.DOTALL,
)
_SPACE: Final = rb"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*"
_BLANK: Final = re.compile(_SPACE, re.DOTALL)
_PREPARE: Final = re.compile(
    rb"%(space)sprepare\b%(space)s(?:(%(identifier)s)|\"((?:[^\"]|\"\")*)\")"
    % {b"space": _SPACE, b"identifier": _IDENTIFIER},
    re.IGNORECASE | re.DOTALL,
)


def preparing(name: bytes, text: bytes) -> bytes | None:
    """The one ``PREPARE`` of ``name`` in ``text``; None if there is none, or more than one.

    A text that cannot be taken apart is given back as a whole if it may be one: a server refuses to run several.
    """
    statements = _split(text) or [text]
    if len(statements) == 1:
        return text if _PREPARE.match(text) is not None else None
    found = [statement.strip() for statement in statements if _prepares(statement) == name]
    # Prepared, deallocated, and prepared again: which of them it was depends on what has failed.
    return found[0] if len(found) == 1 else None


def _split(text: bytes) -> list[bytes] | None:
    try:
        text.decode()  # in UTF-8 and ASCII no byte of another character looks like a quote
    except UnicodeDecodeError:
        return None
    statements = []
    begin = 0
    for token in _TOKEN.finditer(text):
        if token["doubtful"] or b"\\" in token[0]:
            return None
        if token["end"]:
            statements.append(text[begin : token.start()])
            begin = token.end()
    statements.append(text[begin:])
    return [statement for statement in statements if _BLANK.fullmatch(statement) is None]


def _prepares(statement: bytes) -> bytes | None:
    match = _PREPARE.match(statement)
    if match is None:
        return None
    plain, quoted = match.groups()
    name: bytes = plain.lower() if plain is not None else quoted.replace(b'""', b'"')
    return name[:63]  # NAMEDATALEN - 1
