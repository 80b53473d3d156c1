"""The photographs of the demo: those that packages ship, or a folder of the user's own."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from homeward.errors import InvalidInput, Unavailable

# Official portraits of public figures (U.S. government works) in the tests of this source package, and
# NASA's portrait of an astronaut in scikit-image. All of them are adults.
SDIST = "face_recognition==1.3.0"
SDIST_SHA256 = "5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec"
SDIST_PHOTOS = "face_recognition-1.3.0/tests/test_images"
MOST_PEOPLE = 200  # of a user's folder: the demo stays a demo


@dataclass(frozen=True, slots=True)
class Probe:
    """A photo to search with, and who of the enrolled it shows."""

    photo: bytes
    title: str
    mate: str | None  # reference of the enrolled person; None: nobody enrolled


@dataclass(frozen=True, slots=True)
class Cast:
    """Who is enrolled with which photos, and who is searched for."""

    enrolled: dict[str, list[bytes]]
    probes: tuple[Probe, ...]


def _download(folder: Path) -> Path:
    """Fetch the source package through the package client, which checks the sha256."""
    archive = folder / "face_recognition-1.3.0.tar.gz"
    if archive.is_file():
        return archive
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write(f"{SDIST} --hash=sha256:{SDIST_SHA256}\n")
        wanted.flush()
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        source = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
        done = subprocess.run(
            [*pip, *source, "--require-hashes", "-r", wanted.name, "-d", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode or not archive.is_file():
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Unavailable(
            f"cannot fetch the demo's photographs ({SDIST}): {reason}. With photos of your own: "
            "make demo PHOTOS=folder, laid out as <person>/<photo>",
            code="DEMO_PHOTOS_UNAVAILABLE",
        )
    return archive


def _from_sdist(archive: Path, names: list[str]) -> dict[str, bytes]:
    photos: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:
        for name in names:
            member = tar.extractfile(f"{SDIST_PHOTOS}/{name}")
            if member is None:
                raise InvalidInput(f"{name} is not in {SDIST}", code="DEMO_PHOTOS_UNAVAILABLE")
            photos[name] = member.read()
    return photos


def shipped(cache: Path) -> Cast:
    """The cast from packages. `cache` keeps the download."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise Unavailable("scikit-image is not installed; run `make setup`", code="DEMO_PHOTOS_UNAVAILABLE")
    astronaut = (Path(spec.origin).parent / "data" / "astronaut.png").read_bytes()
    photos = _from_sdist(_download(cache), ["obama.jpg", "obama2.jpg", "obama3.jpg", "biden.jpg"])
    return Cast(
        enrolled={"portrait of B. Obama": [photos["obama.jpg"]], "portrait of E. Collins": [astronaut]},
        probes=(
            Probe(photos["obama2.jpg"], "another photo of an enrolled person", "portrait of B. Obama"),
            Probe(photos["obama3.jpg"], "a third photo of the same, from afar", "portrait of B. Obama"),
            Probe(photos["biden.jpg"], "a person who is not enrolled", None),
        ),
    )


def own(folder: Path) -> Cast:
    """The cast from `<person>/<photo>`: one person with two photos is enrolled and searched for, one is
    left out and searched for; everybody else is enrolled.

    Raises `InvalidInput` when the folder does not hold such a layout.
    """
    if not folder.is_dir():
        raise InvalidInput(f"there is no folder {folder}", code="PATH_MISSING", field="photos")
    people = {
        entry.name: sorted(photo for photo in entry.iterdir() if photo.is_file())
        for entry in sorted(folder.iterdir())[:MOST_PEOPLE]
        if entry.is_dir()
    }
    people = {name: photos for name, photos in people.items() if photos}
    several = [name for name, photos in people.items() if len(photos) > 1]
    if not several or len(people) < 2:
        raise InvalidInput(
            f"{folder} must hold <person>/<photo> for two people or more, one of them with two photos",
            code="PHOTOS_LAYOUT",
            field="photos",
        )
    stranger = next(name for name in reversed(people) if name != several[0])
    probes = [
        Probe(people[name][-1].read_bytes(), f"another photo of {name}, who is enrolled", name)
        for name in several[:3]
        if name != stranger
    ]
    probes.append(Probe(people[stranger][0].read_bytes(), f"{stranger}, who is not enrolled", None))
    searched = {probe.mate for probe in probes}
    enrolled = {
        name: [photo.read_bytes() for photo in (photos[:-1] if name in searched else photos)]
        for name, photos in people.items()
        if name != stranger
    }
    return Cast(enrolled=enrolled, probes=tuple(probes))
