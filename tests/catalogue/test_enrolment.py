"""What `apply` and `update` write, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from catalogue.store import Catalogue
from catalogue.types import NO_PHOTO, Deletion, RecordUpdate, Store, WriteResult
from homeward.errors import (
    EtagMismatch,
    HomewardError,
    InvalidInput,
    NotFound,
    RecordDeleted,
    RequestIdReused,
)
from homeward.ids import face_id
from homeward.types import Attributes, DateRange, PhotoNote, RecordKey, Sex
from tests.catalogue.builders import (
    ATTRIBUTES,
    MODEL,
    NOTE,
    done,
    face,
    key,
    photo,
    recalled,
    request,
    rid,
    sha,
    write,
)


def test_a_record_comes_back_as_it_was_written(catalogue: Catalogue) -> None:
    record = rid("r")
    photos = (photo(record, "p", 2, note=NOTE), photo(record, "q", 0, outcome="PHOTO_TRUNCATED"))
    (result,) = catalogue.apply([replace(write("r", load="load-1"), attributes=ATTRIBUTES, photos=photos)])
    assert result == WriteResult(record, rev=1, version=1, created=True, searchable=True)
    stored = catalogue.get(record)
    assert (stored.key, stored.attributes, stored.load) == (key("r"), ATTRIBUTES, "load-1")
    assert (stored.created_rev, stored.updated_rev, stored.etag) == (1, 1, "1")
    assert stored.created_at == stored.updated_at
    assert stored.created_at.tzinfo == UTC
    assert (stored.searchable, stored.unsearchable_reason) == (True, "")
    assert [held.sha256 for held in stored.photos] == [sha("p"), sha("q")]
    for held, sent in zip(stored.photos, photos, strict=True):
        assert (held.note, held.outcome, held.faces_seen) == (sent.note, sent.outcome, sent.faces_seen)
        assert (held.media_type, held.width, held.height, held.bytes) == ("image/jpeg", 640, 480, 12345)
        assert (held.model_id, held.load) == (MODEL, "load-1")
        assert [each.ordinal for each in held.faces] == [each.ordinal for each in sent.faces]
    sent_face, held_face = photos[0].faces[1], stored.photos[0].faces[1]
    assert catalogue.face(sent_face.face_id).face_id == held_face.face_id
    assert (held_face.box, held_face.quality) == (sent_face.box, sent_face.quality)
    assert held_face.detector_score == sent_face.detector_score
    assert held_face.landmarks.dtype == np.float32
    np.testing.assert_array_equal(held_face.landmarks, sent_face.landmarks)


def test_enrolling_again_replaces_named_photos_and_leaves_the_others(catalogue: Catalogue) -> None:
    first = done(catalogue.apply([write("r", {"p": 3, "q": 1}, load="one")])[0])
    second = done(catalogue.apply([write("r", {"p": 1, "s": 1}, load="two")])[0])
    record = rid("r")
    assert (second.created, second.rev, second.version) == (False, 2, 2)
    assert second.removed_faces == tuple(
        sorted(face_id(record, sha("p"), MODEL, ordinal) for ordinal in (1, 2))
    )
    stored = catalogue.get(record)
    assert [(held.sha256, len(held.faces), held.load) for held in stored.photos] == [
        (sha("p"), 1, "two"),
        (sha("q"), 1, "one"),
        (sha("s"), 1, "two"),
    ]
    assert (stored.created_rev, stored.updated_rev, stored.load) == (first.rev, second.rev, "one")
    assert stored.updated_at > stored.created_at
    assert {item.item for item in catalogue.pending_erasures(Store.GALLERY)} == set(second.removed_faces)


def test_enrolling_the_same_again_is_harmless(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", {"p": 2})])
    again = done(catalogue.apply([write("r", {"p": 2})])[0])
    assert again.removed_faces == ()
    assert catalogue.pending_erasures() == []
    assert catalogue.counts().faces == 2


def test_faces_of_another_model_stay(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", {"p": 2}, model="model-1")])
    result = done(catalogue.apply([write("r", {"p": 1}, model="model-2")])[0])
    assert result.removed_faces == ()
    (held,) = catalogue.get(rid("r")).photos
    assert held.model_id == "model-2"
    assert [(each.model_id, each.ordinal) for each in held.faces] == [
        ("model-1", 0),
        ("model-1", 1),
        ("model-2", 0),
    ]


def test_a_record_without_faces_is_kept_with_the_reason(catalogue: Catalogue) -> None:
    catalogue.apply([write("none"), write("faceless", {"p": 0})])
    assert catalogue.get(rid("none")).unsearchable_reason == NO_PHOTO
    stored = catalogue.get(rid("faceless"))
    assert (stored.searchable, stored.unsearchable_reason) == (False, "NO_FACE")
    assert [record.record_id for record in catalogue.list_records(searchable=True).records] == []
    catalogue.apply([write("faceless", {"q": 1})])
    assert catalogue.get(rid("faceless")).searchable
    catalogue.apply([write("faceless", {"q": 0})])
    assert not catalogue.get(rid("faceless")).searchable


def test_one_bad_item_does_not_fail_the_others(catalogue: Catalogue) -> None:
    catalogue.apply([write("gone", {"g": 1})])
    catalogue.delete(Deletion(rid("gone"), "asked", "officer"))
    bad_face = replace(face(rid("b"), "p"), face_id="0" * 32)

    def boom(result: WriteResult) -> bytes:
        raise ValueError(result)

    batch = [
        write("a", ["p"]),
        replace(write("b"), photos=(replace(photo(rid("b"), "p"), faces=(bad_face,)),)),
        write("c", expected_version=7),
        write("gone", ["g"]),
        write("d", request=request("d", response=boom)),
        write("e", attributes=Attributes(provenance="a\x00b")),
        write("f", attributes=Attributes(provenance="\ud800")),
        replace(write("g"), key=RecordKey("", "missing", "g")),
        replace(write("h"), photos=(photo(rid("h"), "p"),) * 2),
        write("z", ["p"]),
    ]
    results = catalogue.apply(batch)
    kinds = [type(result) for result in results]
    assert kinds == [
        WriteResult,
        InvalidInput,
        EtagMismatch,
        RecordDeleted,
        HomewardError,
        InvalidInput,
        InvalidInput,
        InvalidInput,
        InvalidInput,
        WriteResult,
    ]
    assert [done(results[at]).rev for at in (0, 9)] == [3, 4]
    assert catalogue.rev() == 4
    assert set(catalogue.get_many([rid(name) for name in "abcdefghz"])) == {rid("a"), rid("z")}
    assert catalogue.counts().photos == 1


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(catalogue: Catalogue, number: float) -> None:
    good = face(rid("r"), "p")
    for bad in (
        replace(good, detector_score=number),
        replace(good, landmarks=np.full((5, 2), number, dtype=np.float32)),
        replace(good, quality=replace(good.quality, components={"size": number})),
        replace(good, landmarks=np.zeros((4, 2), dtype=np.float32)),
    ):
        made = replace(write("r"), photos=(replace(photo(rid("r"), "p"), faces=(bad,)),))
        assert isinstance(catalogue.apply([made])[0], InvalidInput)


def test_numpy_numbers_are_numbers(catalogue: Catalogue) -> None:
    numbers: dict[str, Any] = {"width": np.int64(5), "bytes": np.int32(7), "faces_seen": np.int64(1)}
    sent = replace(photo(rid("r"), "p"), **numbers)
    catalogue.apply([replace(write("r"), photos=(sent,))])
    assert catalogue.get(rid("r")).photos[0].width == 5


def test_two_items_of_one_record_follow_each_other(catalogue: Catalogue) -> None:
    batch = [write("r", {"p": 2}), write("r", {"p": 1}), write("r", {"p": 2}), write("r", {"p": 1})]
    results = [done(result) for result in catalogue.apply(batch)]
    assert [result.rev for result in results] == [1, 2, 3, 4]
    assert [result.created for result in results] == [True, False, False, False]
    assert [len(result.removed_faces) for result in results] == [0, 1, 0, 1]
    assert len(catalogue.get(rid("r")).photos[0].faces) == 1
    assert len(catalogue.pending_erasures(Store.GALLERY)) == 1
    assert [change.rev for change in catalogue.changes_since(0)] == [1, 2, 3, 4]


def test_an_expected_version_guards_the_write(catalogue: Catalogue) -> None:
    first = done(catalogue.apply([write("r", expected_version=0)])[0])
    stale = catalogue.apply([write("r", expected_version=0)])[0]
    assert isinstance(stale, EtagMismatch)
    assert stale.details["version"] == str(first.version)
    assert isinstance(catalogue.apply([write("r", expected_version=first.version)])[0], WriteResult)


def test_an_empty_batch_does_nothing(catalogue: Catalogue) -> None:
    assert catalogue.apply([]) == []
    assert catalogue.rev() == 0


def test_a_request_is_done_once(catalogue: Catalogue) -> None:
    made = write("r", ["p"], request=request("q1"))
    assert recalled(catalogue, "q1", "Enrol", "digest") is None
    first = done(catalogue.apply([made])[0])
    assert first.response == b"rev 1"
    again = done(catalogue.apply([made])[0])
    assert (again.replayed, again.response, again.rev, again.record_id) == (True, b"rev 1", 1, rid("r"))
    assert recalled(catalogue, "q1", "Enrol", "digest") == b"rev 1"
    assert catalogue.rev() == 1


def test_a_request_twice_in_a_batch_is_done_once(catalogue: Catalogue) -> None:
    first, second = catalogue.apply([write("r", request=request("q"))] * 2)
    assert (done(first).replayed, done(second).replayed) == (False, True)
    assert done(second).response == done(first).response == b"rev 1"


@pytest.mark.parametrize("other", [request("q", "other digest"), request("q", method="Update")])
def test_a_request_id_names_one_request(catalogue: Catalogue, other: object) -> None:
    catalogue.apply([write("r", request=request("q"))])
    assert isinstance(catalogue.apply([write("s", request=other)])[0], RequestIdReused)
    with pytest.raises(RequestIdReused):
        recalled(catalogue, "q", "Enrol", "other digest")
    with pytest.raises(RequestIdReused):
        recalled(catalogue, "q", "Update", "digest")


def test_a_refused_request_may_be_sent_again(catalogue: Catalogue) -> None:
    catalogue.apply([write("r")])
    refused = write("r", expected_version=9, request=request("q"))
    assert isinstance(catalogue.apply([refused])[0], EtagMismatch)
    assert recalled(catalogue, "q", "Enrol", "digest") is None
    assert done(catalogue.apply([replace(refused, expected_version=1)])[0]).rev == 2


def test_scopes_keep_request_ids_apart(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", request=request("q", scope="one"))])
    assert recalled(catalogue, "q", "Enrol", "digest", "two") is None
    assert done(catalogue.apply([write("r", request=request("q", scope="two"))])[0]).rev == 2
    assert recalled(catalogue, "q", "Enrol", "digest", "one") == b"rev 1"


def test_old_requests_are_forgotten(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", request=request("q"))])
    assert catalogue.prune_requests(datetime(2020, 1, 1, tzinfo=UTC)) == 0
    assert catalogue.prune_requests(datetime(2030, 1, 1, tzinfo=UTC)) == 1
    assert recalled(catalogue, "q", "Enrol", "digest") is None


def test_an_update_takes_the_masked_attributes(catalogue: Catalogue) -> None:
    made = done(catalogue.apply([replace(write("r", {"p": 1}), attributes=ATTRIBUTES)])[0])
    wanted = Attributes(sex=Sex.MALE, event_place="Recife")
    changed = catalogue.update(
        RecordUpdate(rid("r"), wanted, frozenset({"sex", "event_place"}), expected_version=made.version)
    )
    assert (changed.rev, changed.searchable) == (2, True)
    stored = catalogue.get(rid("r"))
    assert stored.attributes == replace(ATTRIBUTES, sex=Sex.MALE, event_place="Recife")
    assert stored.etag == changed.etag != made.etag
    catalogue.update(RecordUpdate(rid("r"), wanted))
    assert catalogue.get(rid("r")).attributes == wanted


def test_an_update_changes_photo_notes(catalogue: Catalogue) -> None:
    catalogue.apply([replace(write("r", ["p", "q"]), attributes=ATTRIBUTES)])
    catalogue.update(RecordUpdate(rid("r"), notes={sha("p"): NOTE}))
    stored = catalogue.get(rid("r"))
    assert [held.note for held in stored.photos] == [NOTE, PhotoNote()]
    assert stored.attributes == ATTRIBUTES


def test_a_refused_update_changes_nothing(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", ["p"])])
    before = catalogue.get(rid("r"))
    backwards = DateRange(ATTRIBUTES.event.latest, ATTRIBUTES.born.earliest)  # type: ignore[union-attr]
    with pytest.raises(EtagMismatch):
        catalogue.update(RecordUpdate(rid("r"), ATTRIBUTES, expected_version=5))
    with pytest.raises(InvalidInput):
        catalogue.update(RecordUpdate(rid("r"), ATTRIBUTES, frozenset({"colour"})))
    with pytest.raises(InvalidInput):
        catalogue.update(RecordUpdate(rid("r"), Attributes(born=backwards)))
    with pytest.raises(NotFound):
        catalogue.update(RecordUpdate(rid("r"), ATTRIBUTES, notes={sha("p"): NOTE, sha("other"): NOTE}))
    with pytest.raises(NotFound):
        catalogue.update(RecordUpdate(rid("nobody"), ATTRIBUTES))
    after = catalogue.get(rid("r"))
    assert (after.attributes, after.etag, catalogue.rev()) == (before.attributes, before.etag, 1)
    assert after.photos[0].note == PhotoNote()


def test_an_update_is_idempotent_by_its_request(catalogue: Catalogue) -> None:
    catalogue.apply([write("r")])
    change = RecordUpdate(rid("r"), ATTRIBUTES, expected_version=1, request=request("u", method="Update"))
    first = catalogue.update(change)
    again = catalogue.update(change)
    assert (again.replayed, again.response, again.rev) == (True, b"rev 2", first.rev)
    assert recalled(catalogue, "u", "Update", "digest") == b"rev 2"


def test_many_requests_are_recalled_at_once_each_with_its_own_error(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", request=request("q", scope="one")), write("s", request=request("q"))])
    wanted = [
        request("q", scope="one"),
        request("new"),
        request("q", "other digest"),
        request(""),
        request("q"),
        request("q", scope="two"),
    ]
    found = catalogue.recall_many(wanted)
    assert [answer for answer in found if not isinstance(answer, Exception)] == [
        b"rev 1",
        None,
        b"rev 2",
        None,
    ]
    assert [type(error) for error in found if isinstance(error, Exception)] == [RequestIdReused, InvalidInput]
    assert catalogue.recall_many([]) == []
