"""The states of a session."""

from enum import Enum


class State(Enum):
    """
    STARTING -> CANCELLING              all that came is a CancelRequest
    STARTING -> WAITING | CONNECTING    the start-up packet is complete: is the endpoint parked?
    WAITING -> CONNECTING               released
    CONNECTING -> FLOWING | WAITING     connected | the endpoint was parked meanwhile, nothing has been sent
    FLOWING -> STOPPING -> PARKED       a park asked for the next safe point; it has been reached
    STOPPING, PARKED -> FLOWING         released
    FLOWING -> PROVING -> FLOWING       the server asks nothing of the client: it is asked for a token, which is good
    every one -> CLOSED
    """

    STARTING = "starting"
    CANCELLING = "cancelling"
    WAITING = "waiting"
    CONNECTING = "connecting"
    FLOWING = "flowing"
    PROVING = "proving"
    STOPPING = "stopping"
    PARKED = "parked"
    CLOSED = "closed"
