"""DescribeDBLogFiles and DownloadDBLogFilePortion."""

from collections.abc import Mapping
from typing import Any

from verdigris.aws.errors import Fault, invalid_parameter_value
from verdigris.domain.errors import EngineError
from verdigris.domain.ports import LogFile
from verdigris.rds import views
from verdigris.rds.context import Context
from verdigris.rds.filters import apply_filters
from verdigris.rds.lookups import require_instance
from verdigris.rds.pagination import paginate

# RDS API reference, DownloadDBLogFilePortion.
MAX_BYTES = 1024 * 1024
MAX_LINES = 10_000


def describe_db_log_files(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    apply_filters(params.get("Filters"), (), {})  # "This parameter isn't currently supported", says the reference
    part, since_ms, above = (params.get(name) for name in ("FilenameContains", "FileLastWritten", "FileSize"))
    found = [
        file
        for file in _log_files(context, params["DBInstanceIdentifier"])
        if (part is None or part in file.name)
        and (since_ms is None or file.written_at_ms >= since_ms)
        and (above is None or file.size_bytes > above)
    ]
    page, marker = paginate("DescribeDBLogFiles", params, found, lambda file: [file.name])
    return {"DescribeDBLogFiles": [views.log_file_view(file) for file in page], "Marker": marker}


def download_db_log_file_portion(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """With a marker what comes after it, without one the end of the file. A marker is a place in the file: one that the
    file has been cut short of since begins at its beginning."""
    name, lines = params["LogFileName"], params.get("NumberOfLines") or MAX_LINES
    if not 1 <= lines <= MAX_LINES:
        raise invalid_parameter_value(f"Invalid value {lines} for NumberOfLines. Must be between 1 and {MAX_LINES}")
    with context.store.transaction() as tx:
        resource_id = require_instance(tx, params["DBInstanceIdentifier"]).resource_id
    file = next((f for f in _log_files(context, params["DBInstanceIdentifier"]) if f.name == name), None)
    if file is None:
        raise Fault("DBLogFileNotFoundFault", f"DBLog File: {name}, is not found on the DB instance")
    start = _offset(params.get("Marker"))
    from_end = start is None
    if start is None:
        start = max(file.size_bytes - MAX_BYTES, 0)
    elif start > file.size_bytes:
        start = 0
    content = context.servers.read_log_file(resource_id, name, offset=start, limit_bytes=MAX_BYTES)
    taken = _last_lines(content, lines, whole=start == 0) if from_end else _first_lines(content, lines)
    end = start + (len(content) if from_end else len(taken))
    return {
        "LogFileData": taken.decode(errors="replace"),
        "Marker": str(end),
        "AdditionalDataPending": end < file.size_bytes,
    }


def _log_files(context: Context, identifier: str) -> list[LogFile]:
    with context.store.transaction() as tx:
        instance = require_instance(tx, identifier)
    try:
        return sorted(context.servers.log_files(instance.resource_id), key=lambda file: file.name)
    except EngineError:
        raise Fault("DBInstanceNotReadyFault", f"DB instance {instance.identifier} has no server yet") from None


def _offset(marker: str | None) -> int | None:
    if not marker:
        return None
    if not (marker.isascii() and marker.isdigit() and len(marker) < 19):
        raise invalid_parameter_value("The value of Marker is not one that a call of this operation has returned")
    return int(marker)


def _first_lines(content: bytes, lines: int) -> bytes:
    """Whole ones, unless the first of them does not fit."""
    whole = content.splitlines(keepends=True)
    if len(whole) > 1 and not whole[-1].endswith(b"\n"):
        whole.pop()  # it is being written, or goes on behind the limit
    return b"".join(whole[:lines])


def _last_lines(content: bytes, lines: int, *, whole: bool) -> bytes:
    found = content.splitlines(keepends=True)
    return b"".join((found if whole else found[1:])[-lines:])
