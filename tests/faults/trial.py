"""One run: clients at work, a workflow begun, a fault in it, and then, without help, everything as it was promised."""

import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from tests.acceptance.installation import wait_until
from tests.acceptance.serve_log import ServeLog
from tests.faults.blows import BLOWS, Blow
from tests.faults.cues import Missed, await_point, last_of, learn
from tests.faults.probes import both_writable
from tests.faults.programme import PLAYS
from tests.faults.schedule import Fault, Run
from tests.faults.stage import NAME, Stage
from verdigris.demo.ledger import Outcome
from verdigris.demo.result import WorkloadResult
from verdigris.demo.verify import verify_clients, verify_ledger
from verdigris.demo.workload import Workload

if TYPE_CHECKING:
    from tests.faults.plays import Play

# From the restart, or from the end of the fault, on. What takes longer is told apart; what takes three times as long is
# taken for stuck.
SETTLES_WITHIN_S = 30.0
# A run with less than this, outside the time between blow and rest, does not count.
COMMITS_PER_S, ANSWERED = 200.0, 0.8
_PACE_PER_S = 320.0
_WRITERS, _READERS = 16, 2
# A busy machine gives each process a share: one alone would be what limits the load.
_CLIENTS_PER_PROCESS = 4
# Load before the call and after everything is at rest.
_LEAD_S, _TAIL_S = 1.0, 1.0

# Whose end or silence cuts clients off from what they need. All others they may not notice.
_NOTICED = frozenset({Fault.ROUTER_KILLED, Fault.BLUE_KILLED, Fault.BLUE_FULL, Fault.BOTH_FULL})
# Once green has taken over it is these that cut clients off.
_NOTICED_LATER = frozenset({Fault.GREEN_KILLED, Fault.GREEN_FULL, Fault.WORKER_KILLED})


class Stuck(Exception):
    """It did not come to rest; a violation says how. Nothing more can be asked of these servers."""


class Result(Struct, frozen=True, kw_only=True):
    """One line of the results. ``counts``: "" or why not. ``seen``: the last thing the log told before the blow."""

    seed: int
    number: int
    fault: str
    scene: str
    mode: str
    moment: str
    step: str
    share: float
    length_s: float
    outcome: str
    settled_s: float | None
    violations: list[str]
    counts: str = ""
    seen: str = ""
    commits_per_s: float = 0.0
    answered: float = 0.0
    probes: int = 0
    load: float = 0.0  # of the machine, average of the last minute
    took_s: float = 0.0
    commit: str = ""
    at: str = ""


