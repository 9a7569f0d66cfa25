"""Settings, custom ones too, and whom the session acts as.

``pg_settings`` does not show custom settings (``SET app.tenant = ...``): they are asked for by the names that the
router has seen in statements. Neither does it show the role and the session's authorization.
"""

from typing import Final

from verdigris.router.pins import PinReason
from verdigris.router.state.pieces import Piece, Rows, run
from verdigris.router.state.private import PRIVATE_PREFIX
from verdigris.wire.postgres import messages

_TEXT_OID = 25
_SET_NAME = PRIVATE_PREFIX + b"set"
ENCODING: Final = b"client_encoding"

# Settings that the replay itself could trip over. They are given a harmless value first and their own at the very end:
# a timeout of a millisecond, transactions in which nothing may be created, or serializable ones on a target that is
# still a standby, where nothing that takes a snapshot can run. SET takes none, which is why these are not replayed by
# set_config().
HARMLESS: Final = {
    b"statement_timeout": b"'0'",
    b"lock_timeout": b"'0'",
    b"default_transaction_isolation": b"'read committed'",
    b"default_transaction_read_only": b"'off'",
}

# A statement_timeout below this is taken away while the session is asked. No question takes as long, and one that a
# timeout strikes all the same is put again.
SHORT_TIMEOUT_MS: Final = 1000

# Settings of a transaction are not the session's.
# default_transaction_read_only may come from the role or the database; a dialled connection overrides those.
# Whoever is not the user of the start-up packet may be so by a change of names: pg_stat_get_activity() tells, but to
# answer for one backend it copies what all of them do, which takes milliseconds where there are thousands.
QUESTION: Final = b"""
SELECT 'setting', s.name, s.setting, NULL
  FROM pg_catalog.pg_settings s
 WHERE (s.source OPERATOR(pg_catalog.=) 'session'
        AND s.name OPERATOR(pg_catalog.<>) ALL
            (ARRAY['transaction_isolation', 'transaction_read_only', 'transaction_deferrable']))
    OR (s.name OPERATOR(pg_catalog.=) 'default_transaction_read_only'
        AND s.source OPERATOR(pg_catalog.=) ANY (ARRAY['database', 'user', 'database user']))
UNION ALL
SELECT 'custom', c.name, pg_catalog.current_setting(c.name, true), NULL
  FROM pg_catalog.unnest($1) c (name)
UNION ALL
SELECT 'role', pg_catalog.current_setting('role'), NULL, NULL
UNION ALL
SELECT 'authorization', SESSION_USER::pg_catalog.text, NULL, NULL
 WHERE CASE WHEN SESSION_USER::pg_catalog.text OPERATOR(pg_catalog.=) $2 THEN false
       ELSE EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a
                     WHERE a.usesysid OPERATOR(pg_catalog.<>)
                           pg_catalog.quote_ident(SESSION_USER::pg_catalog.text)::pg_catalog.regrole::pg_catalog.oid)
       END
"""

NO_ROLE: Final = b"none"


def read_settings(found: Rows) -> dict[bytes, bytes]:
    made = {name: value or b"" for name, value, _ in found.get(b"setting", [])}
    for value, _, _ in found.get(b"timeout", []):
        made[b"statement_timeout"] = value  # instead of the one under which the question ran
    return made


def read_custom(found: Rows) -> dict[bytes, bytes]:
    return {name: value for name, value, _ in found.get(b"custom", []) if value is not None}


def read_role(found: Rows) -> bytes:
    return found[b"role"][0][0]


def read_authorization(found: Rows) -> bytes | None:
    rows = found.get(b"authorization")
    return rows[0][0] if rows else None


def pieces(
    settings: dict[bytes, bytes], custom: dict[bytes, bytes], authorization: bytes | None, role: bytes
) -> list[Piece]:
    made = [run(PinReason.SETTINGS, b"SET " + name + b" TO " + value) for name, value in HARMLESS.items()]
    set_statement = messages.parse(_SET_NAME, b"SELECT pg_catalog.set_config($1, $2, false)", [_TEXT_OID, _TEXT_OID])
    made.append(Piece(PinReason.SETTINGS, set_statement + messages.SYNC))
    # The encoding first: every name and value after it is written in it.
    names = sorted(settings.keys() - HARMLESS.keys(), key=lambda name: (name != ENCODING, name))
    made.extend(_set(PinReason.SETTINGS, name, settings[name]) for name in names)
    made.extend(_set(PinReason.CUSTOM_SETTINGS, name, value) for name, value in custom.items())
    # Last of the settings, which the login may be allowed to make and the others not. The authorization before the
    # role: it takes the role back.
    if authorization is not None:
        made.append(_set(PinReason.SESSION_AUTHORIZATION, b"session_authorization", authorization))
    if role != NO_ROLE:
        made.append(_set(PinReason.ROLE, b"role", role))
    made.append(Piece(PinReason.SETTINGS, messages.close_statement(_SET_NAME) + messages.SYNC))
    return made


def last_pieces(settings: dict[bytes, bytes]) -> list[Piece]:
    """What has been held at a harmless value so far gets its own."""
    made = []
    for name in HARMLESS:
        value = settings.get(name)
        statement = b"RESET " + name if value is None else b"SET " + name + b" TO '" + value + b"'"
        made.append(run(PinReason.SETTINGS, statement))
    return made


def _set(reason: PinReason, name: bytes, value: bytes) -> Piece:
    return Piece(reason, messages.bind(_SET_NAME, [name, value]) + messages.EXECUTE + messages.SYNC)
