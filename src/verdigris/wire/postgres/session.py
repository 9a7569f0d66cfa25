"""Follows one session in both directions and computes whether it may be moved now.

The server owes exactly one ``ReadyForQuery`` for each Query, Sync and FunctionCall, in order, so a queue of what is
expected tells when nothing is under way; ``ReadyForQuery`` itself says whether a transaction is open. What makes it
harder than counting:

* A Sync that reaches the server while it is in copy-in mode is ignored. Clients send one without noticing that what
  they executed is a COPY (libpq does), so ``CopyInResponse`` takes it out of the queue again.
* If such a COPY fails before the server has read that Sync, it does answer it after all: nothing in the stream tells
  beforehand. The session is then *in doubt*, and a moment's exchange with the server settles it (see ``Probe`` in the
  router): answers come in order, so whatever comes before ours belongs to the client.
* Extended-protocol messages without a Sync leave a batch open although the server may be silent. If they only make,
  describe or close prepared statements (asyncpg does so, to prepare), and all have been answered, the session is at a
  safe point all the same: what the server holds of them beyond the statements themselves, which no transaction undoes,
  are locks and perhaps a snapshot, and both are taken anew by whatever runs next. A Sync of the router's own may end
  such a batch.
* The unnamed statement outlives the round trip in which it was parsed. It is confirmed by ``ParseComplete`` and
  destroyed by the next Query.

This is the reference; ``_tracker.pyx`` is the same, compiled, and ``tracker`` is where to get whichever is used.
"""

from collections import deque
from enum import Enum
from typing import Final

from verdigris.wire.postgres import custom_settings, messages, sequence_values
from verdigris.wire.postgres.custom_settings import MAX_BIND_BYTES, CustomSettings
from verdigris.wire.postgres.errors import RemoteProtocolError
from verdigris.wire.postgres.framing import MAX_MESSAGE_BYTES, Skimmer, actions
from verdigris.wire.postgres.login import LoginWatch
from verdigris.wire.postgres.sequence_values import SequenceValues

IDLE: Final = ord("I")
_STATUSES: Final = frozenset(b"ITE")

# Longer statements are not kept, and only this much of them is searched for custom settings.
MAX_STATEMENT_BYTES: Final = 256 * 1024
MAX_PARAMETER_BYTES: Final = 64 * 1024
# A session's settings that are reported: about fifteen today. More would be memory that a server makes us spend.
MAX_PARAMETERS: Final = 256

# The compiled tracker shows a statement to its scanners only if it sets what may be a custom setting, or holds one of
# these, in whatever case: lower case here, a space stands for any white space. What a scanner looks for is named here.
NEEDLES: Final = custom_settings.NEEDLES + sequence_values.NEEDLES


class Expected(Enum):
    """What the server owes, or a mark between what it owes."""

    LOGIN = "login"
    QUERY = "query"
    SYNC = "sync"
    FUNCTION = "function"
    NAMED_PARSE = "named parse"  # an unnamed one is in the queue as its own body
    DESCRIBE = "describe"  # of a statement; those of portals are not waited for
    CLOSE = "close"  # likewise
    COPY_END = "copy end"  # not owed: where the client said that its copy data ended


_READY_ENDS: Final = (Expected.QUERY, Expected.SYNC, Expected.FUNCTION, Expected.LOGIN)
_OF_STATEMENT: Final = b"S"
_BIND: Final = ord("B")


class Unnamed(Enum):
    """The unnamed statement when its text is not held."""

    TOO_LONG = "too long to keep"


