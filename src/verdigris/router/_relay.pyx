# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Sessions carried by threads of their own, which need the interpreter for almost nothing.

Python lends two connected sockets and the tracker that follows them, and keeps its own hands off all three until it has
called the loan back. A thread reads from either socket, shows the bytes to the tracker and writes them to the other
one. What cannot be written at once is kept, and the side that it came from is not read until it is gone: so a session
costs at most one buffer in each direction, whoever of the two is slow.

Anything out of the ordinary, the end of a stream, an error, a violation of the protocol, gives the loan back, with
what has not been written yet: this module moves bytes and decides nothing.

Who may touch what: a loan's fields belong to the guard of its thread for as long as it is ``lent``. Each thread holds
its guard while it works and gives way between two events, so whoever calls back waits for one event at most, and when
``recall`` returns, the thread has forgotten both sockets. Events that the kernel had reported before are told apart by
the slot's generation.
"""

import os
import threading

from libc.errno cimport EAGAIN, EINTR, ENOMEM, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from verdigris.wire.postgres._tracker cimport (
    Guard,
    SessionTracker,
    State,
    guard_enter,
    guard_give_way,
    guard_leave,
    pthread_mutex_destroy,
    pthread_mutex_init,
    track_client,
    track_server,
)

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int most, int timeout_ms)
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    uint32_t EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int start, int flags)
    int EFD_CLOEXEC, EFD_NONBLOCK

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)
    int MSG_DONTWAIT, MSG_NOSIGNAL

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void* data, size_t size)
    ssize_t write(int fd, const void* data, size_t size)
    int close(int fd)

cdef enum:
    CLIENT = 0
    SERVER = 1
    EVENTS = 64
    FIRST_SLOTS = 64

cdef uint64_t WAKE = <uint64_t>-1

# Why a loan was given back; ``Outcome`` in ``lending``.
cdef enum:
    RECALLED = 0
    ENDED = 1  # one of the two sends no more
    VIOLATED = 2  # a message that cannot be
    CLIENT_LOST = 3
    SERVER_LOST = 4
    SERVER_DEAF = 5  # it can no longer be written to; what it has said is still to be read
    STRANDED = 6  # the system has no room for it here


cdef struct Side:
    int fd
    uint32_t events  # waited for; 0: not in the epoll set at all, where even a hang-up would be reported for ever
    bint reading
    uint8_t* unsent  # to be written to this side
    size_t begin
    size_t end


cdef struct Flow:
    Side sides[2]
    uint64_t received[2]
    State* tracker
    void* loan
    bint lent
    bint returned  # on the list of those that gave themselves back
    uint32_t slot
    int outcome
    int error
    Flow* next


cdef struct Slot:
    Flow* flow  # NULL: free
    uint32_t generation
    uint32_t next_free


cdef struct Worker:
    Guard guard
    int epoll
    int wake
    int notify  # the event loop's, to be told of what is returned
    bint stopping
    uint8_t* buffer
    size_t buffer_bytes
    Slot* slots
    uint32_t slot_count
    uint32_t first_free
    uint32_t lent
    Flow* returned


# ------------------------------------------------------------------------------------------------------ under the guard

cdef int _wait_for(Worker* worker, Flow* flow, int which) noexcept nogil:
    """Tell the kernel what is waited for on one side. -1 and errno if it cannot be."""
    cdef Side* side = &flow.sides[which]
    cdef uint32_t wanted = (EPOLLIN if side.reading else 0) | (EPOLLOUT if side.unsent != NULL else 0)
    cdef epoll_event event
    cdef int operation = EPOLL_CTL_MOD
    if wanted == side.events:
        return 0
    if side.events == 0:
        operation = EPOLL_CTL_ADD
    elif wanted == 0:
        operation = EPOLL_CTL_DEL
    event.events = wanted
    event.data.u64 = (<uint64_t>worker.slots[flow.slot].generation << 32) | (flow.slot << 1) | <uint32_t>which
    if epoll_ctl(worker.epoll, operation, side.fd, &event) < 0:
        return -1
    side.events = wanted
    return 0


cdef void _forget(Worker* worker, Flow* flow) noexcept nogil:
    """From here on the thread has nothing to do with the loan."""
    cdef Slot* slot = &worker.slots[flow.slot]
    cdef int which
    for which in range(2):
        flow.sides[which].reading = False
        if flow.sides[which].events:
            epoll_ctl(worker.epoll, EPOLL_CTL_DEL, flow.sides[which].fd, NULL)
            flow.sides[which].events = 0
    slot.flow = NULL
    slot.generation += 1
    slot.next_free = worker.first_free
    worker.first_free = flow.slot
    worker.lent -= 1
    flow.lent = False


cdef void _give_back(Worker* worker, Flow* flow, int outcome, int error) noexcept nogil:
    cdef uint64_t one = 1
    _forget(worker, flow)
    flow.outcome = outcome
    flow.error = error
    flow.returned = True
    flow.next = worker.returned
    worker.returned = flow
    write(worker.notify, &one, sizeof(one))


cdef inline int _lost(int which) noexcept nogil:
    return CLIENT_LOST if which == CLIENT else SERVER_DEAF


cdef bint _flush(Worker* worker, Flow* flow, int which) noexcept nogil:
    """Write what is due to one side; False: the loan has been given back."""
    cdef Side* side = &flow.sides[which]
    cdef ssize_t sent = send(side.fd, side.unsent + side.begin, side.end - side.begin, MSG_DONTWAIT | MSG_NOSIGNAL)
    if sent < 0:
        if errno == EAGAIN or errno == EINTR:
            return True
        _give_back(worker, flow, _lost(which), errno)
        return False
    side.begin += <size_t>sent
    if side.begin < side.end:
        return True
    free(side.unsent)
    side.unsent = NULL
    flow.sides[1 - which].reading = True
    if _wait_for(worker, flow, which) < 0 or _wait_for(worker, flow, 1 - which) < 0:
        _give_back(worker, flow, STRANDED, errno)
        return False
    return True


cdef void _pump(Worker* worker, Flow* flow, int source) noexcept nogil:
    """One read from one side and one write to the other, to which nothing else is due."""
    cdef Side* side = &flow.sides[1 - source]
    cdef ssize_t size = recv(flow.sides[source].fd, worker.buffer, worker.buffer_bytes, MSG_DONTWAIT)
    cdef ssize_t sent
    cdef Py_ssize_t followed
    cdef size_t rest
    if size <= 0:
        if size == 0:
            _give_back(worker, flow, ENDED, 0)
        elif errno != EAGAIN and errno != EINTR:
            _give_back(worker, flow, CLIENT_LOST if source == CLIENT else SERVER_LOST, errno)
        return
    flow.received[source] += <uint64_t>size
    if source == CLIENT:
        followed = track_client(flow.tracker, worker.buffer, size, False)
    else:
        followed = track_server(flow.tracker, worker.buffer, size)
    if followed < 0:
        _give_back(worker, flow, VIOLATED, 0)
        return
    sent = send(side.fd, worker.buffer, <size_t>size, MSG_DONTWAIT | MSG_NOSIGNAL)
    if sent == size:
        return
    if sent < 0:
        if errno != EAGAIN and errno != EINTR:
            _give_back(worker, flow, _lost(1 - source), errno)
            return
        sent = 0
    rest = <size_t>(size - sent)
    side.unsent = <uint8_t*>malloc(rest)
    if side.unsent == NULL:
        # What has been read cannot be kept: the session is at its end.
        _give_back(worker, flow, CLIENT_LOST, ENOMEM)
        return
    memcpy(side.unsent, worker.buffer + sent, rest)
    side.begin = 0
    side.end = rest
    flow.sides[source].reading = False
    if _wait_for(worker, flow, source) < 0 or _wait_for(worker, flow, 1 - source) < 0:
        _give_back(worker, flow, STRANDED, errno)


cdef void _attend(Worker* worker, uint64_t which, uint32_t events) noexcept nogil:
    """One event of one socket."""
    cdef Slot* slot = &worker.slots[<uint32_t>which >> 1]
    cdef Flow* flow = slot.flow
    cdef int source = which & 1
    if flow == NULL or slot.generation != <uint32_t>(which >> 32):
        return  # called back, or given back, after the kernel had reported this
    if flow.sides[source].unsent != NULL and events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
        if not _flush(worker, flow, source):
            return
    if flow.sides[source].reading and events & (EPOLLIN | EPOLLERR | EPOLLHUP):
        _pump(worker, flow, source)


cdef int _work(Worker* worker) noexcept nogil:
    """Until it is told to stop; errno if it cannot go on."""
    cdef epoll_event events[EVENTS]
    cdef int count, index
    cdef bint stopping = False
    while not stopping:
        count = epoll_wait(worker.epoll, events, EVENTS, -1)
        if count < 0:
            if errno == EINTR:
                continue
            return errno
        guard_enter(&worker.guard)
        for index in range(count):
            guard_give_way(&worker.guard)
            if events[index].data.u64 != WAKE:
                _attend(worker, events[index].data.u64, events[index].events)
        stopping = worker.stopping
        guard_leave(&worker.guard)
    return 0


cdef int _take_slot(Worker* worker, Flow* flow) noexcept nogil:
    cdef Slot* larger
    cdef uint32_t index
    if worker.first_free == worker.slot_count:
        larger = <Slot*>realloc(worker.slots, 2 * worker.slot_count * sizeof(Slot))
        if larger == NULL:
            return -1
        worker.slots = larger
        _free_slots(worker, worker.slot_count, 2 * worker.slot_count)
        worker.slot_count *= 2
    index = worker.first_free
    worker.first_free = worker.slots[index].next_free
    worker.slots[index].flow = flow
    flow.slot = index
    flow.lent = True
    worker.lent += 1
    return 0


cdef void _free_slots(Worker* worker, uint32_t begin, uint32_t end) noexcept nogil:
    """The last one points behind the end, which is what tells that there are no more."""
    cdef uint32_t index
    for index in range(begin, end):
        worker.slots[index].flow = NULL
        worker.slots[index].generation = 0
        worker.slots[index].next_free = index + 1


cdef int _add(Worker* worker, Flow* flow) noexcept nogil:
    """0, or errno."""
    cdef int error
    if _take_slot(worker, flow) < 0:
        return ENOMEM
    if _wait_for(worker, flow, CLIENT) < 0 or _wait_for(worker, flow, SERVER) < 0:
        error = errno
        _forget(worker, flow)
        return error
    return 0


# -------------------------------------------------------------------------------------------------------- for the event loop

cdef class Loan:
    """One session in the hands of a thread. Not to be shared between threads of Python's."""

    cdef Flow flow
    cdef Worker* worker
    cdef Engine engine
    cdef SessionTracker tracker
    cdef readonly object owner
    cdef bint called_back

    def __dealloc__(self):
        free(self.flow.sides[CLIENT].unsent)
        free(self.flow.sides[SERVER].unsent)

    @property
    def client_bytes(self):
        """Received from the client; may be read at any time."""
        return self.flow.received[CLIENT]

    @property
    def server_bytes(self):
        return self.flow.received[SERVER]

    @property
    def outcome(self):
        """Of a loan that has given itself back or was called back."""
        return self.flow.outcome

    @property
    def error(self):
        """What it says about the outcome: an exception, or None."""
        if self.flow.outcome == VIOLATED:
            return self.tracker.failure
        return OSError(self.flow.error, os.strerror(self.flow.error)) if self.flow.error else None

    def recall(self):
        """Both sockets and the tracker are the caller's again when this returns, as is what was not written yet:
        to the client, and to the server. A second call finds nothing."""
        with nogil:
            guard_enter(&self.worker.guard)
            if self.flow.lent:
                _forget(self.worker, &self.flow)
                self.flow.outcome = RECALLED
            guard_leave(&self.worker.guard)
        if not self.called_back:
            self.called_back = True
            self.tracker.guard = NULL
        if not self.flow.returned:
            self.engine.loans.discard(self)
        return _unsent(&self.flow.sides[CLIENT]), _unsent(&self.flow.sides[SERVER])


