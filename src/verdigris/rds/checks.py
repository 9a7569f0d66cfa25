"""Rules for values that the model leaves to the documentation (RDS API reference, CreateDBInstance)."""

import re
from collections.abc import Mapping
from typing import Any

from verdigris.aws.errors import invalid_parameter_value
from verdigris.domain.instance_classes import memory_bytes

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_PASSWORD = re.compile(r"[!-~]{8,128}")
_PASSWORD_EXCLUDED = frozenset('/"@')

# PostgreSQL manual, "SQL Key Words": reserved ones, which cannot name a role or database without quotes; and the names
# that RDS keeps for itself.
_RESERVED_WORDS = """
    all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create
    current_catalog current_date current_role current_time current_timestamp current_user default deferrable desc
    distinct do else end except false fetch for foreign from grant group having in initially intersect into lateral
    leading limit localtime localtimestamp not null offset on only or order placing primary references returning
    select session_user some symmetric system_user table then to trailing true union unique user using variadic when
    where window with
    admin rdsadmin rdsrepladmin rdstopmgr none public
"""
_RESERVED = frozenset(_RESERVED_WORDS.split())

MIN_STORAGE_GIB = 20
MAX_STORAGE_GIB = 65536
MIN_PORT = 1150
MAX_PORT = 65535


def check_master_username(name: str) -> None:
    if not _WORD.fullmatch(name):
        raise invalid_parameter_value(
            "The parameter MasterUsername must begin with a letter and contain 1 to 63 letters, digits or underscores."
        )
    if name.lower() in _RESERVED or name.lower().startswith(("pg_", "rds_")):
        raise invalid_parameter_value(
            f"MasterUsername {name} cannot be used as it is a reserved word used by the engine"
        )


def check_password(password: str) -> None:
    """The message must not repeat the password."""
    if not _PASSWORD.fullmatch(password) or _PASSWORD_EXCLUDED.intersection(password):
        raise invalid_parameter_value(
            "The parameter MasterUserPassword is not a valid password. It must have 8 to 128 characters, and only "
            "printable ASCII characters besides '/', '@', '\"', ' ' may be used."
        )


def check_db_name(name: str) -> None:
    if not _WORD.fullmatch(name):
        raise invalid_parameter_value(
            "The parameter DBName must begin with a letter and contain 1 to 63 letters, digits or underscores."
        )
    if name.lower() in _RESERVED or name.lower() in ("template0", "template1"):
        raise invalid_parameter_value(f"DBName {name} cannot be used as it is a reserved word used by the engine")


def check_instance_class(name: str) -> None:
    if memory_bytes(name) is None:
        raise invalid_parameter_value(f"Invalid DB Instance class: {name}")


def check_storage(parameter: str, size_gib: int) -> None:
    if not MIN_STORAGE_GIB <= size_gib <= MAX_STORAGE_GIB:
        raise invalid_parameter_value(
            f"Invalid storage size for engine name postgres: {parameter} {size_gib} is not between {MIN_STORAGE_GIB} "
            f"and {MAX_STORAGE_GIB} GiB"
        )


def check_port(port: int) -> None:
    if not MIN_PORT <= port <= MAX_PORT:
        raise invalid_parameter_value(f"Invalid port {port}: it must be between {MIN_PORT} and {MAX_PORT}")


def check_range(params: Mapping[str, Any], name: str, minimum: int, maximum: int) -> None:
    """For an optional number."""
    value = params.get(name)
    if value is not None and not minimum <= value <= maximum:
        raise invalid_parameter_value(f"Invalid value {value} for {name}. Must be between {minimum} and {maximum}")
