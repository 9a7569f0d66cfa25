"""node-postgres: one program with all of its sessions (``node/sessions.mjs``), a row of the matrix for each."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.matrix.case import case
from tests.matrix.stage import GREEN, LIMIT_S, Stage
from tests.node import NODE, NPM, installed

SOURCES = Path(__file__).parent / "node"


class Sessions:
    """The program, from its start to its report."""

    def __init__(self, stage: Stage, node: str) -> None:
        self._directory = installed(SOURCES)
        members = stage.address()
        connection = {name: members[name] for name in ("host", "port", "user", "password")}
        self._process = subprocess.Popen(
            [node, "sessions.mjs"],
            cwd=self._directory,
            env={
                "MATRIX_CONNECTION": json.dumps(connection | {"database": members["dbname"], "green": GREEN}),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self._telling = stage.spawn(self._tell, stage)

    def _tell(self, stage: Stage) -> dict[str, str | None]:
        assert self._process.stdin is not None
        for event, word in ((stage.begun, "begun"), (stage.attempted, "attempted")):
            event.wait()
            self._process.stdin.write(f"{word}\n")
        stage.over.wait()
        printed, _ = self._process.communicate("over\n", timeout=LIMIT_S)
        outcomes: dict[str, str | None] = json.loads(printed)
        return outcomes

    def outcome(self, row: str) -> str | None:
        """None: all was well."""
        return self._telling.result(LIMIT_S)[row]

    def close(self) -> None:
        self._process.kill()
        self._process.wait(LIMIT_S)
        shutil.rmtree(self._directory)


class _Shared:
    """The program is started by the first of its rows and ended with the last one."""

    def __init__(self) -> None:
        self._sessions: Sessions | None = None
        self._users = 0

    def take(self, stage: Stage, node: str) -> Sessions:
        if self._sessions is None:
            self._sessions = Sessions(stage, node)
        self._users += 1
        return self._sessions

    def give_back(self) -> None:
        self._users -= 1
        if self._users == 0 and self._sessions is not None:
            self._sessions.close()
            self._sessions = None


_shared = _Shared()


def _steps(row: str) -> Callable[[Stage], Iterator[None]]:
    def steps(stage: Stage) -> Iterator[None]:
        if NODE is None or NPM is None:
            yield
            pytest.skip("node and npm are not installed")
        sessions = _shared.take(stage, NODE)
        try:
            yield
            outcome = sessions.outcome(row)
            assert outcome is None, outcome
        finally:
            _shared.give_back()

    return steps


for _row in ("prepared statements", "idle pool", "busy pool", "LISTEN", "transaction and cursor"):
    case(_row, "node-postgres")(_steps(_row))
