"""Reads the photos of a part, each from where its source has it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from cluster.load.members import MemberRefused, Source
from cluster.load.plan_types import PlannedPhoto
from homeward.errors import Conflict
from homeward.ids import photo_sha256


@dataclass(frozen=True, slots=True)
class ReadPhoto:
    """One photo of a part: its bytes, or why there are none."""

    planned: PlannedPhoto
    content: bytes = b""
    sha256: str = ""  # empty: there are no bytes
    code: str = ""
    message: str = ""


class PartReader:
    """Opens sources where they are first read, once for each thread. Close it when no thread reads."""

    def __init__(
        self,
        sources: Sequence[str],
        open_source: Callable[[str], Source],
        max_photo_bytes: int,
        states: Sequence[str] | None = None,
    ) -> None:
        """`states`: what the sources were when the load was planned; None: they are being looked at."""
        self._sources = sources
        self._states = states
        self._open_source = open_source
        self._max_photo_bytes = max_photo_bytes
        self._own = threading.local()
        self._stack = ExitStack()
        self._lock = threading.Lock()

    def read(self, planned: PlannedPhoto) -> ReadPhoto:
        """The photo's bytes, one more than are allowed at most. Raises `Unavailable` when its source, as a
        whole, does not answer, and `Conflict` (SOURCE_CHANGED) when it is another than the load was planned
        from."""
        if planned.code:
            return ReadPhoto(planned, code=planned.code, message=planned.why)
        try:
            content = self._source(planned.source).read(planned.member, self._max_photo_bytes)
        except MemberRefused as refusal:
            return ReadPhoto(planned, code=refusal.code, message=refusal.message)
        return ReadPhoto(planned, content, photo_sha256(content))

    def check(self) -> None:
        """Raise `Conflict` (SOURCE_CHANGED) when a source changed while this thread read it."""
        for number, source in self._opened().items():
            self._check(number, source)

    def close(self) -> None:
        """Close every source."""
        self._stack.close()

    def _source(self, number: int) -> Source:
        opened = self._opened()
        if number not in opened:
            with self._lock:
                source = self._stack.enter_context(self._open_source(self._sources[number]))
            self._check(number, source)
            opened[number] = source
        return opened[number]

    def _check(self, number: int, source: Source) -> None:
        if self._states is not None:
            check_state(self._sources[number], source, self._states[number])

    def _opened(self) -> dict[int, Source]:
        opened: dict[int, Source] | None = getattr(self._own, "opened", None)
        if opened is None:
            opened = self._own.opened = {}
        return opened


def check_state(uri: str, source: Source, planned: str) -> None:
    """Raise `Conflict` (SOURCE_CHANGED) unless the source is what the load was planned from: what a name or a
    place of another archive holds is another child's photo."""
    if source.state() != planned:
        raise Conflict(
            f"{uri} is not what it was when the load was planned; put it back, or cancel and undo this load "
            "and start another",
            code="SOURCE_CHANGED",
        )
