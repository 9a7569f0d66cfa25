"""The composition root: the one place where adapters meet. What ``verdigris serve`` runs."""

import asyncio
import ipaddress
import os
import secrets
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog

from verdigris import __version__, logs
from verdigris.api_server import BACKLOG, api_server, tls_context
from verdigris.clock import SystemClock
from verdigris.config import (
    ConfigurationError,
    Credentials,
    Settings,
    find_credentials,
    make_credentials,
    prepare_home,
)
from verdigris.domain.errors import VerdigrisError
from verdigris.domain.parameters import ParameterInfo
from verdigris.domain.ports import TokenKeys
from verdigris.engines.account import engine_account
from verdigris.engines.catalogue import Catalogue
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.replicas import PostgresReplicas
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.snapshots import PostgresSnapshots
from verdigris.engines.postgres.switchover import PostgresSwitchoverEngine
from verdigris.engines.supervisor import ServerCondition
from verdigris.keys import KeyRing
from verdigris.lock import Presence, StateLock
from verdigris.rds.asgi import create_app
from verdigris.rds.context import Context
from verdigris.rds.maintenance import Maintenance
from verdigris.router.client import RouterClient
from verdigris.router.ports import HostPorts, bind_listener
from verdigris.router.process import RouterProcess
from verdigris.store.sql_store import SqlStore, open_store
from verdigris.webhooks import Webhooks
from verdigris.workflows.attendance import Attendance
from verdigris.workflows.backups import AutomatedBackups
from verdigris.workflows.cancellation import cancel_switchover
from verdigris.workflows.cluster_routes import ClusterKeeper
from verdigris.workflows.factories import factories
from verdigris.workflows.monitor import DeploymentMonitor
from verdigris.workflows.notifier import Notifier
from verdigris.workflows.parameters import ParameterKeeper
from verdigris.workflows.protection import SourceProtection
from verdigris.workflows.replica_keeper import ReplicaKeeper
from verdigris.workflows.runner import WorkflowRunner
from verdigris.workflows.services import Services

log = structlog.get_logger(__name__)

# How often the router is looked after. It holds every client's connection: it must not stay away for long.
ROUTER_CHECK_S = 0.5
ROUTER_VERSION_CHECK_S = 60.0


