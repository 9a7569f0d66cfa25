"""The benchmarks run and say something sane: what they say of speed is nobody's business here."""

import re

import pytest

from tests.benchmarks import api, green, relay, switchover
from tests.benchmarks.peers import DIRECT_TCP, PGBOUNCER, VERDIGRIS, find_or_say


def rows(output: str, name: str) -> list[list[str]]:
    """The cells of every table row that begins with ``name``."""
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in output.splitlines()]
    return [row for row in cells if row[0] == name]


def numbers(row: list[str]) -> list[float]:
    return [float(cell.replace(",", "")) for cell in row[1:] if re.fullmatch(r"[\d,.]+", cell)]


def test_relay_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert relay.main(["--quick"]) == 0
    output = capsys.readouterr().out
    speed = 8  # tables: pgbench, latency, four of bytes, two of connections
    for peer, tables in ((VERDIGRIS, speed + 2), (DIRECT_TCP, speed)):
        found = rows(output, peer)
        assert len(found) == tables, output
        # The rest is memory, of which a few sessions may take none that was not there already.
        assert all(numbers(row)[0] > 0 for row in found[:speed])
    assert len(rows(output, "memory of 20 idle sessions, plain TCP")) == 1


def test_switchover_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert switchover.main(["--quick"]) == 0
    output = capsys.readouterr().out
    assert "BROKEN" not in output
    changes = 2 if find_or_say(PGBOUNCER) else 1
    longest = rows(output, "longest wait of any client")
    assert len(longest) == changes
    assert all(numbers(row)[0] > 0 for row in longest)
    (parked,) = rows(output, "park to release, by the control plane")
    assert numbers(parked)[0] > 0
    assert rows(output, "catch_up (pause)")
    assert len(rows(output, "PAUSE (pause)")) == changes - 1
    assert [row[1] for row in rows(output, "connections dropped")] == ["0"] * changes


def test_api_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert api.main(["--quick"]) == 0
    output = capsys.readouterr().out
    for question in ("one instance", "a page of 20"):
        ((_, ours, moto, ratio, _),) = rows(output, question)
        assert min(float(ours.replace(",", "")), float(moto.replace(",", "")), float(ratio)) > 0
    assert [len(numbers(row)) for row in rows(output, "1 instances running besides")] == [2]


def test_green_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert green.main(["--quick"]) == 0
    output = capsys.readouterr().out
    (whole,) = rows(output, "first step to last")
    verdigris_s, bare_s = numbers(whole)
    assert verdigris_s > 0
    assert bare_s > 0
