"""One part at a time writes a record: two that both found it without a photo would both write the photo's
template, and the one that came first to the catalogue could come last to the gallery."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Turns of the parts that one process loads at the same time."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._busy: frozenset[str] = frozenset()

    @contextmanager
    def of(self, record_ids: frozenset[str]) -> Iterator[None]:
        """Have these records alone inside the context: waits until nobody has any of them."""
        with self._free:
            self._free.wait_for(lambda: self._busy.isdisjoint(record_ids))
            self._busy |= record_ids
        try:
            yield
        finally:
            with self._free:
                self._busy -= record_ids
                self._free.notify_all()
