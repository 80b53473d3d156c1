"""What the machine or a mount does wrong is waited for, and is never a photo's fault."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.load.members import MemberRefused, Refusal
from cluster.load.open_source import open_source
from cluster.load.system_errors import waited_for
from homeward.errors import InvalidInput, StoreUnavailable
from tests.cluster.load.archives import KINDS

_TREE = {"A/1.png": b"one", "B/2.png": b"two"}
_SYSTEMS = (
    errno.EIO,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENODEV,
    errno.EBUSY,
    errno.EAGAIN,
)

kinds = pytest.mark.parametrize("kind", KINDS)


def failing(number: int) -> Callable[..., None]:
    def fail(*args: object, **keywords: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def spoil(kind: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading fails from here on."""
    monkeypatch.setattr(os, "open" if kind == "folder" else "pread", failing(number))


@kinds
@pytest.mark.parametrize("number", _SYSTEMS)
def test_an_error_of_the_system_is_waited_for_when_a_photo_is_read(
    kind: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = KINDS[kind](_TREE, tmp_path)
    with open_source(path) as source:
        member, *_ = source.members()
        with monkeypatch.context() as patch:
            spoil(kind, number, patch)
            with pytest.raises(StoreUnavailable) as caught:
                source.read(member, 100)
        assert caught.value.details == {"store": "source"}
        assert str(path) in caught.value.message
        assert os.strerror(number) in caught.value.message
        assert source.read(member, 100) == b"one"


@kinds
@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENAMETOOLONG])
def test_an_error_of_one_file_is_the_photos_own(
    kind: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_source(KINDS[kind](_TREE, tmp_path)) as source:
        member, *_ = source.members()
        with monkeypatch.context() as patch:
            spoil(kind, number, patch)
            with pytest.raises(MemberRefused) as caught:
                source.read(member, 100)
        assert caught.value.reason is Refusal.DAMAGED


@kinds
def test_an_error_of_the_system_is_waited_for_when_a_source_is_opened_or_listed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = KINDS[kind](_TREE, tmp_path)
    source = open_source(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing(errno.EMFILE))
        with pytest.raises(StoreUnavailable, match="limit of open files"), source:
            pass
    with source, monkeypatch.context() as patch:
        patch.setattr(os, "scandir" if kind == "folder" else "pread", failing(errno.ESTALE))
        with pytest.raises(StoreUnavailable, match="mount"):
            list(source.members())
    monkeypatch.setattr(Path, "stat", failing(errno.EIO))
    with pytest.raises(StoreUnavailable):
        open_source(path)


def test_a_folder_that_may_not_be_listed_is_told_and_the_others_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = KINDS["folder"](_TREE, tmp_path)
    real = os.scandir

    def denied(folder: Path) -> object:
        if folder.name == "A":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", denied)
    with open_source(path) as source:
        found = [(member.name, member.refusal) for member in source.members()]
    assert found == [("A", Refusal.REST_LOST), ("B/2.png", None)]


def test_errors_of_other_code_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), waited_for("here"):
        raise ZeroDivisionError
    with pytest.raises(StoreUnavailable), waited_for("here"):
        raise OSError("without a number")


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5_000, "a/" * 3_000, "zero\0", "", "no/such"])
def test_a_source_of_a_name_that_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_source(f"{tmp_path}/y/{name}")
    assert caught.value.code == "SOURCE_UNREADABLE"
    assert name.replace("\0", "\\x00").rstrip("/") in caught.value.message


def test_a_source_below_a_folder_that_may_not_be_entered_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "stat", failing(errno.EACCES))
    with pytest.raises(InvalidInput, match="Permission denied") as caught:
        open_source(tmp_path / "below")
    assert "below" in caught.value.message


def test_a_pipe_is_no_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="neither"):
        open_source(tmp_path / "pipe")


def test_a_folder_is_the_same_after_its_disk_was_mounted_anew_and_not_when_another_stands_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = KINDS["folder"](_TREE, tmp_path)
    with open_source(path) as source:
        before = source.state()
        real = os.fstat

        def mounted_anew(file: int) -> os.stat_result:
            found = list(real(file))
            found[stat.ST_DEV] += 7
            return os.stat_result(found)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", mounted_anew)
            assert source.state() == before
    path.rename(tmp_path / "aside")
    path.mkdir()
    with open_source(path) as source:
        assert source.state() != before
