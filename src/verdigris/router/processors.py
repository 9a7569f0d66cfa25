"""How much can run at the same time."""

import os
from typing import Final

# Those that this process may use. The servers share them with us and, more often than not, with the clients.
COUNT: Final = len(os.sched_getaffinity(0))
