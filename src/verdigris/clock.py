"""The clocks of this machine."""

import time
from datetime import UTC, datetime
from pathlib import Path

from verdigris.domain.ports import SinceBoot

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def since_boot(self) -> SinceBoot:
        return SinceBoot(boot=_BOOT_ID.read_text().strip(), seconds=time.clock_gettime(time.CLOCK_BOOTTIME))
