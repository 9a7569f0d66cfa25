"""Whether a client asks for ``currval()`` or ``lastval()``: what costs something is carried where somebody does."""

from typing import Final

# Whatever calls one of them; see ``session.NEEDLES``. The name in a comment or a string is no harm.
NEEDLES: Final = (b"currval", b"lastval")


class SequenceValues:
    """Of one session's statements."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        self.asked = False

    def scan(self, text: bytes, *, prepares: bool) -> None:  # noqa: ARG002  as the other scanners
        """Look at the body of a Query or Parse message."""
        if not self.asked:
            lowered = text.lower()
            self.asked = any(needle in lowered for needle in NEEDLES)
