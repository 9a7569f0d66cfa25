"""Ports for what a test starts: processes that run tests side by side never reach for the same one."""

import os

from verdigris.router.ports import HostPorts

# Below the ports that the system gives to the client ends of connections, and below those of the benchmarks.
_FIRST, _EACH, _SHARES = 14000, 425, 8


def own_ports() -> range:
    """This test process's own share (pytest-xdist numbers its workers gw0, gw1 ...)."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    start = _FIRST + worker % _SHARES * _EACH
    return range(start, start + _EACH)


def host_ports() -> HostPorts:
    return HostPorts(allowed=own_ports())
