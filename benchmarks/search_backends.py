"""The random cases of `benchmarks.search_cases` in a process of its own for each way the index computes.

    .venv/bin/python -m benchmarks.search_backends --backend portable --cases 10000 --seed 1

shows the differences of one backend, and `--seed 1234 --cases 1` one history again. The kernel of a
process is chosen when `index.scan_loops` is imported, so `use_backend` comes before any such import.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SELECTED, PORTABLE = "selected", "portable"
_SHOWN = 3  # differences told in full


def backends() -> tuple[str, ...]:
    """The kernel that this processor gets, and the portable one where that is another."""
    from index.kernel import has_byte_dot

    return (SELECTED, PORTABLE) if has_byte_dot() else (SELECTED,)


def use_backend(name: str) -> None:
    """Let the index of this process compute with that kernel; once, before its loops are imported."""
    if name == SELECTED:
        return
    if "index.scan_loops" in sys.modules:
        raise RuntimeError("the index's loops are imported already")
    from index import compiled, kernel

    kernel.bounds = kernel.bounds_portable
    folder = compiled._folder()
    # numba's cache does not see which kernel was compiled in.
    compiled._folder = lambda: folder.with_name(f"{folder.name}-{name}")  # type: ignore[assignment]


def run_all(
    names: Sequence[str], cases: int, seed: int, templates: Path | None = None
) -> dict[str, dict[str, Any]]:
    """These backends side by side, each over at least `cases` random cases; see `_run` for what is told.

    `templates` is an .npz of real templates (`benchmarks.search_photos`), each searched among all.
    Raises `RuntimeError` when one of them ends without an answer.
    """
    commands = [
        [sys.executable, "-m", __spec__.name, "--backend", name, "--cases", str(cases), "--seed", str(first)]
        for name, first in zip(names, itertools.count(seed, 1_000_000), strict=False)
    ]
    more = ["--templates", str(templates)] if templates else []
    children = [subprocess.Popen([*each, *more], stdout=subprocess.PIPE, text=True) for each in commands]
    try:
        told = [child.communicate()[0] for child in children]
    finally:
        for child in children:
            child.kill()
    for name, child in zip(names, children, strict=True):
        if child.returncode not in (0, 1):
            raise RuntimeError(f"the random cases of the {name} kernel ended with {child.returncode}")
    return {name: json.loads(each) for name, each in zip(names, told, strict=True)}


def _run(name: str, cases: int, seed: int, templates: Path | None) -> dict[str, object]:
    """One backend's counts; differences are told on stderr as they are found."""
    from benchmarks.search_cases import BATCHES, History
    from benchmarks.search_photos import compare_templates

    started = said = time.monotonic()
    done = changes = different = 0
    first = seed
    wrong: list[int] = []
    while done < cases:
        try:
            outcome = History(seed).run()
        except Exception as error:
            error.add_note(f"seed {seed}, {name} kernel")
            raise
        done += outcome.cases
        changes += outcome.changes
        different += len(outcome.differences)
        if outcome.differences:
            wrong.append(seed)
        if outcome.differences and len(wrong) <= _SHOWN:
            print(f"DIFFERENCE, {name} kernel: {outcome.differences[0]}", file=sys.stderr)
        if time.monotonic() > said + 20:
            said = time.monotonic()
            print(f"search: {name} kernel, {done:,} of {cases:,} random cases", file=sys.stderr, flush=True)
        seed += 1
    found: dict[str, object] = {
        "cases": done,
        "differences": different,
        "seeds": [first, seed - 1],
        "seeds_that_differ": wrong,
        "histories": seed - first,
        "changes": changes,
        "batches": list(BATCHES),
        "seconds": round(time.monotonic() - started, 1),
    }
    if templates is not None:
        count, real_different = compare_templates(templates)
        found |= {"real_templates": count, "real_differences": real_different}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one backend; prints one line of JSON; 1 when an answer differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", choices=(SELECTED, PORTABLE), default=SELECTED)
    parser.add_argument("--cases", type=int, default=10_000, help="at least so many queries are compared")
    parser.add_argument("--seed", type=int, default=1, help="of the first history; the next have the next")
    parser.add_argument("--templates", type=Path, help=".npz of real templates to search as well")
    options = parser.parse_args(arguments)
    use_backend(options.backend)
    found = _run(options.backend, options.cases, options.seed, options.templates)
    print(json.dumps(found), flush=True)
    return int(bool(found["differences"] or found.get("real_differences")))


if __name__ == "__main__":
    sys.exit(main())
