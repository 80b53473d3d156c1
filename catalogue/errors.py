"""SQLAlchemy's errors become Homeward's at the edge, without the statement or its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from homeward.errors import Conflict, Corrupt, HomewardError, InvalidInput, StoreUnavailable
from homeward.telemetry import store_failed

_STORE = "catalogue"
_DAMAGE = ("malformed", "not a database", "corrupt")


@contextmanager
def mapped() -> Iterator[None]:
    """Raise the most specific Homeward error for whatever the database raises inside."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        meant = map_error(error)
        if isinstance(meant, StoreUnavailable):
            store_failed(_STORE, type(error).__name__)
        raise meant from error


def map_error(error: exc.SQLAlchemyError) -> HomewardError:
    """The Homeward error for one of SQLAlchemy's."""
    text = str(error.orig).lower() if isinstance(error, exc.DBAPIError) else ""
    if any(word in text for word in _DAMAGE):
        return Corrupt(
            "the catalogue's file is damaged; stop the server and restore it from a backup", store=_STORE
        )
    if isinstance(error, exc.OperationalError) and "no such" in text:
        return StoreUnavailable(_MESSAGES[exc.ProgrammingError], store=_STORE)
    for kind in type(error).__mro__:
        if kind in _MESSAGES:
            return _KINDS.get(kind, StoreUnavailable)(_MESSAGES[kind], store=_STORE)
        if kind is exc.DBAPIError:
            return StoreUnavailable(f"the catalogue does not answer: {_advice(text)}", store=_STORE)
    return StoreUnavailable(
        f"the catalogue refused a statement ({type(error).__name__}); see the server's log", store=_STORE
    )


_KINDS: dict[type, type[HomewardError]] = {exc.IntegrityError: Conflict, exc.DataError: InvalidInput}
_MESSAGES: dict[type, str] = {
    exc.IntegrityError: "the catalogue changed underneath; read again and repeat the call",
    exc.DataError: "a value does not fit into the catalogue; see the server's log",
    exc.ProgrammingError: "the catalogue's tables are not those of this version; restart the server to "
    "migrate it",
    exc.TimeoutError: "all connections to the catalogue are in use; try again, or raise catalogue.pool_size",
}


def _advice(text: str) -> str:
    if "locked" in text or "busy" in text:
        return "another process is writing to its file for long; try again, or use PostgreSQL"
    if "full" in text or "no space" in text:
        return "its disk is full"
    if "readonly" in text or "permission" in text or "unable to open" in text:
        return "this user may not write its file or folder"
    if "password" in text or "authentication" in text:
        return "it refused the password; check HOMEWARD_CATALOGUE__PASSWORD"
    return "check catalogue.uri and that the database runs"
