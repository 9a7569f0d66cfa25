"""Why a session cannot be carried to another backend."""

from enum import StrEnum


class PinReason(StrEnum):
    """Values are what reports show. A session with several reasons is counted under the first one found."""

    AUTHENTICATION = "authentication"  # the login cannot be repeated without the password
    TARGET_REFUSED = "target-refused"  # the target does not let the user in, or cannot be reached
    LISTEN = "listen"
    ADVISORY_LOCKS = "advisory-locks"  # of the session, not of a transaction
    TEMPORARY_OBJECTS = "temporary-objects"
    HELD_CURSORS = "held-cursors"  # DECLARE ... WITH HOLD
    SESSION_AUTHORIZATION = "session-authorization"
    SETTINGS = "settings"  # the target does not take a value, or does not know the setting
    CUSTOM_SETTINGS = "custom-settings"  # set under names that cannot be found out
    ROLE = "role"
    PREPARED_STATEMENTS = "prepared-statements"
    UNNAMED_STATEMENT = "unnamed-statement"
    STATE_UNREADABLE = "state-unreadable"  # the question for the state was refused, or its answer too large
