"""All guardrails of a deployment, looked at without switching over."""

import asyncio

from msgspec import Struct

from verdigris.admin import Sheet, open_servers, require_state
from verdigris.app import store_url
from verdigris.config import Settings
from verdigris.domain.errors import VerdigrisError
from verdigris.domain.ports import CheckOutcome, CheckResult, Pair
from verdigris.domain.statuses import DeploymentStatus
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.switchover import PostgresSwitchoverEngine
from verdigris.store.sql_store import open_store
from verdigris.workflows.services import pair_of

# A server that is frozen answers nothing for ever; a healthy pair takes well under a second, a lagging one some more.
LIMIT_S = 60.0

_NOTHING_TO_CHECK = {
    DeploymentStatus.PROVISIONING: "its green is still being made",
    DeploymentStatus.SWITCHOVER_COMPLETED: "it has been switched over",
    DeploymentStatus.DELETING: "it is being deleted",
}


class CheckReport(Struct, frozen=True, kw_only=True):
    identifier: str
    passed: bool
    checks: tuple[CheckResult, ...]


async def check_deployment(settings: Settings, identifier: str) -> CheckReport:
    """Works whether ``serve`` runs or not, and changes nothing. What a switchover would refuse does not pass."""
    pair = _pair(settings, identifier)
    servers = open_servers(settings)
    engine = PostgresSwitchoverEngine(servers, PostgresGreenBuilder(servers))
    try:
        async with asyncio.timeout(LIMIT_S):
            results = await engine.check(pair)
    except TimeoutError:
        raise VerdigrisError(f"the servers of {identifier} did not answer for {LIMIT_S:g} s") from None
    passed = all(result.outcome is CheckOutcome.OK for result in results)
    return CheckReport(identifier=identifier, passed=passed, checks=tuple(results))


def _pair(settings: Settings, identifier: str) -> Pair:
    require_state(settings)
    store = open_store(store_url(settings))
    try:
        with store.transaction() as tx:
            deployment = tx.deployment(identifier)
            if deployment is None:
                raise VerdigrisError(f"there is no blue/green deployment {identifier}")
            if why := _NOTHING_TO_CHECK.get(deployment.status):
                raise VerdigrisError(f"{identifier} has nothing to check: {why}")
            return pair_of(tx, deployment)
    finally:
        store.close()


def sheet(report: CheckReport) -> Sheet:
    rows = [
        (
            result.outcome,
            result.check,
            result.guardrail,
            result.side,
            "\n".join(finding.message for finding in result.findings),
        )
        for result in report.checks
    ]
    title = f"Guardrails of {report.identifier}: {'all passed' if report.passed else 'a switchover would be refused'}"
    return Sheet(title, ("", "check", "RDS's guardrail", "side", "finding"), rows)
