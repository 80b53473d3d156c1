"""`homeward models migrate`: from one face model to another while searches go on."""

from __future__ import annotations

import asyncio
import csv
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cluster.cli.exits import Exit, command
from cluster.cli.load_session import check_here, open_ledger, tell
from cluster.cli.output import console, print_json
from cluster.cli.state import state
from homeward.errors import InvalidInput

if TYPE_CHECKING:
    from catalogue.store import Catalogue
    from catalogue.upgrade_types import Coverage, Upgrade, UpgradeModel
    from cluster.upgrade.drive import UpgradeDriver
    from cluster.upgrade.passing import Passed

migrate_app = typer.Typer(
    help="Change the face model: --to BUNDLE embeds everything enrolled anew, from the stored photos, "
    "into a second collection while the first serves. Then compare, cut-over, and finish; roll-back and "
    "abandon are the ways back. Whatever is killed goes on when the same command is given again.",
    invoke_without_command=True,
)

_Accept = Annotated[
    bool,
    typer.Option("--accept-losses", help="Go on although some faces have no template of the new model."),
]
_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@migrate_app.callback()
@command
async def migrate(
    context: typer.Context,
    to: Annotated[
        str, typer.Option("--to", help="The bundle to serve with: its name in `homeward models list`.")
    ] = "",
) -> Exit | None:
    """Begin or go on."""
    if context.invoked_subcommand is not None:
        if to:
            raise InvalidInput("--to belongs to `homeward models migrate` alone", field="to")
        return None
    if not to:
        raise InvalidInput(
            "name the bundle to change to with --to; homeward models migrate status says how far it is",
            code="BUNDLE_UNKNOWN",
            field="to",
        )
    from cluster.upgrade.models import describe, serving_model

    settings = state().settings
    with _driver() as (driver, catalogue):
        new = describe(settings, to)
        old = await serving_model(settings, catalogue)
        found = await _blocking(lambda: driver.migrate(to, lambda: (old, new)))
        return _tell_state(found, catalogue)


@migrate_app.command("status")
@command
async def status() -> Exit | None:
    """Say how far it is: what each model has, which losses there are, which servers are ready. Reads the
    catalogue of the settings here; disturbs nobody."""
    check_here()
    with open_ledger() as catalogue:
        found = catalogue.upgrades.latest()
        if found is None:
            if state().as_json:
                print_json({"state": "none", "serving": state().settings.workers.bundle})
            else:
                console().print("no upgrade was begun yet: homeward models migrate --to BUNDLE")
            return None
        return _tell_state(found, catalogue)


@migrate_app.command("losses")
@command
async def losses(
    table: Annotated[Path | None, typer.Option("--csv", help="Write all of them as a table.")] = None,
) -> Exit | None:
    """List the photos of which the standby model lacks faces: their records, why, and whether any other
    photo finds the record. Exit code 6 when there are any."""
    check_here()
    with open_ledger() as catalogue:
        found = catalogue.upgrades.under_way()
        model = found.new
        rows = catalogue.upgrades.losses(model.model_id)
        count = 0
        with ExitStack() as stack:
            file = stack.enter_context(table.open("w", newline="")) if table else None
            writer = csv.writer(file) if file else None
            if writer:
                writer.writerow(_LOSS)
            for loss in rows:
                count += 1
                values = [getattr(loss, name) for name in _LOSS]
                if writer:
                    writer.writerow(values)
                elif state().as_json:
                    print_json(dict(zip(_LOSS, values, strict=True)))
                else:
                    console().print(
                        f"{loss.agency} {loss.gallery} {loss.external_reference}: {loss.lost} faces of photo "
                        f"{loss.sha256[:12]} ({loss.outcome}); "
                        + (f"{loss.left} others find it" if loss.left else "no search will find the record"),
                        markup=False,
                        soft_wrap=True,
                    )
    if not state().as_json:
        console().print(f"{count} photos with losses of {model.bundle}" + (f", in {table}" if table else ""))
    return Exit.PARTIAL if count else None


@migrate_app.command("cut-over")
@command
async def cut_over(accept_losses: _Accept = False) -> Exit | None:
    """Serve with the new model from now on, without a search that fails: every server has both models loaded
    and switches. The old rows are kept up, so that roll-back is as quick."""
    with _driver() as (driver, catalogue):
        return _tell_state(await _blocking(lambda: driver.cut_over(accept_losses=accept_losses)), catalogue)


