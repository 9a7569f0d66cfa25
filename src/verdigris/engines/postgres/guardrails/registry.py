"""Every guardrail that there is, in the order in which findings are told."""

from verdigris.engines.postgres.guardrails import (
    activity,
    collations,
    creation,
    definitions,
    extensions,
    external,
    lacks,
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
    *lacks.GUARDRAILS,
    *tables.GUARDRAILS,
    *extensions.GUARDRAILS,
    *collations.GUARDRAILS,
    *creation.GUARDRAILS,
)
