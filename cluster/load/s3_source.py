"""The objects below a prefix of an S3 bucket as a source: listed page by page, each read by its key.

A bucket has no state of its own that a change would show in: objects are held to their sizes and ETags one
by one. A server that does not answer is no fault of a photo: it is waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from cluster.load.members import Member, Refusal, refused, unreadable
from homeward.config import LoadSettings, PhotoStoreSettings
from homeward.errors import InvalidInput, StoreUnavailable
from photos.s3_bucket import Entry, S3Bucket, connect
from photos.s3_client import Called
from photos.s3_errors import REFUSED

_AMAZON = "s3.amazonaws.com"
_CALLED = Called(
    store="source",
    bucket="source's bucket",
    uri="the source's URI",
    field="source",
    settings="loads.s3_",
    rights="list and read",
)
# Answers to a listing that trying again does not change.
_ELSEWHERE = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
# Answers about one object that trying again does not change: archived, or encrypted with a key we lack.
_WITHHELD = frozenset({"InvalidObjectState", "InvalidRequest"})
_DENIED = "AccessDenied"
_ASKED = 10  # other objects, at most, that are asked for to see whether one alone is denied


@dataclass(frozen=True, slots=True)
class _Place:
    endpoint: str  # host[:port]
    bucket: str
    prefix: str

    def __str__(self) -> str:
        return "/".join(part for part in (self.endpoint, self.bucket, self.prefix) if part)


class S3Source:
    """`Source` over the objects below s3://host:port/bucket/prefix, or s3://bucket/prefix at Amazon, in the
    server's order of keys.

    What has neither a dot nor a port is a bucket, not a host. The keys are those of `settings`, without them
    those of the photo store, without these those of the environment.
    """

    def __init__(self, uri: str, settings: LoadSettings, photos: PhotoStoreSettings) -> None:
        self._place = _place(uri)
        self._settings = _store_settings(settings, photos)
        self._bucket: S3Bucket
        self._given = ""  # the key of an object that was read

    def __enter__(self) -> Self:
        place = self._place
        self._bucket = connect(self._settings, place.endpoint, place.bucket, place.prefix, _CALLED)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._bucket  # and its connections with it

    def members(self) -> Iterator[Member]:
        """See `Source`. Raises `StoreUnavailable` when the server does not answer."""
        try:
            for entry in self._bucket.entries("", deep=True):
                if entry.key and (entry.size or not entry.folder):  # else it marks a folder
                    yield _member(entry)
        except StoreUnavailable as error:
            raise self._unlisted(error) from error

    def read(self, member: Member, most: int) -> bytes:
        """See `Source`. Raises `StoreUnavailable` when the server does not answer, or refuses us."""
        try:
            found = self._bucket.start(member.name, most + 1)
        except StoreUnavailable as error:
            answer = error.details.get("answer", "")
            if answer in _WITHHELD:
                raise refused(
                    Refusal.WITHHELD,
                    f"the server does not give the object ({answer}): it is archived or encrypted",
                ) from error
            if answer == _DENIED and self._denies_alone(member.name):
                raise refused(
                    Refusal.WITHHELD, f"the server denies us the object ({answer}), and gives us others"
                ) from error
            raise StoreUnavailable(f"{member.shown}: {error.message}", **error.details) from error
        if found is None:
            raise refused(Refusal.MISSING, "the object was there when the load was planned")
        if found.size != member.size:
            raise refused(
                Refusal.CHANGED,
                f"the object had {member.size} bytes when the load was planned, now {found.size}",
            )
        if member.version and found.etag != member.version:
            raise refused(Refusal.CHANGED, "the object was replaced since the load was planned")
        self._given = member.name
        return found.data

    def _denies_alone(self, key: str) -> bool:
        """Whether our keys are still good for the bucket, so that a denial is about that object.

        They are if another object is given: one that was read before, else one of the first that are listed.
        A right to list alone would have every photo of the load rejected where the operator can mend it. A
        bucket that has no other object to ask for is taken at its listing."""
        try:
            if self._given and self._is_given(self._given):
                return True
            others = self._listed_beside(key)
            return not others or any(map(self._is_given, others))
        except StoreUnavailable:
            return False

    def _listed_beside(self, key: str) -> list[str]:
        found = self._bucket.entries("", deep=True, page=_ASKED + 1)
        keys = (entry.key for entry in found if entry.size and _member(entry).refusal is None)
        return list(islice((other for other in keys if other != key), _ASKED))

    def _is_given(self, key: str) -> bool:
        try:
            return self._bucket.start(key, 1) is not None
        except StoreUnavailable as error:
            if error.details.get("answer") in (_DENIED, *_WITHHELD):
                return False
            raise

    def state(self) -> str:
        """See `Source`: objects are held to their sizes and ETags one by one."""
        return f"s3 {self._place}"

    def _unlisted(self, error: StoreUnavailable) -> InvalidInput | StoreUnavailable:
        """What it means that the listing failed."""
        answer = error.details.get("answer", "")
        where = f"s3://{self._place}"
        if answer == "NoSuchBucket":
            return unreadable(where, "there is no such bucket")
        if answer in _ELSEWHERE:
            return unreadable(where, f"it is in another region ({answer}); set {_CALLED.variable('region')}")
        return unreadable(where, error.message) if answer in REFUSED else error


def _member(entry: Entry) -> Member:
    # An address loses these steps on its way, and would lead to another object.
    if {".", ".."} & set(entry.key.split("/")) or not entry.key.strip():
        why = "a key of spaces, or with a step . or .., has no address: copy the object to another"
        return Member(entry.key, entry.size, refusal=Refusal.WITHHELD, why=why)
    return Member(entry.key, entry.size, version=entry.etag)


def _place(uri: str) -> _Place:
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
        named = parts.port is not None or "." in host or ":" in host or host == "localhost"
    except ValueError as error:
        raise _wrong(f"is none: {error}") from error
    if parts.query or parts.fragment or "@" in parts.netloc:
        keys = f"{_CALLED.setting('access_key')} and {_CALLED.setting('secret_key')}"
        raise _wrong(f"has no user, password, query or fragment; keys come from {keys}")
    bucket, _, prefix = parts.path.strip("/").partition("/")
    if not named:
        bucket, prefix = parts.netloc, parts.path.strip("/")
    if parts.scheme != "s3" or not host or not bucket:
        raise _wrong("is s3://host:port/bucket/prefix, or s3://bucket/prefix at Amazon")
    if {".", ".."} & set(prefix.split("/")):
        raise _wrong("has no step . or ..")
    return _Place(parts.netloc if named else _AMAZON, bucket, prefix)


def _wrong(what: str) -> InvalidInput:
    return unreadable("the source in S3", f"its URI {what}")


def _store_settings(settings: LoadSettings, photos: PhotoStoreSettings) -> PhotoStoreSettings:
    """The bucket's settings in the form that a photo store's have."""
    own = settings.s3_access_key or settings.s3_secret_key
    return PhotoStoreSettings(
        region=settings.s3_region,
        secure=settings.s3_secure,
        access_key=(settings.s3_access_key or None) if own else photos.access_key,
        secret_key=(settings.s3_secret_key or None) if own else photos.secret_key,
    )
