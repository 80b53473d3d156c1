"""`homeward load`: an archive of photos, exactly once. The command drives; loaders do the work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from cluster.cli.exits import Exit, command
from cluster.cli.load_session import (
    display_here,
    open_driver_here,
    open_ledger,
    open_stores_here,
    resumable,
    tell,
)
from cluster.cli.output import console, print_json
from cluster.cli.state import check_here, state
from homeward.errors import InvalidInput

if TYPE_CHECKING:
    from catalogue.load_types import Load, LoadSums
    from cluster.load.drive import Ended
    from cluster.load.progress import Display
    from cluster.load.spec import LoadSpec

load_app = typer.Typer(
    help="Load an archive of photos in bulk: folders, tar or zip files, S3 prefixes, with a table that says "
    "who is who. Every photo is accounted for, and nothing is lost or doubled whatever dies meanwhile.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="The load's name: a-z, 0-9, - and _, at most 40 characters.")]


@load_app.command("start")
@command
async def start(
    name: Name,
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders, tar or zip files, s3://bucket/prefix. Without --manifest each photo's "
            "folder names its record."
        ),
    ],
    agency: Annotated[str, typer.Option(help="Whose records these are.")],
    gallery: Annotated[str, typer.Option(help="missing, found, or a name of the agency's own.")],
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="CSV or Parquet: one row per photo, columns photo, record, born, sex, event, ... "
            "(homeward load columns)."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count, check, try some photos, estimate; write nothing.")
    ] = False,
    reinstate: Annotated[
        bool,
        typer.Option("--reinstate", help="Bring back records that were deleted. Else they stay deleted."),
    ] = False,
    resume_it: Annotated[
        bool, typer.Option("--resume", help="If it was started before, of the same, go on with it.")
    ] = False,
) -> Exit | None:
    """Start a load and stay with it to its end. Ctrl-C stops it in order; `resume` goes on."""
    from catalogue.checks import check_key
    from catalogue.load_types import check_load_name
    from cluster.load.planning import absolute
    from cluster.load.spec import LoadSpec
    from homeward.types import RecordKey

    check_here()
    settings = state().settings
    check_load_name(name)
    check_key(RecordKey(agency, gallery, "any"))
    spec = LoadSpec(
        agency=agency,
        gallery=gallery,
        sources=tuple(absolute(source) for source in sources),
        manifest=str(manifest.absolute()) if manifest else "",
        part_photos=settings.loads.part_photos,
        part_bytes=settings.loads.part_bytes,
        reinstate=reinstate,
    )
    if dry_run:
        return _try(spec)
    with open_driver_here() as (driver, _, _), display_here() as display, resumable(name):
        if resume_it:
            return _ended(driver.start_or_resume(name, spec, display, tell), display)
        return _ended(driver.start(name, spec, display), display)


@load_app.command("resume")
@command
async def resume(name: Name) -> Exit | None:
    """Go on with a load where it was: what is committed is not looked at again."""
    check_here()
    with open_driver_here() as (driver, _, _), display_here() as display, resumable(name):
        return _ended(driver.resume(name, display, tell), display)


@load_app.command("status")
@command
async def status(
    name: Annotated[str | None, typer.Argument(help="One load; without a name all of them.")] = None,
) -> Exit | None:
    """Say how far loads are. Reads the catalogue of the settings here; disturbs nobody."""
    check_here()
    with open_ledger() as catalogue:
        ledger = catalogue.loads
        found = ledger.all() if name is None else [ledger.get(name)]
        rows = [(load, ledger.sums(load.name)) for load in found]
    if state().as_json:
        for load, done in rows:
            print_json(_as_json(load, done))
        return None
    if not rows:
        console().print("no load was started yet: homeward load start --help")
        return None
    table = Table(header_style="dim")
    for column in ("load", "state", "photos", "parts", "faces", "rejected", "started", "driven by", ""):
        table.add_column(column, overflow="fold")
    for load, done in rows:
        table.add_row(
            Text(load.name),
            Text(load.state),
            _of(done.photos, load.photos),
            _of(done.parts, load.parts),
            f"{done.faces:,}",
            f"{done.rejected:,}",
            f"{load.created_at:%Y-%m-%d %H:%M}",
            Text(load.holder),
            Text(_trouble(load), "yellow"),
        )
    console().print(table)
    return None


@load_app.command("report")
@command
async def report(
    name: Name,
    html: Annotated[
        Path | None, typer.Option(help="Write a page: sums, rejected photos with thumbnails, doubles.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write all rejected photos as a table.")] = None,
) -> Exit | None:
    """Say what became of every photo of a load; exit code 6 when one is not accounted for. Suspected doubles
    are records that share a picture: perhaps one child under two numbers, for a person to decide."""
    from cluster.cli.load_output import print_report
    from cluster.load.report_page import as_json
    from cluster.load.reporting import open_report, write_report

    check_here()
    with open_stores_here() as (catalogue, documents):
        load = catalogue.loads.get(name)
        with open_report(load, catalogue, documents) as found:
            write_report(load, found, state().settings, html, csv)
            if state().as_json:
                print_json({"load": name, "state": load.state, **as_json(found, load.photos)})
            else:
                print_report(load, found, html, csv)
            whole = load.photos is not None and found.unaccounted(load.photos).everything_is_there
    return None if whole else Exit.PARTIAL


@load_app.command("cancel")
@command
async def cancel(name: Name) -> Exit | None:
    """Take a load from whoever drives it. What was committed stays; resume goes on with it, undo takes it
    back."""
    check_here()
    with open_ledger() as catalogue:
        load = catalogue.loads.cancel(name)
    if state().as_json:
        print_json({"load": name, "state": load.state})
    else:
        console().print(f"{name} is cancelled; its driver stops by itself")
    return None


@load_app.command("undo")
@command
async def undo(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> Exit | None:
    """Take back exactly what a load brought: records, photos, faces. What others added to its records stays.
    Its outcome files stay too: they say what was loaded."""
    from cluster.load.undo import undo as take_back

    check_here()
    with open_ledger() as catalogue:
        others = catalogue.loads.overlapping(name)
    if others:
        tell(
            f"{', '.join(others)} named records of {name} too, and may have found photos there that go now: "
            "load those archives again, under another name, if they are to stay"
        )
    if not yes and not typer.confirm(f"Take back everything that load {name} brought?"):
        raise InvalidInput("nothing was undone", code="NOT_CONFIRMED")
    with open_driver_here(again="undo") as (driver, catalogue, documents):
        taken = take_back(name, state().settings, driver, catalogue, documents, tell=tell)
    if state().as_json:
        print_json({"load": name, "state": taken.load.state, "records": taken.records})
    else:
        console().print(f"{name} is undone: {taken.records:,} records taken back or left as they were before")
    return None


@load_app.command("columns")
@command
async def columns() -> Exit | None:
    """Say which columns a manifest may have, and what each of them says."""
    from cluster.load.manifest import COLUMNS, REQUIRED

    if state().as_json:
        print_json({"columns": dict(COLUMNS), "required": list(REQUIRED)})
        return None
    table = Table(header_style="dim")
    table.add_column("column", no_wrap=True)
    table.add_column("says", overflow="fold")
    for column, says in COLUMNS.items():
        table.add_row(Text(column, "bold" if column in REQUIRED else ""), Text(says))
    console().print(table)
    console().print(f"{' and '.join(REQUIRED)} are required; other columns are named and not read.")
    return None


def _trouble(load: Load) -> str:
    from cluster.load.lease_keeper import is_dead

    if load.driven and is_dead(load):
        return f"its driver has died: homeward load resume {load.name}"
    return load.message


def _try(spec: LoadSpec) -> Exit | None:
    from cluster.cli.load_output import print_look
    from cluster.load.dry_run import try_load

    settings = state().settings
    found = try_load(spec, settings)
    if state().as_json:
        print_json(found.as_json())
    else:
        print_look(found)
    return Exit.PARTIAL if found.look.totals.left_out else None


def _ended(ended: Ended, display: Display) -> Exit | None:
    """The last word, and the exit code: photos that were rejected are for a person to look at."""
    name = ended.load.name
    if ended.before and not state().as_json:
        tell(
            f"{name} was done before, and nothing is left to do; homeward load report {name} says what became"
        )
        return Exit.PARTIAL if ended.progress.rejected else None
    said = f"{name} is done: {ended.progress.photos_done:,} photos accounted for"
    display.close(ended.progress, f"{said}; homeward load report {name} says what became of each")
    return Exit.PARTIAL if ended.progress.rejected else None


def _of(done: int, of: int | None) -> str:
    return f"{done:,} of {of:,}" if of is not None else f"{done:,}"


def _as_json(load: Load, done: LoadSums) -> dict[str, Any]:
    return {
        "load": load.name,
        "state": load.state,
        "photos": done.photos,
        "photos_planned": load.photos,
        "parts": done.parts,
        "parts_planned": load.parts,
        "faces": done.faces,
        "photos_rejected": done.rejected,
        "created_at": load.created_at.isoformat(),
        "finished_at": load.finished_at.isoformat() if load.finished_at else None,
        "holder": load.holder,
        "message": load.message,
    }
