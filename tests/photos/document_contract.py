"""What every document store must do: subclass `DocumentStoreContract` and give it the fixtures `documents`
and `store`, the photo store in the same place."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from homeward.errors import InvalidInput, NotFound
from photos.documents import NAME_MAX, PART_MAX, DocumentStore
from photos.store import PhotoStore

NAME = "snapshots/0f/07/shard-1.a_b"
LONGEST = "/".join(["x" * PART_MAX, "y" * PART_MAX, "z" * (NAME_MAX - 2 * PART_MAX - 2)])


class DocumentStoreContract:
    """Inherited by the tests of each store; every test gets an empty one."""

    @pytest.mark.parametrize("size", [0, 1, 4096, 12_000_000])
    def test_a_document_comes_back_as_it_went_in(self, documents: DocumentStore, size: int) -> None:
        data = os.urandom(size)
        documents.put_document(NAME, data)
        assert documents.get_document(NAME) == data
        assert documents.get_document(NAME, 100) == data[:100]
        assert documents.get_document(NAME, size + 1) == data

    def test_a_later_one_takes_its_place(self, documents: DocumentStore) -> None:
        documents.put_document(NAME, b"a longer first one")
        documents.put_document(NAME, b"second")
        assert documents.get_document(NAME) == b"second"
        assert documents.list_documents() == [NAME]

    def test_an_unknown_one_is_not_found(self, documents: DocumentStore) -> None:
        documents.put_document("a/b", b"one")
        for name in ("a", "a/c", "a/b/c", "b"):
            with pytest.raises(NotFound):
                documents.get_document(name)
            assert not documents.delete_document(name)
        assert documents.get_document("a/b") == b"one"

    def test_deleting_says_whether_there_was_one(self, documents: DocumentStore) -> None:
        documents.put_document(NAME, b"one")
        assert documents.delete_document(NAME)
        assert not documents.delete_document(NAME)
        assert documents.list_documents() == []
        with pytest.raises(NotFound):
            documents.get_document(NAME)
        documents.put_document(NAME, b"two")
        assert documents.get_document(NAME) == b"two"

    def test_names_are_listed_by_how_they_begin(self, documents: DocumentStore) -> None:
        names = ["a", "a-b/c", "a.b", "a/b", "a/b/c", "a/bc", "b/..c", "b/c..", "ab"]
        for name in names:
            documents.put_document(name, name.encode())
        assert documents.list_documents() == sorted(names)
        for prefix in ("", "a", "a/", "a/b", "a/b/", "a/b/c", "a/b/c/", "b/.", "c", "c/d"):
            expected = sorted(name for name in names if name.startswith(prefix))
            assert documents.list_documents(prefix) == expected, prefix
        for name in names:
            assert documents.get_document(name) == name.encode()

    def test_many_are_listed(self, documents: DocumentStore) -> None:
        names = [f"many/{number:04}" for number in range(1100)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: documents.put_document(name, b""), names))
        assert documents.list_documents("many/") == names

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "../a",
            "a/...",
            "A",
            "é",
            "a b",
            "a\\b",
            "a\x00",
            "a\n",
            "a=",
            "%2e",
            "x" * (PART_MAX + 1),
            f"{LONGEST}z",
        ],
    )
    def test_other_names_are_refused(self, documents: DocumentStore, name: str) -> None:
        for call in (documents.get_document, documents.delete_document):
            with pytest.raises(InvalidInput) as caught:
                call(name)
            assert caught.value.code == "DOCUMENT_NAME"
        with pytest.raises(InvalidInput):
            documents.put_document(name, b"")
        assert documents.list_documents() == []

    @pytest.mark.parametrize("prefix", ["/", "..", "../", "a/../", "a//", "A", "=", "a\x00", "x" * 600])
    def test_other_beginnings_name_nothing(self, documents: DocumentStore, prefix: str) -> None:
        if prefix == "..":  # a name may begin so
            assert documents.list_documents(prefix) == []
            return
        with pytest.raises(InvalidInput):
            documents.list_documents(prefix)

    def test_the_longest_name_is_kept(self, documents: DocumentStore) -> None:
        documents.put_document(LONGEST, b"one")
        assert documents.list_documents() == [LONGEST]
        assert documents.get_document(LONGEST) == b"one"

    def test_no_bytes_at_all_cannot_be_asked_for(self, documents: DocumentStore) -> None:
        with pytest.raises(InvalidInput):
            documents.get_document(NAME, 0)

    def test_photos_and_documents_do_not_see_each_other(
        self, documents: DocumentStore, store: PhotoStore
    ) -> None:
        documents.put_document(NAME, b"document")
        assert list(store.agencies()) == []
        assert store.sweep(0.0) == 0
        photos = {agency: store.put(agency, b"photo") for agency in (".documents", "documents", "snapshots")}
        assert list(store.agencies()) == sorted(photos)
        assert documents.list_documents() == [NAME]
        for agency, sha256 in photos.items():
            assert list(store.list(agency)) == [sha256]
            assert store.delete(agency, sha256)
        assert documents.sweep(0.0) == store.sweep(0.0) == 0
        assert documents.get_document(NAME) == b"document"

    def test_readers_see_a_whole_document_or_another(self, documents: DocumentStore) -> None:
        versions = [bytes([number]) * (200_000 + number) for number in range(8)]
        documents.put_document(NAME, versions[0])
        done = threading.Event()

        def read() -> int:
            count = 0
            while not done.is_set() or not count:
                assert documents.get_document(NAME) in versions
                count += 1
            return count

        with ThreadPoolExecutor(8) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            list(pool.map(lambda data: documents.put_document(NAME, data), versions * 3))
            done.set()
            assert all(reader.result() for reader in readers)
        assert documents.get_document(NAME) in versions
        assert documents.list_documents() == [NAME]
