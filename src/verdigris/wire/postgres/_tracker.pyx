# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""``SessionTracker`` compiled: the same answers as ``session.SessionTracker``, which explains them, at a tenth of the cost.

Its state is C, and following a message needs no interpreter. What does, because it is rare and written once in Python
(a login, a reported setting, a statement that may set a custom one), takes the interpreter's lock for that message.
"""

from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from verdigris.wire.postgres import messages
from verdigris.wire.postgres.custom_settings import MAX_BIND_BYTES, CustomSettings
from verdigris.wire.postgres.errors import RemoteProtocolError
from verdigris.wire.postgres.framing import MAX_MESSAGE_BYTES, impossible
from verdigris.wire.postgres.login import LoginWatch
from verdigris.wire.postgres.sequence_values import SequenceValues
from verdigris.wire.postgres.session import (
    MAX_PARAMETER_BYTES,
    MAX_PARAMETERS,
    MAX_STATEMENT_BYTES,
    NEEDLES,
    Unnamed,
)

cdef uint32_t _MAX_MESSAGE = MAX_MESSAGE_BYTES
cdef uint32_t _MAX_STATEMENT = MAX_STATEMENT_BYTES
cdef uint32_t _MAX_BIND = MAX_BIND_BYTES
cdef uint32_t _MAX_PARAMETER = MAX_PARAMETER_BYTES
cdef uint32_t _MAX_LOGIN = 16 * 1024
cdef uint32_t _MAX_KEY = 260
cdef uint32_t _MAX_NEGOTIATION = 1024

cdef enum:
    LOGIN
    QUERY
    SYNC
    FUNCTION
    # Those above are answered by a ReadyForQuery.
    NAMED_PARSE
    DESCRIBE
    CLOSE
    COPY_END
    UNNAMED
    UNNAMED_TOO_LONG

cdef enum:
    NO_STATEMENT = 0

cdef enum:
    FEW = 4  # entries that need no memory of their own
    MANY = 64  # more than these are given back when they are gone


# ------------------------------------------------------------------------------------------------ what the server owes

cdef inline Entry* _at(State* state, uint32_t index) noexcept nogil:
    return &state.expected[(state.first + index) & (state.room - 1)]


cdef int _append(State* state, uint8_t kind, const uint8_t* text, size_t size) noexcept nogil:
    cdef Entry* larger
    cdef Entry* entry
    cdef uint32_t index
    if state.count == state.room:
        larger = <Entry*>malloc(2 * state.room * sizeof(Entry))
        if larger == NULL:
            return _no_memory(state)
        for index in range(state.count):
            larger[index] = _at(state, index)[0]
        if state.expected != state.few:
            free(state.expected)
        state.expected = larger
        state.first = 0
        state.room *= 2
    entry = _at(state, state.count)
    entry.kind = kind
    entry.text.data = NULL
    entry.text.size = 0
    if kind == UNNAMED:
        entry.text.data = <uint8_t*>malloc(size)
        if entry.text.data == NULL:
            return _no_memory(state)
        memcpy(entry.text.data, text, size)
        entry.text.size = size
    state.count += 1
    return 0


cdef inline Entry _pop(State* state) noexcept nogil:
    """The caller owns its text."""
    cdef Entry entry = state.expected[state.first]
    state.first = (state.first + 1) & (state.room - 1)
    state.count -= 1
    if state.count == 0 and state.room > MANY:
        free(state.expected)
        state.expected = state.few
        state.room = FEW
        state.first = 0
    return entry


cdef inline void _set_unnamed(State* state, uint8_t kind, Text text) noexcept nogil:
    free(state.unnamed.data)
    state.unnamed = text
    state.unnamed_kind = kind


# --------------------------------------------------------------------------------------------------- client's messages

cdef inline uint32_t _wanted_of_client(State* state, uint8_t code) noexcept nogil:
    if code == b"B":
        return _MAX_BIND if state.unnamed_is_watched or state.watched else 0
    if code == b"Q" or code == b"P":
        return _MAX_STATEMENT
    if code == b"D" or code == b"C":
        return 1
    if code == b"p":
        return _MAX_LOGIN
    return 0


cdef int _client_message(State* state, uint8_t code, const uint8_t* body, size_t kept, uint32_t size) noexcept nogil:
    """1: it ends a request; -1: failed."""
    if code == b"Q":
        if _look_into(state, body, kept, False) < 0 or _append(state, QUERY, NULL, 0) < 0:
            return -1
        state.batch_open = state.batch_runs = False  # its end is the batch's too, with no Sync: asyncpg sends COPY so
        return 1
    if code == b"B" or code == b"E":
        state.batch_open = state.batch_runs = True
        if code == b"B" and _is_watched(state, body, kept):
            return _ask_python(state, True, code, body, kept, size)
        return 0
    if code == b"S":
        if state.copy_in:
            return 0
        state.batch_open = state.batch_runs = state.copy_sync_due = False
        return -1 if _append(state, SYNC, NULL, 0) < 0 else 1
    if code == b"P":
        state.batch_open = True
        if state.unnamed_is_watched and kept and body[0] == 0 and _forget_unnamed(state) < 0:
            return -1
        if _look_into(state, body, kept, True) < 0:
            return -1
        if kept == 0 or body[0] != 0:
            return _append(state, NAMED_PARSE, NULL, 0)
        if size > _MAX_STATEMENT:
            return _append(state, UNNAMED_TOO_LONG, NULL, 0)
        return _append(state, UNNAMED, body, kept)
    if code == b"D" or code == b"C":
        state.batch_open = True
        if kept and body[0] == c"S":
            return _append(state, DESCRIBE if code == b"D" else CLOSE, NULL, 0)
        state.batch_runs = True
        return 0
    if code == b"c" or code == b"f":
        if state.copy_in:
            state.copy_in = False
        elif state.count and _append(state, COPY_END, NULL, 0) < 0:
            return -1
        return not state.copy_sync_due
    if code == b"X":
        state.terminated = True
        return 1
    if code == b"F":
        state.batch_open = state.batch_runs = False
        return -1 if _append(state, FUNCTION, NULL, 0) < 0 else 1
    if code == b"p":
        return _ask_python(state, True, code, body, kept, size)
    return 0


# --------------------------------------------------------------------------------------------------- server's messages

cdef inline uint32_t _wanted_of_server(uint8_t code) noexcept nogil:
    if code == b"Z":
        return 1
    if code == b"S":
        return _MAX_PARAMETER
    if code == b"K":
        return _MAX_KEY
    if code == b"R":
        return _MAX_LOGIN
    if code == b"v":
        return _MAX_NEGOTIATION
    return 0


cdef int _server_message(State* state, uint8_t code, const uint8_t* body, size_t kept, uint32_t size) noexcept nogil:
    if code == b"D" or code == b"d":
        return 0
    if code == b"Z":
        return _ready_for_query(state, body, size)
    if code == b"1":
        _parse_complete(state)
    elif code == b"T" or code == b"n":
        _done(state, DESCRIBE)
    elif code == b"3":
        _done(state, CLOSE)
    elif code == b"G":
        _copy_in_response(state)
    elif code == b"E":
        state.copy_in = False
        if state.syncs_dropped:
            state.in_doubt = True
    elif code == b"S" or code == b"K" or code == b"R" or code == b"v":
        return _ask_python(state, False, code, body, kept, size)
    return 0


cdef int _ready_for_query(State* state, const uint8_t* body, uint32_t size) noexcept nogil:
    cdef Entry entry
    cdef Text nothing
    cdef bint answered = False
    if size != 1 or (body[0] != b"I" and body[0] != b"T" and body[0] != b"E"):
        return _malformed(state)
    while state.count and not answered:
        entry = _pop(state)
        free(entry.text.data)
        answered = entry.kind < NAMED_PARSE
        if entry.kind == QUERY:
            nothing.data = NULL
            nothing.size = 0
            _set_unnamed(state, NO_STATEMENT, nothing)
    if not answered:
        # The answer to a Sync that was thought to be ignored.
        state.copy_sync_due = False
    state.status = body[0]
    state.syncs_dropped = False
    return 0


cdef void _parse_complete(State* state) noexcept nogil:
    cdef Entry entry
    while state.count and _at(state, 0).kind >= NAMED_PARSE:
        entry = _pop(state)
        if entry.kind == NAMED_PARSE:
            return
        if entry.kind >= UNNAMED:
            _set_unnamed(state, entry.kind, entry.text)
            return


cdef inline void _done(State* state, uint8_t kind) noexcept nogil:
    """In order, the oldest is the one; else it is an answer that is not waited for, like that of a portal."""
    if state.count and _at(state, 0).kind == kind:
        _pop(state)


cdef void _copy_in_response(State* state) noexcept nogil:
    cdef uint32_t index
    cdef uint32_t keep = 0
    cdef bint simple = False
    cdef bint ended = False
    for index in range(state.count):
        if not ended:
            if _at(state, index).kind == COPY_END:
                ended = True
                continue
            if _at(state, index).kind == SYNC:
                state.syncs_dropped = True
                continue
            if _at(state, index).kind == QUERY and keep == 0:
                simple = True
        _at(state, keep)[0] = _at(state, index)[0]
        keep += 1
    state.count = keep
    if not ended:
        state.copy_in = True
        state.copy_sync_due = not simple


# -------------------------------------------------------------------------------------------------- from message to message

cdef inline int _message(State* state, Walk* walk, uint8_t code, const uint8_t* body, size_t kept, uint32_t size) \
        noexcept nogil:
    if walk.of_client:
        return _client_message(state, code, body, kept, size)
    return _server_message(state, code, body, kept, size)


cdef inline uint32_t _wanted(State* state, Walk* walk, uint8_t code) noexcept nogil:
    return _wanted_of_client(state, code) if walk.of_client else _wanted_of_server(code)


cdef inline uint32_t _length(const uint8_t* header) noexcept nogil:
    return (<uint32_t>header[1] << 24) | (<uint32_t>header[2] << 16) | (<uint32_t>header[3] << 8) | header[4]


cdef inline void _begin(State* state, Walk* walk, uint8_t code, uint32_t size) noexcept nogil:
    walk.inside = True
    walk.code = code
    walk.size = walk.remaining = size
    walk.limit = _wanted(state, walk, code)


cdef Py_ssize_t _take(State* state, Walk* walk, const uint8_t* data, Py_ssize_t pos, Py_ssize_t end) noexcept nogil:
    """Consume what there is of the current body, keeping what is wanted of it."""
    cdef size_t step = min(<size_t>walk.remaining, <size_t>(end - pos))
    cdef size_t keep = min(step, walk.limit - walk.kept.size)
    cdef size_t room
    cdef uint8_t* larger
    if keep:
        if walk.kept.size + keep > walk.kept_room:
            room = max(walk.kept.size + keep, 2 * walk.kept_room)
            larger = <uint8_t*>realloc(walk.kept.data, room)
            if larger == NULL:
                return _no_memory(state)
            walk.kept.data = larger
            walk.kept_room = room
        memcpy(walk.kept.data + walk.kept.size, data + pos, keep)
        walk.kept.size += keep
    walk.remaining -= <uint32_t>step
    return pos + <Py_ssize_t>step


cdef Py_ssize_t _resume(State* state, Walk* walk, const uint8_t* data, Py_ssize_t end, int* ended) noexcept nogil:
    """Go on with a message that an earlier chunk left incomplete."""
    cdef Py_ssize_t pos = 0
    cdef uint32_t length
    if not walk.inside:
        pos = min(<Py_ssize_t>(5 - walk.header_size), end)
        memcpy(walk.header + walk.header_size, data, pos)
        walk.header_size += <uint8_t>pos
        if walk.header_size < 5:
            return end
        length = _length(walk.header)
        if length < 4 or length > _MAX_MESSAGE:
            return _impossible(state, walk.header[0], length)
        walk.header_size = 0
        _begin(state, walk, walk.header[0], length - 4)
    pos = _take(state, walk, data, pos, end)
    if pos < 0 or walk.remaining:
        return pos
    walk.inside = False
    ended[0] = _message(state, walk, walk.code, walk.kept.data, walk.kept.size, walk.size)
    free(walk.kept.data)
    walk.kept.data = NULL
    walk.kept.size = walk.kept_room = 0
    return -1 if ended[0] < 0 else pos


cdef Py_ssize_t _walk(State* state, Walk* walk, const uint8_t* data, Py_ssize_t end, bint stop) noexcept nogil:
    cdef Py_ssize_t pos = 0
    cdef Py_ssize_t after
    cdef uint32_t length
    cdef int ended = 0
    if walk.inside or walk.header_size:
        pos = _resume(state, walk, data, end, &ended)
        if pos < 0 or (ended and stop) or walk.inside or walk.header_size:
            return pos
    while end - pos >= 5:
        length = _length(data + pos)
        if length < 4 or length > _MAX_MESSAGE:
            return _impossible(state, data[pos], length)
        after = pos + 1 + <Py_ssize_t>length
        if after > end:
            _begin(state, walk, data[pos], length - 4)
            return _take(state, walk, data, pos + 5, end)
        length -= 4
        ended = _message(state, walk, data[pos], data + pos + 5, min(length, _wanted(state, walk, data[pos])), length)
        if ended < 0:
            return -1
        pos = after
        if ended and stop:
            return pos
    if pos < end:
        walk.header_size = <uint8_t>(end - pos)
        memcpy(walk.header, data + pos, walk.header_size)
    return end


cdef Py_ssize_t track_client(State* state, const uint8_t* data, Py_ssize_t size, bint stop) noexcept nogil:
    return _walk(state, &state.client, data, size, stop)


cdef Py_ssize_t track_server(State* state, const uint8_t* data, Py_ssize_t size) noexcept nogil:
    return _walk(state, &state.server, data, size, False)


cdef inline bint _is_at_boundary(Walk* walk) noexcept nogil:
    return not walk.inside and not walk.header_size


cdef inline bint _is_quiet(State* state) noexcept nogil:
    return (
        not state.count
        and not state.batch_runs
        and not state.copy_in
        and not state.copy_sync_due
        and _is_at_boundary(&state.client)
        and _is_at_boundary(&state.server)
    )


# ------------------------------------------------------------------------------------------------------- what needs Python

cdef int _ask_python(State* state, bint of_client, uint8_t code, const uint8_t* body, size_t kept, uint32_t size) \
        noexcept nogil:
    with gil:
        return (<SessionTracker>state.owner).rare(of_client, code, body[:kept], size)


cdef int _malformed(State* state) noexcept nogil:
    with gil:
        (<SessionTracker>state.owner).failure = RemoteProtocolError("malformed ReadyForQuery")
    return -1


cdef int _impossible(State* state, uint8_t code, uint32_t length) noexcept nogil:
    with gil:
        (<SessionTracker>state.owner).failure = impossible(code, length)
    return -1


cdef int _no_memory(State* state) noexcept nogil:
    with gil:
        (<SessionTracker>state.owner).failure = MemoryError()
    return -1


# --------------------------------------------------------------------------------------- which statements Python looks into

cdef enum:
    MAX_NEEDLES = 8
    MAX_NEEDLE = 31

cdef struct Needle:
    uint8_t size
    uint8_t text[MAX_NEEDLE]

cdef Needle _needles[MAX_NEEDLES]
cdef int _needle_count = 0
# By byte, in either case: a needle, or the SET of a custom setting, may begin with it.
cdef uint8_t _begins[256]


cdef int _prepare_needles() except -1:
    global _needle_count
    _begins[c"s"] = _begins[c"S"] = True
    for text in NEEDLES:
        if not 0 < len(text) <= MAX_NEEDLE or _needle_count == MAX_NEEDLES:
            raise ValueError("too many needles, or too long a one")
        _needles[_needle_count].size = len(text)
        memcpy(_needles[_needle_count].text, <const uint8_t*><bytes>text, len(text))
        _needle_count += 1
        _begins[<uint8_t>text.lower()[0]] = _begins[<uint8_t>text.upper()[0]] = True
    return 0


_prepare_needles()


cdef inline uint8_t _lower(uint8_t byte) noexcept nogil:
    return byte | 0x20 if c"A" <= byte <= c"Z" else byte


cdef inline bint _is_space(uint8_t byte) noexcept nogil:
    return byte == c" " or 9 <= byte <= 13


cdef inline bint _in_word(uint8_t byte) noexcept nogil:
    """``\\w`` of a regular expression for bytes."""
    return c"a" <= _lower(byte) <= c"z" or c"0" <= byte <= c"9" or byte == c"_"


cdef bint _matches(const Needle* needle, const uint8_t* text, const uint8_t* end) noexcept nogil:
    """A space in a needle stands for any white space."""
    cdef uint8_t index
    for index in range(needle.size):
        if text == end:
            return False
        if needle.text[index] == c" ":
            if not _is_space(text[0]):
                return False
            while text != end and _is_space(text[0]):
                text += 1
        elif _lower(text[0]) != needle.text[index]:
            return False
        else:
            text += 1
    return True


cdef const uint8_t* _after_spaces(const uint8_t* text, const uint8_t* end) noexcept nogil:
    while text != end and _is_space(text[0]):
        text += 1
    return text


cdef bint _is_dotted(const uint8_t* text, const uint8_t* end) noexcept nogil:
    """It begins with a name and a dot, as no setting of the server's own does."""
    if text != end and text[0] == c'"':
        text += 1
        while text != end and text[0] != c'"':
            text += 1
        return end - text >= 2 and text[1] == c"."
    while text != end and (_in_word(text[0]) or text[0] >= 0x80 or text[0] == c"$"):
        text += 1
    return text != end and text[0] == c"."


