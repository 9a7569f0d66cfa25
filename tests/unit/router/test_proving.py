"""Who has been asked nothing, and what is taken for an answer to the router's own question."""

import pytest

from verdigris.router.proving import first_words, read_password
from verdigris.wire.postgres import messages as m
from verdigris.wire.postgres.errors import RemoteProtocolError

OK = m.message(b"R", bytes(4))
SASL = m.message(b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0")
VERSION = m.message(b"v", b"\0\3\0\0\0\0\0\0")


@pytest.mark.parametrize("prelude", [b"", VERSION])
@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (OK, False),
        (OK + m.message(b"Z", b"I"), False),
        (SASL, True),
        (m.CLEARTEXT_PASSWORD, True),
        (m.error_response("FATAL", "28000", "no"), True),
    ],
)
def test_what_a_server_begins_with(prelude: bytes, words: bytes, asked: bool) -> None:
    found = first_words(prelude + words)
    assert found is not None
    assert (found.asked, found.prelude) == (asked, len(prelude))


@pytest.mark.parametrize("words", [OK, VERSION + OK])
def test_however_it_is_cut(words: bytes) -> None:
    """Nothing of it is the client's before it is known which it is."""
    for size in range(len(words)):
        assert first_words(words[:size]) is None


@pytest.mark.parametrize("words", [m.message(b"v", bytes(100_000)), b"v\0\0\0\0", b"v\xff\xff\xff\xff"])
def test_a_server_that_does_not_come_to_the_point(words: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        first_words(words)


def test_a_password() -> None:
    message = m.password(b"a/?token\0")
    assert read_password(message + b"more") == (b"a/?token", len(message))
    for size in range(len(message)):
        assert read_password(message[:size]) is None


@pytest.mark.parametrize("other", [b"Q\0\0\0\4", b"p\0\0\0\3", b"p\0\0\0\4", m.password(b"not terminated")])
def test_something_else_than_a_password(other: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_password(other)


@pytest.mark.parametrize("length", [b"\0\x10\0\0", b"\xff\xff\xff\xff"])
def test_more_than_a_token_is_not_waited_for(length: bytes) -> None:
    found = read_password(b"p" + length + b"x")
    assert found is not None
    assert found[0] == b""
