"""Untrusted photos are decoded in child processes: a hang or a crash costs one photo.

A `DecodePool` keeps one thread per child. A thread hands its child one photo while the child still
decodes another, copies finished pixels out of the memory it shares with the child, kills a child that
takes too long, and forks a new one in its place. Nothing in this process looks into a photo.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from homeward.cores import usable_cores
from homeward.errors import HomewardError, PhotoReason, PhotoRejected, WorkerUnavailable
from workers.decode import DecodedPhoto, DecodeLimits, check_bytes
from workers.decode_process import Child, ChildDied, Decoded, Template
from workers.decode_wire import SLOTS

if TYPE_CHECKING:
    from homeward.config import WorkerSettings

DECODER = "workers.decode:decode"
_TRIES = 3  # photos that were waiting in a child that died, not being decoded, are tried again
_SAID = {
    PhotoReason.DECODE_TIMEOUT: "decoding took longer than allowed; save the photo again, as JPEG",
    PhotoReason.DECODER_DIED: "the decoder died on this photo; save the photo again, as JPEG",
}


@dataclass(slots=True)
class _Batch:
    """One call of `decode_many`: its unfinished photos and its answers, guarded by the pool's lock."""

    photos: Sequence[bytes]
    answers: list[DecodedPhoto | PhotoRejected | None]
    waiting: deque[int] = field(default_factory=deque)  # positions in `photos`
    tries: dict[int, int] = field(default_factory=dict)
    open: int = 0
    failure: HomewardError | None = None
    done: threading.Event = field(default_factory=threading.Event)


_Job = tuple[_Batch, int]


@dataclass(slots=True)
class _Flight:
    """A photo that a child has."""

    job: _Job
    sha256: str = ""  # computed while the child decodes


