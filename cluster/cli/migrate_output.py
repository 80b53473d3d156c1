"""What `homeward models migrate` prints: how far an upgrade is, and its losses."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cluster.cli.exits import Exit
from cluster.cli.output import console, print_json
from cluster.cli.state import state
from homeward.cells import plain_cell
from homeward.files import private_file

if TYPE_CHECKING:
    from catalogue.store import Catalogue
    from catalogue.upgrade_types import Coverage, Loss, Upgrade, UpgradeModel


def print_losses(rows: Sequence[Loss]) -> None:
    """A line for each."""
    for loss in rows:
        left = f"{loss.left} other faces find it" if loss.left else "no search will find the record"
        console().print(
            f"{loss.agency} {loss.gallery} {loss.external_reference}: {loss.lost} faces of photo "
            f"{loss.sha256[:12]} ({loss.outcome}); {left}",
            markup=False,
            soft_wrap=True,
        )


def write_rows(path: Path, names: Sequence[str], rows: Sequence[object]) -> None:
    """A table (mode 0600) of these attributes of the rows."""
    with private_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="backslashreplace", newline="")
        writer = csv.writer(text, quoting=csv.QUOTE_ALL)
        writer.writerow(names)
        writer.writerows(_cells(row, names) for row in rows)
        text.detach()  # which flushes, and leaves the file open


def tell_state(found: Upgrade, catalogue: Catalogue) -> Exit | None:
    from cluster.upgrade.servers import ServerNotes

    ledger = catalogue.upgrades
    shown = [found.serving] if found.ended else [found.old, found.new]
    rows = [(model, ledger.coverage(model.model_id, _other(found, model).model_id)) for model in shown]
    servers = [] if found.ended else ServerNotes(catalogue).alive()
    if state().as_json:
        print_json(_as_json(found, rows, [_note(note) for note in servers]))
        return None
    out = console()
    table = Table(header_style="dim")
    for name in ("model", "", "photos covered", "faces", "from the other's landmarks", "faces lost"):
        table.add_column(name, overflow="fold")
    for model, has in rows:
        table.add_row(
            Text(f"{model.bundle} ({model.model_id})"),
            "serves" if model == found.serving else "",
            f"{has.covered:,} of {has.photos:,}",
            f"{has.faces:,}",
            f"{has.placed:,}",
            f"{has.lost:,}",
        )
    out.print(table)
    for note in servers:
        out.print(f"server {note.address}: serves with {note.serving}, has {', '.join(note.loaded)}")
    if found.message:
        out.print(Text(found.message, "yellow"))
    out.print(f"{found.state}: {_NEXT[found.state]}")
    return None


def _note(note: Any) -> dict[str, Any]:
    """A server's note, for JSON."""
    return {"address": note.address, "serving": note.serving, "loaded": list(note.loaded)}


def _as_json(
    found: Upgrade, rows: list[tuple[UpgradeModel, Coverage]], servers: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "state": found.state,
        "serving": found.serving.bundle,
        "serving_model": found.serving.model_id,
        "models": [
            {
                "bundle": model.bundle,
                "model_id": model.model_id,
                "photos": has.photos,
                "covered": has.covered,
                "faces": has.faces,
                "placed": has.placed,
                "faces_lost": has.lost,
                "photos_with_losses": has.photos_with_losses,
                "records_lost": has.records_lost,
            }
            for model, has in rows
        ],
        "servers": servers,
        "holder": found.holder,
        "message": found.message,
    }


def _cells(row: object, names: Sequence[str]) -> Iterator[object]:
    for name in names:
        yield plain_cell(getattr(row, name))


def _other(found: Upgrade, model: UpgradeModel) -> UpgradeModel:
    return found.new if model == found.old else found.old


LOSS = ("record_id", "agency", "gallery", "external_reference", "sha256", "outcome", "lost", "left")

_NEXT = {
    "embedding": "homeward models migrate --to goes on; abandon gives it up",
    "ready": "homeward models migrate compare, then cut-over; or abandon",
    "switched": "homeward models migrate finish erases the old model's rows; roll-back goes back",
    "finishing": "homeward models migrate finish goes on",
    "finished": "the new model serves alone",
    "abandoning": "homeward models migrate abandon goes on",
    "abandoned": "the old model serves alone",
}
