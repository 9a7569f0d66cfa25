"""What a handler is given."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from verdigris.domain.identifiers import Arn, RandomText
from verdigris.domain.parameters import ParameterInfo
from verdigris.domain.ports import Clock, DatabaseServers, Ports, Store
from verdigris.domain.quotas import DEFAULTS, Quota


@dataclass(frozen=True)
class Context:
    """Gathered once by the composition root; shared by all requests, so everything in it is safe in any thread.

    ``wake`` tells the workflow runner that the store holds new work. It is called after the commit, from a thread of
    the pool. ``cancel_switchover`` takes a deployment's identifier; see ``workflows.cancellation``. It is the one that
    belongs to the event loop.
    """

    store: Store
    parameters: Callable[[str], Sequence[ParameterInfo]]  # of a family; may take seconds: not inside a transaction
    servers: DatabaseServers
    ports: Ports
    clock: Clock
    random_text: RandomText
    wake: Callable[[], None]
    cancel_switchover: Callable[[str], Awaitable[None]]
    region: str
    account_id: str
    endpoint_host: str
    topics: Collection[str] = ()  # ARNs of those that event subscriptions may name
    quotas: Mapping[Quota, int] = field(default_factory=lambda: DEFAULTS)

    def arn(self, kind: str, name: str) -> str:
        return str(Arn(region=self.region, account_id=self.account_id, kind=kind, name=name))

    def instance_arn(self, identifier: str) -> str:
        return self.arn("db", identifier)

    def cluster_arn(self, identifier: str) -> str:
        return self.arn("cluster", identifier)

    def snapshot_arn(self, identifier: str) -> str:
        return self.arn("snapshot", identifier)

    def cluster_endpoint_arn(self, identifier: str) -> str:
        return self.arn("cluster-endpoint", identifier)

    def parameter_group_arn(self, name: str) -> str:
        return self.arn("pg", name)

    def subnet_group_arn(self, name: str) -> str:
        return self.arn("subgrp", name)

    def event_subscription_arn(self, name: str) -> str:
        return self.arn("es", name)

    def deployment_arn(self, identifier: str) -> str:
        return self.arn("deployment", identifier)
