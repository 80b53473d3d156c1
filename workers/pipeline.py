"""The whole path on one device: decoded photos -> faces with templates."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from homeward.config import WorkerSettings
from homeward.errors import HomewardError, InvalidInput, TemplateInvalid, WorkerUnavailable
from homeward.face_message import SeenFace
from homeward.types import Box, Face, Float32, PhotoFaces, Quality, UInt8
from workers.align import align
from workers.decode import DecodedPhoto
from workers.device_photo import DevicePhoto
from workers.embed import embed
from workers.model import CropSpec, Detections, FaceModel
from workers.quality import FaceView, assess

Photo = DecodedPhoto | DevicePhoto

SHOWN_PX = 256  # side of the crops shown to people
_SHOWN_SCALE = 0.75  # of the embedder's own zoom: people want some hair and chin


@dataclass(frozen=True, slots=True)
class _Located:
    """The faces of one photo in ordinal order, in pixels of its tensor."""

    boxes: Tensor  # (n, 4) x, y, width, height
    landmarks: Tensor  # (n, 5, 2)
    scores: Tensor  # (n,)


class Pipeline:
    """One model with the settings that say which faces count. Holds no state between calls: thread-safe."""

    def __init__(self, model: FaceModel, settings: WorkerSettings | None = None) -> None:
        settings = settings or WorkerSettings()
        self._model = model
        self._min_face_px = settings.min_face_px
        self._max_faces = settings.max_faces
        self._shown = _with_context(model.embedder.crop)

    @property
    def model_id(self) -> str:
        """Id that every template carries."""
        return self._model.model_id

    @property
    def dimension(self) -> int:
        """Length of a template."""
        return self._model.embedder.dimension

    @property
    def device(self) -> str:
        """Where the model runs, for people."""
        return str(self._model.device)

    def embed(self, photos: Sequence[Photo]) -> list[PhotoFaces]:
        """As `embed_each`, but the first photo's error is raised."""
        results = self.embed_each(photos)
        for result in results:
            if isinstance(result, HomewardError):
                raise result
        return [result for result in results if isinstance(result, PhotoFaces)]

    def embed_each(self, photos: Sequence[Photo]) -> list[PhotoFaces | HomewardError]:
        """The faces of each photo, or why there are none to be had; in order.

        A photo without faces is no error. What breaks on one photo costs that photo alone.
        """
        if not photos:
            return []
        try:
            return self._embed_batch(photos)
        except (HomewardError, RuntimeError, ValueError, MemoryError) as error:  # torch raises RuntimeError
            if len(photos) > 1:
                return [result for photo in photos for result in self.embed_each([photo])]
            return [_as_typed(error)]

    def embed_known(self, photo: Photo, known: Sequence[SeenFace]) -> PhotoFaces | HomewardError:
        """As `embed_each` of one photo, with faces that another detector found: boxes and landmarks in pixels
        of the upright photo at full size. Ordinals count `known`."""
        zoom = _zoom(photo).to(torch.float32)
        boxes = torch.tensor([(one.box.x, one.box.y, one.box.width, one.box.height) for one in known])
        landmarks = torch.from_numpy(np.stack([one.landmarks for one in known]).astype(np.float32))
        located = _Located(
            boxes.reshape(-1, 4) / zoom.repeat(2),
            landmarks / zoom,
            torch.tensor([one.detector_score for one in known]),
        )
        try:
            return self._embed_batch([photo], [located])[0]
        except (HomewardError, RuntimeError, ValueError, MemoryError) as error:
            return _as_typed(error)

    @torch.inference_mode()
    def _embed_batch(
        self, photos: Sequence[Photo], found: Sequence[_Located] | None = None
    ) -> list[PhotoFaces | HomewardError]:
        images = [self._on_device(photo) for photo in photos]
        located = self._locate(photos, images) if found is None else [self._placed(one) for one in found]
        owner = torch.tensor([i for i, faces in enumerate(located) for _ in faces.scores], dtype=torch.int64)
        landmarks = torch.cat([faces.landmarks for faces in located])
        crops = align(images, owner.to(landmarks.device), landmarks, self._model.embedder.crop)
        templates = embed(self._model.embedder, crops, mirror=self._model.mirror)
        at_full_size = [_at_full_size(faces, photo) for faces, photo in zip(located, photos, strict=True)]
        frames = torch.tensor([(photos[i].width, photos[i].height) for i in owner.tolist()]).view(-1, 2)
        quality = assess(
            FaceView(
                crops=crops,
                landmarks=torch.cat([faces.landmarks for faces in at_full_size]),
                boxes=torch.cat([faces.boxes for faces in at_full_size]),
                scores=torch.cat([faces.scores for faces in at_full_size]),
                frames=frames.to(crops.device),
            )
        )
        results: list[PhotoFaces | HomewardError] = []
        start = 0
        for photo, faces in zip(photos, at_full_size, strict=True):
            end = start + len(faces.scores)
            results.append(self._photo_faces(photo, faces, templates[start:end], quality[start:end]))
            start = end
        return results

    def crop(self, photo: DecodedPhoto, landmarks: Float32) -> bytes:
        """The face at `landmarks` ((5, 2) pixels of the upright photo at full size) as PNG, for people."""
        stream = io.BytesIO()
        Image.fromarray(self.crop_pixels(photo, landmarks)).save(stream, "PNG")
        return stream.getvalue()

    @torch.inference_mode()
    def crop_pixels(self, photo: DecodedPhoto, landmarks: Float32) -> UInt8:
        """As `crop`, as (SHOWN_PX, SHOWN_PX, 3) uint8 RGB: aligned, with more around the face."""
        image = self._on_device(photo)
        points = torch.as_tensor(np.array(landmarks, dtype=np.float32), device=image.device)
        points = points / _zoom(photo).to(points)
        owner = torch.zeros(1, dtype=torch.int64, device=image.device)
        pixels = align([image], owner, points[None], self._shown)[0]
        if not bool(torch.isfinite(pixels).all()):
            raise InvalidInput("the landmarks coincide or are not finite", field="landmarks")
        shown: UInt8 = pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        return shown

    def _on_device(self, photo: Photo) -> Tensor:
        """(3, H, W) uint8, a view of the pixels where they may be shared."""
        if isinstance(photo, DevicePhoto):
            return photo.planes
        pixels = photo.pixels
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise InvalidInput(
                f"pixels are (H, W, 3) uint8, not {pixels.shape} {pixels.dtype}", field="photo"
            )
        if not (pixels.flags.writeable and pixels.flags.c_contiguous):  # torch shares neither
            pixels = np.array(pixels, order="C")
        stored = torch.from_numpy(pixels)
        if self._model.device.type == "cuda":
            # From pinned memory the copy runs beside what this lane's stream has yet to do.
            stored = stored.pin_memory().to(self._model.device, non_blocking=True)
        return stored.permute(2, 0, 1)

    def _locate(self, photos: Sequence[Photo], images: Sequence[Tensor]) -> list[_Located]:
        """Detect in all photos; those shrunk at decode are searched for accordingly smaller faces."""
        by_face_px: dict[int, list[int]] = defaultdict(list)
        for position, photo in enumerate(photos):
            by_face_px[max(1, round(self._min_face_px / float(_zoom(photo).max())))].append(position)
        located: dict[int, _Located] = {}
        for min_face_px, positions in by_face_px.items():
            found = self._model.detector.detect([images[position] for position in positions], min_face_px)
            located |= zip(positions, (self._ordered(faces) for faces in found), strict=True)
        return [located[position] for position in range(len(photos))]

    def _placed(self, faces: _Located) -> _Located:
        device = self._model.device
        return _Located(faces.boxes.to(device), faces.landmarks.to(device), faces.scores.to(device))

    def _ordered(self, found: Detections) -> _Located:
        """The `max_faces` largest, by position: top, then left, in whole pixels, so that the last bits
        of a coordinate seldom decide; then by size and score."""
        boxes, scores = found.boxes.tolist(), found.scores.tolist()
        largest = sorted(range(len(boxes)), key=lambda i: (-boxes[i][2] * boxes[i][3], boxes[i]))
        rows = sorted(
            largest[: self._max_faces],
            key=lambda i: (round(boxes[i][1]), round(boxes[i][0]), boxes[i][3], boxes[i][2], scores[i]),
        )
        order = torch.tensor(rows, dtype=torch.int64, device=found.boxes.device)
        return _Located(found.boxes[order], found.landmarks[order], found.scores[order])

    def _photo_faces(
        self,
        photo: Photo,
        located: _Located,
        templates: Sequence[Float32 | TemplateInvalid],
        quality: Sequence[Quality],
    ) -> PhotoFaces | HomewardError:
        """Put one photo's answer together. A face without a template is left out and keeps its ordinal;
        when that leaves none, the photo's answer is the error."""
        landmarks = located.landmarks.cpu().numpy()
        rows = zip(located.boxes.tolist(), located.scores.tolist(), templates, quality, strict=True)
        faces = tuple(
            Face(ordinal, Box(*box), landmarks[ordinal], score, grade, template)
            for ordinal, (box, score, template, grade) in enumerate(rows)
            if not isinstance(template, TemplateInvalid)
        )
        invalid = [template for template in templates if isinstance(template, TemplateInvalid)]
        if invalid and not faces:
            return invalid[0]
        return PhotoFaces(photo.sha256, photo.media_type, photo.width, photo.height, self.model_id, faces)


def _with_context(crop: CropSpec) -> CropSpec:
    """The embedder's crop at the size shown to people, with more around the face."""
    zoom = SHOWN_PX / crop.size * _SHOWN_SCALE
    shift = SHOWN_PX / 2 - zoom * crop.size / 2
    return CropSpec(SHOWN_PX, tuple((x * zoom + shift, y * zoom + shift) for x, y in crop.points))


def _zoom(photo: Photo) -> Tensor:
    """(2,) float64: full-size pixels per pixel held, across and down; 1 unless shrunk at decode."""
    height, width = photo.planes.shape[1:] if isinstance(photo, DevicePhoto) else photo.pixels.shape[:2]
    return torch.tensor((photo.width / width, photo.height / height), dtype=torch.float64)


def _at_full_size(faces: _Located, photo: Photo) -> _Located:
    zoom = _zoom(photo).to(faces.boxes)
    return _Located(faces.boxes * zoom.repeat(2), faces.landmarks * zoom, faces.scores)


def _as_typed(error: Exception) -> HomewardError:
    if isinstance(error, HomewardError):
        return error
    failure = WorkerUnavailable(f"the model failed on this photo ({type(error).__name__}); try again")
    failure.__cause__ = error
    return failure
