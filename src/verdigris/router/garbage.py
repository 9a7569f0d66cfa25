"""Python's garbage collector and the pause.

Thousands of sessions are hundreds of thousands of objects, which a full collection looks at one by one. That takes 50
milliseconds and more, in the middle of the pause as likely as not, since a handover makes many objects. So a collection
is run ahead of it, and what is left then is out of the collector's sight until the switchover is over.
"""

import gc


def set_aside() -> None:
    """Collect, and leave alone from now on whatever there is. It may be called again before ``bring_back``."""
    gc.collect()
    gc.freeze()


def bring_back() -> None:
    gc.unfreeze()
