"""The session tracker that is used: compiled where it could be built, else the reference."""

import os
from typing import TYPE_CHECKING, Final

__all__ = ["COMPILED", "SessionTracker"]

if TYPE_CHECKING:
    from verdigris.wire.postgres.session import SessionTracker

    COMPILED: bool
else:
    try:
        if os.environ.get("VERDIGRIS_PURE_PYTHON") == "1":
            raise ImportError("not wanted")
        from verdigris.wire.postgres._tracker import SessionTracker
    except ImportError:
        from verdigris.wire.postgres.session import SessionTracker

        COMPILED: Final = False
    else:
        COMPILED: Final = True
