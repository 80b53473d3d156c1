"""What every photo store must do: subclass `PhotoStoreContract` and give it a `store` fixture."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from homeward.errors import InvalidInput, NotFound
from photos.store import PhotoStore

AGENCY = "missing.example"
NO_SHA256 = "0" * 64


class PhotoStoreContract:
    """Inherited by the tests of each store; every test gets an empty one."""

    def test_a_photo_comes_back_as_it_went_in(self, store: PhotoStore) -> None:
        data = os.urandom(100_000)
        sha256 = store.put(AGENCY, data)
        assert sha256 == hashlib.sha256(data).hexdigest()
        assert store.exists(AGENCY, sha256)
        assert store.get(AGENCY, sha256) == data

    @pytest.mark.parametrize("size", [0, 1, 4096, 6_000_000])
    def test_any_size_is_kept(self, store: PhotoStore, size: int) -> None:
        data = bytes(size)
        assert store.get(AGENCY, store.put(AGENCY, data)) == data

    def test_putting_again_changes_nothing(self, store: PhotoStore) -> None:
        assert store.put(AGENCY, b"one") == store.put(AGENCY, b"one")
        assert len(store.list(AGENCY)) == 1

    def test_an_unknown_photo_is_not_found(self, store: PhotoStore) -> None:
        store.put(AGENCY, b"one")
        assert not store.exists(AGENCY, NO_SHA256)
        with pytest.raises(NotFound):
            store.get(AGENCY, NO_SHA256)

    def test_an_unknown_agency_has_no_photo(self, store: PhotoStore) -> None:
        sha256 = store.put(AGENCY, b"one")
        assert not store.exists("other", sha256)
        assert list(store.list("other")) == []
        assert not store.delete("other", sha256)
        with pytest.raises(NotFound):
            store.get("other", sha256)

    def test_agencies_keep_their_own_copy(self, store: PhotoStore) -> None:
        sha256 = store.put("a", b"same")
        assert store.put("b", b"same") == sha256
        assert store.delete("a", sha256)
        assert not store.exists("a", sha256)
        assert store.get("b", sha256) == b"same"

    def test_deleting_says_whether_there_was_one(self, store: PhotoStore) -> None:
        sha256 = store.put(AGENCY, b"one")
        assert store.delete(AGENCY, sha256)
        assert not store.delete(AGENCY, sha256)
        assert not store.exists(AGENCY, sha256)
        assert list(store.list(AGENCY)) == []
        with pytest.raises(NotFound):
            store.get(AGENCY, sha256)

    def test_a_deleted_photo_can_come_back(self, store: PhotoStore) -> None:
        sha256 = store.put(AGENCY, b"one")
        store.delete(AGENCY, sha256)
        assert store.put(AGENCY, b"one") == sha256
        assert store.get(AGENCY, sha256) == b"one"

    def test_pages_are_sorted_complete_and_without_repeats(self, store: PhotoStore) -> None:
        every = sorted(store.put(AGENCY, f"photo {number}".encode()) for number in range(25))
        assert list(store.list(AGENCY)) == every
        seen: list[str] = []
        while page := store.list(AGENCY, after=seen[-1] if seen else None, limit=7):
            assert len(page) <= 7
            seen += page
        assert seen == every

    def test_a_page_may_begin_beyond_a_photo_that_went(self, store: PhotoStore) -> None:
        every = sorted(store.put(AGENCY, f"photo {number}".encode()) for number in range(5))
        store.delete(AGENCY, every[2])
        assert list(store.list(AGENCY, after=every[2])) == every[3:]

    def test_agencies_are_those_with_photos(self, store: PhotoStore) -> None:
        assert list(store.agencies()) == []
        kept = ["B", "Ünïcode 機関", "a/b", "b"]
        for agency in kept:
            store.put(agency, agency.encode())
        gone = store.put("gone", b"gone")
        store.delete("gone", gone)
        assert list(store.agencies()) == sorted(kept)

    @pytest.mark.parametrize(
        "agency",
        [
            "../up",
            "..",
            ".",
            "/etc",
            "a/../../b",
            "a\\b",
            "%2e%2e",
            ".incoming",
            "a\x00b",
            "con",
            "A" * 80,
            "é" * 40,
        ],
    )
    def test_any_agency_is_only_a_name(self, store: PhotoStore, agency: str) -> None:
        sha256 = store.put(agency, b"photo")
        assert list(store.agencies()) == [agency]
        assert list(store.list(agency)) == [sha256]
        assert store.get(agency, sha256) == b"photo"

    @pytest.mark.parametrize("agency", ["", "A" * 81, "é" * 41, "\ud800"])
    def test_an_impossible_agency_is_refused(self, store: PhotoStore, agency: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            store.put(agency, b"photo")
        assert caught.value.code == "AGENCY_INVALID"

    @pytest.mark.parametrize("sha256", ["", "0" * 63, "G" * 64, "A" * 64, "../" + "0" * 61, "0" * 64 + "\n"])
    def test_what_is_no_checksum_is_refused(self, store: PhotoStore, sha256: str) -> None:
        for call in (store.get, store.exists, store.delete):
            with pytest.raises(InvalidInput):
                call(AGENCY, sha256)
        with pytest.raises(InvalidInput):
            store.list(AGENCY, after=sha256)

    def test_a_page_without_room_is_refused(self, store: PhotoStore) -> None:
        with pytest.raises(InvalidInput):
            store.list(AGENCY, limit=0)

    def test_many_threads_put_the_same_and_other_photos(self, store: PhotoStore) -> None:
        photos = [f"photo {number % 10}".encode() * 1000 for number in range(60)]
        with ThreadPoolExecutor(8) as pool:
            names = list(pool.map(lambda data: store.put(AGENCY, data), photos))
        assert list(store.list(AGENCY)) == sorted(set(names))
        assert all(
            store.get(AGENCY, name) == data for name, data in zip(names[:10], photos[:10], strict=True)
        )

    def test_sweeping_leaves_every_photo(self, store: PhotoStore) -> None:
        sha256 = store.put(AGENCY, b"one")
        assert store.sweep(0.0) == 0
        assert store.get(AGENCY, sha256) == b"one"
