"""Messages as another implementation, pygwire, reads and writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pygwire import BackendMessageDecoder, ConnectionPhase, FrontendMessageDecoder
from pygwire import messages as theirs

from verdigris.wire.postgres import messages as ours
from verdigris.wire.postgres.errors import LocalProtocolError, RemoteProtocolError
from verdigris.wire.postgres.framing import FrameReader

names = st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF), max_size=20)


def decoded(data: bytes) -> object:
    decoder = FrontendMessageDecoder()
    decoder.phase = ConnectionPhase.READY
    decoder.feed(data)
    (found,) = list(decoder)
    return found


@given(names, names, st.lists(st.integers(0, 2**31 - 1), max_size=5))
def test_parse(name: str, text: str, types: list[int]) -> None:
    found = decoded(ours.parse(name.encode(), text.encode(), types))
    assert found == theirs.Parse(statement=name, query=text, param_types=types)


@given(names, st.lists(st.none() | st.binary(max_size=30), max_size=5))
def test_bind(name: str, values: list[bytes | None]) -> None:
    found = decoded(ours.bind(name.encode(), values))
    assert isinstance(found, theirs.Bind)
    assert (found.portal, found.statement, [None if v is None else bytes(v) for v in found.param_values]) == (
        "",
        name,
        values,
    )


@given(names)
def test_small_ones(name: str) -> None:
    assert decoded(ours.EXECUTE) == theirs.Execute(portal="", max_rows=0)
    assert decoded(ours.SYNC) == theirs.Sync()
    assert decoded(ours.TERMINATE) == theirs.Terminate()
    assert decoded(ours.close_statement(name.encode())) == theirs.Close(kind="S", name=name)
    assert decoded(ours.describe_statement(name.encode())) == theirs.Describe(kind="S", name=name)


def test_error_response_is_understood() -> None:
    decoder = BackendMessageDecoder()
    decoder.phase = ConnectionPhase.READY
    decoder.feed(ours.error_response("FATAL", "57P01", "gone", detail="why"))
    (found,) = list(decoder)
    assert isinstance(found, theirs.ErrorResponse)
    assert found.fields == {"S": "FATAL", "V": "FATAL", "C": "57P01", "M": "gone", "D": "why"}


@given(st.lists(st.none() | st.binary(max_size=30), max_size=6))
def test_data_row(columns: list[bytes | None]) -> None:
    ((code, body),) = FrameReader(10_000).feed(theirs.DataRow(columns=columns).to_wire())
    assert code == ord("D")
    assert ours.read_data_row(body) == columns


@given(st.integers(0, 2**31 - 1), st.binary(min_size=4, max_size=256))
def test_backend_key(pid: int, secret: bytes) -> None:
    ((_, body),) = FrameReader(10_000).feed(theirs.BackendKeyData(process_id=pid, secret_key=secret).to_wire())
    assert ours.read_backend_key(body) == ours.BackendKey(pid, secret)


@given(names, names)
def test_parameter_status(name: str, value: str) -> None:
    wire = theirs.ParameterStatus(name=name, value=value).to_wire()
    assert wire == ours.parameter_status(name.encode(), value.encode())
    ((_, body),) = FrameReader(10_000).feed(wire)
    assert ours.read_parameter_status(body) == (name.encode(), value.encode())


@given(st.binary(max_size=40))
def test_any_row_is_read_or_refused(body: bytes) -> None:
    try:
        columns = ours.read_data_row(body)
    except RemoteProtocolError:
        return
    assert 2 + sum(4 + len(column or b"") for column in columns) == len(body)


def test_zero_bytes_are_our_own_fault() -> None:
    with pytest.raises(LocalProtocolError):
        ours.parse(b"a\0b", b"select 1")


def test_a_log_is_told_no_data() -> None:
    refused = ours.read_error(b'VERROR\0C22P02\0Minvalid input: "secret"\0Dmore\0\0')
    assert (refused.discreet, refused.detail) == ("ERROR 22P02", "more")
    assert ours.read_error(b"VERROR\0C42704\0Mno such type\0\0").discreet == "ERROR 42704: no such type"


def test_row_description() -> None:
    fields = (
        b"\0\x02a\0"
        + bytes(6)
        + b"\0\0\0\x17\0\4\xff\xff\xff\xff\0\0"
        + b'b"\0'
        + bytes(9)
        + b"\x19"
        + b"\xff\xff\0\0\0\7\0\1"
    )
    found = ours.read_row_description(fields)
    assert [(field.name, field.type_oid, field.modifier) for field in found] == [(b"a", 23, -1), (b'b"', 25, 7)]
    for cut in range(len(fields)):
        with pytest.raises(RemoteProtocolError):
            ours.read_row_description(fields[:cut])
