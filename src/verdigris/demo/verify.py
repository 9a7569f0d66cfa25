"""Holds a database to what its clients were told.

Run it when the workload has stopped: it reads the tables in several statements and wants them to stand still.
"""

from collections import Counter
from typing import Any

import psycopg
from msgspec import Struct

from verdigris.demo import schema
from verdigris.demo.clients import KEY_SHIFT, link_hash
from verdigris.demo.ledger import Commit, IncidentKind, Outcome
from verdigris.demo.promises import Breach, Promise, breach_of
from verdigris.demo.result import WorkloadResult
from verdigris.demo.sql import one_row

Connection = psycopg.Connection[tuple[Any, ...]]

_INCIDENT_BREAKS = {
    IncidentKind.CONNECTION_DROPPED: Promise.NO_CONNECTION_DROPPED,
    IncidentKind.CONNECT_FAILED: Promise.NO_CLIENT_ERROR,
    IncidentKind.SETTING_LOST: Promise.SESSIONS_WHOLE,
    IncidentKind.STATEMENT_LOST: Promise.SESSIONS_WHOLE,
    IncidentKind.TIME_WENT_BACK: Promise.READS_NEVER_GO_BACK,
    IncidentKind.SUM_WRONG: Promise.MONEY_ADDS_UP,
    IncidentKind.STUCK: Promise.NOBODY_STUCK,
    IncidentKind.CLIENT_CRASHED: Promise.NO_CLIENT_ERROR,
}


class Verdict(Struct, frozen=True, kw_only=True):
    """Counts of commits; ``found`` and ``missing`` are of the acknowledged ones and sum up to them."""

    acknowledged: int
    found: int
    missing: int
    doubled: int
    unknown: int
    unknown_found: int
    failed: int
    breaches: tuple[Breach, ...]

    @property
    def kept(self) -> bool:
        return not self.breaches


def verify_ledger(dsn: str, result: WorkloadResult) -> Verdict:
    """Every promise about data: needs nothing but the ledger and the database as it is now.

    What clients went through (errors, dropped connections) is judged by ``verify_clients``: a fault test that kills
    servers expects those, and still holds the database to all of this.
    """
    with psycopg.connect(dsn) as connection:
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        copies = _Copies(connection, result)
        breaches = [
            *copies.breaches(),
            *_verify_money(connection),
            *_verify_chains(connection),
            *_verify_lists(connection),
        ]
    breaches += _verify_row_ids(result.commits)
    return Verdict(
        acknowledged=result.count(Outcome.ACKNOWLEDGED),
        found=copies.found,
        missing=len(copies.missing),
        doubled=len(copies.doubled),
        unknown=result.count(Outcome.UNKNOWN),
        unknown_found=copies.unknown_found,
        failed=result.count(Outcome.FAILED),
        breaches=tuple(breaches),
    )


def verify_clients(result: WorkloadResult) -> list[Breach]:
    """What a planned switchover must spare its clients."""
    examples: dict[Promise, list[str]] = {}
    for incident in sorted(result.incidents, key=lambda i: i.at_ns):
        text = " ".join(filter(None, (f"client {incident.client}", incident.kind, incident.sqlstate, incident.detail)))
        examples.setdefault(_INCIDENT_BREAKS[incident.kind], []).append(text)
    for sqlstate, count in result.errors.items():
        examples.setdefault(Promise.NO_CLIENT_ERROR, []).extend([f"request ended with {sqlstate}"] * count)
    return [breach for promise, texts in examples.items() for breach in breach_of(promise, texts)]


class _Copies:
    """How often each key is in each of the tables that take one row per commit."""

    def __init__(self, connection: Connection, result: WorkloadResult) -> None:
        counts: list[Counter[int]] = []
        for query in (
            "SELECT key FROM ledger.chain",
            "SELECT key FROM ledger.transfers",
            "SELECT key FROM ledger.receipts",
            "SELECT unnest(keys) FROM ledger.lists",
        ):
            with connection.cursor() as cursor:
                counts.append(Counter(key for (key,) in cursor.stream(query)))
        fewest = {c.key: min(count[c.key] for count in counts) for c in result.commits}
        most = {c.key: max(count[c.key] for count in counts) for c in result.commits}
        acknowledged = [c.key for c in result.commits if c.outcome is Outcome.ACKNOWLEDGED]
        self.found = sum(fewest[key] >= 1 for key in acknowledged)
        self.missing = [key for key in acknowledged if fewest[key] == 0]
        self.doubled = [key for key in most if most[key] > 1]
        # Not acknowledged and half there; an acknowledged one that is torn already counts as missing.
        self.torn = [
            c.key
            for c in result.commits
            if c.outcome is not Outcome.ACKNOWLEDGED and fewest[c.key] == 0 and most[c.key] > 0
        ]
        self.unknown_found = sum(c.outcome is Outcome.UNKNOWN and fewest[c.key] > 0 for c in result.commits)
        refused = [c.key for c in result.commits if c.outcome is Outcome.FAILED and most[c.key] > 0]
        writers = {c.client for c in result.commits}
        present = {key for count in counts for key in count if key >> KEY_SHIFT in writers}
        self.invented = refused + sorted(present - most.keys())

    def breaches(self) -> list[Breach]:
        return [
            *breach_of(Promise.NOTHING_LOST, [f"key {key}" for key in self.missing]),
            *breach_of(Promise.NOTHING_DOUBLED, [f"key {key}" for key in self.doubled]),
            *breach_of(Promise.NOTHING_TORN, [f"key {key}" for key in self.torn]),
            *breach_of(Promise.NOTHING_INVENTED, [f"key {key}" for key in self.invented]),
        ]


