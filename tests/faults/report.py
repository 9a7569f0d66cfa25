"""The tables of docs/reliability.md, from the lines that runs have written."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

import msgspec

from tests.faults.schedule import Run
from tests.faults.trial import SETTLES_WITHIN_S, Result


def read_results(path: Path) -> list[Result]:
    """A last line that was cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    return [msgspec.json.decode(line, type=Result) for line in lines if line.endswith(b"\n")]


def what(result: Result) -> tuple[str, ...]:
    return result.fault, result.scene, result.mode, result.moment, result.step


def what_of(run: Run) -> tuple[str, ...]:
    point = run.point
    return run.fault.value, point.scene.value, point.mode.value if point.mode else "", point.moment.value, point.step


def report(results: Sequence[Result]) -> str:
    counted = [r for r in results if not r.counts]
    uncounted = Counter(r.counts.partition(":")[0] for r in results if r.counts)
    light = [r for r in results if r.counts.startswith("too ")]
    loads = sorted(r.load for r in counted if r.load)
    seeds = ", ".join(str(seed) for seed in sorted({r.seed for r in results}))
    said = [
        f"{len(counted)} runs count, of seed {seeds}; {_broken(counted)} with a violation.",
        f"Load of the machine: median {median(loads):.1f}, highest {loads[-1]:.1f}." if loads else "",
        f"With too little load to count, looked at all the same: {len(light)}; {_broken(light)} with a violation.",
        "Not counted: " + (", ".join(f"{n} {why}" for why, n in uncounted.items()) or "none") + ".",
        "",
        *_table("fault", counted, lambda r: r.fault),
        "",
        *_table("workflow, step", counted, lambda r: f"{r.scene}: {r.moment} {r.step}"),
    ]
    return "\n".join(said)


def _broken(results: Sequence[Result]) -> int:
    return sum(bool(result.violations) for result in results)


def _table(title: str, results: Iterable[Result], key: Callable[[Result], str]) -> list[str]:
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[key(result)].append(result)
    lines = [
        f"| {title} | runs | outcome | settled, median and longest | later than {SETTLES_WITHIN_S:g} s | violations |",
        "|---|---|---|---|---|---|",
    ]
    for name, group in groups.items():
        outcomes = Counter(r.outcome.partition(" (")[0] or "stuck" for r in group)
        times = sorted(r.settled_s for r in group if r.settled_s is not None)
        settled = f"{median(times):.1f} s, {times[-1]:.1f} s" if times else ""
        told = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.most_common())
        late = sum(time > SETTLES_WITHIN_S for time in times)
        lines.append(f"| {name} | {len(group)} | {told} | {settled} | {late} | {_broken(group)} |")
    return lines
