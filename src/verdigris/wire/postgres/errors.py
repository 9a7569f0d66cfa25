"""Protocol errors, split by who is to blame."""


class ProtocolError(Exception):
    """Base of the errors of this package."""


class LocalProtocolError(ProtocolError):
    """We tried to do something that the protocol does not allow now: a fault of this program."""


class RemoteProtocolError(ProtocolError):
    """The other end sent something that the protocol does not allow: its connection is of no more use."""
