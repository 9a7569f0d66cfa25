"""Pauses, silences, buckets and sparklines of made-up ledgers."""

from pathlib import Path

from verdigris.demo import figures
from verdigris.demo.ledger import Commit, Incident, IncidentKind, Ledger, Outcome, Read, Record, Sighting, read_ledger

MS = figures.NS_PER_MS


def commit(client: int, began_ms: int, ended_ms: int, outcome: Outcome = Outcome.ACKNOWLEDGED) -> Commit:
    sqlstate = None if outcome is Outcome.ACKNOWLEDGED else "57P01"
    return Commit(
        client=client,
        connection=1,
        key=began_ms,
        outcome=outcome,
        began_ns=began_ms * MS,
        ended_ns=ended_ms * MS,
        sqlstate=sqlstate,
    )


def test_a_wait_goes_from_the_first_attempt_to_the_first_answer() -> None:
    records = [
        commit(1, 0, 2),
        commit(1, 10, 15, Outcome.UNKNOWN),
        commit(1, 20, 25, Outcome.FAILED),
        commit(1, 30, 110),
        commit(2, 0, 40),
    ]
    longest = figures.longest(figures.client_pauses(records, ended_ns=200 * MS))
    assert longest is not None
    assert (longest.client, longest.ms) == (1, 100)


def test_time_between_requests_is_no_wait() -> None:
    pauses = figures.client_pauses([commit(1, 0, 2), commit(1, 1000, 1003)], ended_ns=2000 * MS)
    assert [pause.ms for pause in pauses] == [2, 3]


def test_a_wait_without_an_answer_lasts_until_the_end() -> None:
    pauses = figures.client_pauses([commit(1, 0, 2), commit(1, 50, 60, Outcome.FAILED)], ended_ns=500 * MS)
    assert max(pause.ms for pause in pauses) == 450


def test_reads_and_commits_wait_alike() -> None:
    read = Read(client=9, connection=1, began_ns=0, ended_ns=70 * MS)
    assert [pause.ms for pause in figures.client_pauses([read], ended_ns=0)] == [70]


def test_silence_is_between_any_two_commits() -> None:
    commits = [commit(1, 0, 10), commit(2, 0, 90), commit(1, 20, 50, Outcome.FAILED), commit(1, 60, 100)]
    silences = figures.silences(commits, began_ns=0, ended_ns=130 * MS)
    assert [silence.ms for silence in silences] == [10, 80, 10, 30]


def test_longest_within_an_interval() -> None:
    pauses = figures.client_pauses([commit(1, 0, 500), commit(1, 600, 700)], ended_ns=800 * MS)
    within = figures.longest(pauses, since_ns=550 * MS, until_ns=800 * MS)
    assert within is not None
    assert within.ms == 100
    assert figures.longest(pauses, since_ns=900 * MS) is None


def test_buckets_count_acknowledged_commits_only() -> None:
    commits = [commit(1, 0, 5), commit(1, 6, 99), commit(1, 99, 100), commit(1, 100, 150, Outcome.FAILED)]
    assert figures.buckets(commits, since_ns=0, until_ns=250 * MS) == [2, 1, 0]


def test_a_bucket_without_commits_is_a_gap() -> None:
    assert figures.sparkline([8, 4, 0, 1, 8]) == "█▄ ▁█"
    assert figures.sparkline([0, 0]) == "  "
    assert figures.sparkline([]) == ""


def test_percentiles_by_nearest_rank() -> None:
    commits = [commit(1, 0, ms) for ms in range(1, 101)]
    assert figures.percentiles_ms(commits, (50, 99, 100)) == [50, 99, 100]
    assert figures.percentiles_ms([], (50,)) == [0]


def test_a_ledger_reads_back_and_forgives_a_cut_last_line(tmp_path: Path) -> None:
    records: list[Record] = [
        commit(1, 0, 2),
        Read(client=2, connection=1, began_ns=1, ended_ns=2, sqlstate="08006"),
        Incident(client=2, connection=1, kind=IncidentKind.CONNECTION_DROPPED, at_ns=3),
        Sighting(client=1, connection=1, at_ns=4, server_version="17.10"),
    ]
    path = tmp_path / "l"
    ledger = Ledger(path)
    for record in records:
        ledger.append(record)
    ledger.close()
    path.write_bytes(path.read_bytes() + b'["commit",1,')
    assert list(read_ledger(path)) == records
