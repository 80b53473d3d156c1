"""Mean and covariance of real templates, from which the demo and the benchmarks draw distractors.

    .venv/bin/python -m benchmarks.template_statistics --photos FOLDER --what TEXT --out FILE.npz

FOLDER is laid out as <identity>/<photo>; the first photo of each identity counts, at its most central
face. The file holds two moments over all people and nothing of any one of them: `mean` (d,) and
`covariance` (d, d) float32, `people`, `model_id` and `what` the photos were.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from homeward.config import Settings
from workers.labelled import embed_labelled, list_labelled
from workers.open import open_decoder, open_pipeline


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--what", required=True, help="what the photos are, for the record")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bundle", default="default")
    arguments = parser.parse_args()
    first = {photo.identity: photo for photo in reversed(list_labelled(arguments.photos))}
    settings = Settings.load(workers={"bundle": arguments.bundle})
    pipeline = open_pipeline(settings)
    with open_decoder(settings.workers) as pool:
        embedded = embed_labelled(sorted(first.values(), key=lambda photo: photo.identity), pool, pipeline)
    rows = np.stack([one.template for one in embedded if one.template is not None]).astype(np.float64)
    np.savez_compressed(
        arguments.out,
        mean=rows.mean(axis=0).astype(np.float32),
        covariance=np.cov(rows, rowvar=False).astype(np.float32),
        people=len(rows),
        model_id=pipeline.model_id,
        what=arguments.what,
    )
    print(f"{len(rows)} people of {len(first)}, model {pipeline.model_id}: {arguments.out}")


if __name__ == "__main__":
    main()
