"""Names, resource ids and ARNs: their rules, and how they change at a switchover.

Random characters come from the caller, so that this module stays pure and tests repeatable.
"""

import re
from collections.abc import Callable, Container

from msgspec import Struct

# RDS user guide, CreateDBInstance: 1 to 63 letters, digits or hyphens, first a letter, no two hyphens, none at the end.
_NAME = re.compile(r"[a-zA-Z](?:-?[a-zA-Z0-9])*")
INSTANCE_IDENTIFIER_MAX = 63
PARAMETER_GROUP_NAME_MAX = 255
SNAPSHOT_IDENTIFIER_MAX = 255

RESOURCE_ID_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
SUFFIX_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"

RandomText = Callable[[str, int], str]  # (alphabet, length) -> text


def is_instance_identifier(text: str) -> bool:
    return _is_name(text, INSTANCE_IDENTIFIER_MAX)


def is_parameter_group_name(text: str) -> bool:
    return _is_name(text, PARAMETER_GROUP_NAME_MAX)


def is_snapshot_identifier(text: str) -> bool:
    return _is_name(text, SNAPSHOT_IDENTIFIER_MAX)


def _is_name(text: str, most: int) -> bool:
    return len(text) <= most and _NAME.fullmatch(text) is not None


def new_resource_id(random_text: RandomText) -> str:
    return "db-" + random_text(RESOURCE_ID_ALPHABET, 26)


def new_cluster_resource_id(random_text: RandomText) -> str:
    return "cluster-" + random_text(RESOURCE_ID_ALPHABET, 26)


def new_snapshot_id(random_text: RandomText) -> str:
    return "snap-" + random_text(SUFFIX_ALPHABET, 20)


def new_cluster_endpoint_resource_id(random_text: RandomText) -> str:
    return "cluster-endpoint-" + random_text(RESOURCE_ID_ALPHABET, 26)


def new_deployment_identifier(random_text: RandomText) -> str:
    return "bgd-" + random_text(SUFFIX_ALPHABET, 16)


def green_identifier(source: str, random_text: RandomText, taken: Container[str] = ()) -> str:
    """``app`` -> ``app-green-x1y2z3``, one that is not taken; AWS's drivers look for ``-green-[0-9a-z]{6}``.

    A source name too long to take the suffix is cut, and loses the hyphen that a cut may leave at its end.
    """
    while True:
        suffix = "-green-" + random_text(SUFFIX_ALPHABET, 6)
        name = source[: INSTANCE_IDENTIFIER_MAX - len(suffix)].rstrip("-") + suffix
        if name not in taken:
            return name


def old_identifier(source: str, taken: Container[str]) -> str:
    """``app`` -> ``app-old1``, or the first ``-oldN`` that is free."""
    n = 1
    while True:
        suffix = f"-old{n}"
        name = source[: INSTANCE_IDENTIFIER_MAX - len(suffix)].rstrip("-") + suffix
        if name not in taken:
            return name
        n += 1


def cluster_endpoint_names(cluster: str) -> tuple[str, str]:
    """Of the writer's and the readers' endpoint, for the router. No instance can be called so."""
    return f"{cluster}.cluster", f"{cluster}.cluster-ro"


def custom_endpoint_name(identifier: str) -> str:
    """For the router, as above. Identifiers are unique over all clusters, as on RDS."""
    return f"{identifier}.cluster-custom"


class Arn(Struct, frozen=True):
    """``arn:aws:rds:REGION:ACCOUNT:KIND:NAME``; kinds here: ``db``, ``cluster``, ``snapshot``, ``pg`` ..."""

    region: str
    account_id: str
    kind: str
    name: str
    partition: str = "aws"

    @classmethod
    def parse(cls, text: str) -> "Arn":
        """Raises ``ValueError`` if ``text`` is not an ARN of the RDS service."""
        parts = text.split(":", 6)
        if len(parts) != 7 or parts[0] != "arn" or not parts[1].startswith("aws") or parts[2] != "rds":
            raise ValueError(f"not an Amazon RDS ARN: {text!r}")
        _, partition, _, region, account_id, kind, name = parts
        if not kind or not name:
            raise ValueError(f"not an Amazon RDS ARN: {text!r}")
        return cls(region=region, account_id=account_id, kind=kind, name=name, partition=partition)

    def __str__(self) -> str:
        return f"arn:{self.partition}:rds:{self.region}:{self.account_id}:{self.kind}:{self.name}"
