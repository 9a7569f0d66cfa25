"""What the commands beside ``serve`` do: look at a state directory, stop what runs on it, mind the engine versions."""

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from verdigris.app import open_catalogue, store_url
from verdigris.config import Settings
from verdigris.domain import status_details
from verdigris.domain.errors import VerdigrisError
from verdigris.domain.model import DBInstance
from verdigris.domain.ports import Replica, ReplicaState
from verdigris.engines.account import engine_account
from verdigris.engines.doctor import Health, examine
from verdigris.engines.postgres.replicas import PostgresReplicas
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.keys import read_keys
from verdigris.lock import find_presence
from verdigris.router.client import RouterClient
from verdigris.router.process import RouterProcess
from verdigris.store.sql_store import open_store
from verdigris.workflows.pins import look_for_pins
from verdigris.workflows.replication import replica_record

STOP_LIMIT_S = 30.0
# How long sessions are asked whether they could be carried, and how long that may take if a server is frozen.
LOOK_S = 2.0
LOOK_LIMIT_S = 10.0
_POLL_S = 0.05


class Sheet(Struct, frozen=True):
    """A table to print."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def running_endpoint_url(settings: Settings) -> str | None:
    presence = find_presence(settings.home)
    return presence.endpoint_url if presence is not None else None


# --------------------------------------------------------------------------------------------------------------- status


def require_state(settings: Settings) -> None:
    if not (settings.home / "state.db").exists():
        raise VerdigrisError(f"{settings.home} is not a state directory: nothing was ever started on it")


async def read_status(settings: Settings) -> list[Sheet]:
    """Control plane, router, instances, their sessions, and deployments. Reads only; works whether ``serve`` runs or
    not."""
    require_state(settings)
    router = RouterProcess(settings.home)
    presence = find_presence(settings.home)
    processes: list[tuple[Any, ...]] = [
        ("control plane", presence.pid if presence else "-", presence.endpoint_url if presence else "not running"),
        ("router", router.pid or "-", "running" if router.pid else "not running"),
    ]
    instances, sessions = await _instances(settings, running=router.pid is not None)
    return [
        Sheet("Processes", ("what", "pid", "state"), processes),
        instances,
        await _replicas(settings),
        sessions,
        _deployments(settings),
    ]


async def _instances(settings: Settings, *, running: bool) -> tuple[Sheet, Sheet]:
    servers = open_servers(settings)
    store = open_store(store_url(settings))
    try:
        with store.transaction() as tx:
            instances = tx.instances()
        client = RouterClient(settings.home, epoch=store.epoch())
    finally:
        store.close()
    rows = []
    reachable = []
    for instance in instances:
        up = await servers.is_running(instance.resource_id)
        if running and up:
            reachable.append(instance)
        sessions = (await client.sessions(instance.identifier)).sessions if running and up else "-"
        rows.append(
            (
                instance.identifier,
                instance.engine_version,
                instance.status,
                f"{settings.endpoint_host}:{instance.port}",
                "running" if up else "stopped",
                sessions,
                "read-only" if instance.read_only else "",
            )
        )
    sheet = Sheet("Instances", ("identifier", "version", "status", "endpoint", "server", "sessions", ""), rows)
    return sheet, await _pins(client, servers, reachable)


async def _pins(client: RouterClient, servers: PostgresServers, instances: Sequence[DBInstance]) -> Sheet:
    """What a switchover begun now would not carry, as far as the sessions' own servers can tell."""

    async def row(instance: DBInstance) -> tuple[Any, ...]:
        name = instance.identifier
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                report = await look_for_pins(client, servers, name, instance.resource_id, budget_s=LOOK_S)
        except (VerdigrisError, TimeoutError) as error:
            return (name, "-", "-", "-", f"not known: {str(error) or 'no answer in time'}")
        pinned = sum(report.pinned.values())
        return (name, report.sessions, report.unseen, pinned, status_details.counts(report.pinned))

    columns = ("endpoint", "sessions", "too busy to tell", "cannot be carried", "because of")
    rows = await asyncio.gather(*(row(instance) for instance in instances))
    return Sheet("Sessions that a switchover would not carry", columns, list(rows))


async def _replicas(settings: Settings) -> Sheet:
    """How far each read replica is behind its source, now."""
    store = open_store(store_url(settings))
    try:
        with store.transaction() as tx:
            instances = tx.instances()
            known = [(instance, replica_record(tx, instance)) for instance in instances if instance.replica_of]
    finally:
        store.close()
    names = {instance.resource_id: instance.identifier for instance in instances}
    replicas = PostgresReplicas(open_servers(settings))

    async def row(instance: DBInstance, replica: Replica) -> tuple[Any, ...]:
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                state = await replicas.look(replica)
        except (VerdigrisError, TimeoutError) as error:
            state = ReplicaState(trouble=str(error) or "no answer in time")
        behind = "-" if state.lag_bytes is None else f"{state.lag_bytes} bytes"
        source = names.get(replica.source_resource_id, "-")
        return instance.identifier, source, "error" if state.trouble else "replicating", behind, state.trouble or ""

    rows = await asyncio.gather(*(row(instance, replica) for instance, replica in known))
    return Sheet("Read replicas", ("identifier", "source", "replication", "behind", ""), list(rows))


