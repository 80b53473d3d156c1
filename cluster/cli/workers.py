"""`homeward workers`: embedding workers on a Ray cluster. Serving with them needs no Ray."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cluster.cli.exits import Exit, command
from cluster.cli.output import console, print_json
from cluster.cli.state import state

workers_app = typer.Typer(
    help="Start, stop and list embedding workers on a Ray cluster. Servers with workers.where = workers find "
    "them through the catalogue.",
    no_args_is_help=True,
)

_Ray = Annotated[
    str,
    typer.Option(
        "--ray", envvar="RAY_ADDRESS", help="Address of the cluster; auto: the one of this machine."
    ),
]


@workers_app.command("start")
@command
async def start(
    count: Annotated[int, typer.Option(min=0, help="Workers in all; 0: one per GPU, else per machine.")] = 0,
    ray: _Ray = "auto",
) -> Exit | None:
    """Start workers; they list themselves in the catalogue of the settings here, where servers look."""
    from cluster.worker_placement import OpenedPlacements
    from workers.actor import start_workers

    settings = state().settings
    addresses = await asyncio.to_thread(start_workers, count, settings, OpenedPlacements.of(settings), ray)
    if state().as_json:
        print_json({"addresses": addresses})
    else:
        console().print(f"{len(addresses)} workers: {', '.join(addresses)}", soft_wrap=True)
    return None


@workers_app.command("stop")
@command
async def stop(ray: _Ray = "auto") -> Exit | None:
    """Let all workers finish what they have and end them."""
    from cluster.worker_placement import OpenedPlacements
    from workers.actor import stop_workers

    stopped = await asyncio.to_thread(stop_workers, OpenedPlacements.of(state().settings), ray)
    if state().as_json:
        print_json({"stopped": stopped})
    else:
        console().print(f"{stopped} workers stopped")
    return None


@workers_app.command("status")
@command
async def status(ray: _Ray = "auto") -> Exit | None:
    """Say what every worker runs and where; exit code 6 when one does not answer."""
    from workers.actor import worker_status

    found = await asyncio.to_thread(worker_status, ray)
    if state().as_json:
        for worker in found:
            print_json(asdict(worker))
    else:
        table = Table(header_style="dim")
        for name in ("worker", "address", "model", "device", "process"):
            table.add_column(name, overflow="fold")
        for worker in found:
            address = Text(worker.address) if worker.address else Text("does not answer", "bold red")
            cells = (worker.model_id, worker.device, str(worker.process or ""))
            table.add_row(Text(worker.name), address, *(Text(cell) for cell in cells))
        console().print(table)
    return Exit.PARTIAL if any(not worker.address for worker in found) else None
