"""What a load's report is made of. Nothing of it says who is on a photo: it says which pictures are alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.load.outcome_types import Became

MANY_RECORDS = 10  # a picture under more records is a placeholder or a logo sooner than one child twice
LISTED = 1000  # stretches of numbers that a list of missing ones holds at most


@dataclass(frozen=True, slots=True)
class PhotoRow:
    """One photo of the load's input, as its outcome says it and the other parts correct it."""

    number: int
    photo: str
    reference: str
    record_id: str
    became: Became
    code: str
    message: str
    line: int  # of the manifest; 0: none
    source: int
    sha256: str
    bytes: int
    width: int  # pixels, upright
    height: int
    of: int  # DUPLICATE: the photo that was enrolled; else NOBODY
    kept: bool  # the photo store has the bytes


@dataclass(frozen=True, slots=True)
class Sums:
    """A load in numbers."""

    photos: int  # rows of all parts
    bytes: int
    became: Mapping[Became, int]  # photos; every kind is there
    codes: Mapping[str, int]  # rejected photos by reason, most first
    faces: int  # face rows
    records: int  # that the load wrote to
    created: int  # of them
    searchable: int  # of them
    attributes_kept: int  # of them; they were there before, and their attributes were left as they were
    without_face: int  # records that photos name and no search can find, written or not
    same_pictures: int  # groups of photos of one record that are one picture
    doubles: int  # pairs of records
    common: int  # pictures under many records
    milliseconds: float  # of decoding and embedding, over all workers


@dataclass(frozen=True, slots=True)
class WithoutFace:
    """A record that has no usable face: no search finds it."""

    reference: str
    record_id: str  # empty where nothing of it was ever read
    photos: int
    reasons: Mapping[str, int]  # photos by code, most first; by what became of them where there is none


@dataclass(frozen=True, slots=True)
class SamePicture:
    """Photos of one record that are the same picture."""

    reference: str
    copies: tuple[PhotoRow, ...]  # two or more, by number


@dataclass(frozen=True, slots=True)
class SharedPicture:
    """The same picture in two records."""

    one: PhotoRow
    other: PhotoRow
    bits: int  # by which the pictures' hashes differ; 0 also for the same bytes


@dataclass(frozen=True, slots=True)
class SuspectedDouble:
    """Two records that hold the same picture: perhaps one case under two numbers, perhaps two children in
    one picture, perhaps a photo filed wrongly. For a person to decide."""

    reference: str
    other: str  # sorts after `reference`
    shared: int  # pictures of one that the other has too
    pictures: tuple[SharedPicture, ...]  # one for each such picture of `reference`, by number


@dataclass(frozen=True, slots=True)
class CommonPicture:
    """A picture under so many records that pairs of them say nothing."""

    photo: PhotoRow  # the first
    photos: int
    records: int


@dataclass(frozen=True, slots=True)
class Numbers:
    """Photos by number: how many, and which, as stretches (first, last), ascending, at most `LISTED`."""

    count: int
    stretches: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Unaccounted:
    """Whether every photo of the input has one outcome."""

    missing: Numbers  # no part speaks of them
    doubled: Numbers  # more than one row does
    beyond: Numbers  # they are no photos of the input

    @property
    def everything_is_there(self) -> bool:
        """Each number once, and no other."""
        return not (self.missing.count or self.doubled.count or self.beyond.count)
