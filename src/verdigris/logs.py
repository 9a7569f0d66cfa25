"""Logging: JSON lines in the state directory, readable lines on the terminal. Events are ``noun.verb`` with fields."""

import logging
import logging.handlers
import os
import sys
from io import TextIOWrapper
from pathlib import Path

import structlog

_FILE_BYTES = 20 * 1024 * 1024
_FILES_KEPT = 3


class _PrivateFileHandler(logging.handlers.RotatingFileHandler):
    """Nobody else reads its files, those that a rotation begins included, whatever the umask."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return TextIOWrapper(os.fdopen(descriptor, "ab"), encoding="utf-8")


def configure(path: Path, *, console: bool) -> None:
    """Send every log event to ``path`` (rotated, mode 0600) and, if ``console``, to standard error."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    to_file = _PrivateFileHandler(path, maxBytes=_FILE_BYTES, backupCount=_FILES_KEPT)
    to_file.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.dict_tracebacks,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    handlers: list[logging.Handler] = [to_file]
    if console:
        handlers.append(_console(shared))
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    # Their INFO lines are a line per request or per migration step: noise at three in the morning.
    for name in ("uvicorn.access", "alembic", "botocore", "psycopg"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _console(shared: list[structlog.typing.Processor]) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
            ],
        )
    )
    return handler
