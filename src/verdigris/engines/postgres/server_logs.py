"""A server's log files, read for others. The directory is the engine account's, so links in it are not followed."""

import os
from pathlib import Path

from verdigris.domain.ports import LogFile
from verdigris.engines.postgres.server import PostgresServer

# RDS's PostgreSQL servers have theirs in a directory of this name.
_PREFIX = "error/"


def log_files(server: PostgresServer) -> list[LogFile]:
    """The present one, and the one before it if there is one."""
    found = []
    for path in _paths(server):
        try:
            status = path.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        found.append(LogFile(_PREFIX + path.name, status.st_size, status.st_mtime_ns // 1_000_000))
    return found


def read(server: PostgresServer, name: str, *, offset: int, limit_bytes: int) -> bytes:
    path = next((path for path in _paths(server) if _PREFIX + path.name == name), None)
    if path is None:
        return b""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            file.seek(offset)
            return file.read(limit_bytes)
    except FileNotFoundError:
        return b""


def _paths(server: PostgresServer) -> tuple[Path, Path]:
    return server.log_path, server.log_path.with_name(server.log_path.name + ".1")
