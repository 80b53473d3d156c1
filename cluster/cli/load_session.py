"""What every `homeward load` command opens and says: stores, driver, display, and how to go on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from cluster.cli.state import state
from homeward.errors import Corrupt, Overloaded, Unavailable
from homeward.memory import uncollected

if TYPE_CHECKING:
    from catalogue.store import Catalogue
    from cluster.load.drive import Driver
    from cluster.load.load_documents import LoadDocuments
    from cluster.load.progress import Display


@contextmanager
def open_driver_here(again: str = "resume") -> Iterator[tuple[Driver, Catalogue, LoadDocuments]]:
    """A driver that the first Ctrl-C or SIGTERM stops in order; the second ends the process."""
    with uncollected():
        from cluster.load.drive import open_driver
        from homeward.observed import observed

    settings = state().settings
    # Its stderr is the display's.
    with observed(settings, f"load-{os.getpid()}", logs=False), open_driver(settings) as opened:
        asked = False

        def stop(_number: int, _frame: object) -> None:
            nonlocal asked
            if asked:
                raise KeyboardInterrupt
            asked = True
            tell(
                f"stopping; what is under way is left, and {again} goes on with it (once more: stop at once)"
            )
            opened[0].stop()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield opened
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def open_ledger() -> Iterator[Catalogue]:
    """The catalogue alone: how far a load is can be told while other stores do not answer."""
    from catalogue.open import open_catalogue

    settings = state().settings
    catalogue = open_catalogue(settings.catalogue, settings.data_dir)
    try:
        yield catalogue
    finally:
        catalogue.close()


@contextmanager
def open_stores_here() -> Iterator[tuple[Catalogue, LoadDocuments]]:
    from cluster.load.drive import open_stores

    with open_stores(state().settings) as opened:
        yield opened


@contextmanager
def display_here() -> Iterator[Display]:
    from cluster.load.progress import end_display, open_display

    display = open_display(state().as_json, sys.stderr.isatty())
    try:
        yield display
    finally:
        end_display(display)


@contextmanager
def resumable(name: str) -> Iterator[None]:
    """Say how to go on with a load that something else than its input has stopped."""
    from cluster.load.patience import Stopped

    try:
        yield
    except (Stopped, Corrupt, Overloaded, Unavailable):
        tell(f"what is committed stays; homeward load resume {name} goes on where it was")
        raise


def tell(said: str) -> None:
    Console(stderr=True, highlight=False).print(said, markup=False)
