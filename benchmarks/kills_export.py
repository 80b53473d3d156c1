"""All that two sets of stores hold after a load, as lines of text that are the same where the load is.

Left out is what differs between any two loads: revs, versions, times, timings, the names of outcome files
(they hold the driver's fence) and the catalogue's codes for texts.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from benchmarks.stores import Stores
from catalogue.open import open_catalogue
from catalogue.store import Catalogue
from catalogue.types import StoredFace, StoredPhoto, StoredRecord
from cluster.load.load_documents import AREA, LoadDocuments
from cluster.load.outcome_types import PhotoOutcome
from homeward.types import Attributes, PhotoNote
from index.columns import hex_ids
from index.open import open_gallery
from photos.open import open_document_store, open_photo_store

_ATTRIBUTES, _NOTE = TypeAdapter(Attributes), TypeAdapter(PhotoNote)
_COLUMNS = ("ordinal", "sex", "born_from", "born_to", "event_from", "event_to", "taken_from", "taken_to")
_OUTCOME = tuple(one.name for one in fields(PhotoOutcome) if one.name != "milliseconds")


@dataclass(frozen=True, slots=True)
class Export:
    """Lines by what they speak of, each with the key of the one thing that it is about."""

    lines: Mapping[str, list[tuple[str, str]]]

    def text(self) -> str:
        """All of it."""
        return "".join(f"{kind} {line}\n" for kind, lines in self.lines.items() for _, line in lines)

    def sha256(self) -> str:
        """Of the text."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def counts(self) -> dict[str, int]:
        """How many lines of each kind."""
        return {kind: len(lines) for kind, lines in self.lines.items()}

    def keys(self, kind: str) -> Counter[str]:
        """How often each thing is there."""
        return Counter(key for key, _ in self.lines[kind])


def export(stores: Stores, load: str, folder: Path) -> Export:
    """Read everything back from the stores."""
    catalogue = open_catalogue(stores.catalogue, folder)
    try:
        entry = catalogue.loads.get(load)
        gallery = open_gallery(stores.gallery, folder, entry.model_id, entry.dimension)
        try:
            templates = [_row(*one) for columns in gallery.iterate() for one in _each(columns)]
        finally:
            gallery.close()
        records = [_record(record) for record in _records(catalogue)]
        photos = [line for record in _records(catalogue) for line in _photos(record)]
        faces = [line for record in _records(catalogue) for line in _faces(record)]
        documents = open_document_store(stores.photos, folder)
        load_documents = LoadDocuments(documents)
        parts = catalogue.loads.parts(load)
        outcomes, told = [], []
        for part in parts:
            outcome = load_documents.get_outcome(part.document)
            outcomes += [
                (str(one.number), _text({name: getattr(one, name) for name in _OUTCOME}))
                for one in outcome.photos
            ]
            told += [
                (f"{part.part} {one.record_id}", _text({"part": part.part, **_values(one)}))
                for one in outcome.records
            ]
        counted = {part.document for part in parts}
        stray = [name for name in documents.list_documents(f"{AREA}/") if name not in counted]
    finally:
        catalogue.close()
    return Export(
        {
            "load": [(load, _text({"parts": entry.parts, "photos": entry.photos, "state": entry.state}))],
            "part": [(str(one.part), _text([one.part, one.photos, one.faces])) for one in parts],
            "record": sorted(records),
            "photo": sorted(photos),
            "face": sorted(faces),
            "template": sorted(templates),
            "bytes": sorted(_stored(stores, folder)),
            "outcome": sorted(outcomes),
            "told": sorted(told),
            "stray": [(name, name) for name in stray],
        }
    )


def compared(killed: Export, whole: Export) -> dict[str, dict[str, int]]:
    """Of each kind: what the killed load lacks, what it has too often or too much, what is not the same."""
    found = {}
    for kind in whole.lines:
        have, want = killed.keys(kind), whole.keys(kind)
        mine, theirs = dict(killed.lines[kind]), dict(whole.lines[kind])
        found[kind] = {
            "lost": sum((want - have).values()),
            "doubled": sum((have - want).values()) + sum(count - 1 for count in want.values()),
            "different": sum(mine[key] != theirs[key] for key in mine.keys() & theirs.keys()),
        }
    return found


def unaccounted(export_: Export, photos: int) -> int:
    """Photos of the archive that have not exactly one outcome."""
    have = export_.keys("outcome")
    return sum(have[str(number)] != 1 for number in range(photos)) + sum(
        count for number, count in have.items() if not 0 <= int(number) < photos
    )


def _records(catalogue: Catalogue) -> Iterator[StoredRecord]:
    token = ""
    while True:
        page = catalogue.list_records(token=token, page_size=500)
        yield from page.records
        token = page.next_page_token
        if not token:
            return


def _record(record: StoredRecord) -> tuple[str, str]:
    said = {
        "id": record.record_id,
        "key": _values(record.key),
        "attributes": _ATTRIBUTES.dump_python(record.attributes, mode="json"),
        "photos": [photo.sha256 for photo in record.photos],
        "load": record.load,
        "searchable": record.searchable,
        "why_not": record.unsearchable_reason,
    }
    return record.record_id, _text(said)


def _photos(record: StoredRecord) -> Iterator[tuple[str, str]]:
    for photo in record.photos:
        said = {name: getattr(photo, name) for name in _names(StoredPhoto) if name not in ("faces", "note")}
        note = _NOTE.dump_python(photo.note, mode="json")
        faces = [face.face_id for face in photo.faces]
        key = f"{record.record_id} {photo.sha256}"
        yield key, _text({**said, "record": record.record_id, "note": note, "faces": faces})


def _faces(record: StoredRecord) -> Iterator[tuple[str, str]]:
    for photo in record.photos:
        for face in photo.faces:
            said = {name: getattr(face, name) for name in _names(StoredFace)}
            said |= {"box": _values(face.box), "quality": _values(face.quality)}
            yield face.face_id, _text({**said, "landmarks": face.landmarks.tobytes().hex()})


def _each(columns: Any) -> Iterator[tuple[str, str, dict[str, int], bytes]]:
    ids, records = hex_ids(columns.face), hex_ids(columns.record)
    for row, face in enumerate(ids):
        numbers = {name: int(getattr(columns, name)[row]) for name in _COLUMNS}
        yield face, records[row], numbers, columns.template[row].tobytes() + columns.photo[row].tobytes()


def _row(face: str, record: str, numbers: dict[str, int], data: bytes) -> tuple[str, str]:
    return face, _text({"face": face, "record": record, **numbers, "bytes": data.hex()})


def _stored(stores: Stores, folder: Path) -> Iterator[tuple[str, str]]:
    """The photo store's photos, by what their bytes are."""
    photos = open_photo_store(stores.photos, folder)
    for agency in photos.agencies():
        after: str | None = None
        while page := photos.list(agency, after):
            for name in page:
                digest = hashlib.sha256(photos.get(agency, name)).hexdigest()
                yield f"{agency} {name}", _text([agency, name, digest])
            after = page[-1]


def _names(kind: type) -> list[str]:
    return [one.name for one in fields(kind)]


def _values(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in _names(type(one))}


def _text(said: object) -> str:
    return json.dumps(said, sort_keys=True, default=_plain)


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} in an export")
