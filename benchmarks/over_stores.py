"""What the benchmarks of servers over filled stores share: options, the run itself, its file and its plot."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from benchmarks.common import machine, write_json
from benchmarks.filled import Filled, filled_stores, servers_folder
from benchmarks.reporting import surroundings
from homeward.errors import HomewardError

Figures = dict[str, Any]
Measure = Callable[[Filled, argparse.Namespace, Path], Coroutine[Any, Any, Figures]]


def parser(name: str, text: str | None, rows: int) -> argparse.ArgumentParser:
    """With the options that all have; `text` is the benchmark's own docstring."""
    made = argparse.ArgumentParser(
        prog=f"benchmarks.{name}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, required=True, help="where the figures are written")
    made.add_argument("--rows", type=int, default=rows, help=f"faces, a multiple of 16 ({rows:,})")
    made.add_argument("--keep", type=Path, help="folder of filled stores: made when new, used when there")
    made.add_argument("--plot", type=Path, help="PNG file (beside the JSON)")
    made.add_argument("--draw", action="store_true", help="only draw what the JSON file says")
    return made


def run(
    options: argparse.Namespace,
    measure: Measure,
    draw: Callable[[Figures, Path], None],
    tell: Callable[[Figures], int],
) -> int:
    """Fill the stores, measure, write and draw the figures; the exit code: what `tell`, which prints the
    line of the figures, says of them, or 2 when it could not be measured."""
    plot = options.plot or options.json.with_suffix(".png")
    if options.draw:
        draw(json.loads(options.json.read_text(encoding="utf-8")), plot)
        return 0
    before = machine()
    try:
        with (
            filled_stores(options.rows, options.keep) as filled,
            servers_folder(options.keep) as folder,
        ):
            figures = asyncio.run(measure(filled, options, folder))
    except HomewardError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)
        return 2
    given = {name: value for name, value in vars(options).items() if isinstance(value, int | float | str)}
    figures |= {"options": given} | surroundings(before)  # with these it is measured again
    write_json(options.json, figures)
    draw(figures, plot)
    return tell(figures)