def _verify_money(connection: Connection) -> list[Breach]:
    """The sum of balances, and each balance against the account's own movements."""
    wrong = []
    accounts, total = one_row(connection, "SELECT count(*), coalesce(sum(balance), 0)::bigint FROM ledger.accounts")
    if total != accounts * schema.OPENING_BALANCE:
        wrong.append(f"{accounts} accounts hold {total}, not {accounts * schema.OPENING_BALANCE}")
    rows = connection.execute(
        "WITH moved AS (SELECT payer AS id, -amount AS amount FROM ledger.transfers"
        " UNION ALL SELECT payee, amount FROM ledger.transfers),"
        " net AS (SELECT id, sum(amount) AS amount FROM moved GROUP BY id)"
        " SELECT a.id, a.balance, %(opening)s + coalesce(n.amount, 0) FROM ledger.accounts a LEFT JOIN net n USING (id)"
        " WHERE a.balance <> %(opening)s + coalesce(n.amount, 0) ORDER BY a.id",
        {"opening": schema.OPENING_BALANCE},
    )
    wrong += [f"account {account} holds {balance}, its transfers make {net}" for account, balance, net in rows]
    return breach_of(Promise.MONEY_ADDS_UP, wrong)


def _verify_chains(connection: Connection) -> list[Breach]:
    """Every link of every chain, and that each chain ends where its head says."""
    wrong = []
    ends: dict[int, tuple[int, str]] = {}
    with connection.cursor() as cursor:
        for writer, seq, payload, prev_hash, hash_ in cursor.stream(
            "SELECT writer, seq, payload, prev_hash, hash FROM ledger.chain ORDER BY writer, seq, id"
        ):
            last_seq, last_hash = ends.get(writer, (0, schema.GENESIS_HASH))
            if seq != last_seq + 1 or prev_hash != last_hash or hash_ != link_hash(prev_hash, payload):
                wrong.append(f"writer {writer}: link {seq} does not follow link {last_seq}")
            ends[writer] = (seq, hash_)
    for writer, seq, hash_ in connection.execute("SELECT writer, seq, hash FROM ledger.heads ORDER BY writer"):
        if ends.get(writer, (0, schema.GENESIS_HASH)) != (seq, hash_):
            wrong.append(f"writer {writer}: the head is at {seq}, the chain ends at {ends.get(writer, (0,))[0]}")
    return breach_of(Promise.CHAINS_UNBROKEN, wrong)


def _verify_lists(connection: Connection) -> list[Breach]:
    """Keys only rise in a writer's list: it takes one after the other."""
    wrong = []
    last: dict[int, int] = {}
    with connection.cursor() as cursor:
        for writer, key in cursor.stream(
            "SELECT writer, key FROM ledger.lists, unnest(keys) WITH ORDINALITY AS items (key, place)"
            " ORDER BY writer, piece, place"
        ):
            if key <= last.get(writer, 0):
                wrong.append(f"writer {writer}: {key} comes after {last[writer]}")
            last[writer] = key
    return breach_of(Promise.LISTS_IN_ORDER, wrong)


def _verify_row_ids(commits: list[Commit]) -> list[Breach]:
    """Ids that one client was given one after the other only rise: the sequence's cache is 1.

    Above those of acknowledged commits: PostgreSQL writes a sequence's step to disk with the commit, and a server that
    crashes before gives the id again.
    """
    wrong = []
    last: dict[int, int] = {}
    for commit in sorted(commits, key=lambda c: c.key):
        if commit.row_id is None:
            continue
        if commit.row_id <= last.get(commit.client, 0):
            wrong.append(f"client {commit.client} was given {commit.row_id} after {last[commit.client]}")
        if commit.outcome is Outcome.ACKNOWLEDGED:
            last[commit.client] = commit.row_id
    return breach_of(Promise.SEQUENCES_GO_FORWARD, wrong)
