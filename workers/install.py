"""Installed bundles: list them, add a folder, install one from the built-in table.

A bundle is put together in a hidden folder beside its place, checked, synced and renamed, so that
`bundles_dir/NAME` is whole or absent whatever dies. Downloads go over https alone (redirects too),
are cut off at the size the table names, and count for nothing until their SHA-256 is right.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from homeward.errors import Conflict, Corrupt, HomewardError, InvalidInput, NotFound, Unavailable
from workers.bundle import (
    BUNDLE_TOML,
    Bundle,
    BundleFile,
    check_digest,
    parse_bundle,
    read_bundle,
    read_bundle_text,
    read_file,
    verify_files,
)
from workers.registry import installable

CALIBRATION_TOML = "calibration.toml"
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_CHUNK = 1 << 16
_PLAIN = {"Accept-Encoding": "identity"}  # the size limit is of the file, not of a compressed one
_STALE_S = 86_400.0  # a staging folder this old was left by a process that died

Progress = Callable[[str, int, int], None]  # file, bytes so far, bytes in all


class _DownloadFailed(Exception):
    """A download that gave no file, in words for people."""


@dataclass(frozen=True, slots=True)
class Installed:
    """One folder of `bundles_dir`. `problem` says why it cannot be used; empty when it can."""

    name: str
    folder: Path
    bundle: Bundle | None
    problem: str = ""


def list_bundles(bundles_dir: Path) -> tuple[Installed, ...]:
    """Every bundle installed, by name, with its files' checksums verified."""
    if not bundles_dir.is_dir():
        return ()
    folders = sorted(path for path in bundles_dir.iterdir() if (path / BUNDLE_TOML).is_file())
    return tuple(_inspect(folder) for folder in folders if not folder.name.startswith("."))


def bundle_folder(name: str, bundles_dir: Path) -> Path:
    """The folder of an installed bundle; raises `NotFound` saying what to run."""
    folder = bundles_dir / name
    if Path(name).name != name or name.startswith(".") or not (folder / BUNDLE_TOML).is_file():
        raise NotFound(
            f"no bundle {name!r} in {bundles_dir}; `homeward models list` shows those there are, "
            f"`homeward models install {name}` may fetch it",
            code="BUNDLE_UNKNOWN",
        )
    return folder


def add_bundle(folder: Path, bundles_dir: Path) -> Installed:
    """Check the bundle in `folder` and copy it into `bundles_dir`.

    Raises `NotFound` (no bundle.toml, a file missing), `InvalidInput` (bundle.toml is wrong), `Corrupt`
    (a checksum is wrong) and `Conflict` (another bundle of that name is installed).
    """
    text = read_bundle_text(folder)
    bundle = parse_bundle(text, str(folder / BUNDLE_TOML))
    if _is_installed(bundle, bundles_dir):
        return _inspect(bundles_dir / bundle.name)
    with _staging(bundles_dir) as staging:
        for entry in bundle.files:
            _write(staging / entry.name, read_file(folder, entry))
        _finish(staging, text, bundles_dir / bundle.name)
    return _inspect(bundles_dir / bundle.name)


def install(
    name: str,
    bundles_dir: Path,
    *,
    source: Path | None = None,
    progress: Progress = lambda _file, _done, _total: None,
    client: httpx.Client | None = None,
    addresses: Mapping[str, str] | None = None,
) -> Installed:
    """Install `name` of the built-in table, from its upstream addresses or from the folder `source`.

    `client` and `addresses` (file name -> https address) replace the network in tests and mirrors; the
    checksums stay. A bundle already there and whole is left alone; a damaged one is replaced, and
    keeps its calibration. Raises `NotFound` (unknown name, file missing in `source`), `Corrupt` (a
    checksum or size is wrong), `Unavailable` (no network, an upstream error), `Conflict`.
    """
    entry = installable(name)
    bundle = entry.bundle
    if _is_installed(bundle, bundles_dir):
        return _inspect(bundles_dir / name)
    with _staging(bundles_dir) as staging:
        if source is not None:
            for file in bundle.files:
                _write(staging / file.name, read_file(source, file))
                progress(file.name, file.bytes, file.bytes)
        else:
            with _by_hand(bundle), client or httpx.Client(timeout=_TIMEOUT) as session:
                for file in bundle.files:
                    address = (addresses or {}).get(file.name, file.upstream)
                    _download(session, file, address, staging / file.name, progress)
        _finish(staging, entry.text, bundles_dir / name)
    return _inspect(bundles_dir / name)


