"""How often the right child is found: error rates of a model on labelled photos.

    python -m benchmarks.accuracy --gallery DIR --probes DIR [--distractors DIR] [--bundle NAME]
                                  [--peer] --json FILE [--plots DIR]

Folders are `DIR/<identity>/<photo>`; `--lfw TAR` takes each person's first photo as gallery and the
second as probe. Of several faces in a photo the most central counts. A failure to enrol, on either
side, is a miss at every threshold. TAR at FMR f: the threshold is the smallest at which at most a
fraction f of all non-mated gallery x probe pairs scores as high or higher; the rate is over all mated
pairs. FNIR at FPIR f: the threshold is the smallest at which at most a fraction f of all probes,
searched again without their mate, returns any candidate; the rate is over the probes whose identity
is in the gallery, the mate at any rank. Rank-1 is closed-set, over those probes too; ties count
against the mate. Distractors join the gallery as people of their own. `--peer` adds dlib's own
pipeline on the same photos, compared by cosine as ours (`peer`, and ours minus it: `difference`)
and by Euclidean distance (`peer_by_distance`).
"""

from __future__ import annotations

import argparse
import math
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import machine, write_json
from benchmarks.metrics import (
    Comparison,
    Trial,
    cmc,
    cosine,
    fnir_at_fpir,
    negative_distance,
    run_trial,
    tar_at_fmr,
)
from homeward.config import Settings
from homeward.errors import HomewardError, InvalidInput
from homeward.types import Float32
from workers.labelled import LabelledPhoto, LabelledTemplate, embed_labelled, list_labelled

FMRS = ("1e-3", "1e-4", "1e-5")
FPIRS = ("0.1", "0.01")


@dataclass(frozen=True, slots=True)
class Photos:
    """The three parts of a test."""

    gallery: tuple[LabelledPhoto, ...]
    probes: tuple[LabelledPhoto, ...]
    distractors: tuple[LabelledPhoto, ...]

    @property
    def every(self) -> tuple[LabelledPhoto, ...]:
        """All of them, in that order."""
        return self.gallery + self.probes + self.distractors

    def trial(self, templates: Sequence[Float32 | None], compare: Comparison) -> Trial:
        """Run all comparisons; `templates` in the order of `every`."""
        first, second = len(self.gallery), len(self.gallery) + len(self.probes)
        # No person has a path for a name: a distractor is nobody of the gallery.
        strangers = [f"distractor/{photo.identity}" for photo in self.distractors]
        return run_trial(
            [*templates[:first], *templates[second:]],
            [*(photo.identity for photo in self.gallery), *strangers],
            templates[first:second],
            [photo.identity for photo in self.probes],
            compare,
        )


def report(
    photos: Photos, templates: Sequence[Float32 | None], trial: Trial, model_id: str
) -> dict[str, object]:
    """The figures of one model, by the keys the module's docstring defines."""
    tested = len(photos.gallery) + len(photos.probes)
    failed = sum(template is None for template in templates[:tested])
    return {
        "model_id": model_id,
        "fte": failed / tested,
        "rank1": _number(cmc(trial, 1)[0]),
        "tar_at_fmr": {
            rate: _number(tar_at_fmr(trial.mated_pairs, trial.non_mated, float(rate))) for rate in FMRS
        },
        "fnir_at_fpir": {rate: _number(fnir_at_fpir(trial, float(rate))) for rate in FPIRS},
        "n": {
            "gallery_photos": len(photos.gallery),
            "gallery_identities": len({photo.identity for photo in photos.gallery}),
            "probe_photos": len(photos.probes),
            "probes_with_mate": int(trial.has_mate.sum()),
            "distractor_photos": len(photos.distractors),
            "mated_pairs": len(trial.mated_pairs),
            "non_mated_pairs": len(trial.non_mated),
            "failures_to_enrol": failed,
            "failures_to_enrol_distractors": sum(template is None for template in templates[tested:]),
        },
    }


def difference(ours: dict[str, object], theirs: dict[str, object]) -> dict[str, object]:
    """Ours minus theirs, for every rate that both have."""
    answer: dict[str, object] = {}
    for key in ("fte", "rank1", "tar_at_fmr", "fnir_at_fpir"):
        mine, other = ours[key], theirs[key]
        if isinstance(mine, dict) and isinstance(other, dict):
            answer[key] = {rate: _minus(mine[rate], other[rate]) for rate in mine}
        else:
            answer[key] = _minus(mine, other)
    return answer


def embed_with_homeward(
    photos: Sequence[LabelledPhoto], settings: Settings, bundle: str
) -> tuple[str, list[LabelledTemplate], float]:
    """Model id, templates and seconds; `bundle` is a name, or a folder with bundle.toml."""
    from workers.open import open_decoder, open_pipeline

    with tempfile.TemporaryDirectory() as scratch:
        if (Path(bundle) / "bundle.toml").is_file():
            from workers.install import add_bundle

            added = add_bundle(Path(bundle), Path(scratch))
            settings = _with(settings, bundle=added.name, bundles_dir=Path(scratch))
        else:
            settings = _with(settings, bundle=bundle)
        pipeline = open_pipeline(settings)
    decoder = open_decoder(settings.workers)
    started = time.perf_counter()
    try:
        found = embed_labelled(photos, decoder, pipeline, progress=_progress)
    finally:
        decoder.close()
    return pipeline.model_id, found, time.perf_counter() - started


def _with(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update={"workers": settings.workers.model_copy(update=changes)})


