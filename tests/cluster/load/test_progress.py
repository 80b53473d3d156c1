"""What a person and a program see of a load, by a clock that the test moves."""

from __future__ import annotations

import errno
import io
import json
import sys
from typing import Any

import pytest
from rich.console import Console

from cluster.load.counters import Progress
from cluster.load.progress import Bars, Display, JsonLines, Lines, Terminal, end_display, open_display
from tests.cluster.load.watched import Clock, progress


def at_a_steady_rate(display: Display, clock: Clock, seconds: int = 40, **said: Any) -> Progress:
    """143 photos and 137 faces a second, up to 12,400 photos."""
    for left in range(seconds, -1, -1):
        last = progress(12_400 - 143 * left, faces=11_911 - 137 * left, **said)
        display.show(last)
        clock.now += 1 if left else 0
    return last


# Lines.


def lines_of(out: io.StringIO) -> list[str]:
    return out.getvalue().splitlines()


def test_a_line_says_it_all() -> None:
    clock, out = Clock(), io.StringIO()
    lines = Lines(out, clock)
    at_a_steady_rate(lines, clock)
    assert lines_of(out)[-1] == (
        "load march: 12,400 of 98,000 photos (12 %), 143/s, 9 min 59 s left; "
        "11,911 faces, 212 rejected (NO_FACE 190, PHOTO_CORRUPT 22)"
    )


def test_lines_come_at_the_start_every_ten_seconds_and_at_the_end() -> None:
    clock, out = Clock(), io.StringIO()
    lines = Lines(out, clock)
    lines.show(progress(0, rejected={}, faces=1))
    assert lines_of(out) == ["load march: 0 of 98,000 photos (0 %); 1 face, 0 rejected"]
    for _ in range(29 * 4):
        clock.now += 0.25
        lines.show(progress())
    assert len(lines_of(out)) == 3
    lines.close(progress(98_000), "all is loaded\n\x1b[31m")
    assert lines_of(out)[3].startswith("load march: 98,000 of 98,000 photos (100 %), ")
    assert " left" not in lines_of(out)[3]
    assert lines_of(out)[4:] == [r"load march: all is loaded\n\x1b[31m"]


def test_what_is_waited_for_is_said_at_once_and_so_is_its_end() -> None:
    clock, out = Clock(), io.StringIO()
    lines = Lines(out, clock)
    lines.show(progress())
    clock.now += 0.25
    lines.show(progress(held="Milvus does not answer"))
    clock.now += 2
    lines.show(progress(held="Milvus does not answer"))
    assert len(lines_of(out)) == 2
    assert lines_of(out)[1].endswith("; waiting for 0 s: Milvus does not answer")
    lines.show(progress(held="PostgreSQL does not answer"))
    assert lines_of(out)[2].endswith("; waiting for 2 s: PostgreSQL does not answer")
    clock.now += 3
    lines.show(progress())
    assert lines_of(out)[3].endswith("; it goes on, after waiting for 5 s")
    clock.now += 20
    lines.show(progress())
    assert lines_of(out)[4].endswith("PHOTO_CORRUPT 22)")


def test_a_store_that_comes_and_goes_does_not_flood_a_log() -> None:
    clock, out = Clock(), io.StringIO()
    lines = Lines(out, clock)
    for number in range(400):
        clock.now += 0.025
        lines.show(progress(held="Milvus" * (number % 2)))
    assert 5 <= len(lines_of(out)) <= 13


# JSON.


def test_json_has_stable_names_once_a_second_and_at_the_end() -> None:
    clock, out = Clock(), io.StringIO()
    display = JsonLines(out, clock)
    for left in range(160, -1, -1):
        display.show(
            progress(12_400 - 40 * left, before=500, held="x", name="m\nå", faces=10_000 - 20 * left)
        )
        clock.now += 0.25
    display.close(progress(98_000, name="m\nå"), "done")
    found = [json.loads(line) for line in lines_of(out)]
    assert out.getvalue().isascii()
    assert len(found) == 42
    assert found[0]["photos_per_s"] is found[0]["seconds_left"] is None
    stages = found[40].pop("stages")
    assert found[40] == {
        "load": "m\nå",
        "photos": 98_000,
        "photos_done": 12_400,
        "photos_done_before": 500,
        "parts": 98,
        "parts_done": 12,
        "workers": 4,
        "running_s": 300.0,
        "photos_per_s": 160.0,
        "faces_per_s": 80.0,
        "seconds_left": 535.0,
        "faces": 10_000,
        "photos_rejected": 212,
        "photos_rejected_by_reason": {"NO_FACE": 190, "PHOTO_CORRUPT": 22},
        "held_back": "x",
        "held_back_s": 40.0,
        "ended": False,
    }
    assert list(stages) == ["read", "decode", "embed", "write"]
    assert stages["embed"] == {
        "photos": 12_000,
        "seconds": 480.0,
        "ms_per_photo": 40.0,
        "photos_waiting": 1280,
    }
    assert stages["decode"] == {"photos": 0, "seconds": 0.0, "ms_per_photo": None, "photos_waiting": 0}
    assert (found[41]["ended"], found[41]["said"], found[41]["seconds_left"]) == (True, "done", 0.0)
    assert found[41]["held_back_s"] == 0.0


