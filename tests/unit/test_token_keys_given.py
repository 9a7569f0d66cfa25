"""The control plane gives the router what verifies tokens, until it has taken it."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from verdigris.app import ControlPlane
from verdigris.domain.ports import TokenKeys
from verdigris.router.errors import RouterUnavailable

KEYS = TokenKeys(region="us-east-1", account_id="000000000000")


class Router:
    def __init__(self, *, fails: int) -> None:
        self.fails = fails
        self.asked = 0

    async def set_token_keys(self, keys: TokenKeys) -> None:
        assert keys is KEYS
        self.asked += 1
        if self.asked <= self.fails:
            raise RouterUnavailable("it does not answer")


def control_plane(router: Router) -> Any:
    """As much of one as this takes."""
    plane: Any = ControlPlane.__new__(ControlPlane)
    plane.router, plane.router_process = router, SimpleNamespace(pid=17)
    plane.services = SimpleNamespace(clock=SimpleNamespace(now=lambda: datetime(2026, 3, 1, tzinfo=UTC)))
    plane.keys = SimpleNamespace(revision=lambda: 1)
    plane._token_keys = lambda: KEYS
    plane._keys_given = plane._keys_refused = None
    return plane


async def test_one_that_did_not_answer_is_given_them_again() -> None:
    router = Router(fails=2)
    plane = control_plane(router)
    for _ in range(5):
        await plane._give_keys()
    assert router.asked == 3


async def test_each_router_is_given_them_once() -> None:
    router = Router(fails=0)
    plane = control_plane(router)
    for pid in (17, 17, None, 18, 18):
        plane.router_process.pid = pid
        await plane._give_keys()
    assert router.asked == 2
