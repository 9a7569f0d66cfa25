"""How much of the router one endpoint, one client, or a restart may take."""

from msgspec import Struct


class Limits(Struct, frozen=True, kw_only=True):
    """``max_connections``: per endpoint, those that wait for the end of a pause counted; more are refused with 53300.

    ``max_wait_s``: how long a client is kept waiting in the router. A newcomer is then refused with 57P03; one that has
    asked something of a parked session is disconnected with 57P01.

    ``drain_s``: how long a router that has been replaced keeps what cannot be moved to its successor: TLS sessions, and
    those that come to no safe point.

    ``keepalive_s``: how long a client may be silent before its machine is asked for a sign of life.
    """

    max_connections: int = 10_000
    max_wait_s: float = 120.0
    drain_s: float = 300.0
    keepalive_s: int = 300
