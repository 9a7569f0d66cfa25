"""Which reader becomes the writer."""

import pytest

from verdigris.domain.failover import Candidate, choose


def reader(name: str, *, tier: int = 1, lag_bytes: int | None = 0) -> Candidate:
    return Candidate(resource_id=f"db-{name}", identifier=name, tier=tier, lag_bytes=lag_bytes)


@pytest.mark.parametrize(
    ("readers", "chosen"),
    [
        ([], None),
        ([reader("a", lag_bytes=None)], None),
        ([reader("a", tier=2), reader("b", tier=1, lag_bytes=4096)], "b"),
        ([reader("a", tier=0, lag_bytes=None), reader("b", tier=15, lag_bytes=4096)], "b"),
        ([reader("a", lag_bytes=8), reader("b", lag_bytes=0)], "b"),
        ([reader("b"), reader("a")], "a"),
        ([reader("a"), reader("a")], "a"),  # nothing left to compare is nothing to stumble over
    ],
)
def test_choice(readers: list[Candidate], chosen: str | None) -> None:
    found = choose(readers)
    assert (found and found.identifier) == chosen