@migrate_app.command("roll-back")
@command
async def roll_back() -> Exit | None:
    """Serve with the old model again, with everything that was enrolled meanwhile."""
    with _driver() as (driver, catalogue):
        return _tell_state(await _blocking(driver.roll_back), catalogue)


@migrate_app.command("finish")
@command
async def finish(accept_losses: _Accept = False, yes: _Yes = False) -> Exit | None:
    """Erase the old model's rows everywhere. No way back then but another upgrade."""
    _confirm("Erase all templates of the old model?", yes)
    with _driver() as (driver, catalogue):
        return _tell_state(await _blocking(lambda: driver.finish(accept_losses=accept_losses)), catalogue)


@migrate_app.command("abandon")
@command
async def abandon(yes: _Yes = False) -> Exit | None:
    """Give the upgrade up before cut-over, or after roll-back: the new model's rows are erased."""
    _confirm("Erase all templates of the new model?", yes)
    with _driver() as (driver, catalogue):
        return _tell_state(await _blocking(driver.abandon), catalogue)


@contextmanager
def _driver() -> Iterator[tuple[UpgradeDriver, Catalogue]]:
    """A driver that the first Ctrl-C or SIGTERM stops in order. Over embedded stores it owns the data folder:
    raises `Conflict` (DATA_DIR_OWNED) while a server serves it."""
    from catalogue.open import open_catalogue
    from cluster.ownership import own_data_dir
    from cluster.upgrade.drive import UpgradeDriver

    check_here()
    settings = state().settings
    embedded = not (settings.catalogue.uri and settings.gallery.uri)
    with own_data_dir(settings.data_dir) if embedded else nullcontext(), ExitStack() as stack:
        catalogue = open_catalogue(settings.catalogue, settings.data_dir)
        stack.callback(catalogue.close)
        show = stack.enter_context(_shown(catalogue))
        driver = UpgradeDriver(settings, catalogue, tell=tell, progress=show)

        def stop(_number: int, _frame: object) -> None:
            driver.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, stop))
        yield driver, catalogue


@contextmanager
def _shown(catalogue: Catalogue) -> Iterator[Callable[[Passed], object]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=state().as_json) as progress:
        task = None

        def show(passed: Passed) -> None:
            nonlocal task
            if task is None:
                task = progress.add_task("photos", total=max(passed.photos, catalogue.counts().photos))
            progress.update(task, completed=passed.photos)

        yield show


async def _blocking(step: Callable[[], Upgrade]) -> Upgrade:
    return await asyncio.to_thread(step)


def _confirm(question: str, yes: bool) -> None:
    if not yes and not typer.confirm(question):
        raise InvalidInput("nothing was done", code="NOT_CONFIRMED")


def _tell_state(found: Upgrade, catalogue: Catalogue) -> Exit | None:
    from cluster.upgrade.servers import ServerNotes
    from homeward.clock import SystemClock

    ledger = catalogue.upgrades
    shown = [found.serving] if found.ended else [found.old, found.new]
    rows = [(model, ledger.coverage(model.model_id, _other(found, model).model_id)) for model in shown]
    servers = [] if found.ended else ServerNotes(catalogue).alive(SystemClock().now())
    if state().as_json:
        print_json(_as_json(found, rows, [vars_of(note) for note in servers]))
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


def vars_of(note: Any) -> dict[str, Any]:
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


def _other(found: Upgrade, model: UpgradeModel) -> UpgradeModel:
    return found.new if model == found.old else found.old


_LOSS = ("record_id", "agency", "gallery", "external_reference", "sha256", "outcome", "lost", "left")

_NEXT = {
    "embedding": "homeward models migrate --to goes on; abandon gives it up",
    "ready": "homeward models migrate compare, then cut-over; or abandon",
    "switched": "homeward models migrate finish erases the old model's rows; roll-back goes back",
    "finishing": "homeward models migrate finish goes on",
    "finished": "the new model serves alone",
    "abandoning": "homeward models migrate abandon goes on",
    "abandoned": "the old model serves alone",
}
