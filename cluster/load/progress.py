"""A load as it is watched: bars on a terminal, lines in a log, JSON for programs.

Bars and lines go to stderr, JSON to stdout. A display never ends a load: when nobody reads it any more, it
falls silent.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import IO, Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cluster.load.counters import Progress, Stage, StageCount
from cluster.load.pace import Monotonic, Pace, Seen, duration, found, how_far, mean_ms, percent, plain, plural

LINE_EVERY_S = 10.0
JSON_EVERY_S = 1.0
_CHANGE_EVERY_S = 1.0  # what is waited for may come and go
_REFRESHES_PER_S = 4
_BAR_COLUMNS = 60


class Display(Protocol):
    """Where a load is shown. For one thread at a time."""

    def show(self, progress: Progress) -> None:
        """So far the load is now. To be called as often as one likes."""
        ...

    def close(self, final: Progress, said: str) -> None:
        """Show how far the load came, and a last sentence. Once; `end_display` where it is not known."""
        ...


def open_display(as_json: bool, stderr_is_terminal: bool) -> Display:
    """JSON where it is asked for, bars on a terminal that can draw them, else lines."""
    if as_json:
        return JsonLines(sys.stdout)
    console = Terminal(stderr=True, highlight=False)
    return Bars(console) if stderr_is_terminal and not console.is_dumb_terminal else Lines(sys.stderr)


def end_display(display: Display) -> None:
    """Leave the terminal as it was found, whatever happened. Does nothing after `close`."""
    if isinstance(display, Bars):
        display.end()


class Terminal(Console):
    """A console that falls silent where rich would end the process."""

    def on_broken_pipe(self) -> None:
        """Nobody reads any more."""
        self.quiet = True


class Bars:
    """One bar for the load, a line for each stage, and what holds it back."""

    def __init__(
        self, console: Console, monotonic: Monotonic = time.monotonic, *, by_itself: bool = True
    ) -> None:
        """`by_itself`: drawn a few times a second from a thread of its own, else whenever it is shown."""
        self._console = console
        self._monotonic = monotonic
        self._by_itself = by_itself
        self._pace = Pace(monotonic)
        self._seen: Seen | None = None
        self._live: Live | None = Live(
            console=console,
            get_renderable=self._drawn,
            auto_refresh=by_itself,
            refresh_per_second=_REFRESHES_PER_S,
            redirect_stdout=sys.stdout.isatty(),  # what goes elsewhere is not for this terminal
        )

    def show(self, progress: Progress) -> None:
        """What is drawn from now on."""
        self._seen = self._pace.see(progress)
        try:
            if self._live is not None and not self._live.is_started:
                self._live.start()
            if self._live is not None and not self._by_itself:
                self._live.refresh()
        except OSError:  # the terminal has gone
            self.end()

    def close(self, final: Progress, said: str) -> None:
        """What was drawn last stays on the terminal, the sentence below it."""
        self.show(final)
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.stop()
                self._console.print(Text(plain(said)))
        self.end()

    def end(self) -> None:
        """Draw no more; what was drawn last stays."""
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(OSError):
                live.stop()

    def _drawn(self) -> RenderableType:
        return Text() if self._seen is None else _drawing(self._seen, self._monotonic())


def _drawing(seen: Seen, now: float) -> RenderableType:
    parts: list[RenderableType] = [_bar(seen.progress), Text(how_far(seen)), _run(seen.progress), Text()]
    parts += [_stages(seen), Text(), Text(found(seen, rate=True))]
    held = seen.progress.counters.held_back
    if held:
        parts.append(Text(f"waiting for {duration(seen.held_s(now))}: {plain(held)}", "yellow"))
    return Group(*parts)


def _bar(progress: Progress) -> Table:
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_column(no_wrap=True, overflow="ellipsis", max_width=_BAR_COLUMNS // 2)
    line.add_column(max_width=_BAR_COLUMNS)
    line.add_column(no_wrap=True)
    bar = ProgressBar(
        total=max(1, progress.photos),
        completed=progress.photos_done,
        complete_style="cyan",  # rich's own red looks like a failure
        finished_style="green",
    )
    line.add_row(Text(f"load {plain(progress.name)}", "bold"), bar, Text(percent(progress)))
    return line


def _run(progress: Progress) -> Text:
    workers = progress.counters.workers
    text = f"{progress.parts_done:,} of {progress.parts:,} parts; {workers:,} worker{plural(workers)}"
    text += f", running for {duration(progress.running_s)}"
    if progress.done_before:
        text += f"; {progress.done_before:,} photos are from earlier runs"
    return Text(text, "dim")


def _stages(seen: Seen) -> Table:
    counters = seen.progress.counters
    counts = {stage: counters.stages.get(stage, StageCount()) for stage in Stage}
    most = max(count.waiting for count in counts.values())
    table = Table(box=None, header_style="dim", padding=(0, 3, 0, 0), pad_edge=False)
    table.add_column("stage")
    for name in ("photos", "ms each", "waiting"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage, count in counts.items():
        mean = mean_ms(count)
        cells = (
            stage.value,
            f"{count.photos:,}",
            "" if mean is None else f"{mean:,.1f}",
            f"{count.waiting:,}",
        )
        table.add_row(*map(Text, cells), style="bold" if 0 < count.waiting == most else "")
    return table


class Lines:
    """A line at the start, every `every_s`, whenever what is waited for changes, and at the end."""

    def __init__(
        self, out: IO[str], monotonic: Monotonic = time.monotonic, every_s: float = LINE_EVERY_S
    ) -> None:
        self._out = _Out(out)
        self._monotonic = monotonic
        self._every_s = every_s
        self._pace = Pace(monotonic)
        self._next = float("-inf")
        self._next_change = float("-inf")
        self._held: Seen | None = None  # what was said to be waited for

    def show(self, progress: Progress) -> None:
        """A line if one is due."""
        seen = self._pace.see(progress)
        now = self._monotonic()
        before = "" if self._held is None else self._held.progress.counters.held_back
        changed = progress.counters.held_back != before and now >= self._next_change
        if changed:
            self._next_change = now + _CHANGE_EVERY_S
        if changed or now >= self._next:
            self._say(seen, now)

    def close(self, final: Progress, said: str) -> None:
        """How far it came, then the sentence."""
        self._say(self._pace.see(final), self._monotonic())
        self._out.line(f"load {plain(final.name)}: {plain(said)}")

    def _say(self, seen: Seen, now: float) -> None:
        progress = seen.progress
        share = f" ({percent(progress)})" if progress.photos else ""
        text = f"load {plain(progress.name)}: {how_far(seen, share)}; {found(seen)}"
        if progress.counters.held_back:
            text += f"; waiting for {duration(seen.held_s(now))}: {plain(progress.counters.held_back)}"
        elif self._held is not None:
            text += f"; it goes on, after waiting for {duration(self._held.held_s(now))}"
        self._held = seen if progress.counters.held_back else None
        self._next = now + self._every_s
        self._out.line(text)


class JsonLines:
    """One JSON object a line, in ASCII: at the start, every `every_s`, and at the end."""

    def __init__(
        self, out: IO[str], monotonic: Monotonic = time.monotonic, every_s: float = JSON_EVERY_S
    ) -> None:
        self._out = _Out(out)
        self._monotonic = monotonic
        self._every_s = every_s
        self._pace = Pace(monotonic)
        self._next = float("-inf")

    def show(self, progress: Progress) -> None:
        """An object if one is due."""
        seen = self._pace.see(progress)
        now = self._monotonic()
        if now >= self._next:
            self._next = now + self._every_s
            self._out.line(json.dumps(_fields(seen, now) | {"ended": False}))

    def close(self, final: Progress, said: str) -> None:
        """The last object has `ended` true and what was `said`."""
        fields = _fields(self._pace.see(final), self._monotonic())
        self._out.line(json.dumps(fields | {"ended": True, "said": said}))


def _fields(seen: Seen, now: float) -> dict[str, Any]:
    """Stable names, with their units. What is not known yet is null."""
    progress, counters = seen.progress, seen.progress.counters
    stages = {stage: counters.stages.get(stage, StageCount()) for stage in Stage}
    return {
        "load": progress.name,
        "photos": progress.photos,
        "photos_done": progress.photos_done,
        "photos_done_before": progress.done_before,
        "parts": progress.parts,
        "parts_done": progress.parts_done,
        "workers": counters.workers,
        "running_s": round(progress.running_s, 3),
        "photos_per_s": _rounded(seen.photos_per_s),
        "faces_per_s": _rounded(seen.faces_per_s),
        "seconds_left": _rounded(seen.seconds_left),
        "faces": counters.faces,
        "photos_rejected": sum(counters.rejected.values()),
        "photos_rejected_by_reason": dict(counters.rejected),
        "held_back": counters.held_back,
        "held_back_s": round(seen.held_s(now), 3),
        "stages": {
            stage.value: {
                "photos": count.photos,
                "seconds": round(count.seconds, 3),
                "ms_per_photo": _rounded(mean_ms(count)),
                "photos_waiting": count.waiting,
            }
            for stage, count in stages.items()
        },
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


class _Out:
    """A file that may be closed under our hands."""

    def __init__(self, file: IO[str]) -> None:
        self._file: IO[str] | None = file

    def line(self, text: str) -> None:
        """One line, at once; nothing when nobody reads any more."""
        if self._file is None:
            return
        try:
            self._file.write(text + "\n")
            self._file.flush()
        except (OSError, ValueError):  # a broken pipe; a closed file
            self._file = None