def random_text(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


class ControlPlane:
    """Everything of one state directory but the listening socket of the API. Use ``running``."""

    def __init__(self, settings: Settings, credentials: Credentials, store: SqlStore) -> None:
        self.settings = settings
        self.credentials = credentials
        self.store = store
        account = engine_account(settings.engine_account)
        self.servers = PostgresServers(
            settings.home, open_catalogue(settings), account, report=self._on_server_condition, epoch=store.epoch()
        )
        self.router_process = RouterProcess(settings.home, limits=settings.limits)
        self.router = RouterClient(settings.home, epoch=store.epoch())
        first, last = settings.port_range
        self.ports = HostPorts(
            settings.endpoint_host,
            range(first, last + 1),
            reader_host=settings.reader_host,
            custom_hosts=settings.custom_hosts,
        )
        self.keys = KeyRing(credentials, settings.keys_path)
        # To which router, as of which day and file: given, and not taken.
        self._keys_given: object = None
        self._keys_refused: object = None
        green = PostgresGreenBuilder(self.servers, copy_rate_mib=settings.copy_rate_mib)
        self.services = Services(
            store=store,
            clock=SystemClock(),
            servers=self.servers,
            ports=self.ports,
            router=self.router,
            green=green,
            replicas=PostgresReplicas(self.servers, copy_rate_mib=settings.copy_rate_mib),
            snapshots=PostgresSnapshots(self.servers, copy_rate_mib=settings.copy_rate_mib),
            switchover=PostgresSwitchoverEngine(self.servers, green),
            random_text=random_text,
            token_keys=self._token_keys,
            policy=settings.switchover,
        )
        self.attendance = Attendance(self.services)
        self.runner = WorkflowRunner(store, factories(self.services))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Attach to, or start, the router and the engines, then work until the context ends. They live on."""
        self.servers.control.take_over()
        await self.router_process.ensure_running()
        await self._renew_router()
        await self._give_keys()
        await self.attendance.bring_up()
        async with _background(
            self._look_after_router(),
            self.runner.run(),
            DeploymentMonitor(self.services).run(),
            ParameterKeeper(self.services).run(),
            SourceProtection(self.services).run(),
            ReplicaKeeper(self.services).run(),
            ClusterKeeper(self.services).run(),
            AutomatedBackups(self.services, self.runner.wake).run(),
            self._notifier().run(),
            Maintenance(self.api_context()).run(),
        ):
            yield
        await self.servers.detach()

    def api_context(self) -> Context:
        """For handlers, which run in threads of their own; made in the event loop that the rest runs in."""
        loop = asyncio.get_running_loop()

        def parameters(family: str) -> Sequence[ParameterInfo]:
            return asyncio.run_coroutine_threadsafe(self.servers.parameters(family), loop).result()

        return Context(
            store=self.store,
            servers=self.servers,
            ports=self.ports,
            clock=self.services.clock,
            random_text=random_text,
            region=self.settings.region,
            account_id=self.settings.account_id,
            endpoint_host=self.settings.endpoint_host,
            parameters=parameters,
            wake=self.runner.wake,
            cancel_switchover=partial(cancel_switchover, self.services, self.runner),
            topics=self._topics(),
            quotas=self.settings.quotas,
        )

    # -- pieces

    def _topics(self) -> Mapping[str, str]:
        """Webhooks by the ARN that subscriptions name them with."""
        prefix = f"arn:aws:sns:{self.settings.region}:{self.settings.account_id}"
        return {f"{prefix}:{name}": url for name, url in self.settings.topics.items()}

    def _notifier(self) -> Notifier:
        settings = self.settings
        topics = Webhooks(self._topics())
        return Notifier(self.store, self.services.clock, topics, region=settings.region, account_id=settings.account_id)

    async def _look_after_router(self) -> None:
        looked_at = 0.0
        while True:
            await asyncio.sleep(ROUTER_CHECK_S)
            now = asyncio.get_running_loop().time()
            if self.router_process.pid is None:
                try:
                    await self.router_process.ensure_running()
                except VerdigrisError as error:
                    log.warning("router.not_started", reason=str(error))
            elif now - looked_at >= ROUTER_VERSION_CHECK_S:
                await self._renew_router()
                looked_at = now
            await self._give_keys()

    def _token_keys(self) -> TokenKeys:
        today = self.services.clock.now().date()
        return self.keys.token_keys(region=self.settings.region, account_id=self.settings.account_id, today=today)

    async def _give_keys(self) -> None:
        """To a router that has just started, each day, and whenever there are other keys."""
        now = (self.router_process.pid, self.services.clock.now().date(), self.keys.revision())
        if now[0] is None or now == self._keys_given:
            return
        try:
            await self.router.set_token_keys(self._token_keys())
        except VerdigrisError as error:
            # It does not answer at the moment, or is one of before tokens: tried again for as long as it is there.
            if now != self._keys_refused:
                log.warning("router.no_token_keys", reason=str(error))
            self._keys_refused = now
        else:
            self._keys_given = now

    async def _renew_router(self) -> None:
        """After an upgrade, have the router replaced by one of this version, when it lets itself be replaced: not in
        the middle of a switchover."""
        try:
            version = (await self.router.statistics()).version
            if version != __version__:
                pid = await self.router_process.restart()
                log.info("router.renewed", pid=pid, version_before=version)
        except VerdigrisError as error:
            log.warning("router.not_renewed", reason=str(error))

    def _on_server_condition(self, resource_id: str, condition: ServerCondition, detail: str) -> None:
        if condition is ServerCondition.RUNNING:
            self.attendance.came_up(resource_id)
        elif condition is ServerCondition.CRASH_LOOPING:
            self.attendance.gave_up(resource_id, detail)


@asynccontextmanager
async def _background(*jobs: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("background.failed", reason=repr(result))


def open_catalogue(settings: Settings) -> Catalogue:
    directories = [settings.engine_directory] if settings.engine_directory else []
    return Catalogue(engine_account(settings.engine_account), cache_dir=settings.engine_cache, directories=directories)


def store_url(settings: Settings) -> str:
    return f"sqlite:///{settings.home / 'state.db'}"


# ---------------------------------------------------------------------------------------------------------------- serve


async def serve_until_stopped(settings: Settings, *, host: str, port: int, insecure_listen: bool) -> None:
    """``verdigris serve``. Returns after SIGTERM or SIGINT; router and engines run on."""
    _require_protection(settings, host, insecure_listen)
    tls = None if settings.tls is None else tls_context(settings.tls)
    prepare_home(settings)
    logs.configure(settings.log_directory / "serve.log", console=True)
    credentials = find_credentials(settings) or make_credentials(settings)
    presence = Presence(
        host=host, port=port, certificate=None if settings.tls is None else str(settings.tls.certificate)
    )
    with StateLock(settings.home) as lock, bind_listener(host, port) as listener:
        store = open_store(store_url(settings))
        try:
            epoch = store.raise_epoch()
            log.info("control_plane.started", home=str(settings.home), epoch=epoch, pid=os.getpid())
            control_plane = ControlPlane(settings, credentials, store)
            async with control_plane.running():
                await _serve_api(control_plane, listener, tls, lambda: lock.publish(presence))
        finally:
            store.close()
    log.info("control_plane.stopped")


def _require_protection(settings: Settings, host: str, insecure_listen: bool) -> None:
    """Signed requests cannot be changed on their way, but they can be read: passwords are in them."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and settings.tls is None and not insecure_listen:
        raise ConfigurationError(
            f"the API would be plain HTTP, and {host} is not a loopback address: set VERDIGRIS_TLS_CERTIFICATE and"
            " VERDIGRIS_TLS_KEY, or put a proxy that speaks TLS in front of it and say --insecure-listen"
        )


async def _serve_api(
    control_plane: ControlPlane, listener: socket.socket, tls: ssl.SSLContext | None, ready: Callable[[], None]
) -> None:
    app = create_app(control_plane.api_context(), control_plane.keys.find)
    server = api_server(app, tls)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    listener.listen(BACKLOG)
    ready()
    await server.serve(sockets=[listener])
