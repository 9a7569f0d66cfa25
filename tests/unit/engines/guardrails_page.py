"""The page on guardrails, written from the registry: ``uv run python -m tests.unit.engines.guardrails_page``."""

from pathlib import Path

from verdigris.domain.statuses import ReplicationMode
from verdigris.engines.postgres.guardrails.model import ANY_MODE, Guardrail, Moment
from verdigris.engines.postgres.guardrails.registry import GUARDRAILS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "guardrails.md"

_INTRODUCTION = """\
# Guardrails

What has to be true before a deployment is made and before it is switched over. A condition that does not hold refuses,
by its name, before anything has changed; `verdigris deployments check ID` looks at all of them without switching over,
and fails if one does not hold. The headings are the guardrails of Amazon RDS, with which messages begin.

This page is written from the registry (`engines/postgres/guardrails/`), and a test compares the two.

- *creation*: before anything is made. A finding makes the deployment `INVALID_CONFIGURATION`; blue is as it was.
- *standing*: all the time while green waits. What is found is wrong for good: `INVALID_CONFIGURATION`.
- *switchover*: before anything changes. The switchover fails, with the finding in `StatusDetails`; it may be called
  again.
- *fenced*: once more inside the pause, when nobody but Verdigris reaches blue. A finding leads back to blue.
"""

_WHEN = {
    Moment.CREATION: "creation",
    Moment.STANDING: "standing",
    Moment.SWITCHOVER: "switchover",
    Moment.FENCED: "fenced",
}


def render() -> str:
    parts = [_INTRODUCTION]
    for rds in dict.fromkeys(guardrail.rds for guardrail in GUARDRAILS):
        parts.append(f"\n## {rds}\n")
        parts += [_entry(guardrail) for guardrail in GUARDRAILS if guardrail.rds == rds]
    return "".join(parts)


def _entry(guardrail: Guardrail) -> str:
    when = ", ".join(word for moment, word in _WHEN.items() if moment in guardrail.moments)
    modes = "any mode" if guardrail.modes == ANY_MODE else f"{_only(guardrail.modes)} mode"
    return (
        f"\n### `{guardrail.name}`\n\n"
        f"- looked at on {guardrail.side}, {modes}; {when}\n"
        f"- finds: {guardrail.complaint}\n"
        f"- threshold: {guardrail.threshold}\n"
        f"- why: {guardrail.why}\n"
        f"- what to do: {guardrail.remedy}\n"
    )


def _only(modes: frozenset[ReplicationMode]) -> str:
    (mode,) = modes
    return mode


if __name__ == "__main__":
    PAGE.write_text(render())
