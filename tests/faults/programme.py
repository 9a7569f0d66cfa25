"""Which play is played in which scene."""

from tests.faults.plays import Play, SwitchoverPlay, WayBackPlay
from tests.faults.plays_life import (
    CreateInstancePlay,
    CreatePlay,
    DeleteInstancePlay,
    DeletePlay,
    ModifyInstancePlay,
    RebootChangedPlay,
    RebootInstancePlay,
    StartInstancePlay,
    StopInstancePlay,
)
from tests.faults.plays_replicas import CreateReplicaPlay, DeleteReplicaPlay, DeleteSourcePlay, PromoteReplicaPlay
from tests.faults.plays_snapshots import (
    CopySnapshotPlay,
    CreateSnapshotPlay,
    DeleteSnapshotPlay,
    DeleteWithSnapshotPlay,
    RestoreInstancePlay,
)
from tests.faults.plays_topology import CreateTopologyPlay, DeleteTopologyPlay
from tests.faults.points import Scene

PLAYS: dict[Scene, type[Play]] = {
    Scene.SWITCHOVER: SwitchoverPlay,
    Scene.WAY_BACK: WayBackPlay,
    Scene.CREATE: CreatePlay,
    Scene.DELETE: DeletePlay,
    Scene.RELEASE: DeletePlay,
    Scene.CREATE_INSTANCE: CreateInstancePlay,
    Scene.MODIFY_INSTANCE: ModifyInstancePlay,
    Scene.REBOOT_INSTANCE: RebootInstancePlay,
    Scene.STOP_INSTANCE: StopInstancePlay,
    Scene.START_INSTANCE: StartInstancePlay,
    Scene.DELETE_INSTANCE: DeleteInstancePlay,
    Scene.CREATE_REPLICA: CreateReplicaPlay,
    Scene.PROMOTE_REPLICA: PromoteReplicaPlay,
    Scene.DELETE_REPLICA: DeleteReplicaPlay,
    Scene.DELETE_SOURCE: DeleteSourcePlay,
    Scene.REBOOT_CHANGED: RebootChangedPlay,
    Scene.CREATE_SNAPSHOT: CreateSnapshotPlay,
    Scene.RESTORE_INSTANCE: RestoreInstancePlay,
    Scene.DELETE_WITH_SNAPSHOT: DeleteWithSnapshotPlay,
    Scene.COPY_SNAPSHOT: CopySnapshotPlay,
    Scene.DELETE_SNAPSHOT: DeleteSnapshotPlay,
    Scene.CREATE_TOPOLOGY: CreateTopologyPlay,
    Scene.DELETE_TOPOLOGY: DeleteTopologyPlay,
}
