"""A prefix of a bucket lists and gives its objects, and never takes a server's failure for a photo's."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from xml.sax.saxutils import escape

import pytest
import urllib3
from minio import Minio
from pydantic import SecretStr

from cluster.load.members import Member, MemberRefused, Refusal, Source
from cluster.load.open_source import open_source
from cluster.load.parts import cut, read_part, write_part
from cluster.load.plan import Plan
from homeward.config import LoadSettings, PhotoStoreSettings, Settings
from homeward.errors import InvalidInput, StoreUnavailable
from tests.servers.process import free_port
from tests.servers.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed, seaweed

_MOST = 1 << 24
_BUCKET = "sources"  # one for all: each bucket takes several of the server's volumes
_SETTINGS = LoadSettings(
    s3_access_key=SecretStr(ACCESS_KEY), s3_secret_key=SecretStr(SECRET_KEY), s3_secure=False
)
_TREE = {
    "anna/1.jpg": b"\xff\xd8 one",
    "anna/2.jpg": b"",
    "bo/deep/3.jpg": b"\xff\xd8" + bytes(5_000),
    "loose.jpg": b"no record",
}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that failed is repeated as often as it is, without the pauses."""
    monkeypatch.setattr(urllib3.Retry, "sleep", lambda *_: None)


def client(port: int) -> Minio:
    return Minio(f"127.0.0.1:{port}", ACCESS_KEY, SECRET_KEY, secure=False)


def filled(port: int, tree: Mapping[str, bytes], prefix: str | None = None, bucket: str = _BUCKET) -> str:
    """The URI of a prefix, a new one unless named, with these objects."""
    admin = client(port)
    if not admin.bucket_exists(bucket):
        admin.make_bucket(bucket)
    if prefix is None:
        prefix = f"{secrets.token_hex(4)}/"

    def put(key: str) -> None:
        admin.put_object(bucket, prefix + key, BytesIO(tree[key]), len(tree[key]))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, tree))
    return f"s3://127.0.0.1:{port}/{bucket}/{prefix}".rstrip("/")


def opened(uri: str, settings: LoadSettings = _SETTINGS, photos: PhotoStoreSettings | None = None) -> Source:
    return open_source(uri, Settings(loads=settings, photos=photos or PhotoStoreSettings()))


def listed(uri: str) -> list[Member]:
    with opened(uri) as source:
        return list(source.members())


def refusal(source: Source, member: Member) -> Refusal:
    with pytest.raises(MemberRefused) as caught:
        source.read(member, _MOST)
    return caught.value.reason


@pytest.mark.parametrize(("bucket", "prefix"), [("whole-bucket", ""), (_BUCKET, "some/where/")])
def test_every_object_below_the_prefix_is_listed_once_in_order_and_read_as_it_was(
    bucket: str, prefix: str, seaweed_server: Seaweed
) -> None:
    uri = filled(seaweed_server.port, _TREE, prefix, bucket)
    members = listed(uri)
    assert [member.name for member in members] == sorted(_TREE)
    assert [member.size for member in members] == [len(_TREE[name]) for name in sorted(_TREE)]
    assert all(member.version and member.refusal is None for member in members)
    assert listed(uri + "/") == members
    with opened(uri) as source:
        for member in members[::-1]:
            assert source.read(member, _MOST) == _TREE[member.name]


def test_a_prefix_ends_at_a_slash(seaweed_server: Seaweed) -> None:
    uri = filled(seaweed_server.port, {"x/1": b"one", "x2/1": b"other", "x": b"above"})
    assert [member.name for member in listed(f"{uri}/x")] == ["1"]
    assert listed(f"{uri}/nothing") == []


def test_names_of_any_characters_are_listed_and_read(seaweed_server: Seaweed) -> None:
    names = [
        "a b/1 2.jpg",
        " a/ b .jpg",
        "\u00e5/\u4eba.jpg",
        "e\u0301/\U0001f467.jpg",
        "plus+/a+b%20c%.jpg",
        "query?x=1&y#z.jpg",
        "quotes'\"<>&;.jpg",
        "marks/~(1)*![2]{3}|^`$@=,:.jpg",
        "hidden/.a..b.jpg",
    ]
    uri = filled(seaweed_server.port, {name: name.encode() for name in names}, "pre fix/")
    with opened(uri) as source:
        assert {member.name: source.read(member, _MOST) for member in source.members()} == {
            name: name.encode() for name in names
        }


