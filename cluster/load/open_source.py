"""Which kind of source a path or a URI names."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from pathlib import Path

from cluster.load.folder_source import FolderSource
from cluster.load.members import Source, unreadable
from cluster.load.system_errors import waited_for
from cluster.load.tar_source import TarSource
from cluster.load.zip_source import ZipSource
from homeward.config import LoadSettings, PhotoStoreSettings, Settings


def open_source(place: Path | str, settings: Settings | None = None) -> Source:
    """The source at a path, or at s3://host:port/bucket/prefix or s3://bucket/prefix (`settings` say how S3
    is reached). At a path is a folder, else a zip or tar file by its content, whatever its name ends with.

    Raises `InvalidInput` (SOURCE_UNREADABLE) for what is none of these.
    """
    if isinstance(place, str) and place.lower().startswith("s3://"):
        from cluster.load.s3_source import S3Source

        if settings is None:
            return S3Source(place, LoadSettings(), PhotoStoreSettings())
        return S3Source(place, settings.loads, settings.photos)
    path = Path(place)
    try:
        with waited_for(path):
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                return FolderSource(path)
            if not stat.S_ISREG(mode):
                raise unreadable(path, "it is neither a folder nor a file")
            is_zip = not _starts_as_tar(path) and (_starts_as_zip(path) or zipfile.is_zipfile(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise unreadable(path, "there is no such folder or file") from error
    except OSError as error:
        raise unreadable(path, error.strerror) from error
    except ValueError as error:  # zeros in the name
        raise unreadable(repr(place), error) from error
    return ZipSource(path) if is_zip else TarSource(path)


def _starts_as_tar(path: Path) -> bool:
    """A tar file may hold a zip file as its last member, whose end looks like a zip file's."""
    with path.open("rb") as file:
        try:
            tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError):
            return False
    return True


def _starts_as_zip(path: Path) -> bool:
    """One that was cut off lacks the end by which zip files are known."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\3\4"
