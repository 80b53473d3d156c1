"""What `benchmarks.gpu_ingest` measures: each stage alone on batches made beforehand, and chains of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from benchmarks.gpu_ingest_measure import Lane, Step
from homeward.config import WorkerSettings
from homeward.errors import HomewardError
from homeward.types import Float32
from workers.align import align
from workers.decode import DecodedPhoto
from workers.device import pick_precision
from workers.embed import embed
from workers.model import FaceModel
from workers.pipeline import Pipeline
from workers.sandbox import DecodePool

_DECODE, _DEVICE_DECODE = "decode in all processes", "decode on the device"


@dataclass(frozen=True, slots=True)
class Faces:
    """Where the faces of a batch of photos are."""

    owner: Tensor  # (n,) int64, the photo of each
    landmarks: Tensor  # (n, 5, 2) pixels of that photo


@dataclass(frozen=True, slots=True)
class Batch:
    """Photos in every form that a stage starts from."""

    jpegs: tuple[bytes, ...]
    decoded: tuple[DecodedPhoto, ...]  # as the sandbox gives them
    images: tuple[Tensor, ...]  # the same on the device
    found: Faces
    crops: Tensor  # (n, 3, S, S) on the device

    @property
    def faces(self) -> int:
        """How many there are."""
        return len(self.crops)


@dataclass(frozen=True, slots=True)
class Cell:
    """Something to measure, and what it keeps busy."""

    resource: str  # processor, bus, decoder or GPU
    step: Step


class Stages:
    """The parts of the pipeline, one by one and in a row, for one model on one device."""

    def __init__(self, model: FaceModel, settings: WorkerSettings) -> None:
        self._model = model
        self._min_face_px = settings.min_face_px
        self._pipeline = Pipeline(model, settings)
        self.device = model.device
        self.precision = str(pick_precision(model.device, settings.precision)).removeprefix("torch.")

    def decode(self, jpegs: Sequence[bytes], pool: DecodePool) -> list[DecodedPhoto]:
        """In the sandbox. Raises what refuses a photo."""
        decoded = []
        for photo in pool.decode_many(jpegs):
            if not isinstance(photo, DecodedPhoto):
                raise photo
            decoded.append(photo)
        return decoded

    def decode_on_device(self, jpegs: Sequence[bytes]) -> list[Tensor]:
        """(3, H, W) uint8 each at full size; by nvJPEG, all at once, on a GPU."""
        encoded = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
        planes: list[Tensor] = decode_jpeg(encoded, mode=ImageReadMode.RGB, device=self.device)
        return planes

    def detect(self, images: Sequence[Tensor], width: int) -> Faces:
        """`width`: of the photos at full size, all of one size."""
        face_px = max(1, round(self._min_face_px * images[0].shape[2] / width))
        found = self._model.detector.detect(images, face_px)
        owner = torch.tensor([at for at, faces in enumerate(found) for _ in range(len(faces.scores))])
        landmarks = torch.cat([faces.landmarks for faces in found])
        return Faces(owner.to(landmarks.device, torch.int64), landmarks)

    def align(self, images: Sequence[Tensor], found: Faces) -> Tensor:
        """The crops of all faces."""
        return align(images, found.owner, found.landmarks, self._model.embedder.crop)

    def embed(self, crops: Tensor) -> list[Float32]:
        """Templates on the host; a face that gives none is left out."""
        templates = embed(self._model.embedder, crops, mirror=self._model.mirror)
        return [template for template in templates if not isinstance(template, HomewardError)]

    def whole(self, images: Sequence[Tensor], width: int) -> list[Float32]:
        """All that follows decoding."""
        return self.embed(self.align(images, self.detect(images, width)))

    def batch(self, jpegs: Sequence[bytes], pool: DecodePool) -> Batch:
        """Every form of these photos."""
        with torch.inference_mode():
            decoded = self.decode(jpegs, pool)
            images = Lane(self.device).upload(decoded)
            found = self.detect(images, decoded[0].width)
            crops = self.align(images, found)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)  # lanes do not wait for this stream
        return Batch(tuple(jpegs), tuple(decoded), tuple(images), found, crops)

    def cells(self, batches: Sequence[Batch], single: DecodePool, pool: DecodePool) -> dict[str, Cell]:
        """What is measured, stages before the chains that they are in."""
        width = batches[0].decoded[0].width
        cuda = self.device.type == "cuda"
        device = "GPU" if cuda else "processor"

        def step(work: Callable[[Lane, Batch], int]) -> Step:
            def taken(lane: Lane, number: int) -> tuple[int, int]:
                batch = batches[number % len(batches)]
                faces = work(lane, batch)
                lane.finish()
                return len(batch.jpegs), faces

            return taken

        def nothing(_: object) -> int:
            return 0

        def product(_: Lane, batch: Batch) -> int:
            answers = self._pipeline.embed_each(self.decode(batch.jpegs, pool))
            return sum(0 if isinstance(answer, HomewardError) else len(answer.faces) for answer in answers)

        found: dict[str, tuple[str, Callable[[Lane, Batch], int]]] = {
            "decode in one process": ("processor", lambda _, b: nothing(self.decode(b.jpegs, single))),
            _DECODE: ("processor", lambda _, b: nothing(self.decode(b.jpegs, pool))),
            _DEVICE_DECODE: (
                "decoder" if cuda else device,
                lambda _, b: nothing(self.decode_on_device(b.jpegs)),
            ),
            "copy": ("bus", lambda lane, b: nothing(lane.upload(b.decoded))),
            "detect": (device, lambda _, b: len(self.detect(b.images, width).owner)),
            "align": (device, lambda _, b: len(self.align(b.images, b.found))),
            "embed": (device, lambda _, b: len(self.embed(b.crops))),
            "decode + detect": (
                "",
                lambda lane, b: len(self.detect(lane.upload(self.decode(b.jpegs, pool)), width).owner),
            ),
            "decode on the device + detect": (
                "",
                lambda _, b: len(self.detect(self.decode_on_device(b.jpegs), width).owner),
            ),
            "whole": (
                "",
                lambda lane, b: len(self.whole(lane.upload(self.decode(b.jpegs, pool)), width)),
            ),
            "whole, decode on the device": (
                "",
                lambda _, b: len(self.whole(self.decode_on_device(b.jpegs), width)),
            ),
            "whole, as the product": ("", product),
        }
        if not cuda:
            del found["copy"]  # nothing is copied
        return {name: Cell(resource, step(work)) for name, (resource, work) in found.items()}
