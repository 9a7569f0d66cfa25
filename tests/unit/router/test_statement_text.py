"""One PREPARE out of a string of several statements, or none where there is any doubt."""

import pytest

from verdigris.router.state.statement_text import preparing


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        (b"a", b"PREPARE a AS SELECT 1", b"PREPARE a AS SELECT 1"),
        (b"a", b" /* x */ prepare a as select ';' ; -- the end", b" /* x */ prepare a as select ';' ; -- the end"),
        (b"b", b"PREPARE a AS SELECT 1; PREPARE b AS SELECT 2", b"PREPARE b AS SELECT 2"),
        (
            b"a",
            b"SELECT 'PREPARE a AS SELECT 0;'; PREPARE A AS SELECT 'it''s;'; SELECT 1",
            b"PREPARE A AS SELECT 'it''s;'",
        ),
        (
            b"a",
            b"SELECT 1; PREPARE a AS SELECT $$;'$$, $x$;$$;$x$, b$c, $1; SELECT 2",
            b"PREPARE a AS SELECT $$;'$$, $x$;$$;$x$, b$c, $1",
        ),
        (
            b"a",
            b"SELECT 1; PREPARE a AS SELECT 1 -- ; '\n + 2 /* ;' */; SELECT 2",
            b"PREPARE a AS SELECT 1 -- ; '\n + 2 /* ;' */",
        ),
        (
            b'O"dd; name',
            b'SELECT 1; prepare/**/"O""dd; name"(int) AS SELECT 1',
            b'prepare/**/"O""dd; name"(int) AS SELECT 1',
        ),
        (b"x" * 63, b"SELECT 1; PREPARE " + b"x" * 70 + b" AS SELECT 1", b"PREPARE " + b"x" * 70 + b" AS SELECT 1"),
        ("thé".encode(), "SELECT 1; PREPARE thé AS SELECT 'é'".encode(), "PREPARE thé AS SELECT 'é'".encode()),
        # Not there, or more than once.
        (b"c", b"PREPARE a AS SELECT 1; PREPARE b AS SELECT 2", None),
        (b"a", b"PREPARE a AS SELECT 1; DEALLOCATE a; PREPARE a AS SELECT 2", None),
        (b"a", b"DO 'BEGIN EXECUTE ''PREPARE a AS SELECT 1''; END'", None),
    ],
)
def test_preparing(name: bytes, text: bytes, found: bytes | None) -> None:
    assert preparing(name, text) == found


@pytest.mark.parametrize(
    "text",
    [
        b"PREPARE a AS SELECT '\\'; SELECT 1",
        b"PREPARE a AS SELECT E'\\';'; SELECT 1",
        b"PREPARE a AS SELECT 1 /* /* */; */; SELECT 2",
        b"PREPARE a AS SELECT 'open; SELECT 2",
        b"PREPARE a AS SELECT $open$; SELECT 2",
        "PREPARE a AS SELECT 'é'; SELECT 2".encode("latin-1"),
    ],
)
def test_what_is_in_doubt_is_left_whole(text: bytes) -> None:
    """The server will refuse it if it is several statements."""
    assert preparing(b"a", text) == text
    assert preparing(b"a", b"SELECT 1;" + text) is None