cdef bint _sets_custom(const uint8_t* begin, const uint8_t* text, const uint8_t* end) noexcept nogil:
    """``SET [SESSION | LOCAL] a.b`` and perhaps more: an UPDATE's SET, which is in every other statement, is not."""
    cdef const uint8_t* name
    if end - text < 5 or _lower(text[1]) != c"e" or _lower(text[2]) != c"t" or not _is_space(text[3]):
        return False
    if text != begin and _in_word((text - 1)[0]):
        return False
    name = _after_spaces(text + 4, end)
    if _is_dotted(name, end):
        return True
    # SESSION or LOCAL, or any other word: what follows it decides.
    text = name
    while text != end and _in_word(text[0]):
        text += 1
    name = _after_spaces(text, end)
    return name != text and _is_dotted(name, end)


cdef bint _is_of_interest(const uint8_t* begin, size_t size) noexcept nogil:
    cdef const uint8_t* end = begin + size
    cdef const uint8_t* text = begin
    cdef int index
    while text != end:
        if _begins[text[0]]:
            if _lower(text[0]) == c"s" and _sets_custom(begin, text, end):
                return True
            for index in range(_needle_count):
                if _matches(&_needles[index], text, end):
                    return True
        text += 1
    return False


cdef int _look_into(State* state, const uint8_t* text, size_t size, bint prepares) noexcept nogil:
    if not _is_of_interest(text, size):
        return 0
    with gil:
        return (<SessionTracker>state.owner).scan(text[:size], prepares)


