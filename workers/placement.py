"""The placement document: which embedding workers there are. One controller writes it, servers read it.

JSON: {"epoch": 7, "workers": [{"name": ..., "address": "host:port", "model_id": ..., "dimension": 128}]}.
The epoch rises with every change; a reader never goes back to an older one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from homeward.errors import Corrupt, NotFound
from homeward.files import write_private

_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PlacedWorker:
    """One worker that listens."""

    address: Annotated[str, Field(min_length=3, max_length=260)]  # host:port
    model_id: str
    dimension: Annotated[int, Field(ge=1, le=65536)]
    name: str = ""  # of the actor, which keeps it when it comes back at another address


@dataclass(frozen=True, slots=True)
class Placement:
    """The whole document."""

    epoch: Annotated[int, Field(ge=0)]
    workers: tuple[PlacedWorker, ...]

    def with_worker(self, worker: PlacedWorker) -> Placement:
        """The next epoch, with `worker` in the place of the one of its name."""
        others = (other for other in self.workers if other.name != worker.name)
        return Placement(self.epoch + 1, tuple(sorted((*others, worker), key=lambda placed: placed.name)))

    def without(self, name: str) -> Placement:
        """The next epoch, without the worker of that name."""
        return Placement(self.epoch + 1, tuple(worker for worker in self.workers if worker.name != name))


_PLACEMENT: TypeAdapter[Placement] = TypeAdapter(Placement)


def read_placement(path: Path) -> Placement:
    """Parse the document; raises `NotFound` when it cannot be read and `Corrupt` when it is none."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise NotFound(
            f"the placement document {path} cannot be read ({error.strerror}); "
            "`homeward workers start` writes it",
            code="PLACEMENT_MISSING",
        ) from error
    if len(raw) > _MAX_BYTES:
        raise Corrupt(f"{path} has more than {_MAX_BYTES} bytes", code="PLACEMENT_INVALID")
    try:
        return _PLACEMENT.validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Corrupt(
            f"{path} is no placement document: {where} {first['msg']}", code="PLACEMENT_INVALID"
        ) from error


def write_placement(path: Path, placement: Placement) -> None:
    """Replace the document whole: a reader sees the old one or the new one."""
    write_private(path, json.dumps(asdict(placement), indent=1).encode())
