"""The router's process from the inside: one per state directory, until it is told to stop."""

import asyncio
import ctypes
import gc
import logging
import os
import resource
import signal
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TextIO

import structlog

from verdigris import __version__
from verdigris.router import tls
from verdigris.router.control import ControlServer
from verdigris.router.limits import Limits
from verdigris.router.paths import RouterPaths
from verdigris.router.routes import RouteStore
from verdigris.router.seat import Seat
from verdigris.router.service import RouterService
from verdigris.router.succession.accession import Accession
from verdigris.router.succession.server import SuccessionServer
from verdigris.wire.postgres.tracker import COMPILED

log = structlog.get_logger()

# <malloc.h> of glibc.
_M_MMAP_THRESHOLD = -3
# What uvloop allocates for each TLS connection to read into.
_TLS_BUFFER_BYTES = 256 * 1024


class Loop(StrEnum):
    AUTO = "auto"
    ASYNCIO = "asyncio"


def run(home: Path, loop: Loop = Loop.AUTO, limits: Limits | None = None, *, succeed: bool = False) -> None:
    """Serve until SIGTERM or SIGINT, or until another router has taken over.

    With ``succeed`` this one takes over from the router that serves ``home`` now. Raises ``VerdigrisError`` if that
    cannot be, or without ``succeed`` if there is such a router.
    """
    paths = RouterPaths(home.absolute())
    paths.check()
    paths.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    paths.log.parent.mkdir(parents=True, exist_ok=True)
    with paths.log.open("a", buffering=1) as log_file:
        _log_to(log_file)
        _raise_descriptor_limit()
        _return_large_buffers()
        with asyncio.Runner(loop_factory=_loop_factory() if loop is Loop.AUTO else None) as runner:
            runner.run(_serve(paths, limits or Limits(), succeed=succeed))


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


async def _serve(paths: RouterPaths, limits: Limits, *, succeed: bool) -> None:
    told_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop.set)
    certificate = tls.server_context(paths.tls)
    accession, seat = await Accession.begin(paths, limits) if succeed else (None, Seat.take(paths))
    service = RouterService(RouteStore(paths.routes), certificate, limits)
    if accession is not None:
        service.inherit(accession.inherited)
        service.verifier.given = accession.token_keys
    service.open()
    control = ControlServer(service, seat.control)
    control.open()
    seat.record()
    succession = SuccessionServer(service, control, seat)
    succession.open()
    # What is here now stays. Out of the collector's sight it no longer counts when the collector decides whether a full
    # run is worth it: ended sessions (cycles, and a quarter of a megabyte of TLS buffers each) are freed soon.
    gc.collect()
    gc.freeze()
    log.info("router.started", pid=os.getpid(), version=__version__, loop=type(loop).__module__, compiled=COMPILED)
    if accession is not None:
        accession.in_charge(service)
    await _first(told_to_stop, succession.replaced)
    if succession.replaced.is_set():
        log.info("router.replaced", pid=os.getpid())
        return
    is_the_router = await succession.stop()
    if service.predecessor is not None:
        await service.predecessor.stop()
    control.close()
    await service.close()
    if is_the_router:
        seat.leave()
    log.info("router.stopped", pid=os.getpid())


async def _first(*events: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
