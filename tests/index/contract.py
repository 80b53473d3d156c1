"""What every Milvus gallery must do, whichever Milvus is behind it.

A subclass provides the fixture `gallery`: an empty one of `DIMENSION`-d templates, and may keep it for all
tests, which name rows of their own. Strong reads of a server are slow, so the tests share theirs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from homeward.errors import InvalidInput, TemplateInvalid
from homeward.types import FaceRow, Filter, ProbeFacts, Query
from index import reference
from index.columns import Columns, concatenate, from_rows, hex_ids
from index.fallback import search_slots, slot_expression
from index.gallery import MilvusGallery
from index.placement import SLOTS, slots_of
from tests.index.random_rows import as_values
from tests.index.rows import hex_id, random_rows, templates, with_template

DIMENSION = 16


def same(columns: Columns, rows: list[FaceRow]) -> bool:
    """Whether the columns hold exactly these rows, in any order, bit for bit."""
    return sorted(map(as_values, columns.face_rows())) == sorted(map(as_values, rows))


class GalleryContract:
    """Inherited by the tests of each Milvus."""

    def test_rows_come_back_bit_for_bit_and_are_replaced_and_deleted(self, gallery: MilvusGallery) -> None:
        generator = np.random.default_rng(1)
        rows = random_rows(generator, 60, DIMENSION, 12, tag="kept")
        before = gallery.count()
        gallery.upsert(rows)
        faces = [row.face_id for row in rows]
        assert gallery.count() == before + 60
        assert same(gallery.get(faces), rows)

        changed = [with_template(row, templates(generator, 1, DIMENSION)[0]) for row in rows[:20]]
        changed = [replace(row, sex=2, place=7) for row in changed]
        gallery.upsert([*rows[:5], *changed])  # of two rows with one id in one call the last counts
        assert gallery.count() == before + 60
        assert same(gallery.get(faces), changed + rows[20:])

        gallery.delete([*faces[:10], hex_id("never there")])
        assert gallery.count() == before + 50
        assert same(gallery.get(faces), changed[10:] + rows[20:])
        record = rows[30].record_id
        left = [row for row in changed[10:] + rows[20:] if row.record_id != record]
        assert gallery.delete_record(record) == 50 - len(left)
        assert same(gallery.get(faces), left)
        assert len(gallery.of_records([record])) == 0

        gallery.upsert(rows[:10])  # what was deleted may come back
        assert same(gallery.get(faces), left + list(rows[:10]))
        gallery.delete(faces)
        assert gallery.count() == before

    def test_nothing_of_a_call_with_a_bad_row_is_written(self, gallery: MilvusGallery) -> None:
        good = random_rows(np.random.default_rng(2), 3, DIMENSION, 3, tag="bad")
        zero = with_template(good[1], np.zeros(DIMENSION, np.float32))
        for row, error in (
            (zero, TemplateInvalid),
            (replace(good[1], template=np.ones(3, np.float32)), TemplateInvalid),
            (replace(good[1], face_id="' or 1 == 1"), InvalidInput),
        ):
            with pytest.raises(error):
                gallery.upsert([good[0], row])
        with pytest.raises(InvalidInput):
            gallery.delete(['" or face_id != "'])
        with pytest.raises(InvalidInput):
            gallery.delete_record('" or record_id != "')
        assert len(gallery.get([row.face_id for row in good])) == 0

    def test_iterate_gives_every_row_once_in_order_of_face_id(self, gallery: MilvusGallery) -> None:
        rows = random_rows(np.random.default_rng(3), 400, DIMENSION, 150, tag="iterated")
        gallery.insert_new(rows)
        pages = list(gallery.iterate(batch=170))
        assert max(map(len, pages)) <= 170
        found = [face for page in pages for face in hex_ids(page.face)]
        assert found == sorted(found)
        assert len(set(found)) == len(found) == gallery.count()
        mine = {row.face_id for row in rows}
        everything = concatenate(pages, DIMENSION)
        assert same(everything.take(np.array([face in mine for face in found])), rows)
        gallery.delete([row.face_id for row in rows])

    def test_search_equals_the_reference(self, gallery: MilvusGallery) -> None:
        generator = np.random.default_rng(4)
        rows = random_rows(generator, 700, DIMENSION, 200, distinct=90, tag="searched")
        gallery.upsert(rows)
        gallery.flush()
        gallery.upsert(rows[:50])  # some rows sealed, some not
        everything = concatenate(list(gallery.iterate()), DIMENSION)
        probes = templates(generator, 3, DIMENSION)
        plain = Query(rows[0].template[np.newaxis], 5)
        narrow = Filter(galleries=frozenset({1}), sexes=frozenset({1}), born=(15_000, 15_900), strict=True)
        wide = Filter(agencies=frozenset({1, 2}), places=frozenset({2, 3}), event=(16_000, 18_000))
        facts = ProbeFacts(sex=1, born=(15_000, 17_000), taken=(17_500, 17_600), age_years=(1.0, 4.0))
        for query in (
            plain,
            replace(plain, templates=probes, k=300),
            replace(plain, filter=narrow),
            replace(plain, filter=wide, facts=facts),
            replace(plain, filter=wide, facts=facts, include_implausible=True, min_score=0.8),
            replace(
                plain,
                without_records=frozenset({rows[0].record_id}),
                without_photos=frozenset({rows[1].photo_sha256}),
            ),
        ):
            found, wanted = gallery.search(query, rev=7), reference.search(query, everything)
            assert found.candidates == wanted.candidates
            assert found.excluded == wanted.excluded
            assert (found.rev, found.method) == (7, "milvus")
        gallery.delete([row.face_id for row in rows])
        assert gallery.search(replace(plain, filter=Filter(galleries=frozenset({99})))).candidates == ()

    def test_some_slots_alone_are_read_and_searched(self, gallery: MilvusGallery) -> None:
        rows = random_rows(np.random.default_rng(6), 300, DIMENSION, 90, tag="slots")
        gallery.upsert(rows)
        columns = from_rows(rows, DIMENSION)
        few = np.zeros(SLOTS, np.bool_)
        few[slots_of(columns.record)[:12]] = True
        few[0] = few[SLOTS - 1] = True
        read = concatenate(list(gallery.iterate(where=slot_expression(few))), DIMENSION)
        assert same(read, list(columns.take(few[slots_of(columns.record)]).face_rows()))
        many = np.random.default_rng(7).random(SLOTS) < 0.5
        alive = {row.face_id for row in rows[::3]}
        narrow = Filter(galleries=frozenset({1}), born=(15_000, 15_900))
        query = Query(rows[0].template[np.newaxis], 5)
        for slots in (few, many, None):
            there = np.array([row.face_id in alive for row in rows])
            if slots is not None:
                there &= slots[slots_of(columns.record)]
            for asked in (query, replace(query, filter=narrow), replace(query, k=300)):
                part = search_slots(gallery, asked, slots, lambda faces: alive & set(faces))
                assert part.plausible == reference.partial(asked, columns.take(there)).plausible
        gallery.delete([row.face_id for row in rows])

    def test_rows_survive_erasure(self, gallery: MilvusGallery) -> None:
        rows = random_rows(np.random.default_rng(5), 30, DIMENSION, 10, tag="erased")
        gallery.upsert(rows)
        gallery.delete([row.face_id for row in rows[:7]])
        state = gallery.erase()
        assert state.erased == (state.pending_until is None)
        assert same(gallery.get([row.face_id for row in rows]), rows[7:])
        gallery.upsert(from_rows(rows[:7], DIMENSION))
        assert same(gallery.get([row.face_id for row in rows]), rows)
        gallery.delete([row.face_id for row in rows])
