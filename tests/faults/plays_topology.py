"""What goes on while a fault strikes: deployments of a source with a read replica, whose green gets one as well."""

from tests.acceptance.installation import wait_until
from tests.acceptance.serve_log import ServeLog
from tests.faults.plays import follows, refuses_writes
from tests.faults.plays_replicas import COPY, PlayOfReplica, await_replica, begin_replica
from tests.faults.stage import NAME, gone


class TopologyPlay(PlayOfReplica):
    """At the end all of it is deleted, blue's replica last, and nothing is left on blue."""

    def prepare(self) -> None:
        self.stage.ensure_no_green(self.run.mode)
        begin_replica(self.stage, NAME)
        await_replica(self.stage, self.stage.blue)

    def conclude(self) -> str:
        outcome = self.look()
        self.stage.forget_green()
        self.hold("blue's replica can be deleted", lambda: self.verdigris.delete_instance(COPY))
        self.only_blue_is_left(self.stage.pristine)
        return outcome

    def look(self) -> str:
        """The outcome; no deployment is left."""
        raise NotImplementedError

    # -- for those below

    def _is_gone(self) -> bool:
        describe = self.verdigris.rds.describe_blue_green_deployments
        return gone(describe, BlueGreenDeploymentIdentifier=self.stage.deployment)

    def _ask(self) -> None:
        self.verdigris.rds.delete_blue_green_deployment(
            BlueGreenDeploymentIdentifier=self.stage.deployment, DeleteTarget=True
        )

    def _delete(self) -> None:
        self._ask()
        self.verdigris.await_no_deployment(self.stage.deployment or "")

    def _said(self, *, well: str) -> str:
        """The reason why the deployment is not as it should be; "" if it is."""
        shown = self.verdigris.deployment(self.stage.deployment or "")
        status, reason = shown["Status"], str(shown.get("StatusDetails") or "")
        if status == well:
            return ""
        if status != "INVALID_CONFIGURATION" or not reason:
            self.violations.append(f"the deployment is {status}: {reason}")
        return reason or status


class CreateTopologyPlay(TopologyPlay):
    def begin(self, log: ServeLog) -> None:
        self.stage.deployment = self.stage.begin_deployment()

    def look(self) -> str:
        reason = self._said(well="AVAILABLE")
        if reason:
            names = {i["DBInstanceIdentifier"] for i in self.verdigris.rds.describe_db_instances()["DBInstances"]}
            if names != {NAME, COPY}:
                self.violations.append(f"undone, and there are {sorted(names)}")
        else:
            self.stage.note_green()
            copies = self.verdigris.instance(self.stage.green_name)["ReadReplicaDBInstanceIdentifiers"]
            if len(copies) != 1:
                self.violations.append(f"green has the replicas {copies}")
            for copy in (self.stage.green_name, COPY, *copies):
                self._follows(copy)
        self.hold("the deployment can be deleted", self._delete)
        return f"undone ({reason})" if reason else "made"

    def _follows(self, name: str) -> None:
        blue, resource_id = self.stage.blue, self.verdigris.resource_id(name)
        says = f"{name} follows"
        self.hold(says, lambda: wait_until(lambda: follows(self.stage, blue, resource_id), says, limit_s=20))
        self.hold(f"{name} takes no writes", lambda: refuses_writes(self.stage, resource_id))


class DeleteTopologyPlay(TopologyPlay):
    def prepare(self) -> None:
        super().prepare()
        self.stage.adopt(self.stage.begin_deployment())
        self.verdigris.await_deployment(self.stage.deployment or "", "AVAILABLE")
        self.stage.note_green()

    def begin(self, log: ServeLog) -> None:
        self._ask()

    def look(self) -> str:
        if self._is_gone():
            return "deleted"
        reason = self._said(well="AVAILABLE")
        self.hold("it can be asked for again", self._delete)
        return f"deleted when asked again ({reason})"
