"""By which word the logs of all servers over one catalogue call a case."""

from __future__ import annotations

import secrets

from catalogue.store import Catalogue
from homeward.call_context import CaseHash
from homeward.config import Settings

_KEY = "case_key"
_BYTES = 32


def case_names(settings: Settings, catalogue: Catalogue) -> CaseHash:
    """With the key of the settings, else with the catalogue's own, which is made when there is none yet.
    Blocking. Raises `StoreUnavailable`."""
    if (given := settings.telemetry.case_key) is not None:
        return CaseHash(given.get_secret_value().encode())
    kept = catalogue.get_meta(_KEY)
    if kept is None:
        catalogue.swap_meta(_KEY, None, secrets.token_hex(_BYTES))
        kept = catalogue.get_meta(_KEY)
    assert kept is not None
    return CaseHash(kept.encode())
