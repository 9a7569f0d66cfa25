"""Faults drawn from seeds; those that once found something are run for ever. One is replayed, and shown, with
``python -m tests.simulation --seed N``."""

from tests.simulation.campaign import campaign, seeds

IN_EVERY_RUN = 20_000


def test_seeds() -> None:
    summary = campaign(seeds(1, IN_EVERY_RUN))
    assert [f"--seed {result.seed}: {result.violation}" for result in summary.violations] == []
    assert summary.runs == IN_EVERY_RUN
    print(f"{summary.runs} runs, {summary.faults} faults, {summary.seconds:.1f} s")
