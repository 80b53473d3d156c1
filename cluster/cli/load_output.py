"""What a person reads of a load: the dry run's findings and the report's sums."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from cluster.cli.output import console
from cluster.load.advice import advice
from cluster.load.outcome_types import Became
from cluster.load.pace import duration, plain

if TYPE_CHECKING:
    from catalogue.load_types import Load
    from cluster.load.dry_run import DryRun
    from cluster.load.report import LoadReport

_SHOWN = 10  # lines of a list
_BECAME = {
    Became.ENROLLED: "enrolled",
    Became.DUPLICATE: "the same bytes as another photo of the same record: linked to it",
    Became.ALREADY_THERE: "the record had the photo before, from elsewhere: left as it was",
}


def size(count: float) -> str:
    """Bytes for people: '64.0 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def print_look(found: DryRun) -> None:
    """What a load would be."""
    out, totals = console(), found.look.totals
    out.print(
        f"{totals.photos:,} photos of {totals.records:,} records, {size(totals.bytes)}, in "
        f"{found.look.parts:,} parts"
    )
    if totals.unknown_columns:
        names = plain(", ".join(totals.unknown_columns))
        out.print(Text(f"columns that are not read: {names} (homeward load columns)", "yellow"))
    if totals.left_out:
        table = Table(title="left out", title_justify="left", title_style="bold", header_style="dim")
        for name in ("photo", "line", "reason", ""):
            table.add_column(name, overflow="fold")
        for one in found.look.left_out:
            table.add_row(
                Text(one.member.shown), str(one.line or ""), Text(one.code, "yellow"), Text(plain(one.why))
            )
        out.print(table)
        more = sum(totals.left_out.values()) - len(found.look.left_out)
        if more > 0:
            out.print(f"and {more:,} more; by reason:", style="yellow")
        for code, count in sorted(totals.left_out.items(), key=lambda item: -item[1]):
            out.print(Text(f"  {count:,} {code}"))
    if found.tried:
        out.print(
            f"a sample of {found.tried} photos tried: {found.faces} faces, "
            f"{sum(found.rejected.values())} rejected ({_counts(found.rejected)})"
        )
        out.print(
            f"on this machine alone about {duration(found.seconds)} at {found.photos_per_s:.0f} photos/s; "
            f"about {size(found.photo_bytes)} of photos, and {size(found.row_bytes)} of templates and rows"
        )
    out.print("nothing was written", style="dim")


def print_report(load: Load, report: LoadReport, html: Path | None, csv: Path | None) -> None:
    """A load's sums, and the beginning of each list that a person has to look at."""
    out, sums = console(), report.sums
    out.print(
        f"load {load.name} is {load.state}: {sums.photos:,} photos, {sums.faces:,} faces, {sums.records:,} "
        f"records ({sums.created:,} of them new)"
    )
    if load.photos is not None:
        found = report.unaccounted(load.photos)
        if found.everything_is_there:
            out.print(f"all {load.photos:,} photos of its input are accounted for, each once")
        else:
            out.print(
                f"of {load.photos:,} photos of its input {found.missing.count:,} have no outcome yet, "
                f"{found.doubled.count:,} have several",
                style="bold yellow",
            )
    table = Table(header_style="dim")
    for name in ("photos", "what became of them", "what to do"):
        table.add_column(name, overflow="fold")
    for kind, count in sums.became.items():
        if count and kind is not Became.REJECTED:
            table.add_row(f"{count:,}", Text(_BECAME[kind]), "")
    for code, count in sums.codes.items():
        meaning, remedy = advice(code)
        table.add_row(f"{count:,}", Text(f"{code}: {meaning}", "yellow"), Text(remedy))
    out.print(table)
    if sums.attributes_kept:
        out.print(f"{sums.attributes_kept:,} records were there before and keep the attributes they had")
    _some(
        f"{sums.without_face:,} records have no usable face: no search finds them",
        sums.without_face,
        (one.reference for one in islice(report.without_face(), _SHOWN)),
    )
    _some(
        f"{sums.doubles:,} suspected doubles: two records with the same picture, for a person to decide",
        sums.doubles,
        (
            f"{one.reference} and {one.other} ({one.shared} pictures)"
            for one in islice(report.doubles(), _SHOWN)
        ),
    )
    if sums.common:
        out.print(f"{sums.common:,} pictures lie under many records each: placeholders, perhaps")
    for path in (html, csv):
        if path is not None:
            out.print(Text(f"written: {path}"))
    if html is None:
        out.print(f"homeward load report {load.name} --html FILE --csv FILE has all of it", style="dim")


def _some(title: str, count: int, shown: Iterable[str]) -> None:
    if not count:
        return
    out = console()
    out.print(Text(title, "yellow"))
    for line in shown:
        out.print(Text(f"  {plain(line)}"))
    if count > _SHOWN:
        out.print(f"  and {count - _SHOWN:,} more", style="dim")


def _counts(rejected: dict[str, int]) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in sorted(rejected.items())) or "none"
