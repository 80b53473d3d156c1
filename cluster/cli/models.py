"""`homeward models`: which face models there are, and how to get and calibrate a stronger one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from cluster.cli.exits import Exit, command
from cluster.cli.migrate import migrate_app
from cluster.cli.output import console, print_json
from cluster.cli.state import state
from homeward.types import Calibration
from workers.bundle import DEFAULT
from workers.calibrate import find_calibration, load_calibration, save_calibration
from workers.install import Installed, add_bundle, install, list_bundles
from workers.registry import NAMES, installable

if TYPE_CHECKING:
    from homeward.config import Settings

models_app = typer.Typer(
    help="List, add, install and calibrate face models. The default needs no network; a stronger bundle is "
    "one command away, and recommended for real use.",
    no_args_is_help=True,
)

models_app.add_typer(migrate_app, name="migrate")


@models_app.command("list")
@command
async def list_models() -> Exit | None:
    """List the default model, the bundles installed and those that can be installed."""
    settings = _serving()
    installed = list_bundles(settings.bundles_dir)
    lines = [_default_line(settings), *(_line(settings, item) for item in installed)]
    known = {item.name for item in installed}
    lines += [_line_to_install(name) for name in NAMES if name not in known]
    if state().as_json:
        for line in lines:
            print_json(line)
    else:
        _print_lines(lines)
    return Exit.PARTIAL if any(item.problem for item in installed) else None


@models_app.command("add")
@command
async def add(
    folder: Annotated[Path, typer.Argument(help="A folder with bundle.toml and the files it names.")],
) -> Exit | None:
    """Check a bundle's files against its bundle.toml, try to load it, and copy it in."""
    _try(folder)
    _tell_installed(add_bundle(folder, state().settings.bundles_dir))
    return None


@models_app.command("install")
@command
async def install_model(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(NAMES)}.")],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Take the files from this folder instead of the network, after the same check."
        ),
    ] = None,
) -> Exit | None:
    """Fetch a bundle of the built-in table from upstream, check its SHA-256 and install it."""
    with _bar(DownloadColumn()) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(file: str, done: int, total: int) -> None:
            if file not in tasks:
                tasks[file] = progress.add_task(file, total=total)
            progress.update(tasks[file], completed=done)

        result = install(name, state().settings.bundles_dir, source=source, progress=advance)
    _tell_installed(result)
    return None


@models_app.command("calibrate")
@command
async def calibrate_model(
    pairs: Annotated[Path, typer.Option(help="Photos as DIR/<identity>/<photo>, two and more per person.")],
    dataset: Annotated[str, typer.Option(help="What to call these photos; default: the folder's name.")] = "",
    faces: Annotated[
        str, typer.Option(help='Whose faces they are, for instance "adults, press photographs".')
    ] = "unknown",
    bundle: Annotated[str, typer.Option(help="Model to calibrate; default: the one in the settings.")] = "",
) -> Exit | None:
    """Fit the log-likelihood ratio of a comparison score on photos of known people."""
    from workers.calibrate import calibrate
    from workers.labelled import embed_labelled, list_labelled
    from workers.open import open_decoder, open_pipeline

    settings = state().settings
    if bundle:
        chosen = settings.workers.model_copy(update={"bundle": bundle})
        settings = settings.model_copy(update={"workers": chosen})
    photos = list_labelled(pairs)
    pipeline = open_pipeline(settings)
    decoder = open_decoder(settings.workers)
    try:
        with _bar(MofNCompleteColumn()) as progress:
            task = progress.add_task("photos", total=len(photos))
            found = embed_labelled(
                photos, decoder, pipeline, progress=lambda done, _: progress.update(task, completed=done)
            )
    finally:
        decoder.close()
    usable = {item.photo: item.template for item in found if item.template is not None}
    templates = np.zeros((len(usable), pipeline.dimension), dtype=np.float32)
    for row, template in enumerate(usable.values()):
        templates[row] = template
    fitted = calibrate(
        templates,
        [photo.identity for photo in usable],
        model_id=pipeline.model_id,
        dataset=dataset or pairs.resolve().name,
        faces=faces,
        today=datetime.now(UTC).date(),
    )
    path = save_calibration(settings.bundles_dir / settings.workers.bundle, fitted)
    _tell_calibration(fitted, path, len(photos) - len(usable))
    return None


