"""What the two routers say to each other. A message may bring descriptors along (``DESCRIPTORS``).

They may be of different versions of Verdigris: members are only ever added, with a default, and never change their
meaning. What cannot be done like that raises ``FORMAT``, and a router of another format is not succeeded.
"""

from typing import ClassVar

import msgspec
from msgspec import Struct

from verdigris.domain.ports import BackendAddress, Route, TokenKeys
from verdigris.router.endpoint import Counters
from verdigris.wire.postgres.idle import IdleTracker
from verdigris.wire.postgres.messages import BackendKey

FORMAT = 1


class Begin(Struct, frozen=True, tag=True):
    """New to old, first of all. ``drain_s``: see ``Limits``; the new process's settings count."""

    format: int
    version: str
    drain_s: float


class Refuse(Struct, frozen=True, tag=True):
    """Old to new: not now, or not at all."""

    reason: str


class Listening(Struct, frozen=True, tag=True):
    """Old to new: an endpoint's listening socket, on the address of ``route``."""

    descriptors: ClassVar[int] = 1
    route: Route
    counters: Counters


class Grant(Struct, frozen=True, tag=True):
    """Old to new: the lock, the control socket and the succession socket. The old one accepts and writes no more."""

    descriptors: ClassVar[int] = 3
    pid: int
    verifies_tokens: bool = False  # said by those that do
    token_keys: TokenKeys | None = None


class InCharge(Struct, frozen=True, tag=True):
    """New to old: it accepts on everything, and is on record as the router."""


class Offer(Struct, frozen=True, tag=True):
    """Old to new: a session, with the sockets of its client and of its backend. It stands still until it is answered.

    ``luggage`` is a ``Luggage``, decoded by itself: one that cannot be read is declined, and no harm done.
    """

    descriptors: ClassVar[int] = 2
    number: int
    luggage: msgspec.Raw


class Taken(Struct, frozen=True, tag=True):
    """New to old: I hold it."""

    number: int


class Declined(Struct, frozen=True, tag=True):
    """New to old: I have let go of it."""

    number: int
    reason: str


class Yours(Struct, frozen=True, tag=True):
    """Old to new: I have let go of it, serve it."""

    number: int


class Finished(Struct, frozen=True, tag=True):
    """Old to new: nobody is left here. What has been counted since, by endpoint."""

    counters: dict[str, Counters]


class Stop(Struct, frozen=True, tag=True):
    """New to old: the router is to end, with whoever is left."""


class Cancel(Struct, frozen=True, tag=True):
    """Either way: a cancel request for a session that is not here. Answered with whether it was found."""

    endpoint: str
    key: BackendKey


class CountRemaining(Struct, frozen=True, tag=True):
    """New to old. Answered with ``dict[str, Remaining]``, by endpoint."""


class CloseEndpoint(Struct, frozen=True, tag=True):
    """New to old: disconnect the endpoint's clients, or close its listening socket, or both. Answered when no session
    is on the way."""

    endpoint: str
    clients: bool
    listener: bool


class RenameEndpoint(Struct, frozen=True, tag=True):
    """New to old, as ``CloseEndpoint``."""

    endpoint: str
    new_name: str


Request = Cancel | CountRemaining | CloseEndpoint | RenameEndpoint


class Ask(Struct, frozen=True, tag=True):
    number: int
    request: Request


class Answer(Struct, frozen=True, tag=True):
    number: int
    value: msgspec.Raw


Message = (
    Begin | Refuse | Listening | Grant | InCharge | Offer | Taken | Declined | Yours | Finished | Stop | Ask | Answer
)


class Remaining(Struct, frozen=True, kw_only=True):
    """Of one endpoint, what is still in the old process; clients that have not logged in count too."""

    sessions: int
    active: int
    usernames: tuple[str, ...]


class Luggage(Struct, frozen=True, kw_only=True):
    """A session between two processes."""

    endpoint: str
    backend: BackendAddress
    startup_version: int
    startup_parameters: dict[bytes, bytes]
    tracker: IdleTracker
    server_key: BackendKey | None
    held: bytes
    given_up: bool = False
    client_bytes: int
    server_bytes: int
