"""Which packs to read for some slots, and reading them a few ahead."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cluster.snapshot_format import Pack, PackHead
from index.columns import Bool, Columns
from index.placement import SLOTS, slots_of

AHEAD = 3  # packs being fetched, or waiting, while one is used


@dataclass(frozen=True, slots=True)
class Stored:
    """A document of which at least the beginning can be read."""

    name: str
    writer: str
    head: PackHead


@dataclass(frozen=True, slots=True)
class Choice:
    """Slots that are to come from a document, and the documents to take them from if it fails."""

    stored: Stored
    slots: Bool  # (SLOTS,)
    others: Sequence[Stored]


def choose(wanted: Bool, stored: Iterable[Stored]) -> Iterator[Choice]:
    """Each of the wanted slots (SLOTS,) that is anywhere, once, where its rev is highest; documents of one
    model, by group."""
    by_group: defaultdict[int, list[Stored]] = defaultdict(list)
    for one in stored:
        by_group[one.head.group].append(one)
    for _, there in sorted(by_group.items()):
        yield from _choose(wanted, sorted(there, key=lambda one: (-one.head.rev, one.name)))


def load(
    choices: Iterable[Choice], read: Callable[[str], Pack | None]
) -> Iterator[tuple[Bool, int, Columns]]:
    """The chosen slots, their rev and their rows. `read` gives None for a document that cannot be used.

    Raises what `read` raises. At most AHEAD + 1 packs are in memory."""
    plan = deque(choices)
    fetched: deque[tuple[Choice, Future[Pack | None]]] = deque()
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="snapshot") as pool:
        try:
            while plan or fetched:
                while plan and len(fetched) < AHEAD:
                    choice = plan.popleft()
                    fetched.append((choice, pool.submit(read, choice.stored.name)))
                choice, future = fetched.popleft()
                pack = future.result()
                # It may have been written anew since its head was read, with other slots.
                slots = np.zeros(SLOTS, np.bool_) if pack is None else choice.slots & pack.slots
                plan.extend(_choose(choice.slots & ~slots, choice.others))
                if pack is not None and slots.any():
                    yield slots, pack.rev, _rows_of(pack, slots)
        finally:
            for _, future in fetched:
                future.cancel()


def _choose(wanted: Bool, there: Sequence[Stored]) -> Iterator[Choice]:
    left = wanted
    for number, one in enumerate(there):
        slots = left & one.head.slots
        if slots.any():
            yield Choice(one, slots, there[number + 1 :])
            left = left & ~slots


def _rows_of(pack: Pack, slots: Bool) -> Columns:
    if not (pack.slots & ~slots).any():
        return pack.columns
    return pack.columns.take(slots[slots_of(pack.columns.record)])
