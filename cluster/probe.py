"""From a probe to what the index compares: templates, known facts, and what is left out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cluster.facts import earliest_taken
from cluster.search_types import Known, PhotoProbe, TemplateProbe
from homeward.errors import InvalidInput, PhotoReason, PhotoRejected, TemplateInvalid
from homeward.ids import photo_sha256
from homeward.types import Attributes, DateRange, Face, Float32, PhotoFaces
from index.score import check_template


@dataclass(frozen=True, slots=True)
class ProbeFace:
    """What one list is made for: one child, by one or several templates."""

    templates: Float32  # (p, d) unit rows
    taken: tuple[DateRange | None, ...]  # p dates: when the photo of each template was taken
    face: Face | None = None  # of a probe photo


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe, ready to be compared."""

    faces: tuple[ProbeFace, ...]
    known: Known
    logged: dict[str, Any]  # how the search log names it
    without_records: frozenset[str] = frozenset()
    without_photos: frozenset[str] = frozenset()


def photo_probe(probe: PhotoProbe, seen: PhotoFaces, known: Known, max_faces: int) -> Probe:
    """One list per face, or the one asked for. Raises `PhotoRejected` when there is no such face, and
    `InvalidInput` (TOO_MANY_FACES) rather than search some faces of a crowd and not others."""
    faces = seen.faces
    if not faces:
        raise PhotoRejected(
            PhotoReason.NO_FACE, "no face was found; use a sharper or closer photo of the face", field="photo"
        )
    logged: dict[str, Any] = {"kind": "photo", "sha256": photo_sha256(probe.photo)}
    if probe.ordinal is not None:
        faces = (face_of(seen, probe.ordinal, "face_ordinal"),)
        logged["face"] = probe.ordinal
    if len(faces) > max_faces:
        raise InvalidInput(
            f"the photo shows {len(faces)} faces; at most {max_faces} are searched at once: name one with "
            "face_ordinal",
            code="TOO_MANY_FACES",
            field="face_ordinal",
        )
    return Probe(
        faces=tuple(ProbeFace(face.template[np.newaxis, :], (known.taken,), face) for face in faces),
        known=known,
        logged=logged,
    )


def template_probe(probe: TemplateProbe, known: Known, model_id: str, dimension: int) -> Probe:
    """Raises `TemplateInvalid` (also TEMPLATE_MODEL_DIFFERS): templates of two models never meet."""
    if probe.model_id != model_id:
        raise TemplateInvalid(
            f"the template is of another model; this gallery's templates are of {model_id}",
            code="TEMPLATE_MODEL_DIFFERS",
            field="template.model_id",
        )
    try:
        values = check_template(probe.values, dimension)
    except TemplateInvalid as error:
        raise TemplateInvalid(error.message, field="template.values") from error
    return Probe(
        faces=(ProbeFace(values[np.newaxis, :], (known.taken,)),),
        known=known,
        logged={"kind": "template", "sha256": hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()},
    )


def record_probe(
    record_id: str,
    *,
    templates: Float32,
    taken: tuple[DateRange | None, ...],
    photos: frozenset[str],
    attributes: Attributes,
    given: Known,
) -> Probe:
    """All templates (p, d) of one record as one probe; what the caller did not say of the child, the
    record does."""
    known = replace(
        given,
        sex=given.sex or attributes.sex,
        sex_verified=given.sex_verified if given.sex else attributes.sex_verified,
        born=given.born or attributes.born,
        taken=given.taken or earliest_taken(list(taken)),
    )
    return Probe(
        faces=(ProbeFace(templates, taken if given.taken is None else (given.taken,) * len(taken)),),
        known=known,
        logged={"kind": "record", "record_id": record_id},
        without_records=frozenset((record_id,)),
        without_photos=photos,
    )


def face_of(seen: PhotoFaces, ordinal: int, field: str) -> Face:
    """The face with the ordinal. Raises `PhotoRejected` (FACE_ORDINAL_UNKNOWN)."""
    for face in seen.faces:
        if face.ordinal == ordinal:
            return face
    raise PhotoRejected(
        PhotoReason.FACE_ORDINAL_UNKNOWN,
        f"there is no face {ordinal}; {len(seen.faces)} were found, counted from 0 by position",
        field=field,
    )
