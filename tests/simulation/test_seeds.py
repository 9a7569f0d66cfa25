"""Faults drawn from seeds: 20,000 in every run. One is replayed, and shown, with
``python -m tests.simulation --seed N``; a million with ``--seeds 1000000``."""

import pytest

from tests.simulation.campaign import campaign, seeds
from tests.simulation.faults import Fault
from tests.simulation.scenarios import SCENARIOS

_EACH = 2500
IN_EVERY_RUN = range(1, 20_001, _EACH)


# What seeds beyond these 20,000 came by, as plans: another list of scenarios makes other runs of the same seeds. An
# event told twice, a server that was not tried again, a lease that outlived the deadline and one that was renewed after
# it, an instance that was available without a server, a deadline that was late because a clock was set back, a way back
# from a commit of which nobody knew yet, data that was taken away to make room and then counted as there, a
# lease that had been measured long before it was asked for.
BROKE_A_PROMISE = [
    ("creation, physical", "stale:3 green_crash:29:after stale:32 error:35 clock_set_back:41 disk_full:45", 45289),
    (
        "replica created",
        "error:5:after error:6:after lease_lost:8 clock_set_back:10 disk_full:18:after stale:19:after",
        47738,
    ),
    ("creation, logical", "hang:36 error:37:after blue_crash:51 clock_set_forward:59:after", 49436),
    ("creation, physical", "error:10:after error:11:after", 84235),
    ("switchover, stragglers closed", "replication_stalls:15:after pause:35 router_crash:68:after", 93799),
    ("switchover, stragglers closed", "replication_stalls:16 pause:35:after pause:40:after", 103679),
    ("creation, physical", "pause:3 hang:18 stale:28:after error:31:after hang:34:after blue_crash:43:after", 105736),
    ("creation, logical", "hang:0 green_crash:2 error:7 error:8:after router_crash:43 lease_lost:54:after", 106731),
    ("switchover, stragglers closed", "router_crash:52:after pause:78:after error:89:after crash:96", 112104),
    ("replica created", "blue_crash:1:after hang:7:after error:8:after crash:20", 124747),
    (
        "replica created",
        "clock_set_forward:4:after router_crash:8:after clock_set_back:11 stale:17:after hang:21:after",
        51701,
    ),
    (
        "instance created",
        "clock_set_forward:0 router_crash:5 lease_lost:8 stale:10 hang:11:after router_crash:13",
        56478,
    ),
    ("replica created", "router_crash:9 stale:17 error:22:after", 68140),
    (
        "switchover, physical",
        "lease_lost:0:after replication_stalls:1:after disk_full:2 clock_set_back:5:after replication_stalls:26",
        223076,
    ),
    (
        "switchover, stragglers to the end",
        "hang:20:after replication_stalls:55 blue_crash:58:after hang:67 router_crash:74 crash:75",
        456705,
    ),
    (
        "replica created",
        "clock_set_forward:9:after pause:15:after disk_full:16 disk_full:19:after disk_full:20",
        622296,
    ),
    ("switchover, physical", "crash:1:after error:20:after pause:21 pause:24 lease_lost:25:after", 615844),
    (
        "switchover with a replica, logical",
        "clock_set_forward:27 error:30:after pause:31 blue_crash:44:after clock_set_forward:69",
        673647,
    ),
    (
        "switchover, set back by stragglers",
        "error:37:after router_crash:38 pause:40 error:66 router_crash:69:after replication_stalls:70:after",
        913473,
    ),
    (
        "switchover with a replica, logical",
        "pause:2:after lease_lost:14 pause:22 pause:25:after hang:76",
        808639,
    ),
]


@pytest.mark.parametrize(("name", "faults", "seed"), BROKE_A_PROMISE)
def test_what_broke_a_promise_once(name: str, faults: str, seed: int) -> None:
    (scenario,) = (found for found in SCENARIOS if found.name == name)
    plan = tuple(map(Fault.parse, faults.split()))
    assert " ".join(fault.told() for fault in plan) == faults
    summary = campaign([(scenario, plan, seed)])
    assert [result.violation for result in summary.violations] == []
    assert summary.faults > 0


@pytest.mark.parametrize("first", IN_EVERY_RUN)
def test_seeds(first: int) -> None:
    summary = campaign(seeds(first, _EACH))
    assert [f"--seed {result.seed}: {result.violation}" for result in summary.violations] == []
    assert summary.runs == _EACH
    print(f"{summary.runs} runs, {summary.faults} faults, {summary.seconds:.1f} s of processor time")
