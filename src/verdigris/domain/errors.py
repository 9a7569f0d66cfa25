"""Errors of the domain, split by who has to act on them."""


class VerdigrisError(Exception):
    """Base of every error that Verdigris raises on purpose. Its text is fit for an operator."""


class StepFailed(VerdigrisError):
    """A step of a workflow cannot succeed; what was done before it is undone. The text becomes ``StatusDetails``."""


class ControllerSuperseded(VerdigrisError):
    """Another control plane has taken over: this one's epoch is stale and nothing it says counts any more."""


class ParkBroken(StepFailed):
    """The router let sessions go (lease run out, router restarted): what was built on the park does not hold."""


class SetBack(StepFailed):
    """Not now: this attempt is given up, and another one, prepared again, may succeed."""


class EngineError(StepFailed):
    """A database server, or a program that belongs to it, refused or failed."""


class PortInUse(VerdigrisError):
    """An endpoint's port cannot be bound."""
