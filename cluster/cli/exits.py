"""Exit codes, and how an error reaches the terminal."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from enum import IntEnum
from functools import wraps
from typing import Any, ParamSpec

import grpc
from rich.console import Console

from cluster.cli.state import state
from homeward import errors

P = ParamSpec("P")


class Exit(IntEnum):
    """What scripts can rely on."""

    OK = 0
    FAILED = 1  # something unexpected
    INVALID = 2  # the command line, a photo or a setting is wrong; also Typer's usage errors
    NOT_FOUND = 3
    CONFLICT = 4  # the present state forbids it, or a checksum is wrong
    UNAVAILABLE = 5  # a server, store or worker does not answer, is overloaded or too slow
    PARTIAL = 6  # done, but some photos were refused or some checks failed


_TABLE: dict[type[errors.HomewardError], Exit] = {
    errors.InvalidInput: Exit.INVALID,
    errors.NotFound: Exit.NOT_FOUND,
    errors.Conflict: Exit.CONFLICT,
    errors.Corrupt: Exit.CONFLICT,
    errors.PermissionRefused: Exit.CONFLICT,
    errors.Overloaded: Exit.UNAVAILABLE,
    errors.Unavailable: Exit.UNAVAILABLE,
    errors.DeadlineExceeded: Exit.UNAVAILABLE,
    errors.NotSupported: Exit.INVALID,
    errors.HomewardError: Exit.FAILED,
}


_ADVICE = {
    "SERVER_UNREACHABLE": "Is a server running there (homeward serve)? --server takes host:port.",
}


def exit_code(error: errors.HomewardError) -> Exit:
    """The code for the most specific class of the error that the table knows."""
    return next(_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE)


def tell(error: errors.HomewardError, *, as_json: bool) -> None:
    """Print an error: one JSON object on stdout with --json, else two plain lines on stderr."""
    if as_json:
        payload = {"error": {"code": error.code, "message": error.message, "details": error.details}}
        sys.stdout.write(json.dumps(payload) + "\n")
        return
    console = Console(stderr=True, highlight=False)
    console.print(f"[bold red]{error.code}[/]", end=" ")
    console.print(error.message, markup=False)
    if error.code in _ADVICE:
        console.print(_ADVICE[error.code], markup=False)


def command(body: Callable[P, Coroutine[Any, Any, Exit | None]]) -> Callable[P, None]:
    """Make a Typer command of an async body: run it, turn errors into messages and exit codes."""

    @wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        from cluster.rpc.status import error_from_rpc

        try:
            code = asyncio.run(body(*args, **kwargs))
        except errors.HomewardError as error:
            tell(error, as_json=state().as_json)
            raise SystemExit(exit_code(error)) from error
        except grpc.aio.AioRpcError as failure:
            translated = error_from_rpc(failure)
            tell(translated, as_json=state().as_json)
            raise SystemExit(exit_code(translated)) from failure
        except (KeyboardInterrupt, asyncio.CancelledError) as stop:
            raise SystemExit(130) from stop
        raise SystemExit(code or Exit.OK)

    return run
