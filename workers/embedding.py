"""Photo in, templates out, wherever the model runs: the one way the server reaches it.

`LocalEmbedding` (workers/local.py) runs the pipeline in this process; `RemoteEmbedding`
(workers/remote.py) asks embedding workers over internal gRPC. Enrolment, search and compare use
the same object.
"""

from __future__ import annotations

from typing import Protocol

from homeward.types import Float32, PhotoFaces


class Embedding(Protocol):
    """Turns photos into faces with templates. Safe to call from many tasks at once."""

    @property
    def model_id(self) -> str:
        """Id that every template carries."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a template."""
        ...

    @property
    def device(self) -> str:
        """Where the model runs, for people."""
        ...

    async def embed(self, photo: bytes) -> PhotoFaces:
        """All faces of one photo (perhaps none).

        Raises `PhotoRejected` for bytes that are no usable photo, `Overloaded` when the queue is
        full, `WorkerUnavailable` when no worker answers.
        """
        ...

    async def crop(self, photo: bytes, landmarks: Float32) -> bytes:
        """The face at `landmarks` ((5, 2) float32 pixels), upright and aligned, as PNG."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, then free the model, the threads and the child processes."""
        ...
