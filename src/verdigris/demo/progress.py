"""What the demo shows while it runs: a live picture on a terminal, one line per event elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from verdigris.demo.client_process import Progress

_STATUS_STYLES = {"COMPLETED": "green", "IN_PROGRESS": "yellow", "PENDING": "dim", "FAILED": "bold red"}


class Screen:
    """Stages one after the other, with what is known of the clients and of the deployment below them."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.clients: Callable[[], Progress] | None = None
        self._tasks: tuple[tuple[str, str], ...] = ()
        self._lag_bytes: int | None = None
        self._stage = ""
        self._detail = ""
        self._began = monotonic()
        self._spinner = Spinner("dots")
        self._live = Live(console=console, get_renderable=self._picture, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        self._stage, self._detail, self._began = title, "", monotonic()
        if not self.console.is_terminal:
            self.console.print(f"... {title}")
        try:
            yield
        except BaseException:
            self.console.print(Text(f"✗ {title}", "bold red"))
            raise
        took_s = monotonic() - self._began
        detail = f" ({self._detail})" if self._detail else ""
        self.console.print(Text.assemble(("✓ ", "green"), f"{title}{detail}", (f"  {took_s:.1f} s", "dim")))
        self._stage = ""

    def detail(self, text: str) -> None:
        """The latest about the current stage: shown live, and kept behind it when it ends."""
        self._detail = text

    def deployment(self, tasks: tuple[tuple[str, str], ...], lag_bytes: int | None) -> None:
        if not self.console.is_terminal:
            for task in tasks:
                if task not in self._tasks:
                    behind = "" if lag_bytes is None else f"  (green is {lag_bytes:,} bytes of WAL behind)"
                    self.console.print(f"    {' '.join(task)}{behind}", highlight=False, soft_wrap=True)
        self._tasks = tasks
        self._lag_bytes = lag_bytes

    def _picture(self) -> RenderableType:
        lines: list[RenderableType] = []
        if self._stage:
            text = f"{self._stage}  {monotonic() - self._began:.1f} s  {self._detail}"
            self._spinner.update(text=text)
            lines.append(self._spinner)
        lines += [
            Text.assemble("    ", (f"{status:12}", _STATUS_STYLES.get(status, "")), name)
            for name, status in self._tasks
        ]
        if self._lag_bytes is not None:
            lines.append(Text(f"    green is {self._lag_bytes:,} bytes of WAL behind"))
        if self.clients is not None:
            lines.append(_clients_line(self.clients()))
        return Group(*lines)


def _clients_line(progress: Progress) -> Text:
    troubles = progress.unknown + progress.failed + progress.reads_failed + progress.dropped
    return Text.assemble(
        f"    {progress.connected} clients  {progress.acknowledged:,} commits  {progress.reads:,} reads  on ",
        ", ".join(progress.versions),
        (f"  {troubles} errors", "bold red" if troubles else "dim"),
        (f"  {progress.problem}", "red"),
    )
