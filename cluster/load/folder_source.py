"""A folder tree as a source. Links are listed and not followed: what they lead to was not handed over."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from cluster.load.members import Member, Refusal, refused, unreadable
from cluster.load.system_errors import waited_for


class FolderSource:
    """`Source` over the regular files below a folder, folder by folder, each sorted by name."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = -1

    def __enter__(self) -> Self:
        try:
            with waited_for(self._root):
                self._folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise unreadable(self._root, error.strerror) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._folder)

    def members(self) -> Iterator[Member]:
        """See `Source`."""
        return self._walk()

    def read(self, member: Member, most: int) -> bytes:
        """See `Source`."""
        try:
            with waited_for(self._root), os.fdopen(self._opened(member.name), "rb") as file:
                return _content(file, member, most)
        except FileNotFoundError as error:
            raise refused(Refusal.MISSING, "the file was there when the load was planned") from error
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise refused(Refusal.LINK, "a link stands where the file was") from error
            raise refused(Refusal.DAMAGED, f"the file cannot be read: {error.strerror}") from error

    def state(self) -> str:
        """See `Source`: a folder's files are held to their sizes one by one.

        The folder's number tells it from one that was put in its place, and from the empty one that is there
        while its disk or share is not mounted. The device's number beside it would say no more of the
        folder: a share has another on every node and after every mount."""
        with waited_for(self._root):
            return f"folder {os.fstat(self._folder).st_ino}"

    def _opened(self, name: str) -> int:
        """A descriptor of the file; no step on the way to it is a link."""
        folder, close = self._folder, False
        *folders, last = name.split("/")
        try:
            for step in folders:
                if step in ("", ".", ".."):
                    raise refused(Refusal.MISSING, "this is no name of a file below the folder")
                deeper = os.open(
                    step, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
                )
                if close:
                    os.close(folder)
                folder, close = deeper, True
            # A pipe that took the file's place must not make the load wait.
            return os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        finally:
            if close:
                os.close(folder)

    def _walk(self) -> Iterator[Member]:
        ahead = [("", self._entries(""))]
        while ahead:
            folder, entries = ahead[-1]
            try:
                with waited_for(self._root):
                    entry, name = next(entries)
            except StopIteration:
                ahead.pop()
                continue
            except OSError as error:
                if not folder:
                    raise unreadable(self._root, error.strerror) from error
                ahead.pop()
                yield Member(folder, 0, refusal=Refusal.REST_LOST, why=f"cannot be listed: {error.strerror}")
                continue
            found = self._member(entry, name)
            if found is None:
                ahead.append((name, self._entries(name)))
            else:
                yield found

    def _entries(self, folder: str) -> Iterator[tuple[os.DirEntry[str], str]]:
        with os.scandir(self._root / folder) as found:
            entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
        for entry in entries:
            yield entry, f"{folder}/{entry.name}" if folder else entry.name

    def _member(self, entry: os.DirEntry[str], name: str) -> Member | None:
        """None for a folder."""
        try:
            with waited_for(self._root):
                if entry.is_symlink():
                    return Member(name, 0, refusal=Refusal.LINK, why="links are not followed")
                if entry.is_dir(follow_symlinks=False):
                    return None
                if not entry.is_file(follow_symlinks=False):
                    return Member(name, 0, refusal=Refusal.SPECIAL, why="a device, pipe or socket")
                return Member(name, entry.stat(follow_symlinks=False).st_size)
        except OSError as error:
            return Member(name, 0, refusal=Refusal.DAMAGED, why=f"cannot be looked at: {error.strerror}")


def _content(file: IO[bytes], member: Member, most: int) -> bytes:
    """What an opened file holds, if it is still what was listed."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise refused(Refusal.CHANGED, "what stands there now is no file")
    if status.st_size != member.size:
        raise refused(
            Refusal.CHANGED,
            f"the file had {member.size} bytes when the load was planned, now {status.st_size}",
        )
    return file.read(most + 1)