class DecodePool:
    """Decodes photos in `processes` children (0: one per core), each within time and memory limits.

    `memory_bytes` is the address space that a child may add to what it starts with; `timeout_s` is
    wall time per photo; `decoder` names the function that runs in the children, as "module:function".
    Children start with the first photo, what they are forked from starts at once. Linux only.
    """

    def __init__(
        self,
        limits: DecodeLimits,
        *,
        processes: int = 0,
        timeout_s: float = 8.0,
        memory_bytes: int = 1536 << 20,
        decoder: str = DECODER,
    ) -> None:
        self._limits = limits
        self._template = Template(limits, decoder, timeout_s, memory_bytes)
        self._changed = threading.Condition()
        self._batches: deque[_Batch] = deque()  # those with photos waiting
        self._waiting = 0
        self._idle = 0
        self._closed = False
        self._children: dict[int, int] = {}
        count = processes or usable_cores()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"decode-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def from_settings(
        settings: WorkerSettings,
        *,
        processes: int | None = None,
        scale_to_px: int = 0,
        decoder: str = DECODER,
    ) -> DecodePool:
        """A pool as the operator set it."""
        limits = replace(DecodeLimits.from_settings(settings), scale_to_px=scale_to_px)
        return DecodePool(
            limits,
            processes=settings.decode_processes if processes is None else processes,
            timeout_s=settings.decode_timeout_s,
            memory_bytes=settings.decode_memory_bytes,
            decoder=decoder,
        )

    @property
    def child_pids(self) -> tuple[int, ...]:
        """Process ids of the children that are alive now."""
        with self._changed:
            return tuple(self._children.values())

    def decode_many(self, photos: Sequence[bytes]) -> list[DecodedPhoto | PhotoRejected]:
        """Decode photos, in order; every one gets its pixels or its own refusal.

        May be called from several threads: photos of concurrent calls take turns. The answers of one call
        are all in memory at its end, so its size is the caller's bound. Raises `WorkerUnavailable` when no
        child can be started or the pool is closed.
        """
        batch = _Batch(photos, [None] * len(photos))
        for position, photo in enumerate(photos):
            try:
                check_bytes(photo, self._limits)
                batch.waiting.append(position)
            except PhotoRejected as refusal:
                batch.answers[position] = refusal
        if batch.waiting:
            batch.open = len(batch.waiting)
            with self._changed:
                if self._closed:
                    raise WorkerUnavailable("the photo decoders are closed")
                self._batches.append(batch)
                self._waiting += batch.open
                self._changed.notify(batch.open)
            batch.done.wait()
        if batch.failure is not None:
            raise batch.failure
        return [answer for answer in batch.answers if answer is not None]

    def close(self) -> None:
        """End all children. Calls of `decode_many` that still wait raise `WorkerUnavailable`."""
        with self._changed:
            self._closed = True
            for batch in tuple(self._batches):
                self._fail(batch, WorkerUnavailable("the photo decoders were closed"))
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._template.close()

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, number: int) -> None:
        """One thread's life: feed one child after the other until the pool is closed."""
        again: deque[_Job] = deque()
        while again or self._await_work():
            try:
                child = self._template.fork()
            except (HomewardError, OSError) as error:
                refusal = error if isinstance(error, HomewardError) else _no_child(error)
                with self._changed:
                    for batch in [*(batch for batch, _ in again), *self._batches]:
                        self._fail(batch, refusal)
                again.clear()
                continue
            with self._changed:
                self._children[number] = child.pid
            with child:
                again = self._feed(child, again)
            with self._changed:
                del self._children[number]

    def _feed(self, child: Child, again: deque[_Job]) -> deque[_Job]:
        """Keep one child busy until it dies, leaves or the pool is closed; the photos it did not begin."""
        flying: deque[_Flight] = deque()
        try:
            while True:
                self._fill(child, flying, again)
                if not flying:
                    return again
                self._land(child, flying)
                if child.leaving:
                    break
        except ChildDied as death:
            if death.in_photo or self._tried(flying[0].job) >= _TRIES:
                self._finish(flying.popleft().job, PhotoRejected(death.reason, _SAID[death.reason]))
        except Exception as error:  # noqa: BLE001 - say, no memory for the pixels: no call may wait forever
            with self._changed:
                for flight in flying:
                    self._fail(flight.job[0], _no_child(error))
            return again
        return deque(flight.job for flight in flying) + again

    # A waiting thread's frames must not keep the last call's photos alive: hence two methods.

    def _fill(self, child: Child, flying: deque[_Flight], again: deque[_Job]) -> None:
        """Give the child photos while it has room; waits for one when it has none at all."""
        while len(flying) < SLOTS:
            job = self._next(again, wait=not flying)
            if job is None:
                return
            batch, position = job
            flight = _Flight(job)
            flying.append(flight)
            child.send(batch.photos[position])
            flight.sha256 = hashlib.sha256(batch.photos[position]).hexdigest()
            del batch, job, flight

    def _land(self, child: Child, flying: deque[_Flight]) -> None:
        """Wait for the oldest photo's answer and hand it to its call."""
        answer = child.receive()
        flight = flying.popleft()
        if isinstance(answer, Decoded):
            photo = DecodedPhoto(answer.pixels, answer.width, answer.height, answer.media_type, flight.sha256)
            self._finish(flight.job, photo)
        else:
            self._finish(flight.job, answer)

    def _await_work(self) -> bool:
        """Wait until a photo waits; False when the pool is closed instead."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._idle -= 1
            return not self._closed

    def _next(self, again: deque[_Job], *, wait: bool) -> _Job | None:
        """The photo to hand out next: calls take turns, and a second photo waits for idle children first."""
        if again:
            return again.popleft()
        with self._changed:
            if wait:
                self._idle += 1
                self._changed.wait_for(lambda: self._waiting or self._closed)
                self._idle -= 1
            elif self._waiting <= self._idle:
                return None
            if not self._waiting:
                return None
            batch = self._batches.popleft()
            self._waiting -= 1
            position = batch.waiting.popleft()
            if batch.waiting:
                self._batches.append(batch)
            return batch, position

    def _tried(self, job: _Job) -> int:
        batch, position = job
        with self._changed:
            batch.tries[position] = batch.tries.get(position, 0) + 1
            return batch.tries[position]

    def _finish(self, job: _Job, answer: DecodedPhoto | PhotoRejected) -> None:
        batch, position = job
        with self._changed:
            batch.answers[position] = answer
            batch.open -= 1
            if batch.open == 0:
                batch.done.set()

    def _fail(self, batch: _Batch, error: HomewardError) -> None:
        """End a whole call with an error. The lock is held."""
        if batch in self._batches:
            self._batches.remove(batch)
            self._waiting -= len(batch.waiting)
            batch.waiting.clear()
        batch.failure = error
        batch.done.set()


def _no_child(error: Exception) -> WorkerUnavailable:
    unavailable = WorkerUnavailable(f"a photo could not be decoded here ({error}); free memory and try again")
    unavailable.__cause__ = error
    return unavailable
