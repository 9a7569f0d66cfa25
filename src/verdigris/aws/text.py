"""Which characters the protocol can carry: its answers are XML 1.0, which leaves some out even when escaped."""

import re

# The complement of XML 1.0's production Char, surrogates included.
UNCARRIABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_MAX_SHOWN = 256


def shown(value: str) -> str:
    """``value`` fit for an error message: at most 256 characters of it."""
    return value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + "..."