class Trial:
    def __init__(self, stage: Stage, run: Run) -> None:
        self.stage = stage
        self.run = run
        self.play: Play = PLAYS[run.point.scene](stage, run)
        self.blow: Blow = BLOWS[run.fault](stage, run.length_s)
        self.outcome, self.counts, self.seen = "", "", ""
        self.ledgers = Path(tempfile.mkdtemp(prefix="vgl-"))  # what clients were told; not where a disk may be full
        self.settled_s: float | None = None
        self._struck_ns = self._settled_ns = 0

    def conduct(self) -> "Trial":
        """Raises whatever the driver did not expect; what the product may not do becomes a violation."""
        try:
            self.play.prepare()
            self.blow.prepare()
            self.play.note_before()
            self._under_load()
        finally:
            self.blow.clean_up()
            self.play.clean_up()
        return self

    def _under_load(self) -> None:
        dsn = self.stage.verdigris.dsn(NAME)
        log, everything = ServeLog(self.stage.verdigris.log_path), ServeLog(self.stage.verdigris.log_path)
        with Workload(
            dsn,
            writers=_WRITERS,
            readers=_READERS,
            commits_per_s=_PACE_PER_S,
            reads_per_s=20,
            directory=self.ledgers,
            clients_per_process=_CLIENTS_PER_PROCESS,
        ) as workload:
            workload.start(60)
            for side in self.play.sides:
                side.__enter__()
            try:
                time.sleep(_LEAD_S)  # the load itself
                self._act(log)
                time.sleep(_TAIL_S)
            finally:
                for side in self.play.sides:
                    side.__exit__()
            result = workload.stop()
        events = everything.new_events()
        learn(self.stage.durations_s, events)
        self.seen = last_of(events, self._struck_at)
        self._judge(result)

    def _act(self, log: ServeLog) -> None:
        self._struck_at = datetime.now(UTC)
        self.play.begin(log)
        try:
            await_point(log, self.run, self.stage.durations_s)
        except Missed as missed:
            self.counts = f"not struck: {missed}"
        else:
            self._struck_ns, self._struck_at = time.monotonic_ns(), datetime.now(UTC)
            self.blow.strike()
            time.sleep(self.blow.lasts_s)
        healed_at = time.monotonic()
        if not self.counts:
            self.blow.heal()
        try:
            wait_until(self.play.is_settled, "settled", limit_s=3 * SETTLES_WITHIN_S, poll_s=0.1)
        except AssertionError as error:
            self.play.violations.append(f"{error}: {self._state()}")
            raise Stuck from None
        self.settled_s = round(time.monotonic() - healed_at, 2)
        self._settled_ns = time.monotonic_ns()

    def _state(self) -> str:
        rds = self.stage.verdigris.rds
        instances = rds.describe_db_instances()["DBInstances"]
        deployments = rds.describe_blue_green_deployments()["BlueGreenDeployments"]
        shown = [f"{i['DBInstanceIdentifier']} {i['DBInstanceStatus']}" for i in instances]
        return "; ".join(shown + [f"{d['Status']} {d.get('StatusDetails', '')}" for d in deployments])

    def _judge(self, result: WorkloadResult) -> None:
        self._weigh(result)
        play = self.play
        if len(play.sides) == 2:
            play.violations += both_writable(*(side.writes for side in play.sides))
        self.outcome = play.conclude()
        dsn = self.stage.verdigris.dsn(NAME)
        verdict = play.hold("the ledger can be read", lambda: verify_ledger(dsn, result))
        breaches = list(verdict.breaches) if verdict is not None else []
        if self._is_spared():
            breaches += verify_clients(result)
        play.violations += [f"{b.promise}: {b.count}, such as {b.examples[0]}" for b in breaches]
        if self.outcome == "completed":
            finish = getattr(play, "finish", None)
            if finish is not None:
                finish()
            play.hold("nothing is left at the end", self.stage.clear)

    def _is_spared(self) -> bool:
        if self.stage.subject or self.run.fault not in _NOTICED | _NOTICED_LATER:
            return True
        return self.run.fault in _NOTICED_LATER and self.outcome != "completed"

    def _weigh(self, result: WorkloadResult) -> None:
        """The load outside of the time in which the fault may have its way."""
        struck_ns = self._struck_ns or self._settled_ns
        outside = [c for c in result.commits if c.ended_ns < struck_ns or c.began_ns > self._settled_ns]
        answered = sum(c.outcome is Outcome.ACKNOWLEDGED for c in outside)
        seconds = (result.ended_ns - result.began_ns - (self._settled_ns - struck_ns)) / 1e9
        self.commits_per_s = answered / max(seconds, 0.001)
        self.answered = answered / max(len(outside), 1)
        if not self.counts and self.commits_per_s < COMMITS_PER_S:
            self.counts = f"too little load: {self.commits_per_s:.0f} commits a second"
        if not self.counts and self.answered < ANSWERED:
            self.counts = f"too few answers: {self.answered:.0%}"

    def result(self, seed: int, *, took_s: float, commit: str) -> Result:
        run, point = self.run, self.run.point
        return Result(
            seed=seed,
            number=run.number,
            fault=run.fault.value,
            scene=point.scene.value,
            mode=point.mode.value if point.mode else "",
            moment=point.moment.value,
            step=point.step,
            share=round(run.share, 3),
            length_s=round(self.blow.lasts_s, 2),
            outcome=self.outcome,
            settled_s=self.settled_s,
            violations=self.play.violations,
            counts=self.counts,
            seen=self.seen,
            commits_per_s=round(getattr(self, "commits_per_s", 0.0), 1),
            answered=round(getattr(self, "answered", 0.0), 3),
            probes=sum(side.attempts for side in self.play.sides),
            load=round(os.getloadavg()[0], 1),
            took_s=round(took_s, 1),
            commit=commit,
            at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