class SessionTracker:
    """Feed every byte of both directions, in the order in which they are relayed."""

    __slots__ = (
        "_batch_runs",
        "_client",
        "_client_actions",
        "_copy_in",
        "_copy_sync_due",
        "_expected",
        "_scans",
        "_server",
        "_syncs_dropped",
        "batch_open",
        "custom_settings",
        "in_doubt",
        "key",
        "login",
        "parameters",
        "sequence_values",
        "status",
        "terminated",
        "unnamed",
    )

    def __init__(self) -> None:
        self.status = 0  # of the last ReadyForQuery; 0: not logged in yet
        self.key: messages.BackendKey | None = None
        self.parameters: dict[bytes, bytes] = {}  # ParameterStatus, as the client was last told
        self.login = LoginWatch()
        self.custom_settings = CustomSettings()
        self.sequence_values = SequenceValues()
        self._scans = (self.custom_settings.scan, self.sequence_values.scan)
        self.unnamed: bytes | Unnamed | None = None  # body of the confirmed unnamed Parse
        self.terminated = False  # the client has said goodbye
        self.in_doubt = False
        self._expected: deque[Expected | bytes | Unnamed] = deque([Expected.LOGIN])
        self.batch_open = False  # extended-protocol messages since the last Sync
        self._batch_runs = False  # others among them than those that make, describe or close statements
        self._copy_in = False  # the server waits for copy data
        self._copy_sync_due = False  # copy-in by the extended protocol: the client will send a Sync of its own
        self._syncs_dropped = False
        self._client_actions = actions(
            {
                b"Q": (self._query, MAX_STATEMENT_BYTES),
                b"P": (self._parse, MAX_STATEMENT_BYTES),
                b"B": (self._run, 0),
                b"E": (self._run, 0),
                b"D": (self._describe, 1),
                b"C": (self._close, 1),
                b"S": (self._sync, 0),
                b"F": (self._function_call, 0),
                b"c": (self._copy_end, 0),
                b"f": (self._copy_end, 0),
                b"X": (self._terminate, 0),
                b"p": (self.login.client_message, 16 * 1024),
            }
        )
        self._client = Skimmer(self._client_actions)
        self._server = Skimmer(
            actions(
                {
                    b"Z": (self._ready_for_query, 1),
                    b"1": (self._parse_complete, 0),
                    b"T": (self._described, 0),
                    b"n": (self._described, 0),
                    b"3": (self._closed, 0),
                    b"G": (self._copy_in_response, 0),
                    b"E": (self._error, 0),
                    b"S": (self._parameter_status, MAX_PARAMETER_BYTES),
                    b"K": (self._backend_key_data, 260),
                    b"R": (self.login.server_message, 16 * 1024),
                    b"v": (self.login.negotiated, 1024),
                }
            )
        )

    # ---------------------------------------------------------------------------------------------------- what is fed

    def client_data(self, data: bytes, stop: bool = False) -> int:
        """Bytes on their way to the server. With ``stop``, only up to the end of the first request in them."""
        return self._client.feed(data, stop)

    def server_data(self, data: bytes) -> None:
        self._server.feed(data)

    # ------------------------------------------------------------------------------------------------------ what is so

    @property
    def logged_in(self) -> bool:
        return self.status != 0

    @property
    def quiet(self) -> bool:
        """Nothing owed and nothing under way, as far as can be told (see ``in_doubt``); a transaction may be open."""
        return (
            not self._expected
            and not self._batch_runs
            and not self._copy_in
            and not self._copy_sync_due
            and self._client.at_boundary
            and self._server.at_boundary
        )

    @property
    def safe(self) -> bool:
        """The session may be stopped here: quiet, and no transaction open."""
        return self.status == IDLE and self.quiet

    @property
    def needs_client(self) -> bool:
        """The client has to be heard before a safe point can come: login, an open batch, copy, or transaction."""
        return (
            self.status == 0
            or not self._client.at_boundary
            or self.batch_open
            or self._copy_in
            or self._copy_sync_due
            or (self.status != IDLE and not self._expected)
        )

    @property
    def server_at_boundary(self) -> bool:
        """The server is not in the middle of a message: another one may be put in here."""
        return self._server.at_boundary

    def batch_ended(self) -> None:
        """At a safe point: a Sync of the router's own is sent to the server."""
        self.batch_open = False

    # ------------------------------------------------------------------------------------------------ client's messages

    def _look_into(self, statement: bytes, *, prepares: bool) -> None:
        for scan in self._scans:
            scan(statement, prepares=prepares)
        if self.custom_settings.bound:
            self._client_actions[_BIND] = (self._bind, MAX_BIND_BYTES)

    def _query(self, body: bytes, _size: int) -> bool:
        self._look_into(body, prepares=False)
        self.batch_open = self._batch_runs = False  # its end is the batch's too, with no Sync: asyncpg sends COPY so
        self._expected.append(Expected.QUERY)
        return True

    def _parse(self, body: bytes, size: int) -> bool:
        self.batch_open = True
        unnamed = body[:1] == b"\0"
        if unnamed:
            self.custom_settings.forget_unnamed()
        self._look_into(body, prepares=True)
        if not unnamed:
            self._expected.append(Expected.NAMED_PARSE)
        elif size > MAX_STATEMENT_BYTES:
            self._expected.append(Unnamed.TOO_LONG)
        else:
            self._expected.append(body)
        return False

    def _describe(self, body: bytes, _size: int) -> bool:
        return self._of_statement(body, Expected.DESCRIBE)

    def _close(self, body: bytes, _size: int) -> bool:
        return self._of_statement(body, Expected.CLOSE)

    def _of_statement(self, body: bytes, expected: Expected) -> bool:
        self.batch_open = True
        if body == _OF_STATEMENT:
            self._expected.append(expected)
        else:
            self._batch_runs = True
        return False

    def _bind(self, body: bytes, size: int) -> bool:
        """Only once a statement has been prepared whose parameters are names of settings."""
        self.custom_settings.bind(body)
        return self._run(body, size)

    def _run(self, _body: bytes, _size: int) -> bool:
        self.batch_open = self._batch_runs = True
        return False

    def _sync(self, _body: bytes, _size: int) -> bool:
        if self._copy_in:
            return False
        self.batch_open = self._batch_runs = self._copy_sync_due = False
        self._expected.append(Expected.SYNC)
        return True

    def _function_call(self, _body: bytes, _size: int) -> bool:
        self.batch_open = self._batch_runs = False
        self._expected.append(Expected.FUNCTION)
        return True

    def _copy_end(self, _body: bytes, _size: int) -> bool:
        if self._copy_in:
            self._copy_in = False
        elif self._expected:
            self._expected.append(Expected.COPY_END)
        # With nothing expected it is what is left of a COPY that failed: the server ignores it.
        return not self._copy_sync_due

    def _terminate(self, _body: bytes, _size: int) -> bool:
        self.terminated = True
        return True

    # ------------------------------------------------------------------------------------------------ server's messages

    def _ready_for_query(self, body: bytes, size: int) -> bool:
        if size != 1 or body[0] not in _STATUSES:
            raise RemoteProtocolError("malformed ReadyForQuery")
        expected = self._expected
        while expected:
            entry = expected.popleft()
            if entry is Expected.QUERY:
                self.unnamed = None
                break
            if entry in _READY_ENDS:
                break
        else:
            # The answer to a Sync that was thought to be ignored.
            self._copy_sync_due = False
        self.status = body[0]
        self._syncs_dropped = False
        return False

    def _parse_complete(self, _body: bytes, _size: int) -> bool:
        expected = self._expected
        while expected and expected[0] not in _READY_ENDS:
            entry = expected.popleft()
            if entry is Expected.NAMED_PARSE:
                break
            if not isinstance(entry, Expected):
                self.unnamed = entry
                break
        return False

    def _described(self, _body: bytes, _size: int) -> bool:
        return self._done(Expected.DESCRIBE)

    def _closed(self, _body: bytes, _size: int) -> bool:
        return self._done(Expected.CLOSE)

    def _done(self, entry: Expected) -> bool:
        """In order, the oldest is the one; else it is an answer that is not waited for, like that of a portal."""
        if self._expected and self._expected[0] is entry:
            self._expected.popleft()
        return False

    def _copy_in_response(self, _body: bytes, _size: int) -> bool:
        """The server takes copy data and ignores each Sync until CopyDone or CopyFail."""
        expected = self._expected
        keep: list[Expected | bytes | Unnamed] = []
        simple = False
        while expected:
            entry = expected.popleft()
            if entry is Expected.COPY_END:
                break
            if entry is Expected.SYNC:
                self._syncs_dropped = True
                continue
            if entry is Expected.QUERY and not keep:
                simple = True
            keep.append(entry)
        else:
            self._copy_in = True
            self._copy_sync_due = not simple
        expected.extendleft(reversed(keep))
        return False

    def _error(self, _body: bytes, _size: int) -> bool:
        self._copy_in = False
        if self._syncs_dropped:
            self.in_doubt = True
        return False

    def _parameter_status(self, body: bytes, _size: int) -> bool:
        name, value = messages.read_parameter_status(body)
        if len(self.parameters) < MAX_PARAMETERS or name in self.parameters:
            self.parameters[name] = value
        return False

    def _backend_key_data(self, body: bytes, _size: int) -> bool:
        self.key = messages.read_backend_key(body)
        return False


assert MAX_STATEMENT_BYTES < MAX_MESSAGE_BYTES  # noqa: S101  a statement that is kept is one that may be sent