def test_what_marks_a_folder_is_left_out(seaweed_server: Seaweed) -> None:
    tree = {"": b"", "a/": b"", "a/1": b"one", "a/empty": b"", "b/deep/": b""}
    uri = filled(seaweed_server.port, tree, "marked/")
    assert [member.name for member in listed(uri)] == ["a/1", "a/empty"]


def test_more_objects_than_a_page_are_all_listed_in_order(seaweed_server: Seaweed) -> None:
    tree = {f"{number // 100:02}/{number:04}.jpg": b"%d" % number for number in range(1_100)}
    uri = filled(seaweed_server.port, tree)
    assert [member.name for member in listed(uri)] == sorted(tree)


def test_of_an_object_that_is_too_large_no_more_is_read_than_shows_it(seaweed_server: Seaweed) -> None:
    uri = filled(seaweed_server.port, {"1": b"x" * 100_000})
    with opened(uri) as source:
        [member] = source.members()
        assert source.read(member, 10) == b"x" * 11
        assert source.read(member, 99_999) == source.read(member, 100_000) == b"x" * 100_000


def test_an_object_that_was_uploaded_in_parts_is_read(seaweed_server: Seaweed) -> None:
    uri = filled(seaweed_server.port, {})
    data = secrets.token_bytes(11 << 20)
    bucket, prefix = uri.split("/")[3:]
    client(seaweed_server.port).put_object(
        bucket, f"{prefix}/large", BytesIO(data), len(data), part_size=5 << 20
    )
    with opened(uri) as source:
        [member] = source.members()
        assert source.read(member, _MOST) == data


def test_an_object_that_changed_or_went_since_it_was_listed_is_refused(seaweed_server: Seaweed) -> None:
    uri = filled(seaweed_server.port, dict.fromkeys("abcd", b"one"))
    bucket, prefix = uri.split("/")[3:]
    admin = client(seaweed_server.port)
    with opened(uri) as source:
        a, b, c, d = source.members()
        admin.put_object(bucket, f"{prefix}/a", BytesIO(b"two"), 3)
        admin.put_object(bucket, f"{prefix}/b", BytesIO(b"longer"), 6)
        admin.remove_object(bucket, f"{prefix}/c")
        admin.put_object(bucket, f"{prefix}/d", BytesIO(b"one"), 3)
        assert [refusal(source, member) for member in (a, b, c)] == [
            Refusal.CHANGED,
            Refusal.CHANGED,
            Refusal.MISSING,
        ]
        assert source.read(d, _MOST) == b"one"  # the same again


def test_what_was_listed_is_still_told_after_planning_and_parting(
    seaweed_server: Seaweed, tmp_path: Path
) -> None:
    uri = filled(seaweed_server.port, _TREE)
    with opened(uri) as source, Plan(tmp_path / "plan") as plan:
        plan.make([source], None)
        parts = [read_part(write_part(part)) for part in cut(plan.photos(), 10, _MOST)]
        kept = [photo.member for part in parts for photo in part.photos]
        assert sorted(kept, key=lambda member: member.name) == list(source.members())


def test_the_state_names_the_server_the_bucket_and_the_prefix() -> None:
    states = set()
    for uri in ("s3://bucket", "s3://bucket/a", "s3://two/a", "s3://b.example/bucket/a"):
        with opened(uri) as source, opened(f"{uri}/") as same:
            states.add(source.state())
            assert same.state() == source.state()
    assert len(states) == 4
    assert "s3 s3.amazonaws.com/bucket/a" in states
    assert "s3 b.example/bucket/a" in states


def test_a_server_that_stopped_is_no_fault_of_its_objects() -> None:
    with seaweed() as server:
        uri = filled(server.port, _TREE)
        with opened(uri) as source:
            [member, *_] = source.members()
            server.server.kill()
            with pytest.raises(StoreUnavailable, match="does not answer") as caught:
                source.read(member, _MOST)
            assert member.name in caught.value.message
            with pytest.raises(StoreUnavailable, match=r"loads\.s3_secure"):
                list(source.members())


def test_no_server_is_told_when_it_is_listed() -> None:
    with opened(f"s3://127.0.0.1:{free_port()}/bucket") as source, pytest.raises(StoreUnavailable) as caught:
        list(source.members())
    assert caught.value.details["store"] == "source"


