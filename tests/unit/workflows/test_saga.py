"""A store that does not take, or does not answer, the decision to undo: its disk is full of what the saga made, or the
answer is lost on its way."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.stores import new_store
from verdigris.domain.errors import ControllerSuperseded, EngineError, StepFailed
from verdigris.domain.model import Workflow
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import WorkflowKind, WorkflowStatus
from verdigris.store.sql_store import SqlStore
from verdigris.testing.fakes import FakeClock
from verdigris.workflows.saga import PATIENCE_S, RETRIES, Saga, Step


class CrampedStore:
    """A real store, on a disk that is full for as long as ``copied`` is true."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.copied = False
        self.error: Exception = OSError("database or disk is full")

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._store.transaction() as tx:
            before = tx.unfinished_workflows()
            yield tx
            if self.copied and tx.unfinished_workflows() != before:
                raise self.error

    def raise_epoch(self) -> int:
        return self._store.raise_epoch()

    def epoch(self) -> int:
        return self._store.epoch()


class Silent:
    def failing(self, tx: Transaction, reason: str) -> None: ...

    def failed(self, tx: Transaction, reason: str) -> None: ...

    def completed(self, tx: Transaction) -> None: ...


class Green:
    """``name`` is undone, too, but it takes no room."""

    def __init__(self, store: CrampedStore) -> None:
        self.store = store
        self.calls: list[str] = []

    async def name(self) -> None:
        self.calls.append("name")

    async def unname(self) -> None:
        self.calls.append("unname")

    async def copy(self) -> None:
        self.calls.append("copy")
        self.store.copied = True
        raise StepFailed("No space left on device")

    async def remove(self) -> None:
        self.calls.append("remove")
        self.store.copied = False

    def steps(self) -> list[Step]:
        return [
            Step(name="name", do=self.name, undo=self.unname),
            Step(name="copy", do=self.copy, undo=self.remove, bulky=True),
        ]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CrampedStore]:
    store = new_store(tmp_path / "state.db")
    yield CrampedStore(store)
    store.close()


def _workflow(store: CrampedStore) -> Workflow:
    workflow = Workflow(
        workflow_id="wf-1", kind=WorkflowKind.CREATE_DEPLOYMENT, subject="bgd-1", started_at=FakeClock().now()
    )
    with store.transaction() as tx:
        tx.put_workflow(workflow)
    return workflow


async def test_what_fills_the_disk_goes_before_the_decision_is_recorded(store: CrampedStore) -> None:
    workflow, green = _workflow(store), Green(store)
    await Saga(store, FakeClock(), workflow, green.steps(), Silent()).run()
    assert green.calls == ["name", "copy", "remove", "remove", "unname"]
    with store.transaction() as tx:
        ended = tx.workflow("wf-1")
    assert ended is not None
    assert (ended.status, ended.error) == (WorkflowStatus.FAILED, "No space left on device")


async def test_a_superseded_control_plane_removes_nothing(store: CrampedStore) -> None:
    store.error = ControllerSuperseded("epoch 1 is over")
    workflow, green = _workflow(store), Green(store)
    with pytest.raises(ControllerSuperseded):
        await Saga(store, FakeClock(), workflow, green.steps(), Silent()).run()
    assert green.calls == ["name", "copy"]


class ForgetfulStore(CrampedStore):
    """A real store that makes one commit, the first that decides to undo, and answers with an error."""

    def __init__(self, store: SqlStore) -> None:
        super().__init__(store)
        self.forgot = False

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._store.transaction() as tx:
            yield tx
            undoing = any(workflow.status is WorkflowStatus.UNDOING for workflow in tx.unfinished_workflows())
        if undoing and not self.forgot:
            self.forgot = True
            raise self.error


class Telling(Silent):
    def __init__(self) -> None:
        self.told: list[str] = []

    def failing(self, tx: Transaction, reason: str) -> None:
        self.told.append(reason)


async def test_a_failure_is_told_once_even_if_the_commit_of_it_was_made_without_an_answer(store: CrampedStore) -> None:
    """Events are written with it: the simulation's seeds 47738 and 49436 had them twice."""
    forgetful = ForgetfulStore(store._store)
    workflow, green, telling = _workflow(store), Green(forgetful), Telling()
    await Saga(forgetful, FakeClock(), workflow, green.steps(), telling).run()
    assert forgetful.forgot
    assert telling.told == ["No space left on device"]
    with store.transaction() as tx:
        ended = tx.workflow("wf-1")
    assert ended is not None
    assert (ended.status, ended.error) == (WorkflowStatus.FAILED, "No space left on device")


async def test_what_is_taken_away_is_waited_for(store: CrampedStore) -> None:
    """Blue comes up again while a deployment is deleted (fault campaign, seed 2, run 225): no reason to give up."""
    refusals = [EngineError("the database system is in recovery mode"), EngineError("it is starting up")]
    calls: list[str] = []

    async def dismantle() -> None:
        calls.append("dismantle")
        if refusals:
            raise refusals.pop()

    workflow = _workflow(store)
    steps = [Step(name="dismantle", do=dismantle, patience_s=PATIENCE_S)]
    await Saga(store, FakeClock(), workflow, steps, Silent()).run()
    assert calls == ["dismantle"] * 3
    with store.transaction() as tx:
        ended = tx.workflow("wf-1")
    assert ended is not None
    assert ended.status is WorkflowStatus.COMPLETED


@pytest.mark.parametrize("patience_s", [0.0, 2 * RETRIES.first_s])
async def test_patience_has_an_end(store: CrampedStore, patience_s: float) -> None:
    calls: list[str] = []

    async def dismantle() -> None:
        calls.append("dismantle")
        raise EngineError("there is no such server")

    workflow = _workflow(store)
    steps = [Step(name="dismantle", do=dismantle, patience_s=patience_s)]
    await Saga(store, FakeClock(), workflow, steps, Silent()).run()
    assert len(calls) == (2 if patience_s else 1)
    with store.transaction() as tx:
        ended = tx.workflow("wf-1")
    assert ended is not None
    assert (ended.status, ended.error) == (WorkflowStatus.FAILED, "there is no such server")
