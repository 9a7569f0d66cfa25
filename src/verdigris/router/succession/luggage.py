"""A parked session as plain data, and back."""

import asyncio
import socket

from verdigris.router.endpoint import Endpoint
from verdigris.router.ends import ServerEnd
from verdigris.router.session import Session
from verdigris.router.succession.messages import Luggage
from verdigris.wire.postgres.errors import LocalProtocolError
from verdigris.wire.postgres.idle import pack_tracker, unpack_tracker
from verdigris.wire.postgres.startup import StartupMessage

# All that a session has (``Session.__slots__``), and what becomes of it. Checked by a test: whoever gives a session
# something more decides here whether it travels.
PACKED = frozenset({"_held", "backend", "client", "endpoint", "given_up", "server", "server_key", "startup", "tracker"})
# What a session that is ``movable`` does not have, or has anew.
LEFT = frozenset(
    {
        "_client_eof",  # not movable with it
        "_connecting",
        "_former",  # closed
        "_timer",  # stopped
        "_may_speak",  # a parked one is logged in
        "_said",  # likewise
        "asking",  # a parked one is asked nothing outside a switchover, and a switchover excludes a succession
        "cursors",  # not movable with them
        "detour",  # a server has taken it
        "dialled",  # closed; only a switchover has one
        "encrypted",  # not movable
        "loan",  # called back when it was stopped
        "owed",  # not movable with it
        "owed_sequences",  # likewise
        "pinned",  # not movable with it
        "state",  # PARKED on both sides
    }
)


def pack(session: Session) -> Luggage:
    """Of a session that is ``movable``. Raises ``LocalProtocolError`` for another."""
    startup, server = session.startup, session.server
    if not session.movable or startup is None or server is None:
        raise LocalProtocolError("only a parked session can be packed")
    return Luggage(
        endpoint=session.endpoint.name,
        backend=session.backend,
        startup_version=startup.version,
        startup_parameters=startup.parameters,
        tracker=pack_tracker(session.tracker),
        server_key=session.server_key,
        held=session.held,
        given_up=session.given_up,
        client_bytes=session.client.bytes_total,
        server_bytes=server.bytes_total,
    )


def descriptors(session: Session) -> tuple[int, int]:
    """Of the client's connection and the server's."""
    assert session.server is not None  # noqa: S101  a parked session has one
    client, server = (end.transport.get_extra_info("socket").fileno() for end in (session.client, session.server))
    return client, server


def unpack(luggage: Luggage, endpoint: Endpoint) -> Session:
    """The session, parked, without its connections. Raises ``LookupError`` if another version packed what is not known
    here."""
    session = Session(endpoint, encrypted=False, first_bytes=b"", tracker=unpack_tracker(luggage.tracker))
    session.backend = luggage.backend
    session.startup = StartupMessage(luggage.startup_version, luggage.startup_parameters)
    session.server_key = luggage.server_key
    session.client.bytes_total = luggage.client_bytes
    session.given_up = luggage.given_up
    session.settle_in(luggage.held)
    return session


async def settle(session: Session, client: socket.socket, server: socket.socket, server_bytes: int) -> None:
    """Give a session its connections and let it go on. What comes meanwhile from the client is held; what comes from
    the server goes through."""
    loop = asyncio.get_running_loop()
    try:
        await loop.connect_accepted_socket(lambda: session.client, client)
        end = ServerEnd(session)
        end.bytes_total = server_bytes
        end.feed = session.tracker.server_data
        end.write = session.client.transport.write
        await loop.create_unix_connection(lambda: end, sock=server)
    except OSError:
        client.close()
        server.close()
        raise
    if not session.open:
        end.drop()
        return
    session.server = end
    session.resume()
