"""Where embedding workers listen: each has itself listed where all servers look, whoever keeps that list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

from pydantic import Field


@dataclass(frozen=True, slots=True)
class PlacedWorker:
    """One worker that listens."""

    name: Annotated[str, Field(min_length=1, max_length=100)]  # kept when it comes back at another address
    address: Annotated[str, Field(min_length=3, max_length=300)]  # host:port
    model_id: Annotated[str, Field(min_length=1, max_length=500)]
    dimension: Annotated[int, Field(ge=1, le=65536)]


class Placements(Protocol):
    """The list. Blocking and thread-safe; goes to other processes. Raises what its store raises."""

    def read(self) -> list[PlacedWorker]:
        """All workers, by name."""

    def place(self, worker: PlacedWorker) -> None:
        """List the worker, in the place of the one of its name."""

    def remove(self, name: str) -> None:
        """List the worker of that name no more, if it is listed."""