def _progress(done: int, total: int) -> None:
    if done % 512 == 0 or done == total:
        print(f"Homeward: {done} of {total} photos", file=sys.stderr)


def _number(value: float) -> float | None:
    """JSON has no NaN: a rate over nothing is null."""
    return None if math.isnan(value) else float(value)


def _minus(mine: object, other: object) -> float | None:
    both = isinstance(mine, float) and isinstance(other, float)
    return float(mine) - float(other) if both else None  # type: ignore[arg-type]  # checked above


@contextmanager
def _first_and_second(tar: Path) -> Iterator[Photos]:
    """From a tar of `<identity>/<photo>`: each person's first photo, and the second where there is one."""
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(tar) as archive:
        members: dict[str, list[tarfile.TarInfo]] = {}
        for member in archive:
            parts = Path(member.name).parts
            if member.isfile() and len(parts) >= 2:
                members.setdefault(parts[-2], []).append(member)
        sides: tuple[list[LabelledPhoto], list[LabelledPhoto]] = ([], [])
        for identity in sorted(members):
            two = sorted(members[identity], key=lambda member: member.name)[:2]
            for side, member in zip(sides, two, strict=False):
                archive.extract(member, scratch, filter="data")
                side.append(LabelledPhoto(identity, Path(scratch) / member.name))
        yield Photos(tuple(sides[0]), tuple(sides[1]), ())


@contextmanager
def _photos(options: argparse.Namespace) -> Iterator[Photos]:
    distractors = list_labelled(options.distractors) if options.distractors else ()
    if options.lfw:
        with _first_and_second(options.lfw) as photos:
            yield Photos(photos.gallery, photos.probes, distractors)
    elif options.gallery and options.probes:
        yield Photos(list_labelled(options.gallery), list_labelled(options.probes), distractors)
    else:
        raise InvalidInput("give --gallery and --probes, or --lfw")


def _summary(name: str, figures: dict[str, object]) -> str:
    tar, fnir = figures["tar_at_fmr"], figures["fnir_at_fpir"]
    assert isinstance(tar, dict)
    assert isinstance(fnir, dict)
    rates = [("FTE", figures["fte"]), ("rank-1", figures["rank1"])]
    rates += [(f"TAR@FMR {rate}", tar[rate]) for rate in tar]
    rates += [(f"FNIR@FPIR {rate}", fnir[rate]) for rate in fnir]
    shown = ", ".join(
        f"{key} {value:.4f}" if isinstance(value, float) else f"{key} -" for key, value in rates
    )
    return f"accuracy {name}: {shown}"


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.accuracy", description="Error rates on labelled photos."
    )
    parser.add_argument("--gallery", type=Path, help="DIR/<identity>/<photo>")
    parser.add_argument("--probes", type=Path, help="DIR/<identity>/<photo>")
    parser.add_argument("--distractors", type=Path, help="DIR/<identity>/<photo>, joined to the gallery")
    parser.add_argument("--lfw", type=Path, help="tar of <identity>/<photo>: first photos against second")
    parser.add_argument("--bundle", default="default", help="installed bundle, or a folder with bundle.toml")
    parser.add_argument("--bundles-dir", type=Path, help="where bundles are installed")
    parser.add_argument("--min-face-px", type=int, default=40)
    parser.add_argument("--peer", action="store_true", help="dlib's own pipeline on the same photos too")
    parser.add_argument("--peer-cache", type=Path, help=".npz that keeps dlib's descriptors between runs")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--plots", type=Path, help="folder for cmc.png and det.png")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = _arguments(arguments)
    try:
        with _photos(options) as photos:
            _run(options, photos)
    except HomewardError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace, photos: Photos) -> None:
    settings = Settings.load()
    settings = _with(settings, min_face_px=options.min_face_px)
    if options.bundles_dir:
        settings = _with(settings, bundles_dir=options.bundles_dir)
    model_id, found, seconds = embed_with_homeward(photos.every, settings, options.bundle)
    templates = [item.template for item in found]
    trials = {model_id: photos.trial(templates, cosine)}
    figures = report(photos, templates, trials[model_id], model_id)
    reasons = Counter(item.reason for item in found if item.template is None)
    result = figures | {
        "failures": {str(reason): count for reason, count in reasons.items()},
        "seconds": seconds,
        "min_face_px": options.min_face_px,
    }
    print(_summary(model_id, figures))
    if options.peer:
        from benchmarks import peer

        descriptors = peer.embed_with_dlib(photos.every, options.peer_cache)
        # dlib's users compare by distance; by cosine its descriptors do better, so that is the bar.
        trials[peer.MODEL_ID] = photos.trial([peer.unit(row) for row in descriptors], cosine)
        theirs = report(photos, descriptors, trials[peer.MODEL_ID], peer.MODEL_ID)
        by_distance = photos.trial(descriptors, negative_distance)
        result |= {
            "peer": theirs,
            "peer_by_distance": report(photos, descriptors, by_distance, peer.MODEL_ID),
            "difference": difference(figures, theirs),
        }
        print(_summary(peer.MODEL_ID, theirs))
    write_json(options.json, {"benchmark": "accuracy", **result, "machine": machine()})
    if options.plots:
        from benchmarks.plots import draw_cmc, draw_det

        title = (
            f"{len(photos.probes):,} probes, {len(photos.gallery) + len(photos.distractors):,} gallery photos"
        )
        draw_cmc(trials, options.plots / "cmc.png", f"Closed-set identification: {title}")
        draw_det(trials, options.plots / "det.png", f"Detection error tradeoff: {title}")


if __name__ == "__main__":
    sys.exit(main())
