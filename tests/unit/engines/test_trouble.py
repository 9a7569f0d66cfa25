"""When failures to apply are a loop, and when they are what a restart of blue leaves."""

from verdigris.engines.postgres.guardrails.trouble import ERROR_LOOP_S, OVER_S, Trouble


def looks(*seen: tuple[float, int, str | None]) -> list[bool]:
    """``seen``: time, errors, position, look by look."""
    (at_s, errors, lsn), *others = seen
    trouble = Trouble.none_yet(lsn, errors, at_s)
    return [trouble.look(lsn, errors, at_s) for at_s, errors, lsn in others]


def test_a_loop_of_failures_is_permanent_after_ten_seconds() -> None:
    seen = [(2.0 * n, 10 * n, "0/1") for n in range(9)]
    assert looks(*seen) == [at_s - 2 >= ERROR_LOOP_S for at_s, _, _ in seen[1:]]


def test_one_failure_between_looks_that_are_far_apart_is_none() -> None:
    """A switchover lies between them, and blue was killed in it (fault campaign, seed 2, run 293)."""
    assert not any(looks((0, 0, "0/1"), (11, 1, "0/1"), (13, 1, "0/1"), (25, 1, "0/1"), (90, 1, "0/1")))


def test_failures_that_have_stopped_where_nothing_is_written_are_none() -> None:
    burst = [(0.0, 0, None), (2.0, 9, None), (4.0, 12, None)]
    assert not any(looks(*burst, *[(4.0 + n, 12, None) for n in range(1, 200)]))


def test_restarts_of_blue_that_are_far_apart_do_not_add_up() -> None:
    restarts: list[tuple[float, int, str | None]] = [(0.0, 0, "0/1")]
    for n in range(1, 10):
        restarts += [((OVER_S + 5) * n, n, "0/1"), ((OVER_S + 5) * n + OVER_S, n, "0/1")]
    assert not any(looks(*restarts))


def test_progress_begins_anew() -> None:
    assert not any(looks(*[(2.0 * n, 10 * n, f"0/{n}") for n in range(20)]))


def test_slow_attempts_are_a_loop() -> None:
    """A large transaction that fails at its end, every eight seconds."""
    assert looks((0, 0, "0/1"), *[(2.0 * n, n // 4, "0/1") for n in range(1, 13)])[-1]


def test_statistics_that_begin_anew_are_no_failure() -> None:
    assert not any(looks((0, 50, "0/1"), (2, 0, "0/1"), (20, 1, "0/1")))
