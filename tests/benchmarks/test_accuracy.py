"""The accuracy benchmark from photos to JSON, on a tiny bundle."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from benchmarks.accuracy import main
from tests.workers import tiny_bundle
from tests.workers.tiny_people import write_people


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.write(tmp_path_factory.mktemp("bundle") / "tiny")


def test_photos_become_rates_counts_and_plots(bundle: Path, tmp_path: Path) -> None:
    everyone = write_people(tmp_path / "all", 12, faceless=2)
    for person in everyone.iterdir():
        for number, side in ((0, "gallery"), (1, "probes")):
            (tmp_path / side / person.name).mkdir(parents=True)
            (person / f"{number}.png").rename(tmp_path / side / person.name / f"{number}.png")
    (tmp_path / "probes" / "person0-3").rename(tmp_path / "probes" / "stranger")
    strangers = write_people(tmp_path / "distractors", 5, photos=1, seed=9)
    out = tmp_path / "out.json"
    folders = ("--gallery", tmp_path / "gallery", "--probes", tmp_path / "probes", "--distractors", strangers)
    model = ("--bundle", bundle, "--min-face-px", "20")
    code = main([str(word) for word in (*folders, *model, "--json", out, "--plots", tmp_path / "plots")])
    figures = json.loads(out.read_text())
    assert code == 0
    assert figures["model_id"].startswith("tiny-")
    assert figures["n"] == {
        "gallery_photos": 12,
        "gallery_identities": 12,
        "probe_photos": 12,
        "probes_with_mate": 11,
        "distractor_photos": 5,
        "mated_pairs": 11,
        "non_mated_pairs": 10 * 17 - 9,
        "failures_to_enrol": 2,
        "failures_to_enrol_distractors": 0,
    }
    assert figures["fte"] == pytest.approx(2 / 24)
    assert figures["failures"] == {"NO_FACE": 2}
    assert figures["rank1"] == pytest.approx(9 / 11)
    assert set(figures["tar_at_fmr"]) == {"1e-3", "1e-4", "1e-5"}
    assert set(figures["fnir_at_fpir"]) == {"0.1", "0.01"}
    assert figures["machine"]["cores"] >= 1
    for name in ("cmc.png", "det.png"):
        assert (tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG")


def test_a_tar_gives_first_photos_against_second(bundle: Path, tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", 4, photos=3)
    (people / "person0-2" / "1.png").unlink()
    (people / "person0-2" / "2.png").unlink()
    with tarfile.open(tmp_path / "people.tar", "w") as archive:
        archive.add(people, arcname="lfw")
    out = tmp_path / "out.json"
    arguments = ["--lfw", str(tmp_path / "people.tar"), "--bundle", str(bundle), "--min-face-px", "20"]
    assert main([*arguments, "--json", str(out)]) == 0
    counts = json.loads(out.read_text())["n"]
    assert (counts["gallery_photos"], counts["probe_photos"], counts["probes_with_mate"]) == (4, 3, 3)


def test_missing_folders_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", str(tmp_path / "x.json")]) == 2
    assert "--lfw" in capsys.readouterr().err
    absent = str(tmp_path / "absent")
    assert main(["--gallery", absent, "--probes", absent, "--json", str(tmp_path / "x.json")]) == 2
