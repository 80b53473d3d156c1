"""One self-contained page per search: probe and candidate faces side by side, for a person to judge.

No script, nothing fetched, every text escaped; written with mode 0600, because it holds photographs.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from cluster.cli.output import CAUTION, show_dates, show_sex
from homeward.config import Settings
from homeward.files import write_private
from homeward.types import UInt8
from homeward.v1 import enrolment_pb2, records_pb2, search_pb2
from workers.decode import DecodedPhoto
from workers.sandbox import DecodePool

if TYPE_CHECKING:
    from homeward.v1.enrolment_pb2_grpc import EnrolmentServiceAsyncStub

FACE_PX = 320
CONTEXT = 1.45  # side of the cut-out over the longer side of the face box


@dataclass(frozen=True, slots=True)
class Finding:
    """One search of the page."""

    heading: str
    request: search_pb2.SearchRequest
    answer: search_pb2.SearchResponse


def _png_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def cut_out(pixels: UInt8, scale: float, box: records_pb2.Box) -> str:
    """The face with some context as a data URI. pixels (H, W, 3) uint8; scale = pixels per box unit."""
    side = CONTEXT * max(box.width, box.height) * scale
    x, y = (box.x + box.width / 2) * scale, (box.y + box.height / 2) * scale
    area = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    face = Image.fromarray(pixels).crop(area).resize((FACE_PX, FACE_PX), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    face.save(stream, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _decode(photo: bytes, settings: Settings) -> DecodedPhoto | None:
    with DecodePool.from_settings(settings.workers, processes=1) as pool:
        decoded = pool.decode_many([photo])[0]
    return decoded if isinstance(decoded, DecodedPhoto) else None


async def _crop(enrolment: EnrolmentServiceAsyncStub, face_id: str, deadline_s: float) -> str | None:
    try:
        answer = await enrolment.GetCrop(enrolment_pb2.GetCropRequest(face_id=face_id), timeout=deadline_s)
    except grpc.aio.AioRpcError:
        return None  # deleted since the search, or without a stored photo: the card says so
    return _png_uri(answer.png)


def _candidate_lines(candidate: search_pb2.Candidate) -> list[str]:
    """What a reviewer wants beside the face."""
    event = " ".join(filter(None, [show_dates(candidate.event), candidate.event_place]))
    facts = [
        ("born", show_dates(candidate.born)),
        ("sex", show_sex(candidate.sex, verified=candidate.sex_verified)),
        ("event", event),
    ]
    lines = [f"{candidate.key.agency} / {candidate.key.gallery}"]
    lines += [f"{name}: {value}" for name, value in facts if value]
    if candidate.HasField("log_likelihood_ratio"):
        lines.insert(0, f"log-likelihood ratio {candidate.log_likelihood_ratio:+.1f}")
    for evidence in candidate.evidence[:1]:
        taken = show_dates(evidence.taken)
        if taken:
            lines.append(f"photo taken {taken}")
        if evidence.HasField("years_to_probe"):
            lines.append(f"{evidence.years_to_probe:.1f} years from the probe")
        if evidence.face.quality.score:
            lines.append(f"quality {evidence.face.quality.score:.0f}/100")
    return lines


async def _list(
    found: search_pb2.CandidateList,
    probe: DecodedPhoto | None,
    enrolment: EnrolmentServiceAsyncStub,
    deadline_s: float,
) -> dict[str, object]:
    scores = [candidate.comparison_score for candidate in found.candidates]
    low, high = (min(scores) - 0.01, max(1.0, *scores)) if scores else (0.0, 1.0)
    cards = []
    for candidate in found.candidates:
        crops = [await _crop(enrolment, item.face.face_id, deadline_s) for item in candidate.evidence]
        cards.append(
            {
                "rank": candidate.rank,
                "score": f"{candidate.comparison_score:.4f}",
                "bar": f"{100 * (candidate.comparison_score - low) / (high - low):.1f}",
                "reference": candidate.key.external_reference,
                "images": [crop for crop in crops if crop],
                "no_image": "no photo stored for this template",
                "lines": _candidate_lines(candidate),
                "flags": [*candidate.implausible, *candidate.notes],
                "implausible": bool(candidate.implausible),
            }
        )
    lines: list[str] = []
    image = None
    if found.HasField("face"):
        lines.append(f"face {found.face.ordinal}, quality {found.face.quality.score:.0f}/100")
        lines += list(found.face.quality.reasons)
        if probe is not None:
            image = cut_out(probe.pixels, probe.pixels.shape[1] / probe.width, found.face.box)
    return {
        "probe": {"image": image, "lines": lines},
        "excluded": [f"{gone.records} left out: {gone.reason}" for gone in found.excluded],
        "candidates": cards,
        "low": f"{low:.2f}",
        "high": f"{high:.2f}",
    }


async def _search(
    finding: Finding, enrolment: EnrolmentServiceAsyncStub, settings: Settings
) -> dict[str, object]:
    request, answer = finding.request, finding.answer
    probe = _decode(request.photo, settings) if request.WhichOneof("probe") == "photo" else None
    account = answer.account
    times = ", ".join(f"{time.stage} {time.seconds * 1000:.1f} ms" for time in answer.times)
    if answer.HasField("calibration"):
        fitted = answer.calibration
        ratio_note = (
            f"Log-likelihood ratios (natural logarithm) were fitted on {fitted.dataset}, {fitted.faces}, "
            f"{fitted.mated_pairs:,} mated and {fitted.non_mated_pairs:,} non-mated pairs, "
            f"{fitted.fitted_on}."
        )
    else:
        ratio_note = "No log-likelihood ratio: this model has no calibration."
    deadline_s = settings.server.deadline_s
    return {
        "heading": finding.heading,
        "case": request.context.case_reference,
        "purpose": request.context.purpose,
        "requester": request.context.requester,
        "search_id": answer.search_id,
        "kind": (request.WhichOneof("probe") or "").replace("_id", ""),
        "account": f"{account.rows:,} templates of {account.records:,} records searched, "
        f"{account.method}, rev {account.rev}, model {account.model_id}; {times}",
        "ratio_note": ratio_note,
        "lists": [await _list(found, probe, enrolment, deadline_s) for found in answer.lists],
    }


async def write_report(
    path: Path,
    enrolment: EnrolmentServiceAsyncStub,
    findings: Sequence[Finding],
    settings: Settings,
    title: str = "Homeward candidate lists",
) -> None:
    """Write the page to `path` (mode 0600, replaced atomically). Crops come from the server."""
    environment = Environment(
        loader=PackageLoader("cluster"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        title=title,
        caution=CAUTION,
        searches=[await _search(finding, enrolment, settings) for finding in findings],
    )
    write_private(path, page.encode("utf-8"))
