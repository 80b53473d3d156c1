"""Where the shard map and the shards' own entries are kept: settings of the catalogue, which all can read.

One controller writes the map, each time only if it is still what it read: of two controllers one is refused.
A shard enters itself each time its process starts; the operator's wish that it leaves is an entry too.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from catalogue.store import Catalogue
from homeward.errors import Conflict
from index.shard_map import ShardMap


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A shard's process, as it entered itself."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    node: Annotated[str, Field(min_length=1, max_length=200)]
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    address: Annotated[str, Field(min_length=3, max_length=300)]
    incarnation: Annotated[str, Field(min_length=1, max_length=100)]


_ENTRY: TypeAdapter[ShardEntry] = TypeAdapter(ShardEntry)


class ShardMaps:
    """The entries of one model's index. Blocking and thread-safe."""

    def __init__(self, catalogue: Catalogue, model_id: str) -> None:
        self._catalogue = catalogue
        self.model_id = model_id
        digest = hashlib.sha256(model_id.encode("utf-8")).hexdigest()[:16]
        self._map_key = f"shard_map/{digest}"
        self._entries = f"shard_entry/{digest}/"
        self._leaving = f"shard_leaving/{digest}/"
        self._lock = threading.Lock()
        self._text: str | None = None
        self._map: ShardMap | None = None

    def read(self) -> ShardMap | None:
        """The newest map; None before there is one. Raises `Corrupt` and what the catalogue raises."""
        text = self._catalogue.get_meta(self._map_key)
        with self._lock:
            if text != self._text:
                self._map = None if text is None else ShardMap.from_json(text)
                self._text = text
            return self._map

    def write(self, shard_map: ShardMap) -> None:
        """Store the next map after the one last read. Raises `Conflict` (MAP_CHANGED) if it is not the
        newest any more."""
        with self._lock:
            text = shard_map.to_json()
            if not self._catalogue.swap_meta(self._map_key, self._text, text):
                raise Conflict("another controller has written the shard map", code="MAP_CHANGED")
            self._text, self._map = text, shard_map

    def enter(self, entry: ShardEntry) -> None:
        """A shard's process says where it listens."""
        self._catalogue.set_meta(self._entries + entry.name, _ENTRY.dump_json(entry).decode())

    def entries(self) -> list[ShardEntry]:
        """All shards' latest processes, by name; one that is none is left out."""
        found = []
        for _, text in sorted(self._catalogue.list_meta(self._entries).items()):
            try:
                found.append(_ENTRY.validate_json(text))
            except ValidationError:
                continue
        return found

    def set_leaving(self, name: str, leaving: bool) -> None:
        """Whether a shard is to leave as soon as others hold what it has."""
        if leaving:
            self._catalogue.set_meta(self._leaving + name, "1")
        else:
            self._catalogue.drop_meta(self._leaving + name)

    def leaving(self) -> set[str]:
        """Shards that are to leave."""
        return {key.removeprefix(self._leaving) for key in self._catalogue.list_meta(self._leaving)}

    def forget(self, name: str) -> None:
        """A shard has left for good."""
        self._catalogue.drop_meta(self._entries + name)
        self._catalogue.drop_meta(self._leaving + name)

    def drop(self) -> None:
        """Forget all that is kept of this model's shards."""
        for prefix in (self._entries, self._leaving, self._map_key):
            for key in self._catalogue.list_meta(prefix):
                self._catalogue.drop_meta(key)