def _deployments(settings: Settings) -> Sheet:
    store = open_store(store_url(settings))
    try:
        with store.transaction() as tx:
            deployments = tx.deployments()
    finally:
        store.close()
    rows = [
        (
            deployment.identifier,
            deployment.name,
            deployment.status,
            f"{deployment.primary.source_identifier} -> {deployment.primary.target_identifier or '(none yet)'}",
            deployment.status_details or "",
        )
        for deployment in deployments
    ]
    return Sheet("Blue/green deployments", ("identifier", "name", "status", "members", "details"), rows)


def open_servers(settings: Settings) -> PostgresServers:
    """To look at or to stop: through these nobody minds them."""
    return PostgresServers(settings.home, open_catalogue(settings), engine_account(settings.engine_account))


# --------------------------------------------------------------------------------------------------------------- router


async def restart_router(settings: Settings) -> list[str]:
    """Replace the router's process by a new one of this program; says what has become of its clients."""
    router = RouterProcess(settings.home, limits=settings.limits)
    before = router.pid
    pid = await router.restart()
    if before is None:
        return [f"router started (pid {pid}): none was running"]
    lines = [f"router replaced: pid {before} -> {pid}, settings read anew"]
    store = open_store(store_url(settings))
    try:
        client = RouterClient(settings.home, epoch=store.epoch())
    finally:
        store.close()
    left = sum(endpoint.with_predecessor for endpoint in (await client.statistics()).endpoints)
    if left:
        lines.append(
            f"{left} clients are still with pid {before}: they follow at the end of their transactions; TLS sessions"
            f" end by themselves, or with 57P01 after {settings.limits.drain_s:g} s"
        )
    return lines


# ----------------------------------------------------------------------------------------------------------------- down


async def stop_everything(settings: Settings) -> list[str]:
    """Stop the control plane first (it would start again what stops), then the router, then the engines."""
    if not settings.home.exists():
        return [f"nothing to stop: {settings.home} does not exist"]
    lines = []
    presence = find_presence(settings.home)
    if presence is not None:
        os.kill(presence.pid, signal.SIGTERM)
        await _gone(settings)
        lines.append(f"control plane stopped (pid {presence.pid})")
    router = RouterProcess(settings.home)
    if router.pid is not None:
        await router.stop()
        lines.append("router stopped")
    servers = open_servers(settings)
    for resource_id in servers.known():
        if await servers.is_running(resource_id):
            await servers.stop(resource_id)
            lines.append(f"engine {resource_id} stopped")
    return lines or ["nothing was running"]


async def _gone(settings: Settings) -> None:
    until = time.monotonic() + STOP_LIMIT_S
    while find_presence(settings.home) is not None:
        if time.monotonic() > until:
            raise VerdigrisError(f"the control plane did not stop within {STOP_LIMIT_S:g} s")
        await asyncio.sleep(_POLL_S)


# ----------------------------------------------------------------------------------------------------------------- keys


def list_keys(settings: Settings) -> Sheet:
    rows = [
        (key.access_key_id, key.user, " ".join(rule.actions), " ".join(rule.resources))
        for key in read_keys(settings.keys_path)
        for rule in key.rules
    ]
    return Sheet("Access keys beside the root key", ("access key id", "user", "allowed actions", "on"), rows)


# -------------------------------------------------------------------------------------------------------------- engines


async def list_engines(settings: Settings) -> Sheet:
    entries = await asyncio.to_thread(open_catalogue(settings).entries)
    rows = [
        (
            entry.version,
            entry.source,
            "yes" if entry.installation is not None else "no",
            entry.obstacle or (entry.installation.bin_dir if entry.installation else "fetched when first needed"),
        )
        for entry in entries
    ]
    return Sheet("PostgreSQL versions", ("version", "source", "installed", "where, or why not"), rows)


async def install_engine(settings: Settings, version: str) -> str:
    installation = await open_catalogue(settings).installation(version)
    return f"PostgreSQL {installation.version} is installed ({installation.source}): {installation.bin_dir}"


async def check_engines(settings: Settings) -> tuple[Sheet, bool]:
    """The doctor's findings, and whether all is well."""
    account = engine_account(settings.engine_account)
    checks = await asyncio.to_thread(examine, settings.home, open_catalogue(settings), account)
    rows = [(check.health, check.name, check.detail) for check in checks]
    return Sheet("Checks", ("", "check", "finding"), rows), all(check.health is not Health.PROBLEM for check in checks)
