"""A load's report as a page for a person, a table for a spreadsheet program and an object for programs.

As on the page of a search: no script, nothing fetched, every text escaped. What is written has mode 0600,
because it names children and holds photographs.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cluster.load.advice import advice
from cluster.load.outcome_types import Became
from cluster.load.report import LoadReport
from cluster.load.report_types import (
    CommonPicture,
    Numbers,
    PhotoRow,
    SamePicture,
    SharedPicture,
    SuspectedDouble,
    Unaccounted,
)
from homeward.cells import plain_cell
from homeward.files import private_file, write_private

Thumbnail = Callable[[PhotoRow], bytes | None]

_LINES = 1000  # of a table of the page
_SIDES = 4  # pictures shown of one suspected double
_COPIES = 20  # photos named of one picture
_WORDS = {
    Became.ENROLLED: "enrolled",
    Became.DUPLICATE: "the same bytes under the same record once more",
    Became.ALREADY_THERE: "in the record before this load",
    Became.REJECTED: "rejected",
}
_CSV = ("number", "photo", "reference", "line", "code", "message", "what to do", "bytes", "sha256")
# A cell that begins so may be taken for a formula; full-width signs too, by programs that read Japanese.


def write_page(
    report: LoadReport,
    path: Path,
    thumbnail: Thumbnail,
    *,
    title: str = "Homeward bulk load",
    total_photos: int | None = None,
    thumbnails: int = 300,
    csv_name: str = "",
) -> None:
    """Write the page to `path` (mode 0600, replaced atomically).

    `thumbnail` gives a photo as JPEG, if it can; `thumbnails`: rejected photos, and as many of suspected
    doubles, that are shown. The rest is counted, and `csv_name` named as the file that lists it.
    `total_photos`: of the load's input, to say whether each is accounted for. Raises `StoreUnavailable` when
    the folder cannot be written.
    """
    page = render(
        report,
        thumbnail,
        title=title,
        total_photos=total_photos,
        thumbnails=thumbnails,
        csv_name=csv_name,
    )
    write_private(path, page.encode("utf-8", "backslashreplace"))


def render(
    report: LoadReport,
    thumbnail: Thumbnail,
    *,
    title: str = "Homeward bulk load",
    total_photos: int | None = None,
    thumbnails: int = 300,
    csv_name: str = "",
) -> str:
    """The page as HTML. See `write_page`."""
    environment = Environment(
        loader=PackageLoader("cluster"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    sums = report.sums
    shares = _shares(sums.codes, thumbnails)
    found = None if total_photos is None else report.unaccounted(total_photos)
    doubles, budget = [], thumbnails
    for double in islice(report.doubles(), max(1, thumbnails)):
        doubles.append(_double(double, thumbnail, min(_SIDES, budget // 2)))
        budget -= 2 * len(doubles[-1]["pictures"])
    return environment.get_template("load_report.html.j2").render(
        title=title,
        csv_name=csv_name,
        sums=sums,
        became=[(_WORDS[kind], sums.became[kind]) for kind in Became],
        seconds=sums.milliseconds / 1000,
        unaccounted=None if found is None else _unaccounted(found),
        total_photos=total_photos,
        reasons=[
            {
                "code": code,
                "photos": photos,
                "means": advice(code)[0],
                "do": advice(code)[1],
                "cards": [_card(row, thumbnail) for row in islice(report.rejected(code), shares[code])],
            }
            for code, photos in sums.codes.items()
        ],
        faceless=[
            {
                "reference": one.reference,
                "photos": one.photos,
                "why": ", ".join(f"{photos} {code}" for code, photos in one.reasons.items()),
            }
            for one in islice(report.without_face(), _LINES)
        ],
        doubles=doubles,
        common=[_common(one, thumbnail) for one in islice(report.common(), max(1, thumbnails))],
        same=[_same(one) for one in islice(report.same_pictures(), _LINES)],
    )


def write_rejected_csv(report: LoadReport, path: Path) -> None:
    """Write all rejected photos by number to `path` (mode 0600, replaced atomically).

    UTF-8 with a mark at its start, by which spreadsheet programs know it, and every cell quoted; text that
    such a program could take for a formula follows an apostrophe. Raises `StoreUnavailable` when the folder
    cannot be written.
    """
    # Row by row, for all of a load's photos may have been rejected: hence not by `write_private`.
    with private_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="backslashreplace", newline="")
        writer = csv.writer(text, quoting=csv.QUOTE_ALL)
        writer.writerow(_CSV)
        writer.writerows(_cells(row) for row in report.rejected())
        text.detach()  # which flushes, and leaves the file open


def as_json(report: LoadReport, total_photos: int | None = None) -> dict[str, Any]:
    """All of the report as what JSON can hold: as large as there is to say."""
    found: dict[str, Any] = {"sums": asdict(report.sums)}
    if total_photos is not None:
        unaccounted = report.unaccounted(total_photos)
        found["unaccounted"] = {**asdict(unaccounted), "everything_is_there": unaccounted.everything_is_there}
    lists: Mapping[str, Iterable[Any]] = {
        "rejected": report.rejected(),
        "duplicates": report.duplicates(),
        "without_face": report.without_face(),
        "suspected_doubles": report.doubles(),
        "same_pictures": report.same_pictures(),
        "common_pictures": report.common(),
    }
    return found | {name: [asdict(one) for one in items] for name, items in lists.items()}


def _cells(row: PhotoRow) -> Iterator[object]:
    texts = (row.photo, row.reference, row.line or "", row.code, row.message, advice(row.code)[1])
    for value in (row.number, *texts, row.bytes or "", row.sha256):
        yield plain_cell(value)


def _shares(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """How many of each kind are shown, so that one with many does not crowd out the others."""
    shares: dict[str, int] = {}
    ascending = sorted(counts, key=lambda code: (counts[code], code))
    for at, code in enumerate(ascending):
        shares[code] = min(counts[code], most // (len(ascending) - at))
        most -= shares[code]
    return shares


def _uri(row: PhotoRow, thumbnail: Thumbnail) -> str:
    jpeg = thumbnail(row)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii") if jpeg else ""


def _card(row: PhotoRow, thumbnail: Thumbnail) -> dict[str, object]:
    return {
        "number": row.number,
        "photo": row.photo,
        "reference": row.reference,
        "line": row.line,
        "message": row.message,
        "size": f"{row.width} x {row.height} px" if row.width else "",
        "image": _uri(row, thumbnail),
    }


def _double(double: SuspectedDouble, thumbnail: Thumbnail, most: int) -> dict[str, Any]:
    def pair(shared: SharedPicture) -> dict[str, object]:
        return {"sides": [_card(one, thumbnail) for one in (shared.one, shared.other)], "bits": shared.bits}

    return {
        "references": (double.reference, double.other),
        "shared": double.shared,
        "pictures": [pair(one) for one in double.pictures[:most]],
        "more": len(double.pictures[most:]),
    }


def _common(one: CommonPicture, thumbnail: Thumbnail) -> dict[str, object]:
    return {"card": _card(one.photo, thumbnail), "photos": one.photos, "records": one.records}


def _same(one: SamePicture) -> dict[str, object]:
    return {
        "reference": one.reference,
        "copies": [(row.number, row.photo) for row in one.copies[:_COPIES]],
        "count": len(one.copies),
    }


def _unaccounted(found: Unaccounted) -> dict[str, object]:
    return {
        "good": found.everything_is_there,
        "lists": [
            (word, numbers.count, _listed(numbers))
            for word, numbers in (
                ("without an outcome", found.missing),
                ("with more than one outcome", found.doubled),
                ("that are not of this load's input", found.beyond),
            )
            if numbers.count
        ],
    }


def _listed(numbers: Numbers) -> str:
    words = [str(first) if first == last else f"{first} to {last}" for first, last in numbers.stretches]
    listed = sum(last - first + 1 for first, last in numbers.stretches)
    return ", ".join(words) + (" and more" if listed < numbers.count else "")
