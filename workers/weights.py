"""Weight files that come inside installed wheels, found by path and checked before they are read."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from homeward.errors import Corrupt, NotFound


def wheel_file(package: str, relative: str, sha256: str) -> Path:
    """Path of `relative` inside the installed `package`, whose SHA-256 is the known one.

    The package itself is not imported (its code may be heavy, or have side effects). Raises
    `NotFound` (WEIGHTS_MISSING) without the file and `Corrupt` (WEIGHTS_CHANGED) when it is another.
    """
    spec = find_spec(package)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    path = next((Path(folder) / relative for folder in folders if (Path(folder) / relative).is_file()), None)
    if path is None:
        raise NotFound(
            f"the weights {relative} of package {package} are not installed; reinstall Homeward's "
            "requirements",
            code="WEIGHTS_MISSING",
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise Corrupt(
            f"{path.name} of package {package} has SHA-256 {found}, not the known {sha256}; "
            "reinstall the package from a registry you trust",
            code="WEIGHTS_CHANGED",
        )
    return path
