"""Checking the search log: is every line there, unchanged and in order?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cluster.searchlog import ORIGIN, is_entry, line_hash, log_files


@dataclass(frozen=True, slots=True)
class LogReport:
    """What `verify` found. `head` is worth writing down elsewhere: it pins every line before it."""

    files: int
    lines: int
    head: str  # SHA-256 of the last line
    begins: str  # what the first line says of its predecessor; ORIGIN unless older files were removed
    torn: tuple[str, ...]  # files that hold torn lines kept aside
    problems: tuple[str, ...]  # "file:line: what"; empty when the chain holds

    @property
    def complete(self) -> bool:
        """Whether the chain holds from the very first line on."""
        return not self.problems and self.begins == ORIGIN

    @property
    def finding(self) -> str:
        """What `homeward doctor` says of the log."""
        if self.problems:
            return f"the chain of the search log is broken: {'; '.join(self.problems)}"
        said = f"{self.lines} lines in {self.files} files, chain unbroken, head {self.head[:16]}"
        if self.begins != ORIGIN:
            said += "; older files were removed"
        if self.torn:
            said += f"; {len(self.torn)} torn lines of searches that were never answered kept aside"
        return said

    @property
    def remedy(self) -> str:
        """What to do about it; empty when there is nothing to do."""
        if not self.problems:
            return ""
        return (
            "lines were changed or lost after they were written: find out who could write to the data "
            "folder, and restore the files from a backup"
        )


def verify(folder: Path, *, problems_max: int = 20) -> LogReport:
    """Read every line and follow the chain. A last line without newline is being written or torn, and
    is not counted; removal of whole lines at the very end shows only against a `head` kept elsewhere.
    """
    problems: list[str] = []
    previous: str | None = None
    sequence: int | None = None
    begins = ORIGIN
    lines = 0
    files = log_files(folder)
    for path in files:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if not raw.endswith(b"\n"):
                    if path != files[-1]:
                        problems.append(f"{path.name}:{number}: the line has no end")
                    break
                line = raw[:-1]
                lines += 1
                if not is_entry(line):
                    problems.append(f"{path.name}:{number}: no entry of this log")
                    previous, sequence = line_hash(line), None
                    continue
                entry = json.loads(line)
                if previous is None:
                    begins = entry["prev"]
                elif entry["prev"] != previous:
                    problems.append(f"{path.name}:{number}: the line before it was changed or removed")
                if sequence is not None and entry["seq"] != sequence + 1:
                    problems.append(f"{path.name}:{number}: entry {entry['seq']} follows entry {sequence}")
                previous, sequence = line_hash(line), entry["seq"]
    return LogReport(
        files=len(files),
        lines=lines,
        head=previous or ORIGIN,
        begins=begins,
        torn=tuple(sorted(path.name for path in folder.glob("torn-*.bin"))),
        problems=tuple(problems[:problems_max]),
    )
