"""A subscription whose changes fail to apply: for a moment, or again and again."""

from typing import Self

from msgspec import Struct

# How long changes may fail to apply, again and again and without progress, until that is taken for permanent. A worker
# tries every wal_retrieve_retry_interval (200 ms here), so this is some fifty attempts: no deadlock or lock timeout.
ERROR_LOOP_S = 10.0
# A worker counts an error, too, whenever its connection to blue breaks. Where nothing is written there is no progress
# by which it would show that it is well again.
ATTEMPTS = 3
# Without another error for so long, it has stopped to fail. Attempts that take longer than this each are not told apart
# from that; the lag tells of them.
OVER_S = 60.0


class Trouble(Struct):
    """What has been seen of one subscription. Times are monotonic."""

    remote_lsn: str | None  # what it had reached
    errors: int  # how many it had had before the first of these
    last: int  # how many it had had at the last look
    first_at_s: float  # when the first of these was seen
    last_at_s: float  # when the latest was

    @classmethod
    def none_yet(cls, remote_lsn: str | None, errors: int, now_s: float) -> Self:
        return cls(remote_lsn, errors, errors, now_s, now_s)

    @property
    def attempts(self) -> int:
        return self.last - self.errors

    def look(self, remote_lsn: str | None, errors: int, now_s: float) -> bool:
        """Whether it is taken for permanent. Looks may be far apart: only errors that are themselves far enough
        apart count as a loop."""
        if remote_lsn != self.remote_lsn or errors < self.last:  # progress, or statistics that began anew
            self._begin_anew(remote_lsn, errors, now_s)
        elif errors > self.last:
            if not self.attempts:
                self.first_at_s = now_s
            self.last, self.last_at_s = errors, now_s
            return self.attempts >= ATTEMPTS and now_s - self.first_at_s >= ERROR_LOOP_S
        elif now_s - self.last_at_s >= OVER_S:
            self._begin_anew(remote_lsn, errors, now_s)
        return False

    def _begin_anew(self, remote_lsn: str | None, errors: int, now_s: float) -> None:
        self.remote_lsn, self.errors, self.last = remote_lsn, errors, errors
        self.first_at_s = self.last_at_s = now_s


Troubles = dict[tuple[str, str], Trouble]  # by names.base and database
