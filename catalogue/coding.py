"""Dictionary coding: callers' strings become small positive integers before they reach the gallery.

Codes are never reused or changed, so a value that was coded once may be cached for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from catalogue import sql
from catalogue.checks import check_name
from catalogue.engine import Database
from catalogue.tables import codes
from catalogue.types import RowColumns
from homeward.types import Attributes, PhotoNote, RecordKey, verified_days

AGENCY, GALLERY, PLACE, LOAD = "agency", "gallery", "place", "load"
KINDS = (AGENCY, GALLERY, PLACE, LOAD)
NO_CODE = 0  # of the empty string: unknown, none

Source = tuple[RecordKey, Attributes, PhotoNote, str]  # of one photo: the last is its load


class Coder:
    """Codes of one catalogue, with what is known so far at hand."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[tuple[str, str], int] = {}

    def codes(self, kind: str, values: Iterable[str]) -> dict[str, int]:
        """The code of each value, a new one where there was none; the empty string has 0."""
        asked = set(values)
        found = self.find(kind, asked)
        missing = sorted(asked - found.keys())
        if missing:
            for value in missing:
                check_name(value, kind)
            found.update(self._create(kind, missing))
        return found

    def find(self, kind: str, values: Iterable[str]) -> dict[str, int]:
        """The codes of those values that have one. A filter on another value finds nothing."""
        asked = set(values)
        found = {value: self._known[kind, value] for value in asked if (kind, value) in self._known}
        if "" in asked:
            found[""] = NO_CODE
        missing = [value for value in asked - found.keys() if "\x00" not in value]
        if missing:
            with self._database.reading() as connection:
                query = sa.select(codes).where(codes.c.kind == kind)
                rows = sql.select_in(connection, query, codes.c.value, missing)
            for row in rows:
                found[row["value"]] = self._known[kind, row["value"]] = row["code"]
        return found

    def values(self, kind: str) -> dict[int, str]:
        """All codes of a kind with what they stand for."""
        with self._database.reading() as connection:
            query = sa.select(codes.c.code, codes.c.value).where(codes.c.kind == kind)
            return {row.code: row.value for row in connection.execute(query)}

    def columns(self, sources: Sequence[Source]) -> list[RowColumns]:
        """The filter columns of face rows; only verified facts stand in them."""
        agency = self.codes(AGENCY, {key.agency for key, _, _, _ in sources})
        gallery = self.codes(GALLERY, {key.gallery for key, _, _, _ in sources})
        load = self.codes(LOAD, {load for _, _, _, load in sources})
        place = self.codes(PLACE, {place_cell(attributes.event_place) for _, attributes, _, _ in sources})
        return [
            RowColumns(
                agency[key.agency],
                gallery[key.gallery],
                load[name],
                int(attributes.sex) if attributes.sex_verified else 0,
                *verified_days(attributes.born),
                *verified_days(attributes.event),
                *verified_days(note.taken),
                place[place_cell(attributes.event_place)],
            )
            for key, attributes, note, name in sources
        ]

    def _create(self, kind: str, values: Sequence[str]) -> dict[str, int]:
        # Under the counter's lock: two servers cannot give one value two codes, or two one.
        with self._database.committing() as revs:
            connection = revs.connection
            query = sa.select(codes).where(codes.c.kind == kind)
            found = {
                row["value"]: row["code"] for row in sql.select_in(connection, query, codes.c.value, values)
            }
            highest = sa.select(sa.func.coalesce(sa.func.max(codes.c.code), 0)).where(codes.c.kind == kind)
            start = int(connection.execute(highest).scalar_one()) + 1
            new = [value for value in values if value not in found]
            made = {value: start + at for at, value in enumerate(new)}
            sql.insert(
                connection,
                codes,
                [{"kind": kind, "code": code, "value": value} for value, code in made.items()],
            )
        found.update(made)
        self._known.update({(kind, value): code for value, code in found.items()})
        return found


def place_cell(place: str) -> str:
    """What a place is filtered by: a digest of its words without case and surplus spaces.

    The dictionary keeps its entries for ever; it must not keep the place where a deleted child was seen.
    """
    words = " ".join(place.casefold().split())
    return hashlib.sha256(f"place\0{words}".encode()).hexdigest()[:32] if words else ""
