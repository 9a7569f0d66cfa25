"""A router that this one has replaced, as ``RouterService`` sees it."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verdigris.router.succession.messages import Remaining
    from verdigris.wire.postgres.messages import BackendKey


class Predecessor(Protocol):
    """Each call returns once it holds for what was on its way between the two processes, too; none fails if the other
    process dies."""

    @property
    def verifies_tokens(self) -> bool:
        """Else it lets in everybody of whom the server asks nothing, should it ever be the router again."""

    async def remaining(self) -> "Mapping[str, Remaining]":
        """By endpoint: clients that it still has. It takes no new ones, so who is not there is here, or gone."""

    async def close_endpoint(self, name: str, *, clients: bool, listener: bool) -> None:
        """Disconnect its clients of an endpoint; let go of the endpoint's port."""

    async def rename_endpoint(self, name: str, new_name: str) -> None: ...

    async def cancel(self, name: str, key: "BackendKey") -> bool:
        """Pass a cancel request on; whether it has that session."""

    async def stop(self) -> None:
        """End it, with the clients that it still has."""
