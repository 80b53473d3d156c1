"""Lay prometheus and promtool into the environment's bin folder, out of Debian's package.

The package is fetched by apt and unpacked, not installed: no root rights are needed. Where there is no apt,
tests that need the programs are skipped, and say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "prometheus"
PROGRAMS = ("prometheus", "promtool")
_LIMIT_S = 300.0


def program(name: str, folder: Path = Path(sys.prefix) / "bin") -> Path | None:
    """The program in the environment, or on the PATH; None without one."""
    own = folder / name
    if own.is_file():
        return own
    found = shutil.which(name)
    return None if found is None else Path(found)


def fetch(folder: Path) -> None:
    """Lay both into `folder`. Raises `OSError` without apt, `subprocess.SubprocessError` when it fails."""
    with tempfile.TemporaryDirectory(prefix="homeward-apt-") as name:
        here = Path(name)
        try:
            _download(here, [])
        except subprocess.CalledProcessError:  # the system has no lists of packages: read them, for this once
            own = [f"Dir::State={here}/state", f"Dir::Cache={here}/cache", "Debug::NoLocking=1"]
            (here / "state" / "lists" / "partial").mkdir(parents=True)
            (here / "cache" / "archives" / "partial").mkdir(parents=True)
            options = [word for option in own for word in ("-o", option)]
            _run(["apt-get", *options, "update"], here)
            _download(here, options)
        package = next(here.glob(f"{PACKAGE}_*.deb"))
        _run(["dpkg-deb", "-x", str(package), str(here / "files")], here)
        for each in PROGRAMS:
            unfinished = folder / f".{each}.{os.getpid()}"
            shutil.copyfile(here / "files" / "usr" / "bin" / each, unfinished)
            unfinished.chmod(0o755)
            unfinished.replace(folder / each)


def _download(folder: Path, options: list[str]) -> None:
    _run(["apt-get", *options, "download", PACKAGE], folder)


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=_LIMIT_S)


if __name__ == "__main__":
    target = Path(sys.prefix) / "bin"
    if not all((target / each).is_file() for each in PROGRAMS):
        try:
            fetch(target)
        except (OSError, subprocess.SubprocessError) as error:
            sys.stderr.write(
                f"{' and '.join(PROGRAMS)} could not be fetched ({type(error).__name__}): tests of alerts "
                f"are skipped; install Debian's package {PACKAGE} to have them\n"
            )
