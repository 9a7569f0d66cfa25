"""Replacing the router under a running installation."""

import asyncio
import sys
from pathlib import Path

from tests.acceptance.installation import Installation, wait_until
from verdigris.router.limits import Limits
from verdigris.router.process import RouterProcess
from verdigris.router.run import Loop


class OfAnotherVersion(RouterProcess):
    """Its routers believe that they are 0.0.1."""

    def command(  # type: ignore[override]  # the original is static, and need not know which it is
        self, home: Path, loop: Loop = Loop.AUTO, limits: Limits | None = None, *, succeed: bool = False
    ) -> list[str]:
        _, _, _, *arguments = RouterProcess.command(home, loop, limits, succeed=succeed)
        program = (
            "import sys, verdigris; verdigris.__version__ = '0.0.1'; import verdigris.router.__main__ as r; r.main()"
        )
        return [sys.executable, "-c", program, *arguments]


def test_restart_by_hand_and_by_an_upgrade(verdigris: Installation) -> None:
    verdigris.create_instance("app", "17.10")
    verdigris.await_instance("app")
    verdigris.await_connection("app")
    router = RouterProcess(verdigris.home)
    with verdigris.connect("app", sslmode="disable") as client:
        client.execute("SET app.number = 7")
        client.commit()
        first = router.pid
        answer = verdigris.command("router", "restart")
        assert answer.returncode == 0, answer.stderr
        second = router.pid
        assert second not in (first, None)
        assert f"{first} -> {second}" in answer.stdout
        assert client.execute("SELECT current_setting('app.number')").fetchone() == ("7",)
        client.commit()

        wait_until(lambda: not Path(f"/proc/{first}").exists(), "the first router's end")
        other = asyncio.run(OfAnotherVersion(verdigris.home).restart())
        assert router.pid == other
        verdigris.kill()
        verdigris.start()
        wait_until(lambda: router.pid != other, "the control plane to replace a router of another version")
        assert client.execute("SELECT current_setting('app.number')").fetchone() == ("7",)
        client.commit()
        renewed = router.pid
        verdigris.kill()
        verdigris.start()
        assert router.pid == renewed


def test_restart_without_a_router_starts_one(verdigris: Installation) -> None:
    router = RouterProcess(verdigris.home)
    verdigris.kill()
    asyncio.run(router.stop())
    answer = verdigris.command("router", "restart")
    assert answer.returncode == 0, answer.stderr
    assert "none was running" in answer.stdout
    assert router.pid is not None
