"""`homeward models migrate`: from one face model to another while searches go on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cluster.cli import arguments
from cluster.cli.exits import Exit, command
from cluster.cli.load_session import open_ledger, tell
from cluster.cli.migrate_output import LOSS, print_losses, tell_state, write_rows
from cluster.cli.output import console, print_json
from cluster.cli.state import check_here, state
from homeward.errors import InvalidInput

if TYPE_CHECKING:
    from catalogue.store import Catalogue
    from catalogue.upgrade_types import Upgrade
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
def migrate(
    context: typer.Context,
    to: Annotated[
        str, typer.Option("--to", help="The bundle to serve with: its name in `homeward models list`.")
    ] = "",
) -> None:
    """Begin or go on, unless a verb says otherwise."""
    if context.invoked_subcommand is None:
        _begin(to)
    elif to:
        raise typer.BadParameter("--to belongs to `homeward models migrate` alone")


@command
async def _begin(bundle: str) -> Exit | None:
    if not bundle:
        raise InvalidInput(
            "name the bundle to change to with --to; homeward models migrate status says how far it is",
            code="BUNDLE_UNKNOWN",
            field="to",
        )
    from cluster.upgrade.models import describe, serving_model

    settings = state().settings
    with _driver() as (driver, catalogue):
        new = describe(settings, bundle)
        old = await serving_model(settings, catalogue)
        found = await _blocking(lambda: driver.migrate(bundle, lambda: (old, new)))
        return tell_state(found, catalogue)


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
        return tell_state(found, catalogue)


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
        rows = list(catalogue.upgrades.losses(found.new.model_id))
    if table:
        write_rows(table, LOSS, rows)
    elif state().as_json:
        for loss in rows:
            print_json({name: getattr(loss, name) for name in LOSS})
    else:
        print_losses(rows)
    if not state().as_json:
        where = f", in {table}" if table else ""
        console().print(f"{len(rows)} photos with losses of {found.new.bundle}{where}", soft_wrap=True)
    return Exit.PARTIAL if rows else None


@migrate_app.command("compare")
@command
async def compare(
    case: arguments.Case,
    purpose: arguments.Purpose,
    requester: arguments.Requester,
    probes: Annotated[
        Path | None,
        typer.Option(
            help="Photos to search with, as DIR/<external reference>/<photo>, of children who are enrolled "
            "with other photos: says who ranks the right one higher. Without it enrolled records are probes."
        ),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="So many probes at most.")] = 200,
    limit: Annotated[int, typer.Option("--limit", "-k", min=1, help="Candidates of each list.")] = 20,
    html: Annotated[Path | None, typer.Option(help="Also write a page (mode 0600).")] = None,
) -> Exit | None:
    """Search with both models and say which candidates rank elsewhere. Each search is logged with its case.
    Talks to a server, or starts one for the call: it needs a while to load the second model."""
    from cluster.cli.compare_models import compare_models, print_comparison
    from cluster.upgrade.compare_page import write_comparison

    with open_ledger() as catalogue:
        found = catalogue.upgrades.under_way()
    context = arguments.context(case, purpose, requester)
    made = await compare_models(found, context, probes, sample=sample, limit=limit)
    if html is not None:
        write_comparison(made, html)
    if state().as_json:
        print_json(made.as_json())
    else:
        print_comparison(made, html)
    return None


@migrate_app.command("cut-over")
@command
async def cut_over(accept_losses: _Accept = False) -> Exit | None:
    """Serve with the new model from now on, without a search that fails: every server has both models loaded
    and switches. The old rows are kept up, so that roll-back is as quick."""
    with _driver() as (driver, catalogue):
        return tell_state(await _blocking(lambda: driver.cut_over(accept_losses=accept_losses)), catalogue)


@migrate_app.command("roll-back")
@command
async def roll_back() -> Exit | None:
    """Serve with the old model again, with everything that was enrolled meanwhile."""
    with _driver() as (driver, catalogue):
        return tell_state(await _blocking(driver.roll_back), catalogue)


@migrate_app.command("finish")
@command
async def finish(accept_losses: _Accept = False, yes: _Yes = False) -> Exit | None:
    """Erase the old model's rows everywhere. No way back then but another upgrade."""
    _confirm("Erase all templates of the old model?", yes)
    with _driver() as (driver, catalogue):
        return tell_state(await _blocking(lambda: driver.finish(accept_losses=accept_losses)), catalogue)


@migrate_app.command("abandon")
@command
async def abandon(yes: _Yes = False) -> Exit | None:
    """Give the upgrade up before cut-over, or after roll-back: the new model's rows are erased."""
    _confirm("Erase all templates of the new model?", yes)
    with _driver() as (driver, catalogue):
        return tell_state(await _blocking(driver.abandon), catalogue)


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
