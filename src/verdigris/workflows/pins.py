"""Looking for sessions that a switchover could not carry, before there is one."""

from verdigris.domain.ports import DatabaseServers, PinReport, Router


async def look_for_pins(
    router: Router, servers: DatabaseServers, endpoint: str, resource_id: str, *, budget_s: float
) -> PinReport:
    """Pins that only the target can tell are missing; those of the login are judged by the passwords that
    ``resource_id`` has now, because a switchover carries them to the target."""
    sessions = await router.sessions(endpoint)
    verifiers = await servers.login_verifiers(resource_id, sessions.usernames)
    return await router.pins(endpoint, verifiers, budget_s=budget_s)