# Bars.


def terminal(width: int = 100, *, colours: bool = False) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        width=width,
        height=30,
        highlight=False,
        color_system="standard" if colours else None,
        _environ={},
    )


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def last_drawn(console: Console) -> list[str]:
    """The lines of the last drawing, without what moves the cursor."""
    text = written(console).rpartition("\x1b[2K")[2]
    return [line.replace("\x1b[?25h", "").rstrip() for line in text.splitlines()]


def test_bars_show_the_load_its_stages_and_what_was_rejected() -> None:
    clock, console = Clock(), terminal()
    bars = Bars(console, clock, by_itself=False)
    at_a_steady_rate(bars, clock, before=500, held="Milvus [bold]does not answer[/]")
    bars.close(progress(before=500), "stopped [red]here[/]")
    drawn = last_drawn(console)
    assert drawn[0].startswith("load march  ━")
    assert drawn[0].endswith(" 12 %")
    assert drawn[1] == "12,400 of 98,000 photos, 143/s, 9 min 59 s left"
    assert drawn[2] == "12 of 98 parts; 4 workers, running for 5 min; 500 photos are from earlier runs"
    assert [line.split() for line in drawn[4:9]] == [
        ["stage", "photos", "ms", "each", "waiting"],
        ["read", "12,300", "1.2", "0"],
        ["decode", "0", "0"],
        ["embed", "12,000", "40.0", "1,280"],
        ["write", "11,900", "6.0", "96"],
    ]
    assert drawn[10] == "11,911 faces (137/s), 212 rejected (NO_FACE 190, PHOTO_CORRUPT 22)"
    assert drawn[11:] == ["stopped [red]here[/]"]
    assert "waiting for 40 s: Milvus [bold]does not answer[/]" in written(console)


def test_what_is_waited_for_is_yellow() -> None:
    clock, console = Clock(), terminal(colours=True)
    bars = Bars(console, clock, by_itself=False)
    bars.show(progress(held="Milvus does not answer"))
    clock.now += 75
    bars.show(progress(held="Milvus does not answer"))
    assert "\x1b[33mwaiting for 1 min 15 s: Milvus does not answer\x1b[0m" in written(console)
    bars.close(progress(), "ended")


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_bars_fit_any_terminal_and_any_name(width: int) -> None:
    clock, console = Clock(), terminal(width)
    bars = Bars(console, clock, by_itself=False)
    shown = progress(name="[link=x]" + "n" * 300 + "\x1b]0;t\x07", held="w " * 100, rejected={"R\n": 10**9})
    bars.show(shown)
    clock.now += 5
    bars.close(progress(0, 0), "")
    assert max(map(len, last_drawn(console))) <= width
    assert "\x1b]0" not in written(console)


def test_bars_draw_themselves_between_two_calls() -> None:
    console = terminal()
    bars = Bars(console)
    bars.show(progress())
    bars.close(progress(98_000), "all is loaded")
    assert "98,000 of 98,000 photos" in written(console)
    assert written(console).endswith("all is loaded\n")


def test_a_terminal_is_left_as_it_was_also_after_a_failure() -> None:
    before = sys.stderr
    console = terminal()
    bars = Bars(console)
    bars.show(progress())
    assert written(console).count("\x1b[?25l") == 1
    end_display(bars)
    assert written(console).count("\x1b[?25h") == 1
    assert sys.stderr is before
    shown = written(console)
    end_display(bars)
    bars.show(progress())
    end_display(Lines(io.StringIO()))
    assert written(console) == shown


# All of them.


class Tty(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A pipe or a terminal that is there no more."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error

    def flush(self) -> None:
        raise self._error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(errno.EIO, "the terminal is gone")])
def test_a_display_that_nobody_reads_falls_silent(error: OSError) -> None:
    clock = Clock()
    console = Terminal(file=Gone(error), force_terminal=True, width=80, _environ={})
    displays: list[Display] = [Lines(Gone(error), clock), JsonLines(Gone(error), clock)]
    displays.append(Bars(console, clock, by_itself=False))
    before = sys.stderr
    for display in displays:
        for _ in range(3):
            clock.now += 20
            display.show(progress())
        display.close(progress(), "ended")
    assert sys.stderr is before


def test_the_display_is_chosen_by_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Tty())
    assert isinstance(open_display(True, True), JsonLines)
    assert isinstance(open_display(False, False), Lines)
    assert isinstance(open_display(False, True), Bars)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_display(False, True), Lines)
