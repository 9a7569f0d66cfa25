"""The router's process from the inside: one per state directory, until it is told to stop."""

import asyncio
import ctypes
import fcntl
import gc
import logging
import os
import resource
import signal
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TextIO

import msgspec
import structlog
from msgspec import Struct

from verdigris.domain.errors import VerdigrisError
from verdigris.router import tls
from verdigris.router.control import ControlServer
from verdigris.router.paths import RouterPaths
from verdigris.router.routes import RouteStore
from verdigris.router.service import RouterService
from verdigris.wire.postgres.tracker import COMPILED

log = structlog.get_logger()

# <malloc.h> of glibc.
_M_MMAP_THRESHOLD = -3
# What uvloop allocates for each TLS connection to read into.
_TLS_BUFFER_BYTES = 256 * 1024


class ProcessRecord(Struct, frozen=True):
    """Names one process for good: a pid alone comes round again."""

    pid: int
    started_ticks: int  # field 22 of /proc/PID/stat: clock ticks after boot


def started_ticks(pid: int) -> int | None:
    """None if there is no such process, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == b"Z" else int(fields[19])


class Loop(StrEnum):
    AUTO = "auto"
    ASYNCIO = "asyncio"


def run(home: Path, loop: Loop = Loop.AUTO) -> None:
    """Serve until SIGTERM or SIGINT. Raises ``VerdigrisError`` if another router serves ``home``."""
    paths = RouterPaths(home.absolute())
    paths.check()
    paths.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    paths.log.parent.mkdir(parents=True, exist_ok=True)
    with paths.lock.open("w") as lock, paths.log.open("a", buffering=1) as log_file:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise VerdigrisError(f"another router serves {home}") from None
        _log_to(log_file)
        _raise_descriptor_limit()
        _return_large_buffers()
        with asyncio.Runner(loop_factory=_loop_factory() if loop is Loop.AUTO else None) as runner:
            runner.run(_serve(paths))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed: it doubles what one router can carry."""
    try:
        import uvloop  # not on every platform
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _raise_descriptor_limit() -> None:
    """Each session takes two descriptors, three while it is handed over."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _log_to(file: TextIO) -> None:
    """One JSON object a line; what the libraries have to say comes in the same way, from warnings upwards."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file),
    )
    logging.basicConfig(stream=file, level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # Its warnings are one for each write to a client that has just left: thousands, and nothing to do about them.
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def _return_large_buffers() -> None:
    """Let what a TLS session takes at once (a quarter of a megabyte) go back to the system when it ends.

    glibc learns from such buffers to keep them in its heap, which then grows with every session that comes and goes:
    seen at 170 MB after a thousand, 84 MB of it in use.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _TLS_BUFFER_BYTES)
    except AttributeError:
        return  # another C library, with habits of its own


async def _serve(paths: RouterPaths) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    service = RouterService(RouteStore(paths.routes), tls.server_context(paths.tls))
    service.open()
    control = ControlServer(service, paths.control_socket)
    await control.open()
    record = ProcessRecord(os.getpid(), started_ticks(os.getpid()) or 0)
    paths.record.write_bytes(msgspec.json.encode(record))
    # What is here now stays. Out of the collector's sight it no longer counts when the collector decides whether a full
    # run is worth it: ended sessions (cycles, and a quarter of a megabyte of TLS buffers each) are freed soon.
    gc.collect()
    gc.freeze()
    log.info("router.started", pid=record.pid, loop=type(loop).__module__, compiled=COMPILED)
    try:
        await stop.wait()
    finally:
        await control.close()
        await service.close()
        log.info("router.stopped", pid=record.pid)
