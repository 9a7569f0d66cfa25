"""Errors of the router, besides those of the domain that it raises."""

from verdigris.domain.errors import ParkBroken, VerdigrisError


class RouterUnavailable(VerdigrisError):
    """The router's process does not answer. Whether the command was carried out is not known."""


class RouteConflict(VerdigrisError):
    """The route table does not allow this: an unknown name, or a backend that only ``commit`` may change."""


class NotAbortable(ParkBroken):
    """The generation is committed: from the point of no return it only goes forward."""