def _inspect(folder: Path) -> Installed:
    try:
        bundle = read_bundle(folder)
        if bundle.name != folder.name:
            raise InvalidInput(f"the folder is called {folder.name}, its bundle {bundle.name}")
        verify_files(folder, bundle)
    except HomewardError as error:
        return Installed(name=folder.name, folder=folder, bundle=None, problem=error.message)
    return Installed(name=bundle.name, folder=folder, bundle=bundle)


def _is_installed(bundle: Bundle, bundles_dir: Path) -> bool:
    """True when the same bundle is there and whole; raises `Conflict` when another one is."""
    folder = bundles_dir / bundle.name
    if not folder.exists():
        return False
    present = _inspect(folder)
    if present.bundle is None:
        return False
    if present.bundle != bundle:
        raise Conflict(
            f"another bundle {bundle.name!r} (version {present.bundle.version}) is installed in {folder}; "
            "templates of the two would differ: give the new one its own name, or remove that folder first",
            code="BUNDLE_EXISTS",
        )
    return True


@contextmanager
def _staging(bundles_dir: Path) -> Iterator[Path]:
    """A hidden folder on the same file system, gone afterwards unless it was renamed."""
    try:
        bundles_dir.mkdir(parents=True, exist_ok=True)
        for left in bundles_dir.glob(".incoming-*"):
            if time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=".incoming-", dir=bundles_dir))
        staging.chmod(0o755)
    except OSError as error:
        raise Unavailable(f"{bundles_dir} cannot be written ({error.strerror})") from error
    try:
        yield staging
    except OSError as error:
        raise Unavailable(f"{bundles_dir} cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _finish(staging: Path, text: str, target: Path) -> None:
    """Complete the staged bundle and move it to its place, over a damaged one if there is one."""
    _write(staging / BUNDLE_TOML, text.encode("utf-8"))
    damaged = staging.with_name(f"{staging.name}-damaged")
    if target.exists():
        if (target / CALIBRATION_TOML).is_file():
            _write(staging / CALIBRATION_TOML, (target / CALIBRATION_TOML).read_bytes())
        target.rename(damaged)
    _sync(staging)
    staging.rename(target)
    _sync(target.parent)
    shutil.rmtree(damaged, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _download(
    session: httpx.Client,
    entry: BundleFile,
    address: str,
    path: Path,
    progress: Progress,
) -> None:
    """Fetch one file into `path`, checking its size on the way and its SHA-256 at the end."""
    digest = hashlib.sha256()
    done = 0
    progress(entry.name, 0, entry.bytes)
    try:
        with _open(session, address) as response, path.open("xb") as file:
            for chunk in response.iter_bytes(_CHUNK):
                done += len(chunk)
                if done > entry.bytes:
                    raise Corrupt(
                        f"{address} sends more than the {entry.bytes} bytes of {entry.name}",
                        code="CHECKSUM_MISMATCH",
                    )
                digest.update(chunk)
                file.write(chunk)
                progress(entry.name, done, entry.bytes)
            file.flush()
            os.fsync(file.fileno())
    except httpx.HTTPStatusError as error:
        raise _DownloadFailed(f"{address} answers {error.response.status_code}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise _DownloadFailed(f"{address} cannot be fetched ({reason})") from error
    if done < entry.bytes:
        raise Corrupt(f"{address} sent {done} of {entry.bytes} bytes", code="CHECKSUM_MISMATCH")
    check_digest(entry, digest.hexdigest(), address)


@contextmanager
def _open(session: httpx.Client, address: str) -> Iterator[httpx.Response]:
    """Stream `address`, following up to five redirects, each of them https."""
    for _ in range(6):
        if httpx.URL(address).scheme != "https":
            raise InvalidInput(f"{address} is not https; nothing is fetched over anything else")
        with session.stream("GET", address, headers=_PLAIN, follow_redirects=False) as response:
            if response.next_request is None:
                response.raise_for_status()
                yield response
                return
            address = str(response.next_request.url)
    raise _DownloadFailed(f"{address} keeps redirecting")


@contextmanager
def _by_hand(bundle: Bundle) -> Iterator[None]:
    """Add to a failed download what the reader can do about it."""
    try:
        yield
    except _DownloadFailed as error:
        files = "; ".join(
            f"{file.name} (SHA-256 {file.sha256}) from {file.upstream}" for file in bundle.files
        )
        raise Unavailable(
            f"{error}. Without a way to it, fetch these files elsewhere into one folder and run "
            f"`homeward models install {bundle.name} --from FOLDER`: {files}",
            code="DOWNLOAD_FAILED",
        ) from error
