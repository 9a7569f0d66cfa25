"""What goes on while a fault strikes: deployments and instances that are made, changed and deleted."""

from functools import partial
from typing import Any

from tests.acceptance.installation import free_port, wait_until
from tests.acceptance.inventory import await_same
from tests.acceptance.serve_log import ServeLog
from tests.faults import probes
from tests.faults.plays import Play, await_no_traces, follows, refuses_writes
from tests.faults.points import Scene
from tests.faults.stage import NAME, gone, takes_writes
from verdigris.demo.schema import install_schema

OTHER, RENAMED, NEW_PASSWORD = "other", "renamed", "another-password"
_OLD, _NEW = "17.9", "17.10"


class CreatePlay(Play):
    def prepare(self) -> None:
        self.stage.ensure_no_green(self.run.mode)

    def note_before(self) -> None:
        self.watch(self.stage.blue)

    def begin(self, log: ServeLog) -> None:
        self.stage.deployment = self.stage.begin_deployment()

    def conclude(self) -> str:
        shown = self.verdigris.deployment(self.stage.deployment or "")
        status, reason = shown["Status"], shown.get("StatusDetails")
        if status == "AVAILABLE":
            self.stage.note_green()
            self.hold("green follows", lambda: wait_until(self._follows, "green follows", limit_s=20))
            self.hold("green takes no writes", lambda: refuses_writes(self.stage, self.stage.green))
            self._keeps_writes()
            return "made"
        if status != "INVALID_CONFIGURATION" or not reason:
            self.violations.append(f"the deployment is {status}: {reason}")
        self._keeps_writes()
        self.hold("the failed deployment can be deleted", lambda: self.stage.ensure_no_green(self.run.mode))
        return f"undone ({reason})"

    def _follows(self) -> bool:
        return follows(self.stage, self.stage.blue, self.stage.green)

    def _keeps_writes(self) -> None:
        with self.verdigris.connect(NAME) as connection:
            self.violations += probes.missing(connection, self.sides[0].writes)


class DeletePlay(Play):
    """With green, or setting it free."""

    def prepare(self) -> None:
        self.stage.ensure_green(self.run.mode)
        self.green, self.green_name = self.stage.green, self.stage.green_name
        self.keeps_green = self.run.point.scene is Scene.RELEASE

    def note_before(self) -> None:
        self.watch(self.stage.blue)

    def begin(self, log: ServeLog) -> None:
        self._ask()

    def _ask(self) -> None:
        self.verdigris.rds.delete_blue_green_deployment(
            BlueGreenDeploymentIdentifier=self.stage.deployment, DeleteTarget=not self.keeps_green
        )

    def conclude(self) -> str:
        outcome = "deleted"
        if not self._is_gone():
            shown = self.verdigris.deployment(self.stage.deployment or "")
            outcome = f"deleted when asked again ({shown.get('StatusDetails')})"
            if shown["Status"] != "INVALID_CONFIGURATION" or not shown.get("StatusDetails"):
                self.violations.append(f"the deployment is {shown['Status']}: {shown.get('StatusDetails')}")
            self.hold("it can be asked for again", self._ask_again)
        if self.keeps_green:
            self.hold("green is free", lambda: wait_until(self._is_free, "green takes writes", limit_s=10))
            self.hold("nothing of ours on green", lambda: await_no_traces(self.stage, self.green))
            self.hold("green can be deleted", lambda: self.verdigris.delete_instance(self.green_name))
        self.stage.forget_green()
        self.unchanged("nothing is left on blue", self.stage.pristine, self.stage.inventory_of_blue)
        with self.verdigris.connect(NAME) as connection:
            self.violations += probes.missing(connection, self.sides[0].writes)
        return outcome

    def _is_gone(self) -> bool:
        describe = self.verdigris.rds.describe_blue_green_deployments
        return gone(describe, BlueGreenDeploymentIdentifier=self.stage.deployment)

    def _ask_again(self) -> None:
        self._ask()
        self.verdigris.await_no_deployment(self.stage.deployment or "", limit_s=30)

    def _is_free(self) -> bool:
        return takes_writes(self.verdigris, self.green_name)


