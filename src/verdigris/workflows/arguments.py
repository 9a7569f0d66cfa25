"""What each kind of workflow is told when it is started (``Workflow.arguments``), besides its subject's record.

Kinds that are not here take none. Nothing here is secret: a password has become a verifier before it is written.
"""

from msgspec import Struct

from verdigris.domain.ports import SinceBoot


class CreateInstance(Struct, frozen=True, kw_only=True):
    master_password_verifier: str
    port_requested: bool = False  # the user named the port: no other will do


class CreateReadReplica(Struct, frozen=True, kw_only=True):
    port_requested: bool = False  # as for CreateInstance


class ModifyInstance(Struct, frozen=True, kw_only=True):
    """Only what has to be done on the server or the router; None: unchanged."""

    new_identifier: str | None = None
    master_password_verifier: str | None = None
    engine_version: str | None = None
    instance_class: str | None = None
    port: int | None = None
    token_logins: bool | None = None
    first_backup: bool | None = None  # automated backups have been switched on: one is taken at the end


class DeleteInstance(Struct, frozen=True, kw_only=True):
    """How it is tied to others; none of that changes while it is being deleted."""

    is_replica: bool = False
    has_replicas: bool = False
    final_snapshot: str | None = None  # snapshot id
    was_stopped: bool = False
    keeps_backups: bool = False


class StopInstance(Struct, frozen=True, kw_only=True):
    snapshot_id: str | None = None  # taken before


class CreateSnapshot(Struct, frozen=True, kw_only=True):
    snapshot_id: str


class CopySnapshot(Struct, frozen=True, kw_only=True):
    source_id: str
    region: str  # for the events


class RestoreInstance(Struct, frozen=True, kw_only=True):
    snapshot_id: str
    port_requested: bool = False  # as for CreateInstance


class CreateCluster(Struct, frozen=True, kw_only=True):
    port_requested: bool = False  # as for CreateInstance


class ModifyCluster(Struct, frozen=True, kw_only=True):
    """As ``ModifyInstance``."""

    master_password_verifier: str | None = None
    port: int | None = None


class SwitchOver(Struct, frozen=True, kw_only=True):
    """``Workflow.deadline_at`` holds the end of ``SwitchoverTimeout``, by the clock of the wall. That can be set, and
    the other cannot."""

    timeout_s: int
    accepted: SinceBoot | None = None


class DeleteDeployment(Struct, frozen=True, kw_only=True):
    delete_target: bool