def test_a_bucket_that_is_not_there_is_told_and_not_made(seaweed_server: Seaweed) -> None:
    with opened(f"s3://127.0.0.1:{seaweed_server.port}/nothing-here/x") as source:
        with pytest.raises(InvalidInput, match="no such bucket") as caught:
            list(source.members())
        assert caught.value.code == "SOURCE_UNREADABLE"
    assert not client(seaweed_server.port).bucket_exists("nothing-here")


@pytest.mark.parametrize("wrong", ["s3_access_key", "s3_secret_key"])
def test_wrong_keys_are_told_and_are_no_fault_of_the_objects(wrong: str, seaweed_server: Seaweed) -> None:
    uri = filled(seaweed_server.port, _TREE)
    settings = _SETTINGS.model_copy(update={wrong: SecretStr("wrong")})
    with opened(uri, settings) as source:
        with pytest.raises(InvalidInput, match="HOMEWARD_LOADS__S3_ACCESS_KEY") as caught:
            list(source.members())
        assert caught.value.code == "SOURCE_UNREADABLE"
        with pytest.raises(StoreUnavailable, match="HOMEWARD_LOADS__S3_SECRET_KEY"):
            source.read(listed(uri)[0], _MOST)


def test_without_keys_of_its_own_the_photo_stores_are_used(seaweed_server: Seaweed) -> None:
    uri = filled(seaweed_server.port, {"1": b"one"})
    photos = seaweed_server.settings("unused")
    empty = LoadSettings(s3_access_key=SecretStr(""), s3_secret_key=SecretStr(""), s3_secure=False)
    for settings in (LoadSettings(s3_secure=False), empty):
        with opened(uri, settings, photos) as source:
            assert [member.name for member in source.members()] == ["1"]
    half = LoadSettings(s3_access_key=SecretStr(ACCESS_KEY), s3_secure=False)
    with (
        pytest.raises(InvalidInput, match=r"loads\.s3_access_key and loads\.s3_secret_key"),
        opened(uri, half, photos),
    ):
        pass


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3:///bucket",
        "s3://host.example",
        "s3://host:9000/",
        "s3://host:port/bucket",
        "s3://key:secret@host/bucket",
        "s3://bucket/x?y=1",
        "s3://bucket/x#y",
        "s3://bucket/../x",
        "s3://[host/bucket",
        "s3://h",
        "s3://host:9000/b",
    ],
)
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(InvalidInput) as caught, opened(uri):
        pass
    assert caught.value.code in ("SOURCE_UNREADABLE", "CONFIG_INVALID")
    assert caught.value.details["field"] == "source"
    assert "secret@" not in caught.value.message


Answers = dict[str, tuple[int, Mapping[str, str], bytes]]


