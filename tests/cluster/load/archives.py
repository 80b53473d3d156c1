"""The same photos as a folder, a tar file and a zip file."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

Tree = Mapping[str, bytes]


def as_folder(tree: Tree, where: Path) -> Path:
    """A folder of these files."""
    root = where / "folder"
    root.mkdir()
    for name, content in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def as_tar(tree: Tree, where: Path) -> Path:
    """A tar file of them, folders included."""
    path = where / "photos.tar"
    with tarfile.open(path, "w") as archive:
        folders = {parent for name in tree for parent in Path(name).parents if parent.name}
        for folder in sorted(folders):
            info = tarfile.TarInfo(str(folder))
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for name, content in tree.items():
            add(archive, name, content)
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE) -> None:
    """One member of that type."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, "../../etc/passwd"
    archive.addfile(info, io.BytesIO(content))


def as_zip(tree: Tree, where: Path) -> Path:
    """A zip file of them, every second one deflated."""
    path = where / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, (name, content) in enumerate(tree.items()):
            archive.writestr(name, content, compress_type=zipfile.ZIP_DEFLATED if number % 2 else None)
    return path


KINDS: Mapping[str, Callable[[Tree, Path], Path]] = {"folder": as_folder, "tar": as_tar, "zip": as_zip}
