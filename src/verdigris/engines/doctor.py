"""Whether this machine can run database servers, and if not, what to do about it."""

import os
import shutil
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from verdigris.domain.errors import EngineError
from verdigris.engines.account import EngineAccount
from verdigris.engines.catalogue import Catalogue
from verdigris.engines.fetch import has_client
from verdigris.engines.layout import Layout
from verdigris.engines.probe import can_use_locale

# Below this a server that recovers, or a base backup, is likely to fail.
_FREE_BYTES = 1024**3
# Builds leave time zones to the system; without them initdb fails.
_ZONE_FILE = Path("/usr/share/zoneinfo/UTC")
_LONGEST_RESOURCE_ID = "db-" + 26 * "A"
LOCALE = "C.UTF-8"


class Health(StrEnum):
    GOOD = "good"
    WARNING = "warning"  # something will not be possible
    PROBLEM = "problem"  # no server will run


class Check(Struct, frozen=True, kw_only=True):
    name: str
    health: Health
    detail: str


def examine(home: Path, catalogue: Catalogue, account: EngineAccount) -> list[Check]:
    """Look at everything. Blocks for some hundred milliseconds; creates the directories it asks about."""
    return [
        Check(name="account", health=Health.GOOD, detail=f"servers run as {account.name} (uid {account.uid})"),
        _state_directory(home, account),
        _disk("free space for data", home),
        _locale(account),
        _time_zones(),
        _cache(catalogue),
        _client(),
        *_engines(catalogue),
    ]


def _state_directory(home: Path, account: EngineAccount) -> Check:
    layout = Layout(home)
    try:
        layout.check(_LONGEST_RESOURCE_ID)
        layout.prepare(account)
    except (EngineError, OSError) as error:
        return Check(name="state directory", health=Health.PROBLEM, detail=str(error))
    return Check(name="state directory", health=Health.GOOD, detail=str(layout.home))


def _disk(name: str, path: Path) -> Check:
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    health = Health.GOOD if free >= _FREE_BYTES else Health.WARNING
    return Check(name=name, health=health, detail=f"{free >> 20} MiB free in {path}")


def _locale(account: EngineAccount) -> Check:
    if can_use_locale(LOCALE, account):
        return Check(name="locale", health=Health.GOOD, detail=f"{LOCALE} is here")
    return Check(name="locale", health=Health.PROBLEM, detail=f"the C library does not know the locale {LOCALE}")


def _time_zones() -> Check:
    if _ZONE_FILE.exists():
        return Check(name="time zones", health=Health.GOOD, detail=str(_ZONE_FILE.parent))
    return Check(name="time zones", health=Health.PROBLEM, detail=f"{_ZONE_FILE} is missing: install tzdata")


def _cache(catalogue: Catalogue) -> Check:
    directory = catalogue.cache_dir
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return Check(name="engine cache", health=Health.WARNING, detail=str(error))
    if not os.access(directory, os.W_OK):
        return Check(name="engine cache", health=Health.WARNING, detail=f"{directory} cannot be written to")
    return _disk("engine cache", directory)


def _client() -> Check:
    if has_client():
        return Check(name="fetching", health=Health.GOOD, detail="pip or uv is here")
    return Check(name="fetching", health=Health.WARNING, detail="neither pip nor uv is here: only installed engines")


def _engines(catalogue: Catalogue) -> Iterator[Check]:
    entries = catalogue.discover()
    if not any(entry.usable for entry in entries):
        yield Check(name="engines", health=Health.PROBLEM, detail="no PostgreSQL can be used here")
    for entry in entries:
        name = f"postgres {entry.version} ({entry.source})"
        if entry.obstacle is not None:
            yield Check(name=name, health=Health.WARNING, detail=entry.obstacle)
        elif entry.installation is not None:
            yield Check(name=name, health=Health.GOOD, detail=entry.installation.bin_dir)
