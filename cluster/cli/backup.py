"""`homeward backup`: everything that is true, sealed with the operator's key, and back again."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from cluster.cli.exits import Exit, command
from cluster.cli.output import console, print_json
from cluster.cli.state import check_here, state
from homeward.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from cluster.backup.create import Progress as Shown
    from cluster.backup.key import BackupKey
    from cluster.backup.manifest import Manifest
    from cluster.backup.verify import Backup
    from homeward.config import Settings

_LINE_EVERY_S = 5.0

backup_app = typer.Typer(
    help="Back up records, templates and photos, encrypted with a key of your own, and restore them into an "
    "empty system. Works on the stores of the settings; see docs/backup.md.",
    no_args_is_help=True,
)

Place = Annotated[
    str, typer.Argument(help="Folder or s3://host:port/bucket/prefix: a new one for each backup.")
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", help="File with the key; else HOMEWARD_BACKUP__KEY_FILE or ..._KEY."),
]


@backup_app.command("key")
@command
async def key(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A file that is not there.")],
) -> None:
    """Make a key. Keep copies where neither the backups nor this system are: without it no backup can be
    read, with it every one can."""
    from cluster.backup.key import make_key

    made = make_key(path)
    if state().as_json:
        print_json({"key": made.name, "file": str(path)})
    else:
        console().print(f"key {made.name} is in {path}; keep a copy apart from the backups", soft_wrap=True)


@backup_app.command("create")
@command
async def create(place: Place, key_file: KeyFile = None) -> Exit | None:
    """Make a backup. Servers over PostgreSQL, Milvus and S3 go on enrolling and deleting; the embedded stores
    belong to one process, so stop a server on them first. One that was killed is made again from its start.
    Exit code 6: made, but something that the catalogue has was in no store (homeward doctor)."""
    from cluster.backup.create import create as make
    from cluster.backup.place import open_place
    from cluster.backup.stores import open_stores

    check_here()
    settings = state().settings
    own = _key(settings, key_file)
    with open_stores(settings) as stores, _shown() as shown:
        made = make(stores, open_place(place, settings, there=False), own, shown)
    lost = asdict(made.missing)
    if state().as_json:
        print_json(_fields(place, made))
    else:
        console().print(f"backed up {_said(made)}", soft_wrap=True)
        if any(lost.values()):
            said = ", ".join(f"{count:,} {what}" for what, count in lost.items())
            console().print(f"missing: {said}; homeward doctor --mend makes templates anew, here or restored")
    return Exit.PARTIAL if any(lost.values()) else None


@backup_app.command("verify")
@command
async def verify(place: Place, key_file: KeyFile = None) -> Exit | None:
    """Read a whole backup and say whether it can be restored. Needs the key, and none of the stores."""
    with _shown() as shown:
        found = _open(place, key_file)
        found.verify(shown)
    if state().as_json:
        print_json(_fields(place, found.manifest))
    else:
        console().print(f"whole: {_said(found.manifest)}", soft_wrap=True)
    return None


@backup_app.command("restore")
@command
async def restore(place: Place, key_file: KeyFile = None) -> Exit | None:
    """Restore a backup into an empty system. Everything is verified before anything is written. One that was
    cut short goes on when it is run again; servers refuse to start until it has ended."""
    from cluster.backup.restore import restore as bring_back
    from cluster.backup.stores import open_stores
    from workers.open import open_embedding

    check_here()
    found = _open(place, key_file)
    embedding = await open_embedding(state().settings)
    model_id = embedding.model_id
    await embedding.close()
    with open_stores(state().settings, restoring=True) as stores, _shown() as shown:
        done = bring_back(found, stores, model_id, shown)
    if state().as_json:
        print_json(asdict(done))
    else:
        console().print(
            f"restored: {done.records:,} records, {done.photos:,} photos and {done.faces:,} faces, "
            f"rev {done.rev}"
        )
        if done.deleted_again:
            console().print(f"{done.deleted_again:,} records were deleted after it, and stay deleted")
    return None


@backup_app.command("delete")
@command
async def delete(
    place: Place, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> Exit | None:
    """Delete a backup, whole or not. Children deleted since it was made are still in it: delete every backup
    when it is as old as your rules allow."""
    from cluster.backup.manifest import HEAD
    from cluster.backup.place import open_place, remove

    documents = open_place(place, state().settings, there=True)
    if HEAD not in documents.list_documents(HEAD):
        raise NotFound("there is no backup in this place", code="BACKUP_NOT_FOUND")
    if not yes and not typer.confirm(f"Delete the backup in {place}?"):
        raise InvalidInput("nothing was deleted", code="NOT_CONFIRMED")
    files = remove(documents)
    if state().as_json:
        print_json({"place": place, "files": files})
    else:
        console().print(f"deleted: {files:,} files")
    return None


def _key(settings: Settings, key_file: Path | None) -> BackupKey:
    from cluster.backup.key import read_key

    own = settings.backup
    if key_file is not None:
        own = own.model_copy(update={"key": None, "key_file": key_file})
    return read_key(own)


def _open(place: str, key_file: Path | None) -> Backup:
    from cluster.backup.place import open_place
    from cluster.backup.verify import Backup

    settings = state().settings
    return Backup(open_place(place, settings, there=True), _key(settings, key_file))


def _fields(place: str, manifest: Manifest) -> dict[str, Any]:
    return {
        "place": place,
        "rev": manifest.rev,
        "created_at": manifest.created_at.isoformat(),
        "version": manifest.version,
        "models": [model.model_id for model in manifest.models],
        **{name: manifest.tables[name] for name in ("records", "photos", "faces", "tombstones")},
        "bytes": manifest.bytes,
        "missing": asdict(manifest.missing),
    }


def _said(manifest: Manifest) -> str:
    tables = manifest.tables
    return (
        f"{tables['records']:,} records, {tables['photos']:,} photos and {tables['faces']:,} faces at rev "
        f"{manifest.rev} of {manifest.created_at:%Y-%m-%d %H:%M} UTC in {manifest.bytes:,} bytes"
    )


@contextmanager
def _shown() -> Iterator[Shown]:
    """A bar for each stage on a terminal, else a line now and then; both on stderr."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    out = Console(stderr=True)
    style = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*style, console=out) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


class _Lines:
    def __init__(self) -> None:
        self._next = time.monotonic() + _LINE_EVERY_S

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _LINE_EVERY_S
            sys.stderr.write(f"{what}: {done:,} of {total:,}\n")
