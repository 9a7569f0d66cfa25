"""A bucket for each key, filled at a steady rate."""

from verdigris.rds.throttle import Throttle


def test_a_burst_then_the_rate() -> None:
    now = 0.0
    throttle = Throttle(per_s=2, burst=3, clock=lambda: now)
    assert [throttle.admits("a") for _ in range(4)] == [True, True, True, False]
    assert throttle.admits("b")
    now = 0.4
    assert not throttle.admits("a")
    now = 0.5
    assert throttle.admits("a")
    assert not throttle.admits("a")
    now = 1000.0
    assert [throttle.admits("a") for _ in range(4)] == [True, True, True, False]
