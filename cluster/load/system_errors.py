"""Whose fault an error of the operating system is: the photo's, or that of what it lies on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from homeward.errors import StoreUnavailable

# What is wrong with one file or name and stays so. Everything else is the system's: a disk that fails, a
# mount that went away or too few of its resources would make every photo after it a rejected one.
_OWN = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.ELOOP,
        errno.ENOTDIR,
        errno.ENOENT,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.EINVAL,
    }
)
_ADVICE = {
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files (fs.file-max)",
    errno.ENOMEM: "the machine is short of memory; free some",
}


@contextmanager
def waited_for(place: object) -> Iterator[None]:
    """Turns errors of the system, met where `place` is read, into `StoreUnavailable`, which is waited for.

    Those of one file or name stay the `OSError` that they are."""
    try:
        yield
    except OSError as error:
        if error.errno in _OWN:
            raise
        advice = _ADVICE.get(error.errno or 0, "look at the disk, or at the mount and its server")
        raise StoreUnavailable(
            f"the source {place} cannot be read now ({error.strerror or error}): {advice}", store="source"
        ) from error
