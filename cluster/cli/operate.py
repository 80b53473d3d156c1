"""`homeward serve`, `doctor`, `erase` and `status`."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import AsyncExitStack
from typing import Annotated

import typer

from cluster.cli.exits import Exit, command
from cluster.cli.output import check_table, console, print_json
from cluster.cli.session import ADDRESS_FILE, open_session
from cluster.cli.state import state
from cluster.listen import server_credentials
from cluster.ownership import is_owned, own_data_dir
from homeward.files import write_private
from homeward.memory import settled
from homeward.v1 import operations_pb2

LONG_S = 24 * 3600.0  # erasing and mending rewrite whole stores


@command
async def serve(
    address: Annotated[
        str | None, typer.Option(help="host:port; anything but loopback needs TLS settings.")
    ] = None,
) -> Exit | None:
    """Run the gRPC server until SIGTERM or Ctrl-C; running calls are let end."""
    settings = state().settings
    if address is not None:
        settings = settings.model_copy(
            update={"server": settings.server.model_copy(update={"address": address})}
        )
    # Refused at once, as the imports take seconds.
    server_credentials(settings.server)
    if is_owned(settings.data_dir):
        with own_data_dir(settings.data_dir):
            pass  # its owner has ended meanwhile
    from cluster.server import running_server
    from homeward.observed import logged

    if not state().as_json:
        sys.stderr.write("loading the model and the index ...\n")
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with AsyncExitStack() as stack:
        stack.enter_context(logged(settings, "server"))
        server = await stack.enter_async_context(running_server(settings))
        note = settings.data_dir / ADDRESS_FILE
        write_private(note, json.dumps({"address": server.address}).encode())
        if state().as_json:
            print_json({"address": server.address, "data_dir": str(settings.data_dir)})
        else:
            console().print(f"Homeward serves {server.address}, data in {settings.data_dir}", soft_wrap=True)
        try:
            with settled():
                await stop.wait()
        finally:
            note.unlink(missing_ok=True)
    return None


@command
async def doctor(
    mend: Annotated[bool, typer.Option("--mend", help="Also repair what can be repaired.")] = False,
) -> Exit | None:
    """Check every part: do catalogue, gallery, photo store and index agree; say how to mend it."""
    async with open_session(state()) as session:
        answer = await session.operations.Diagnose(operations_pb2.DiagnoseRequest(mend=mend), timeout=LONG_S)
    if state().as_json:
        print_json(answer)
    else:
        console().print(check_table(answer.checks))
    failed = any(check.state == operations_pb2.CHECK_STATE_FAILED for check in answer.checks)
    return Exit.PARTIAL if failed else None


@command
async def erase() -> Exit | None:
    """Rewrite what the stores keep of deleted children, so that no byte stays in their files."""
    async with open_session(state()) as session:
        answer = await session.operations.Erase(operations_pb2.EraseRequest(), timeout=LONG_S)
    if state().as_json:
        print_json(answer)
    else:
        for store in answer.stores:
            word = "erased" if store.erased else "not yet"
            console().print(f"{store.store}: {word}{f' ({store.note})' if store.note else ''}")
    return None if all(store.erased for store in answer.stores) else Exit.PARTIAL


@command
async def status() -> Exit | None:
    """Say what the server is: model, rows, rev, stores."""
    async with open_session(state()) as session:
        answer = await session.operations.GetStatus(
            operations_pb2.GetStatusRequest(), timeout=state().settings.server.deadline_s
        )
    if state().as_json:
        print_json(answer)
        return None
    out = console()
    out.print(f"Homeward {answer.version} at {session.address}")
    out.print(
        f"model {answer.model_id}"
        + ("" if answer.calibrated else ", no calibration (no log-likelihood ratio)")
    )
    out.print(f"{answer.rows:,} templates of {answer.records:,} records, rev {answer.rev}")
    for store, where in sorted(answer.stores.items()):
        out.print(f"{store}: {where}")
    return None
