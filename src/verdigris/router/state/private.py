"""Names of what the router itself makes in clients' sessions."""

from typing import Final

# Statements of the router's own; names of clients' statements that begin so are left alone.
PRIVATE_PREFIX: Final = b"_verdigris_"
# The one that runs a statement without parameters, and is closed again at once.
RUN: Final = PRIVATE_PREFIX + b"run"
