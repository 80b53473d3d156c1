"""One load of everything hostile at once, with the real decoders and the real model: the rest is loaded."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner, Result

from cluster.cli.main import app
from cluster.cli.state import State, configure
from tests.cluster.load.archives import add

pytestmark = pytest.mark.prove

_DOTS = 10_000  # photos of one pixel
_GOOD = 90  # rows of the table that name a good photo; every tenth row besides is bad
_BOMB_BYTES = 256 << 20


@pytest.fixture(autouse=True)
def _own_state() -> None:
    configure(State())


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--data-dir", str(folder), *arguments])


def rejected(table: Path) -> list[dict[str, str]]:
    """The rows of the table of rejected photos."""
    return list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8-sig"), newline="")))


def saved(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def portrait(number: int) -> bytes:
    """Another picture of one face for each number."""
    face = Image.fromarray(data.astronaut()).crop((100, 0, 400, 300))  # type: ignore[no-untyped-call]
    return saved(face.rotate(number % 9 - 4), quality=60 + number // 9)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tar and a zip file, each with hostile members among good ones."""
    folder = tmp_path_factory.mktemp("hostile")
    tar, packed = folder / "hostile.tar", folder / "hostile.zip"
    with tarfile.open(tar, "w") as archive:
        add(archive, "../../outside/escaped.jpg", portrait(0))
        add(archive, "/etc/absolute.jpg", portrait(0))
        add(archive, "good/before.jpg", portrait(1))
        for name, kind in (
            ("link/soft.jpg", tarfile.SYMTYPE),
            ("link/hard.jpg", tarfile.LNKTYPE),
            ("device/block.jpg", tarfile.BLKTYPE),
            ("device/character.jpg", tarfile.CHRTYPE),
            ("device/pipe.jpg", tarfile.FIFOTYPE),
        ):
            add(archive, name, kind=kind)
        add(archive, "huge/200-megapixels.png", saved(Image.new("L", (20_000, 10_000)), "PNG"))
        add(archive, "huge/200-megapixels.jpg", saved(Image.new("L", (20_000, 10_000))))
        for number in range(_DOTS):
            dot = Image.new("RGB", (1, 1), (number % 256, number // 256, 7))
            add(archive, f"dots-{number // 500}/{number}.png", saved(dot, "PNG"))
        add(archive, "good/after.jpg", portrait(2))
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("bomb/zeros.jpg", bytes(_BOMB_BYTES))
        zipped.writestr("../bomb/escaped.jpg", portrait(0))
        zipped.writestr("good/zipped.jpg", portrait(3))
    return tar, packed


def test_a_load_of_hostile_archives_brings_what_is_good_and_reports_the_rest(
    archives: tuple[Path, Path], tmp_path: Path
) -> None:
    home, table, page = tmp_path / "home", tmp_path / "rejected.csv", tmp_path / "report.html"
    where = ("--agency", "XX", "--gallery", "missing")
    done = run(home, "load", "start", "hostile", *map(str, archives), *where)
    assert done.exit_code == 6, done.output
    told = run(home, "load", "report", "hostile", "--csv", str(table), "--html", str(page))
    total = 2 + 1 + 5 + 2 + _DOTS + 1 + 3
    assert f"all {total:,} photos of its input are accounted for, each once" in told.output
    codes = Counter(row["code"] for row in rejected(table))
    assert codes["PHOTO_TOO_SMALL"] == _DOTS
    assert codes["PHOTO_TOO_MANY_PIXELS"] == 2
    assert sum(codes.values()) == total - 3
    status = CliRunner().invoke(app, ["--data-dir", str(home), "--json", "load", "status", "hostile"])
    assert json.loads(status.stdout)["faces"] == 3
    assert not list(tmp_path.parent.rglob("escaped.jpg"))
    assert page.stat().st_size < 30 << 20


def test_every_bad_row_of_a_table_is_told_with_its_line_and_the_rest_is_loaded(tmp_path: Path) -> None:
    folder, home, table = tmp_path / "photos", tmp_path / "home", tmp_path / "who.csv"
    folder.mkdir()
    bad = (
        "missing-{n}.jpg,R{n},2011-03-04,male",
        "{n}.jpg,R{n},the day after,male",
        "{n}.jpg,,2011-03-04,male",
        "{n}.jpg,R{n},2011-03-04,neither one",
        "{n}.jpg",
    )
    rows = ["photo,record,born,sex"]
    lines = []
    for number in range(_GOOD):
        (folder / f"{number}.jpg").write_bytes(portrait(number))
        rows.append(f"{number}.jpg,R{number},2011-03-04,female")
        if number % 9 == 8:
            rows.append(bad[number // 9 % len(bad)].format(n=number))
            lines.append(len(rows))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    where = ("--agency", "XX", "--gallery", "missing", "--manifest", str(manifest))
    done = run(home, "load", "start", "rows", str(folder), *where)
    assert done.exit_code == 6, done.output
    told = run(home, "load", "report", "rows", "--csv", str(table))
    assert "are accounted for, each once" in told.output
    reported = rejected(table)
    assert sorted(int(row["line"]) for row in reported) == lines
    assert all(row["message"] for row in reported)
    status = CliRunner().invoke(app, ["--data-dir", str(home), "--json", "load", "status", "rows"])
    assert json.loads(status.stdout)["faces"] == _GOOD