class InstancePlay(Play):
    """Another instance beside the one that clients are on, with writers of its own past the router."""

    subject_before = True

    def prepare(self) -> None:
        self.stage.ensure_blue(self.run.mode)
        if self.subject_before:
            self.verdigris.create_instance(OTHER, _OLD)
            self.stage.subject = self.verdigris.resource_id(OTHER)
            install_schema(self.verdigris.dsn(OTHER), accounts=2)
            with self.verdigris.connect(OTHER) as connection:
                connection.execute(probes.TABLE)

    def note_before(self) -> None:
        self._blue_before = await_same(self.stage.inventory_of_blue, self.stage.inventory_of_blue)
        self.watch(*([self.stage.subject] if self.stage.subject else []))

    def conclude(self) -> str:
        outcome = self.look()
        for name in self._other_names():
            self.hold("it can be deleted", partial(self.verdigris.delete_instance, name))
        self.stage.subject = ""
        self.unchanged("blue is as before", self._blue_before, self.stage.inventory_of_blue)
        left = sorted(path.name for path in (self.stage.home / "instances").iterdir())
        if left != sorted(filter(None, (self.stage.blue, self.stage.green))):
            self.violations.append(f"server directories are left: {left}")
        return outcome

    def look(self) -> str:
        """The outcome."""
        raise NotImplementedError

    def _other_names(self) -> list[str]:
        instances = self.verdigris.rds.describe_db_instances()["DBInstances"]
        return [i["DBInstanceIdentifier"] for i in instances if i["DBInstanceIdentifier"] in (OTHER, RENAMED)]

    def _holds_writes(self, name: str, **parameters: str) -> None:
        self.hold("it is up", lambda: self.verdigris.await_connection(name, **parameters))
        with self.verdigris.connect(name, **parameters) as connection:
            for side in self.sides:
                self.violations += probes.missing(connection, side.writes)


class CreateInstancePlay(InstancePlay):
    subject_before = False

    def begin(self, log: ServeLog) -> None:
        self.stage.subject = self.verdigris.begin_instance(OTHER, _OLD)["DbiResourceId"]

    def look(self) -> str:
        shown = self.verdigris.instance(OTHER)
        if shown["DBInstanceStatus"] == "available":
            self._holds_writes(OTHER)
            return "made"
        return "failed"


class ModifyInstancePlay(InstancePlay):
    def begin(self, log: ServeLog) -> None:
        self.modify(DBPortNumber=free_port(), ApplyImmediately=True)

    def modify(self, **members: Any) -> None:
        self.verdigris.rds.modify_db_instance(
            DBInstanceIdentifier=OTHER,
            EngineVersion=_NEW,
            DBInstanceClass="db.t3.small",
            MasterUserPassword=NEW_PASSWORD,
            NewDBInstanceIdentifier=RENAMED,
            **members,
        )

    def look(self) -> str:
        (name,) = self._other_names()
        shown = self.verdigris.instance(name)
        if shown["DBInstanceStatus"] != "available":
            self.violations.append(f"{name} is {shown['DBInstanceStatus']}")
            return "failed"
        self._holds_writes(name, password=NEW_PASSWORD)
        changed = (name, shown["EngineVersion"], shown["DBInstanceClass"]) == (RENAMED, _NEW, "db.t3.small")
        return "changed" if changed else f"as before ({name}, {shown['EngineVersion']}, {shown['DBInstanceClass']})"


class RebootInstancePlay(InstancePlay):
    def begin(self, log: ServeLog) -> None:
        self.verdigris.rds.reboot_db_instance(DBInstanceIdentifier=OTHER)

    def look(self) -> str:
        if (status := self.verdigris.instance(OTHER)["DBInstanceStatus"]) != "available":
            self.violations.append(f"it is {status}")
        self._holds_writes(OTHER)
        return "rebooted"


class RebootChangedPlay(ModifyInstancePlay):
    """Of the version, the class and the name; a password does not wait."""

    def prepare(self) -> None:
        super().prepare()
        self.modify()
        self.verdigris.await_instance(OTHER)
        self.verdigris.await_connection(OTHER, password=NEW_PASSWORD)

    def begin(self, log: ServeLog) -> None:
        self.verdigris.rds.reboot_db_instance(DBInstanceIdentifier=OTHER)


class StopInstancePlay(InstancePlay):
    def begin(self, log: ServeLog) -> None:
        self.verdigris.rds.stop_db_instance(DBInstanceIdentifier=OTHER)

    def look(self) -> str:
        if (status := self.verdigris.instance(OTHER)["DBInstanceStatus"]) != "stopped":
            self.violations.append(f"it is {status}")
        self.hold("it can be started", self._start)
        self._holds_writes(OTHER)
        return "stopped"

    def _start(self) -> None:
        self.verdigris.rds.start_db_instance(DBInstanceIdentifier=OTHER)
        self.verdigris.await_instance(OTHER)


class StartInstancePlay(InstancePlay):
    def prepare(self) -> None:
        super().prepare()
        self.verdigris.rds.stop_db_instance(DBInstanceIdentifier=OTHER)
        self.verdigris.await_instance(OTHER, "stopped")

    def begin(self, log: ServeLog) -> None:
        self.verdigris.rds.start_db_instance(DBInstanceIdentifier=OTHER)

    def look(self) -> str:
        self.hold("it is available", lambda: self.verdigris.await_instance(OTHER))
        self._holds_writes(OTHER)
        return "started"


class DeleteInstancePlay(InstancePlay):
    def begin(self, log: ServeLog) -> None:
        self.verdigris.rds.delete_db_instance(DBInstanceIdentifier=OTHER, SkipFinalSnapshot=True)

    def look(self) -> str:
        if gone(self.verdigris.rds.describe_db_instances, DBInstanceIdentifier=OTHER):
            return "deleted"
        return "as before"