# --------------------------------------------------------------------------------- statements whose parameters are names

cdef inline uint64_t _bit_of(const uint8_t* name, const uint8_t* end) noexcept nogil:
    """FNV, up to the end of the string."""
    cdef uint32_t hash = 2166136261
    while name != end and name[0] != 0:
        hash = (hash ^ name[0]) * 16777619
        name += 1
    return <uint64_t>1 << (hash >> 26)


cdef bint _is_watched(State* state, const uint8_t* body, size_t size) noexcept nogil:
    """What is bound is, or may be, such a statement."""
    cdef const uint8_t* end = body + size
    while body != end and body[0] != 0:
        body += 1
    if end - body < 2 or body[1] == 0:
        return state.unnamed_is_watched
    return state.watched & _bit_of(body + 1, end) != 0


cdef int _forget_unnamed(State* state) noexcept nogil:
    state.unnamed_is_watched = False
    with gil:
        return (<SessionTracker>state.owner).forget_unnamed()


# -------------------------------------------------------------------------------------------------------- the Python class

cdef inline void _enter(SessionTracker tracker):
    """Keep the thread out that feeds the tracker, if one does."""
    if tracker.guard != NULL:
        with nogil:
            guard_enter(tracker.guard)


cdef inline void _leave(SessionTracker tracker):
    if tracker.guard != NULL:
        guard_leave(tracker.guard)


