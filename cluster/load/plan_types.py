"""What a load is to do with each photo, decided before the first is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from cluster.load.members import Member
from homeward.types import Attributes, PhotoNote, RecordKey


class Unplanned(StrEnum):
    """Why a photo, or a row of the manifest, is not loaded, though the source can be read."""

    NO_RECORD = "NO_RECORD"  # it lies in no folder that names a record
    NOT_LISTED = "NOT_IN_MANIFEST"
    ROW_INVALID = "MANIFEST_ROW_INVALID"
    ROW_DIFFERS = "MANIFEST_ROWS_DIFFER"  # two rows say different things of one record
    SEVERAL = "PHOTO_NAME_AMBIGUOUS"  # several sources have a photo of that name
    TWICE = "MANIFEST_ROW_TWICE"  # the same photo and record once more


@dataclass(frozen=True, slots=True)
class PlannedPhoto:
    """One photo of one record; or what stands in its place, to be accounted for."""

    number: int  # place in the load's input, from 0 on
    source: int  # which of the load's sources
    member: Member
    reference: str = ""  # the record's, in the agency's words; empty where there is none
    line: int = 0  # of the manifest; 0: none
    attributes: Attributes = field(default_factory=Attributes)
    note: PhotoNote = field(default_factory=PhotoNote)
    code: str = ""  # a `Refusal` or `Unplanned`: it is not loaded
    why: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """Photos that are loaded together and committed as one."""

    number: int  # from 0 on
    photos: tuple[PlannedPhoto, ...]  # all of a record side by side
    agency: str = ""  # whose records they are
    gallery: str = ""

    def key(self, reference: str) -> RecordKey:
        """Of a record that the part names."""
        return RecordKey(self.agency, self.gallery, reference)


@dataclass(frozen=True, slots=True)
class Totals:
    """What a plan holds."""

    photos: int  # to be loaded
    bytes: int  # of these
    records: int
    left_out: dict[str, int]  # by code
    unknown_columns: tuple[str, ...] = ()
