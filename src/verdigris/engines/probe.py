"""Can these binaries run here, under the engine account, and replicate? Asked before they are offered."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from verdigris.engines.account import EngineAccount

SUPPORTED_MAJORS = range(14, 19)
# What the product runs itself, and what pg_upgrade and pg_verifybackup run.
REQUIRED_PROGRAMS = (
    "postgres",
    "initdb",
    "pg_basebackup",
    "pg_controldata",
    "pg_ctl",
    "pg_dump",
    "pg_dumpall",
    "pg_resetwal",
    "pg_restore",
    "pg_upgrade",
    "pg_verifybackup",
    "pg_waldump",
    "psql",
    "vacuumdb",
)
_TIMEOUT_S = 20


class ProbeResult(Struct, frozen=True, kw_only=True):
    """``obstacle`` is None when the binaries can be used; ``version`` is empty when they could not say it."""

    version: str = ""
    share_dir: str = ""
    obstacle: str | None = None


def probe(bin_dir: Path, account: EngineAccount, *, library_path: Path | None = None) -> ProbeResult:
    """Run the server's ``--version`` as the account, look for programs and for missing libraries."""
    server = bin_dir / "postgres"
    answer = _output([str(server), "--version"], account)
    if answer.error is not None:
        missing = missing_libraries(server, account, library_path)
        return ProbeResult(obstacle=_missing_text(missing) if missing else answer.error)
    match = re.search(r"\(PostgreSQL\) (\d+\.\d+)\b", answer.text)
    if match is None:
        return ProbeResult(obstacle=f"no release version of PostgreSQL: {answer.text.strip()}")
    version = match[1]
    if int(version.split(".")[0]) not in SUPPORTED_MAJORS:
        return ProbeResult(
            version=version,
            obstacle=f"major versions {SUPPORTED_MAJORS[0]} to {SUPPORTED_MAJORS[-1]} are supported",
        )
    absent = [program for program in REQUIRED_PROGRAMS if not (bin_dir / program).is_file()]
    if absent:
        return ProbeResult(version=version, obstacle=f"programs are missing in {bin_dir}: {', '.join(absent)}")
    obstacle = receiver_obstacle(bin_dir, account, library_path)
    return ProbeResult(version=version, share_dir=_directory("share", bin_dir, account), obstacle=obstacle)


def receiver_obstacle(bin_dir: Path, account: EngineAccount, library_path: Path | None) -> str | None:
    """Replication needs libpqwalreceiver to find the libpq of its own build; an older one from the system makes it
    fail at its first connection only (``invalid connection option``)."""
    receiver = Path(_directory("pkglib", bin_dir, account)) / "libpqwalreceiver.so"
    if not receiver.is_file():
        return f"{receiver} is missing"
    missing = missing_libraries(receiver, account, library_path)
    if missing:
        return _missing_text(missing)
    found = _linked(receiver, account, library_path).get("libpq.so.5") if library_path else None
    if library_path and found and not Path(found).resolve().is_relative_to(library_path.resolve()):
        return f"{receiver} would load {found}"
    return None


def missing_libraries(binary: Path, account: EngineAccount, library_path: Path | None = None) -> list[str]:
    """Shared libraries that ``binary`` wants and the dynamic linker does not find."""
    return sorted(name for name, path in _linked(binary, account, library_path).items() if path is None)


def can_use_locale(name: str, account: EngineAccount) -> bool:
    """Whether the C library has it. Taken for granted where there is no ``locale`` program to ask."""
    answer = _output(["locale", "charmap"], account, {"LC_ALL": name})
    return answer.error is not None or answer.text.strip() == "UTF-8"


def _linked(binary: Path, account: EngineAccount, library_path: Path | None) -> dict[str, str | None]:
    """Library -> path, None if not found, as ``ldd`` says; empty where there is no ``ldd``."""
    env = {"LD_LIBRARY_PATH": str(library_path)} if library_path else {}
    libraries: dict[str, str | None] = {}
    for line in _output(["ldd", str(binary)], account, env).text.splitlines():
        if match := re.match(r"\s*(\S+) => (not found|/\S+)", line):
            libraries[match[1]] = None if match[2] == "not found" else match[2]
    return libraries


def _missing_text(libraries: list[str]) -> str:
    return f"libraries are missing on this system: {', '.join(libraries)}"


def _directory(kind: str, bin_dir: Path, account: EngineAccount) -> str:
    """Where a relocatable build looks for its files: ``share`` or ``pkglib``. Only ``pg_config`` really knows."""
    if (bin_dir / "pg_config").is_file():
        said = _output([str(bin_dir / "pg_config"), f"--{kind}dir"], account).text.strip()
        if said:
            return said
    fallback = bin_dir.parent / ("share" if kind == "share" else "lib")
    return str(fallback / "postgresql") if (fallback / "postgresql").is_dir() else str(fallback)


class _Answer(Struct, frozen=True):
    text: str
    error: str | None = None


def _output(command: list[str], account: EngineAccount, env: Mapping[str, str] | None = None) -> _Answer:
    try:
        ran = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
            cwd="/",
            env=account.environment(env),
            check=False,
            **account.process_options(),
        )
    except PermissionError:
        return _Answer("", f"{command[0]} is out of reach for the account {account.name!r}")
    except (OSError, subprocess.TimeoutExpired) as error:
        return _Answer("", f"{command[0]} cannot be run: {error}")
    return _Answer(ran.stdout, None if ran.returncode == 0 else ran.stderr.strip() or f"exit status {ran.returncode}")