cdef bytes _unsent(Side* side):
    if side.unsent == NULL:
        return b""
    found = <bytes>(side.unsent + side.begin)[: side.end - side.begin]
    free(side.unsent)
    side.unsent = NULL
    return found


cdef class Engine:
    """Threads that carry sessions, until ``close``."""

    cdef Worker* workers
    cdef int count
    cdef int notify
    cdef list threads
    cdef set loans  # those lent, and those returned and not collected: what the threads know stays alive

    def __cinit__(self, int threads, size_t buffer_bytes):
        cdef epoll_event event
        cdef int index
        cdef Worker* worker
        self.threads = []
        self.loans = set()
        self.notify = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.notify < 0:
            raise OSError(errno, os.strerror(errno))
        self.workers = <Worker*>calloc(threads, sizeof(Worker))
        if self.workers == NULL:
            raise MemoryError
        for index in range(threads):
            worker = &self.workers[index]
            worker.epoll = worker.wake = -1
            self.count = index + 1
            pthread_mutex_init(&worker.guard.turnstile, NULL)
            pthread_mutex_init(&worker.guard.mutex, NULL)
            worker.notify = self.notify
            worker.buffer = <uint8_t*>malloc(buffer_bytes)
            worker.buffer_bytes = buffer_bytes
            worker.slots = <Slot*>malloc(FIRST_SLOTS * sizeof(Slot))
            if worker.buffer == NULL or worker.slots == NULL:
                raise MemoryError
            worker.slot_count = FIRST_SLOTS
            _free_slots(worker, 0, FIRST_SLOTS)
            worker.epoll = epoll_create1(EPOLL_CLOEXEC)
            worker.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
            event.events = EPOLLIN
            event.data.u64 = WAKE
            if worker.epoll < 0 or worker.wake < 0 or epoll_ctl(worker.epoll, EPOLL_CTL_ADD, worker.wake, &event) < 0:
                raise OSError(errno, os.strerror(errno))

    def __init__(self, int threads, size_t buffer_bytes):
        for index in range(threads):
            thread = threading.Thread(target=self._run, args=(index,), name=f"relay-{index}", daemon=True)
            thread.start()
            self.threads.append(thread)

    def __dealloc__(self):
        # The threads hold on to this object, so they have ended.
        cdef int index
        for index in range(self.count):
            if self.workers[index].epoll >= 0:
                close(self.workers[index].epoll)
            if self.workers[index].wake >= 0:
                close(self.workers[index].wake)
            free(self.workers[index].buffer)
            free(self.workers[index].slots)
            pthread_mutex_destroy(&self.workers[index].guard.turnstile)
            pthread_mutex_destroy(&self.workers[index].guard.mutex)
        free(self.workers)
        if self.notify >= 0:
            close(self.notify)

    def _run(self, int index):
        cdef int error
        with nogil:
            error = _work(&self.workers[index])
        if error:
            raise OSError(error, os.strerror(error))

    def fileno(self):
        """Readable when loans have given themselves back: call ``collect``."""
        return self.notify

    def lend(self, int client_fd, int server_fd, SessionTracker tracker, object owner):
        """Two connected non-blocking sockets which the caller neither reads, writes nor closes until ``Loan.recall``.

        Raises ``OSError`` if the system does not allow it; nothing has changed then.
        """
        cdef Loan loan = Loan.__new__(Loan)
        cdef Worker* worker = &self.workers[0]
        cdef int index, error
        for index in range(1, self.count):
            if self.workers[index].lent < worker.lent:
                worker = &self.workers[index]
        loan.worker = worker
        loan.engine = self
        loan.tracker = tracker
        loan.owner = owner
        memset(&loan.flow, 0, sizeof(Flow))
        loan.flow.loan = <void*>loan
        loan.flow.tracker = &tracker.state
        loan.flow.sides[CLIENT].fd = client_fd
        loan.flow.sides[SERVER].fd = server_fd
        loan.flow.sides[CLIENT].reading = loan.flow.sides[SERVER].reading = True
        self.loans.add(loan)
        tracker.guard = &worker.guard
        with nogil:
            guard_enter(&worker.guard)
            error = _add(worker, &loan.flow)
            guard_leave(&worker.guard)
        if error:
            tracker.guard = NULL
            self.loans.discard(loan)
            raise OSError(error, os.strerror(error))
        return loan

    def collect(self):
        """The loans that have given themselves back since the last call. Those that were called back are not among
        them."""
        cdef uint64_t number
        cdef Flow* flow
        cdef int index
        cdef Loan loan
        cdef Worker* worker
        found = []
        read(self.notify, &number, sizeof(number))
        for index in range(self.count):
            worker = &self.workers[index]
            with nogil:
                guard_enter(&worker.guard)
                flow = worker.returned
                worker.returned = NULL
                guard_leave(&worker.guard)
            while flow != NULL:
                loan = <Loan>flow.loan
                flow = flow.next
                loan.flow.returned = False
                self.loans.discard(loan)
                if not loan.called_back:
                    found.append(loan)
        return found

    def close(self):
        """End the threads. Every loan has been called back."""
        cdef uint64_t one = 1
        cdef int index
        for index in range(self.count):
            with nogil:
                guard_enter(&self.workers[index].guard)
                self.workers[index].stopping = True
                guard_leave(&self.workers[index].guard)
            write(self.workers[index].wake, &one, sizeof(one))
        for thread in self.threads:
            thread.join()
        self.threads.clear()
