"""Medians, ratios and tables. Pure."""

from collections.abc import Iterable, Sequence
from math import ceil
from statistics import median

ABSENT = "-"


def percentile(values: Iterable[float], percent: float) -> float:
    """By nearest rank. Raises ``ValueError`` where there are no values."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def paired_ratio(values: Sequence[float], base: Sequence[float]) -> float:
    """The median of the ratios of each round: what the machine did to a whole round cancels out.

    Rounds in which ``base`` is zero count for nothing; NaN where no round is left.
    """
    ratios = [value / other for value, other in zip(values, base, strict=True) if other]
    return median(ratios) if ratios else float("nan")


def number(value: float) -> str:
    """Three significant digits at most, thousands separated; a dash for what is not a number."""
    if value != value:  # NaN
        return ABSENT
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str | float]]) -> str:
    """Markdown that is also readable on a terminal: the first column to the left, the others to the right."""
    cells = [list(header), *([cell if isinstance(cell, str) else number(cell) for cell in row] for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(header))]
    lines = ["| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |" for row in cells]
    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
