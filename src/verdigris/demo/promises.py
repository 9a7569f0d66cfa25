"""What is promised to those who use a database during a switchover, and how a breach is reported."""

from enum import StrEnum

from msgspec import Struct

EXAMPLES_KEPT = 5


class Promise(StrEnum):
    """Each value is the promise in the words of the report."""

    NOTHING_LOST = "every acknowledged commit is there"
    NOTHING_DOUBLED = "no commit is there twice"
    NOTHING_TORN = "every commit is there whole"
    NOTHING_INVENTED = "nothing is there that was refused or never asked for"
    MONEY_ADDS_UP = "the sum of all balances never changes"
    CHAINS_UNBROKEN = "every chain's links follow one another"
    LISTS_IN_ORDER = "every list holds what was appended to it, in order"
    SEQUENCES_GO_FORWARD = "sequences never go backwards"
    ROWS_IDENTICAL = "the new production holds every row of the old"
    NO_CLIENT_ERROR = "no client sees an error"
    NO_CONNECTION_DROPPED = "no connection is dropped"
    NOBODY_STUCK = "every request is answered"
    SESSIONS_WHOLE = "sessions keep their settings and prepared statements"
    READS_NEVER_GO_BACK = "nobody reads a state older than one already seen"
    SAME_CONNECTION_NEW_VERSION = "the clients' own connections lead to the new version"
    GREEN_READABLE = "green can be read before the switchover"
    GREEN_REFUSES_WRITES = "green refuses writes before the switchover"
    OLD_BLUE_READABLE = "the old blue can be read after the switchover"
    OLD_BLUE_REFUSES_WRITES = "the old blue refuses writes after the switchover"
    NOTHING_LEFT_RUNNING = "nothing is left running"


class Breach(Struct, frozen=True):
    """A promise that did not hold: how many times, and a few examples."""

    promise: Promise
    count: int
    examples: tuple[str, ...] = ()


def breach_of(promise: Promise, examples: list[str]) -> list[Breach]:
    """One breach with its first examples, or none where there are none: for building lists."""
    return [Breach(promise, len(examples), tuple(examples[:EXAMPLES_KEPT]))] if examples else []
