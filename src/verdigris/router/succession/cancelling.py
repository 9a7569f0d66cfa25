"""Cancel requests that have come to the one process and are for a session of the other."""

from verdigris.router.endpoint import Endpoint
from verdigris.router.succession import messages
from verdigris.router.succession.channel import Channel, ChannelLost
from verdigris.wire.postgres.messages import BackendKey


async def pass_on(channel: Channel, name: str, key: BackendKey) -> bool:
    """Whether the other process has the session; the backend has then had its signal."""
    try:
        return await channel.ask(messages.Cancel(name, key), bool)
    except ChannelLost:
        return False


def answer(channel: Channel, number: int, endpoint: Endpoint | None, key: BackendKey) -> None:
    """The other process asks. It is not asked back: the session may be gone."""

    def answered() -> None:
        channel.answer(number, True)

    if endpoint is None or not endpoint.cancel_here(key, answered):
        channel.answer(number, False)
