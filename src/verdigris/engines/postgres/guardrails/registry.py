"""Every guardrail that there is, in the order in which findings are told."""

from verdigris.engines.postgres.guardrails import (
    activity,
    creation,
    definitions,
    external,
    reachability,
    replication,
    tables,
)
from verdigris.engines.postgres.guardrails.model import Guardrail

GUARDRAILS: tuple[Guardrail, ...] = (
    *reachability.GUARDRAILS,
    *replication.GUARDRAILS,
    *external.GUARDRAILS,
    *activity.GUARDRAILS,
    *definitions.GUARDRAILS,
    *tables.GUARDRAILS,
    *creation.GUARDRAILS,
)