@contextmanager
def _bar(column: DownloadColumn | MofNCompleteColumn) -> Iterator[Progress]:
    """A progress bar on stderr, so that stdout stays for the answer; plain when that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), column)
    with Progress(*columns, console=Console(stderr=True), disable=state().as_json) as progress:
        yield progress


def _try(folder: Path) -> None:
    """Build the model once: a bundle that cannot run is refused before it is copied."""
    import torch

    from workers.bundle_model import load_bundle

    load_bundle(folder, torch.device("cpu"), "float32")


def _serving() -> Settings:
    """The settings with the bundle that serves: by the catalogue, where there is one."""
    from catalogue.open import FILE, open_catalogue
    from cluster.upgrade.models import serving_settings

    settings = state().settings
    if not settings.catalogue.uri and not (settings.data_dir / FILE).exists():
        return settings
    catalogue = open_catalogue(settings.catalogue, settings.data_dir)
    try:
        return serving_settings(settings, catalogue)
    finally:
        catalogue.close()


def _default_line(settings: Settings) -> dict[str, object]:
    line: dict[str, object] = {"name": DEFAULT, "state": "built in", "licence": "CC0-1.0 and MIT"}
    line["description"] = "dlib's face ResNet behind MTCNN, 128 dimensions"
    fitted = find_calibration(settings.bundles_dir / DEFAULT)
    return _used(settings, line) | _calibrated(fitted)


def _line(settings: Settings, item: Installed) -> dict[str, object]:
    if item.bundle is None:
        return _used(settings, {"name": item.name, "state": "damaged", "description": item.problem})
    line: dict[str, object] = {
        "name": item.name,
        "state": "installed",
        "version": item.bundle.version,
        "licence": item.bundle.licence,
        "description": item.bundle.description,
        "model_id": item.bundle.model_id,
        "folder": str(item.folder),
    }
    return _used(settings, line) | _calibrated(load_calibration(settings.bundles_dir, item.bundle.model_id))


def _line_to_install(name: str) -> dict[str, object]:
    bundle = installable(name).bundle
    return {
        "name": name,
        "state": "can be installed",
        "version": bundle.version,
        "licence": bundle.licence,
        "description": bundle.description,
        "model_id": bundle.model_id,
        "bytes": sum(file.bytes for file in bundle.files),
        "in_use": False,
    }


def _used(settings: Settings, line: dict[str, object]) -> dict[str, object]:
    return line | {"in_use": settings.workers.bundle == line["name"]}


def _calibrated(fitted: Calibration | None) -> dict[str, object]:
    if fitted is None:
        return {}
    return {"calibration": f"{fitted.dataset} ({fitted.faces}), {fitted.fitted_on}"}


def _print_lines(lines: list[dict[str, object]]) -> None:
    table = Table(header_style="dim")
    for name in ("model", "state", "licence", "calibrated on", "what it is"):
        table.add_column(name, overflow="fold")
    for line in lines:
        mark = " (in use)" if line["in_use"] else ""
        style = {"damaged": "bold red", "can be installed": "dim"}.get(str(line["state"]), "")
        cells = [f"{line['name']}{mark}", *(str(line.get(key, "")) for key in _SHOWN)]
        table.add_row(*(Text(cell) for cell in cells), style=style)
    console().print(table)


_SHOWN = ("state", "licence", "calibration", "description")


def _tell_installed(item: Installed) -> None:
    assert item.bundle is not None
    if state().as_json:
        print_json(_line(state().settings, item))
        return
    out = console()
    out.print(f"{item.name} {item.bundle.version} is in {item.folder}", soft_wrap=True)
    out.print(f"licence {item.bundle.licence}; templates carry {item.bundle.model_id}", soft_wrap=True)
    out.print(
        f"Where records are enrolled already: homeward models migrate --to {item.name}; a server that is "
        "just set to another model finds none of them",
        style="yellow",
    )
    how = f'workers.bundle = "{item.name}" in the settings, or HOMEWARD_WORKERS__BUNDLE={item.name}'
    out.print(f"For a new system: {how}", soft_wrap=True)


def _tell_calibration(fitted: Calibration, path: Path, failed: int) -> None:
    if state().as_json:
        print_json(
            {
                "a": fitted.a,
                "b": fitted.b,
                "dataset": fitted.dataset,
                "faces": fitted.faces,
                "fitted_on": fitted.fitted_on.isoformat(),
                "mated": fitted.mated,
                "non_mated": fitted.non_mated,
                "model_id": fitted.model_id,
                "photos_without_face": failed,
                "file": str(path),
            }
        )
        return
    out = console()
    out.print(
        f"log LR = {fitted.a:.3f} * score {fitted.b:+.3f} (natural logarithm), in {path}", soft_wrap=True
    )
    out.print(
        f"fitted on {fitted.dataset} ({fitted.faces}): {fitted.mated:,} mated and {fitted.non_mated:,} "
        f"non-mated pairs; {failed} photos gave no face",
        soft_wrap=True,
    )
    out.print("It holds for faces and photos like these, and for no others.", style="italic")
