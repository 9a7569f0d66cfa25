"""Password verifiers as PostgreSQL stores them, so that a password is never kept nor sent.

SCRAM-SHA-256 is RFC 5802 with RFC 7677; the stored form is that of PostgreSQL's manual, section "pg_authid":
``SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>``.
"""

import hashlib
import hmac
import os
import stringprep
import unicodedata
from base64 import b64encode

# PostgreSQL's default for scram_iterations (a fixed number before 16).
ITERATIONS = 4096
SALT_BYTES = 16

# RFC 4013, section 2.3, with RFC 3454's unassigned code points: a stored string may not hold any.
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def scram_verifier(password: str, *, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """The secret for ``ALTER ROLE ... PASSWORD``. A salt is only given by tests."""
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", _prepare(password), salt, iterations)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return (
        f"SCRAM-SHA-256${iterations}:{b64encode(salt).decode()}"
        f"${b64encode(stored_key).decode()}:{b64encode(server_key).decode()}"
    )


def _prepare(password: str) -> bytes:
    """SASLprep, and like PostgreSQL the bytes unchanged when the password does not survive it."""
    if password.isascii():
        return password.encode()
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in password
        if not stringprep.in_table_b1(character)
    )
    normalised = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    acceptable = normalised and not any(refuses(c) for c in normalised for refuses in _PROHIBITED)
    return normalised.encode() if acceptable and _direction_is_clear(normalised) else password.encode()


def _direction_is_clear(text: str) -> bool:
    """RFC 3454, section 6: right-to-left text holds nothing left-to-right and begins and ends right-to-left."""
    right_to_left = [stringprep.in_table_d1(character) for character in text]
    if not any(right_to_left):
        return True
    return right_to_left[0] and right_to_left[-1] and not any(stringprep.in_table_d2(character) for character in text)
