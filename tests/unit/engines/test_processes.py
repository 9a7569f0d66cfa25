"""Programs and processes, with nothing but the shell."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.conftest import until
from verdigris.domain.errors import EngineError
from verdigris.engines.account import EngineAccount
from verdigris.engines.logfile import LogFile
from verdigris.engines.process import Process, ProcessIdentity, run_program
from verdigris.engines.supervisor import RestartPolicy


def alive(pid: int) -> bool:
    return ProcessIdentity.of(pid) is not None


async def shell(account: EngineAccount, script: str, timeout_s: float | None = None, **env: str) -> str:
    completed = await run_program(
        ["/bin/sh", "-c", script], account=account, env=account.environment(env), timeout_s=timeout_s
    )
    return completed.stdout


async def test_runs_as_the_account_with_a_clean_environment(
    engine_account: EngineAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "hidden")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    said = await shell(engine_account, "id -u; id -G; umask; env", EXTRA="here")
    uid, groups, umask, *environment = said.splitlines()
    assert (uid, umask) == (str(engine_account.uid), "0077")
    assert groups.split() == [str(engine_account.gid)] or not engine_account.drops_privileges
    assert "hidden" not in said
    assert "EXTRA=here" in environment


async def test_failure_tells_what_the_program_said(engine_account: EngineAccount) -> None:
    with pytest.raises(EngineError, match=r"sh failed \(exit status 3\): it broke"):
        await shell(engine_account, "echo it broke >&2; exit 3")
    with pytest.raises(EngineError, match="SIGKILL"):
        await shell(engine_account, "kill -9 $$")
    with pytest.raises(EngineError, match=r"cannot run /nonexistent"):
        await run_program(["/nonexistent"], account=engine_account, env={})


async def test_much_output_blocks_nobody(engine_account: EngineAccount) -> None:
    assert (
        len(await shell(engine_account, "head -c 3000000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero >&2"))
        == 3_000_000
    )


@pytest.mark.parametrize("by", ["timeout", "cancellation"])
async def test_ending_a_program_ends_its_children(engine_account: EngineAccount, verdigris_home: Path, by: str) -> None:
    engine_account.make_directory(verdigris_home / "d")
    pids = verdigris_home / "d" / "pids"
    script = f"sleep 600 & echo $! $$ > {pids}.tmp; mv {pids}.tmp {pids}; wait"
    task = asyncio.create_task(shell(engine_account, script, timeout_s=1 if by == "timeout" else None))
    await until(pids.exists)
    if by == "timeout":
        with pytest.raises(EngineError, match="did not finish within 1 s"):
            await task
    else:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    child, parent = map(int, pids.read_text().split())
    assert not alive(parent)
    await until(lambda: not alive(child))


async def test_adopted_process_is_waited_for_by_several(engine_account: EngineAccount, tmp_path: Path) -> None:
    child = Process.spawn(["/bin/sleep", "600"], account=engine_account, env={}, log=tmp_path / "log")
    adopted = Process.open(child.pid, lambda _: True)
    assert adopted is not None
    assert adopted.identity == child.identity
    assert os.getsid(child.pid) == child.pid
    waiting = [asyncio.create_task(process.wait()) for process in (child, adopted, adopted)]
    assert not await adopted.ended_within(0)
    assert adopted.signal(signal.SIGTERM)
    await asyncio.wait_for(asyncio.gather(*waiting), 60)
    assert not adopted.is_alive()
    assert not adopted.signal(signal.SIGTERM)
    assert child.exit_status == -signal.SIGTERM
    assert Process.open(child.pid, lambda _: True) is None
    child.close()
    adopted.close()


async def test_stranger_is_not_adopted(engine_account: EngineAccount, tmp_path: Path) -> None:
    child = Process.spawn(["/bin/sleep", "600"], account=engine_account, env={}, log=tmp_path / "log")
    assert Process.open(child.pid, lambda _: False) is None
    assert Process.open(2**30, lambda _: True) is None
    child.signal(signal.SIGKILL)
    await child.wait()
    child.close()


def test_restart_delays() -> None:
    policy = RestartPolicy(first_delay_s=0.5, longest_delay_s=3)
    assert [policy.delay_s(deaths) for deaths in range(1, 7)] == [0.0, 0.5, 1.0, 2.0, 3.0, 3.0]


def test_log_is_cut_while_it_is_written(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "server.log", rotation_bytes=100)
    assert log.causes(0) == "it said nothing"
    with log.path.open("a") as writer:
        writer.write("x" * 99)
        writer.flush()
        assert not log.rotate_if_large()
        writer.write("y\n")
        writer.flush()
        assert log.rotate_if_large()
        writer.write("LOG:  bad setting\nFATAL:  cannot\n")
        writer.flush()
    assert (tmp_path / "server.log.1").read_text() == "x" * 99 + "y\n"
    assert log.causes(0) == "LOG:  bad setting\nFATAL:  cannot"
    assert log.causes(5000) == log.causes(0), "a position from before the cut"


def test_files_are_written_for_the_account_and_through_no_link(
    engine_account: EngineAccount, verdigris_home: Path
) -> None:
    own = verdigris_home / "own"
    engine_account.make_directory(own)
    engine_account.write_file(own / "file", "first")
    engine_account.write_file(own / "file", "second")
    assert engine_account.read_file(own / "file") == "second"
    assert [path.name for path in own.iterdir()] == ["file"]
    assert ((own / "file").stat().st_uid, (own / "file").stat().st_mode & 0o777) == (engine_account.uid, 0o600)
    (own / "led").symlink_to(verdigris_home)
    (own / "read").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="led"):
        engine_account.write_file(own / "led" / "file", "x")
    with pytest.raises(OSError, match="read"):
        engine_account.read_file(own / "read")
    with pytest.raises(OSError, match="led"):
        engine_account.make_directory(own / "led")
    if engine_account.drops_privileges:
        with pytest.raises(EngineError, match="does not belong to the account"):
            engine_account.write_file(verdigris_home / "file", "x")
        with pytest.raises(EngineError, match="does not belong to the account"):
            engine_account.read_file(Path("/etc/passwd"))