@contextmanager
def scripted(answers: Answers) -> Iterator[str]:
    """The URI of a bucket whose server gives these answers, by path: of what a real one rarely does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answers[self.path.partition("?")[0]]
            self.send_response(status)
            usual = {"Content-Length": str(len(body)), "ETag": '"etag"'}
            for name, value in {**usual, **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"s3://127.0.0.1:{server.server_port}/bucket"
        finally:
            server.shutdown()
            thread.join()


def listing(sizes: Mapping[str, int]) -> tuple[int, Mapping[str, str], bytes]:
    contents = "".join(
        f"<Contents><Key>{escape(name)}</Key><Size>{size}</Size></Contents>" for name, size in sizes.items()
    )
    text = f"<ListBucketResult><Name>bucket</Name>{contents}</ListBucketResult>"
    return 200, {"Content-Type": "application/xml"}, text.encode()


def failure(status: int, code: str) -> tuple[int, Mapping[str, str], bytes]:
    return status, {"Content-Type": "application/xml"}, f"<Error><Code>{code}</Code></Error>".encode()


def test_keys_that_no_address_leads_to_are_listed_and_refused() -> None:
    sizes = {"a/../1": 1, "./2": 1, " ": 1, "b/": 3, "c/": 0, "a..b/.3": 1}
    with scripted({"/bucket": listing(sizes)}) as uri:
        found = {member.name: member.refusal for member in listed(uri)}
    assert found == {
        "a/../1": Refusal.WITHHELD,
        "./2": Refusal.WITHHELD,
        " ": Refusal.WITHHELD,
        "b/": None,
        "a..b/.3": None,
    }


def test_of_answers_about_an_object_only_those_that_stay_are_its_fault() -> None:
    answers: Answers = {
        "/bucket/archived": failure(403, "InvalidObjectState"),
        "/bucket/denied": failure(403, "AccessDenied"),
        "/bucket/expired": failure(400, "ExpiredToken"),
        "/bucket/busy": failure(503, "SlowDown"),
        "/bucket/odd": (200, {"Content-Length": "x"}, b""),
        "/bucket/html": (404, {"Content-Type": "text/html"}, b"<p>not here"),
    }
    with scripted(answers) as uri, opened(uri) as source:
        assert refusal(source, Member("archived", 3)) is Refusal.WITHHELD
        for name in ("denied", "expired", "busy", "odd", "html"):
            with pytest.raises(StoreUnavailable):
                source.read(Member(name, 3), _MOST)


def test_an_object_that_is_denied_alone_is_refused_and_the_others_are_read() -> None:
    answers: Answers = {
        "/bucket": listing({"denied": 3, "denied too": 3, "given": 3}),
        "/bucket/denied": failure(403, "AccessDenied"),
        "/bucket/denied%20too": failure(403, "AccessDenied"),
        "/bucket/given": (200, {}, b"one"),
    }
    with scripted(answers) as uri, opened(uri) as source:
        denied, _, given = source.members()
        assert refusal(source, denied) is Refusal.WITHHELD
        assert source.read(given, _MOST) == b"one"
        assert refusal(source, denied) is Refusal.WITHHELD


def test_an_only_object_that_is_denied_is_refused_where_the_bucket_may_be_listed() -> None:
    answers = {"/bucket": listing({"denied": 3}), "/bucket/denied": failure(403, "AccessDenied")}
    with scripted(answers) as uri, opened(uri) as source:
        [member] = source.members()
        assert refusal(source, member) is Refusal.WITHHELD


@pytest.mark.parametrize("read_before", [False, True])
def test_keys_that_may_list_and_not_read_stop_the_load(read_before: bool) -> None:
    answers: Answers = {"/bucket": listing({"1": 3, "2": 3}), "/bucket/1": (200, {}, b"one")}
    answers["/bucket/2"] = failure(403, "AccessDenied")
    with scripted(answers) as uri, opened(uri) as source:
        one, two = source.members()
        if read_before:
            assert source.read(one, _MOST) == b"one"
        answers["/bucket/1"] = failure(403, "AccessDenied")  # the right to read was taken away
        with pytest.raises(StoreUnavailable, match="HOMEWARD_LOADS__S3_SECRET_KEY"):
            source.read(two, _MOST)


def test_keys_that_are_no_longer_good_for_the_bucket_stop_the_load() -> None:
    denied = failure(403, "AccessDenied")
    with (
        scripted({"/bucket": denied, "/bucket/1": denied}) as uri,
        opened(uri) as source,
        pytest.raises(StoreUnavailable, match="HOMEWARD_LOADS__S3_SECRET_KEY"),
    ):
        source.read(Member("1", 3), _MOST)


def test_an_answer_that_breaks_off_is_not_taken_for_the_object() -> None:
    cut_off = (200, {"Content-Length": "100", "ETag": '"e"'}, b"short")
    with scripted({"/bucket/1": cut_off}) as uri, opened(uri) as source:
        with pytest.raises(StoreUnavailable):
            source.read(Member("1", 100, version="e"), _MOST)
        assert source.read(Member("1", 100, version="e"), 2) == b"sho"


def test_an_object_that_says_it_is_packed_is_given_as_it_is_stored() -> None:
    with (
        scripted({"/bucket/1": (200, {"Content-Encoding": "gzip"}, b"\xff\xd8 as stored")}) as uri,
        opened(uri) as source,
    ):
        assert source.read(Member("1", 12), _MOST) == b"\xff\xd8 as stored"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("AccessDenied", "HOMEWARD_LOADS__S3_SECRET_KEY"),
        ("AuthorizationHeaderMalformed", "HOMEWARD_LOADS__S3_REGION"),
        ("NoSuchBucket", "no such bucket"),
    ],
)
def test_a_listing_that_will_never_be_given_is_not_waited_for(code: str, told: str) -> None:
    with (
        scripted({"/bucket": failure(403, code)}) as uri,
        opened(uri) as source,
        pytest.raises(InvalidInput, match=told) as caught,
    ):
        list(source.members())
    assert caught.value.code == "SOURCE_UNREADABLE"
