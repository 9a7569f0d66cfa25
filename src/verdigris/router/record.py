"""Naming a process for good: a pid alone comes round again."""

from pathlib import Path

from msgspec import Struct


class ProcessRecord(Struct, frozen=True):
    pid: int
    started_ticks: int  # field 22 of /proc/PID/stat: clock ticks after boot


def started_ticks(pid: int) -> int | None:
    """None if there is no such process, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == b"Z" else int(fields[19])
