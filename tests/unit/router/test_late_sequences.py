"""When the time for restoring currval() is spent, a connection is made to forget: a stale value is worse than none."""

import types
from typing import TYPE_CHECKING, cast

import pytest

from verdigris.domain.ports import Helpers
from verdigris.router.exchange import Frame
from verdigris.router.state import sequences
from verdigris.router.state.sequences import Remembered, SequenceHelp, carry_sequences

if TYPE_CHECKING:
    from verdigris.router.dial import Dialled
    from verdigris.router.session import Session
    from verdigris.router.state.examine import Portable

OLD = Remembered(1, b"public", b"s", 5, True)
NEW = Remembered(1, b"public", b"s", 6, True)


class Asked:
    """A dialled connection that answers everything with nothing, and keeps what it was asked."""

    def __init__(self) -> None:
        self.in_recovery = False
        self.remembers: tuple[Remembered, ...] | None = (OLD,)
        self.batches: list[bytes] = []

    async def ask(self, batch: bytes, syncs: int) -> list[list[Frame]]:
        self.batches.append(batch)
        return [[] for _ in range(syncs)]


async def test_a_late_session_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "RECALLING_S", -1.0)
    sequence_help = SequenceHelp(Helpers(schema="ours", databases=("app",)), everywhere=True)
    sequence_help.hurry()
    counters = types.SimpleNamespace(sequences_forgotten=0)
    endpoint = types.SimpleNamespace(name="app", sequence_help=sequence_help, counters=counters)
    session = types.SimpleNamespace(endpoint=endpoint, startup=types.SimpleNamespace(database=b"app"))
    found = types.SimpleNamespace(state=types.SimpleNamespace(sequences=(NEW,)), temporary=None)
    dialled = Asked()
    await carry_sequences(cast("Session", session), cast("Dialled", dialled), cast("Portable", found))
    assert [b"DISCARD SEQUENCES" in batch for batch in dialled.batches] == [True]
    assert dialled.remembers == ()
    assert counters.sequences_forgotten == 1
    # Nothing is lost of a session whose values are there already.
    dialled.remembers = (NEW,)
    await carry_sequences(cast("Session", session), cast("Dialled", dialled), cast("Portable", found))
    assert (dialled.remembers, counters.sequences_forgotten) == ((NEW,), 1)
