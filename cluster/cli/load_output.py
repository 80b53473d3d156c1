"""What a person reads of a load: the dry run's findings and the report's sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from cluster.cli.output import console
from cluster.load.pace import duration

if TYPE_CHECKING:
    from cluster.load.dry_run import DryRun


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
        names = ", ".join(totals.unknown_columns)
        out.print(Text(f"columns that are not read: {names} (homeward load columns)", "yellow"))
    if totals.left_out:
        table = Table(title="left out", title_justify="left", title_style="bold", header_style="dim")
        for name in ("photo", "line", "reason", ""):
            table.add_column(name, overflow="fold")
        for one in found.look.left_out:
            table.add_row(
                Text(one.member.shown), str(one.line or ""), Text(one.code, "yellow"), Text(one.why)
            )
        out.print(table)
        for code, count in sorted(totals.left_out.items(), key=lambda item: -item[1]):
            out.print(Text(f"  {count:,} {code}"))
    if found.tried:
        out.print(
            f"{found.tried} photos tried: {found.faces} faces, "
            f"{sum(found.rejected.values())} rejected ({_counts(found.rejected)})"
        )
        out.print(
            f"on this machine alone about {duration(found.seconds)} at {found.photos_per_s:.0f} photos/s; "
            f"about {size(found.photo_bytes)} of photos, and {size(found.row_bytes)} of templates and rows"
        )
    out.print("nothing was written", style="dim")


def _counts(rejected: dict[str, int]) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in sorted(rejected.items())) or "none"
