"""What the relay's threads see of the compiled tracker: its state as C, and functions that need no interpreter."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t*, void*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)


cdef extern from *:
    """
    #define vg_add(where, n) __atomic_add_fetch((where), (n), __ATOMIC_SEQ_CST)
    #define vg_read(where) __atomic_load_n((where), __ATOMIC_RELAXED)
    """
    int vg_add(int* where, int n) nogil
    int vg_read(int* where) nogil


# A mutex that a busy thread holds nearly always and still gives up as soon as somebody else asks for it: POSIX's own
# make no promise of fairness. Whoever waits stands in the turnstile, and the owner has to go through it as well.
#
# Order: the guard first, the interpreter's lock inside it. So whoever enters must not hold the interpreter's lock.
cdef struct Guard:
    pthread_mutex_t turnstile
    pthread_mutex_t mutex
    int waiting


cdef inline void guard_enter(Guard* guard) noexcept nogil:
    vg_add(&guard.waiting, 1)
    pthread_mutex_lock(&guard.turnstile)
    pthread_mutex_lock(&guard.mutex)
    pthread_mutex_unlock(&guard.turnstile)
    vg_add(&guard.waiting, -1)


cdef inline void guard_leave(Guard* guard) noexcept nogil:
    pthread_mutex_unlock(&guard.mutex)


cdef inline void guard_give_way(Guard* guard) noexcept nogil:
    """By its owner, at a point where everything is in order."""
    if vg_read(&guard.waiting) != 0:
        pthread_mutex_unlock(&guard.mutex)
        pthread_mutex_lock(&guard.turnstile)
        pthread_mutex_unlock(&guard.turnstile)
        pthread_mutex_lock(&guard.mutex)


cdef struct Text:
    uint8_t* data
    size_t size


# What the server owes, or a mark between what it owes: ``Expected`` of the reference.
cdef struct Entry:
    uint8_t kind
    Text text  # of an unnamed Parse


# One direction: ``Skimmer`` of the reference.
cdef struct Walk:
    bint of_client
    bint inside  # header seen, body not complete
    uint8_t header[5]
    uint8_t header_size
    uint8_t code
    uint32_t size
    uint32_t remaining
    uint32_t limit
    Text kept
    size_t kept_room


cdef struct State:
    void* owner  # the SessionTracker that this is a part of
    uint8_t status
    bint terminated
    bint in_doubt
    bint batch_open
    bint batch_runs
    bint copy_in
    bint copy_sync_due
    bint syncs_dropped
    bint unnamed_is_watched  # its parameters are names of custom settings
    uint64_t watched  # the same of named statements: a bit for those whose names have one hash
    uint8_t unnamed_kind
    Text unnamed
    Walk client
    Walk server
    Entry* expected  # a ring
    uint32_t first
    uint32_t count
    uint32_t room
    Entry few[4]


# How many of the bytes were consumed; -1: SessionTracker.failure says why not.
cdef Py_ssize_t track_client(State* state, const uint8_t* data, Py_ssize_t size, bint stop) noexcept nogil
cdef Py_ssize_t track_server(State* state, const uint8_t* data, Py_ssize_t size) noexcept nogil


cdef class SessionTracker:
    cdef State state
    cdef Guard* guard  # of the thread that feeds it; NULL: it is fed by Python
    cdef object failure
    cdef tuple scans
    cdef public object key
    cdef public dict parameters
    cdef public object login
    cdef public object custom_settings
    cdef public object sequence_values

    cdef int rare(self, bint of_client, uint8_t code, bytes body, uint32_t size) noexcept
    cdef int scan(self, bytes text, bint prepares) noexcept
    cdef int watch(self) except -1
    cdef int forget_unnamed(self) noexcept
