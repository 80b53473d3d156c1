"""The `homeward` command: options before the verb, the verbs, nothing else."""

from __future__ import annotations

import gc
import importlib.metadata
import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli import enrol, operate, records, search
from cluster.cli.backup import backup_app
from cluster.cli.exits import exit_code, tell
from cluster.cli.index import index_app
from cluster.cli.load import load_app
from cluster.cli.models import models_app
from cluster.cli.state import State, configure, state
from cluster.cli.workers import workers_app
from homeward.errors import HomewardError

app = typer.Typer(
    name="homeward",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Find missing children by comparing photographs. Answers are candidate lists for a trained "
    "person to review, never identifications.",
    epilog="Exit codes: 0 done, 2 wrong input, 3 not found, 4 conflict, 5 unavailable, "
    "6 done but some photos or checks failed, 1 anything else.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"homeward {importlib.metadata.version('homeward')}")
        raise typer.Exit


@app.callback()
def options(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", envvar="HOMEWARD_CONFIG", help="TOML settings.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the embedded stores and the search log.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            "-s",
            envvar="HOMEWARD_ADDRESS",
            help="host:port of a server. Without it: the one that serves the data folder, else one "
            "started for this call.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout, one object a line.")] = False,
    _show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that every verb understands."""
    configure(State(config=config, data_dir=data_dir, server=server, as_json=as_json))


app.command()(operate.serve)
app.command()(enrol.enrol)
app.command()(search.search)
app.command()(search.compare)
app.add_typer(records.records_app, name="records")
app.command()(records.delete)
app.command()(operate.erase)
app.command()(operate.status)
app.command()(operate.doctor)
app.add_typer(load_app, name="load")
app.add_typer(backup_app, name="backup")
app.add_typer(models_app, name="models")
app.add_typer(workers_app, name="workers")
app.add_typer(index_app, name="index")


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except HomewardError as error:
        tell(error, as_json=state().as_json)
        sys.exit(exit_code(error))
    finally:
        gc.freeze()  # a process that ends need not look through all it imported for cycles


if __name__ == "__main__":
    main()
