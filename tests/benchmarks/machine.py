"""What figures have to be read with: the machine, the versions, and who else was at work."""

import os
import platform
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import verdigris

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_REPOSITORY = Path(__file__).parents[2]


def describe(**versions: str) -> str:
    """A list, one fact a line. ``versions`` are of the programs that take part."""
    facts = {
        "measured": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{len(os.sched_getaffinity(0))} cores, {_processor()}, {_memory_gib():.0f} GiB of memory",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "verdigris": f"{verdigris.__version__} ({_commit()}), uvloop {version_of('uvloop')}",
        **versions,
        "load before": load(),
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def load() -> str:
    """Load averages, and how busy all processors are during one second in which this process does nothing."""
    averages = ", ".join(f"{average:.2f}" for average in os.getloadavg())
    busy, total = _ticks()
    time.sleep(1)  # the measurement itself: an interval
    busy_after, total_after = _ticks()
    share = (busy_after - busy) / max(1, total_after - total)
    return f"load averages {averages}; processors {share:.0%} busy with other work"


def cpu_s(pid: int) -> float:
    """Processor time that a process and its children have used, all threads together, in clock ticks (10 ms)."""
    return sum(_ticks_of(one) for one in family(pid)) / _TICKS_PER_S


def _ticks_of(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat[stat.rindex(")") + 2 :].split()
    return int(fields[11]) + int(fields[12])  # utime, stime: proc(5)


def family(pid: int) -> list[int]:
    """The process and everything that it has started and that still runs."""
    try:
        texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []  # it has just ended
    return [pid, *(one for text in texts for child in text.split() for one in family(int(child)))]


def resident_bytes(pid: int) -> tuple[int, int]:
    """Rss and Pss of a process and its children, each summed up: proc(5), smaps_rollup. Kernel memory (sockets) is in
    neither."""
    rss = pss = 0
    for one in family(pid):
        with suppress(OSError):
            own_rss, own_pss = own_resident_bytes(one)
            rss += own_rss
            pss += own_pss
    return rss, pss


def own_resident_bytes(pid: int) -> tuple[int, int]:
    """The same of the process alone. Raises ``OSError`` if it has ended."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return _kilobytes(text, "Rss") * 1024, _kilobytes(text, "Pss") * 1024


def available_bytes() -> int:
    """What the system could still give to processes, without swapping."""
    return _kilobytes(Path("/proc/meminfo").read_text(), "MemAvailable") * 1024


def _kilobytes(text: str, name: str) -> int:
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name}:"))


def program_version(*command: str) -> str:
    """The first line of what a program says of itself."""
    completed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return (completed.stdout.strip() or completed.stderr.strip()).partition("\n")[0]


def _ticks() -> tuple[int, int]:
    """Busy and all ticks since the start of the machine: proc(5), the first line of /proc/stat."""
    fields = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3


def version_of(package: str) -> str:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return "not installed"


def _commit() -> str:
    """Of the checkout, with a word about changes that are not in it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_REPOSITORY), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "--short", "HEAD")
        return commit + (" with changes" if git("status", "--porcelain", "--", "src") else "")
    except (OSError, subprocess.CalledProcessError):
        return "not a checkout"
