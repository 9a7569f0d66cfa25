"""What a row of the matrix is made of: a session with some state before a switchover, and a look at it afterwards."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from tests.matrix.stage import Stage

Steps = Callable[["Stage"], Iterator[None] | AsyncIterator[None]]


class Case(Struct, frozen=True):
    """``steps`` builds the session, yields once for the switchover, and then fails if the session is not as it was.

    ``straggles``: its session is at no safe point when the switchover begins, and comes to one only when the first
    attempt has been set back. Such cases are built last: a transaction that has been writing for long is refused.
    """

    row: str
    driver: str
    steps: Steps
    straggles: bool = False

    def __str__(self) -> str:
        return f"{self.row}-{self.driver}".replace(" ", "_")


CASES: list[Case] = []


def case(row: str, driver: str, *, straggles: bool = False) -> Callable[[Steps], Steps]:
    """Take a (possibly asynchronous) generator function into the matrix."""

    def take(steps: Steps) -> Steps:
        CASES.append(Case(row, driver, steps, straggles))
        return steps

    return take