cdef class SessionTracker:
    """See ``session.SessionTracker``."""

    def __cinit__(self):
        self.state.owner = <void*>self
        self.state.client.of_client = True
        self.state.expected = self.state.few
        self.state.room = FEW
        self.state.unnamed_kind = NO_STATEMENT
        _append(&self.state, LOGIN, NULL, 0)
        self.guard = NULL

    def __init__(self):
        self.parameters = {}
        self.login = LoginWatch()
        self.custom_settings = CustomSettings()
        self.sequence_values = SequenceValues()
        self.scans = (self.custom_settings.scan, self.sequence_values.scan)

    def __dealloc__(self):
        while self.state.count:
            free(_pop(&self.state).text.data)
        if self.state.expected != self.state.few:
            free(self.state.expected)
        free(self.state.unnamed.data)
        free(self.state.client.kept.data)
        free(self.state.server.kept.data)

    cdef int rare(self, bint of_client, uint8_t code, bytes body, uint32_t size) noexcept:
        """0: done, and no request ends here; -1: failed."""
        try:
            if code == b"B":
                self.custom_settings.bind(body)
            elif of_client:
                self.login.client_message(body, size)
            elif code == b"S":
                name, value = messages.read_parameter_status(body)
                if len(self.parameters) < MAX_PARAMETERS or name in self.parameters:
                    self.parameters[name] = value
            elif code == b"K":
                self.key = messages.read_backend_key(body)
            elif code == b"R":
                self.login.server_message(body, size)
            else:
                self.login.negotiated(body, size)
        except Exception as error:
            self.failure = error
            return -1
        return 0

    cdef int scan(self, bytes text, bint prepares) noexcept:
        try:
            for scan in self.scans:
                scan(text, prepares=bool(prepares))
            if prepares:
                self.watch()
        except Exception as error:
            self.failure = error
            return -1
        return 0

    cdef int watch(self) except -1:
        cdef const uint8_t* text
        for name in self.custom_settings.bound:
            if name:
                text = <bytes>name
                self.state.watched |= _bit_of(text, text + len(name))
            else:
                self.state.unnamed_is_watched = True
        return 0

    cdef int forget_unnamed(self) noexcept:
        try:
            self.custom_settings.forget_unnamed()
        except Exception as error:
            self.failure = error
            return -1
        return 0

    # -------------------------------------------------------------------------------------------------- what is fed

    def client_data(self, bytes data, bint stop=False):
        cdef Py_ssize_t consumed = track_client(&self.state, data, len(data), stop)
        if consumed < 0:
            self._fail()
        return consumed

    def server_data(self, bytes data):
        if track_server(&self.state, data, len(data)) < 0:
            self._fail()

    def _fail(self):
        failure, self.failure = self.failure, None
        raise failure

    # ---------------------------------------------------------------------------------------------------- what is so

    @property
    def status(self):
        return self.state.status

    @property
    def terminated(self):
        return bool(self.state.terminated)

    @property
    def in_doubt(self):
        return bool(self.state.in_doubt)

    @in_doubt.setter
    def in_doubt(self, bint value):
        self.state.in_doubt = value

    @property
    def batch_open(self):
        return bool(self.state.batch_open)

    def batch_ended(self):
        self.state.batch_open = False

    @property
    def unnamed(self):
        _enter(self)
        try:
            if self.state.unnamed_kind == UNNAMED:
                return (<const uint8_t*>self.state.unnamed.data)[: self.state.unnamed.size]
            return Unnamed.TOO_LONG if self.state.unnamed_kind == UNNAMED_TOO_LONG else None
        finally:
            _leave(self)

    @property
    def logged_in(self):
        return self.state.status != 0

    @property
    def quiet(self):
        _enter(self)
        found = _is_quiet(&self.state)
        _leave(self)
        return bool(found)

    @property
    def safe(self):
        _enter(self)
        found = self.state.status == c"I" and _is_quiet(&self.state)
        _leave(self)
        return bool(found)

    @property
    def needs_client(self):
        _enter(self)
        found = (
            self.state.status == 0
            or not _is_at_boundary(&self.state.client)
            or self.state.batch_open
            or self.state.copy_in
            or self.state.copy_sync_due
            or (self.state.status != c"I" and not self.state.count)
        )
        _leave(self)
        return bool(found)

    @property
    def server_at_boundary(self):
        _enter(self)
        found = _is_at_boundary(&self.state.server)
        _leave(self)
        return bool(found)
