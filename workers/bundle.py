"""What a model bundle says of itself: `bundle.toml`, parsed and checked into frozen dataclasses.

A bundle is a folder with `bundle.toml` and the ONNX files it names, each with its SHA-256, size and
upstream address. Nothing of a bundle is ever executed but its ONNX graphs. Unknown keys are refused,
so that a bundle written for a later format is never half understood.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from homeward.errors import Corrupt, InvalidInput, NotFound

BUNDLE_TOML = "bundle.toml"
FORMAT = 1
MAX_FILE_BYTES = 1024**3
MAX_TOML_BYTES = 64 * 1024
DEFAULT = "default"  # the built-in model: no bundle may take its name

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,126}\.onnx$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Licence = Annotated[str, Field(pattern=r"^[A-Za-z0-9.()+ -]{1,200}$")]
Address = Annotated[str, Field(pattern=r"^https://[^\s/]+/\S+$")]
Point = tuple[float, float]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Channels = Literal["RGB", "BGR"]
Colour = tuple[float, float, float]  # one number per channel, in the order `channels` names


@dataclass(frozen=True, slots=True, config=_STRICT)
class BundleFile:
    """One file of the bundle and where it comes from."""

    name: FileName
    sha256: Sha256
    bytes: Annotated[int, Field(ge=1, le=MAX_FILE_BYTES)]
    upstream: Address


@dataclass(frozen=True, slots=True, config=_STRICT)
class DetectorSpec:
    """How to feed the detector and to read its answer.

    The network takes (n, 3, H, W) of (pixel * scale - mean) / std, H and W multiples of `multiple`.
    Kind `yunet`: for each stride s the outputs named by `outputs` with `{stride}` replaced are, in
    that order, class score (n, HW/s², 1), object score (n, HW/s², 1), box (n, HW/s², 4) and
    landmarks (n, HW/s², 10); see `workers.yunet` for their meaning.
    """

    kind: Literal["yunet"]
    file: FileName
    channels: Channels
    layout: Literal["NCHW"]
    scale: Positive
    mean: Colour
    std: tuple[Positive, Positive, Positive]
    multiple: Annotated[int, Field(ge=1, le=256)]
    strides: Annotated[tuple[Annotated[int, Field(ge=1, le=256)], ...], Field(min_length=1, max_length=8)]
    outputs: tuple[str, str, str, str]
    score_threshold: Fraction
    nms_iou: Fraction
    smallest_face_px: Annotated[float, Field(ge=4)]  # of the image the network sees
    largest_face_px: Annotated[float, Field(ge=32)]


@dataclass(frozen=True, slots=True, config=_STRICT)
class EmbedderSpec:
    """How to feed the embedder: (n, 3, size, size) of (pixel * scale - mean) / std -> (n, dimension)."""

    kind: Literal["onnx"]
    file: FileName
    dimension: Annotated[int, Field(ge=8, le=4096)]
    size: Annotated[int, Field(ge=16, le=1024)]
    channels: Channels
    scale: Positive
    mean: Colour
    std: tuple[Positive, Positive, Positive]
    points: tuple[Point, Point, Point, Point, Point]  # where the landmarks lie in the crop, pixels
    mirror: bool  # average with the mirrored crop's vector


@dataclass(frozen=True, slots=True, config=_STRICT)
class Bundle:
    """All of `bundle.toml`."""

    format: Literal[1]
    name: Name
    version: Annotated[str, Field(min_length=1, max_length=64)]
    licence: Licence  # SPDX expression
    files: Annotated[tuple[BundleFile, ...], Field(min_length=1, max_length=16)]
    detector: DetectorSpec
    embedder: EmbedderSpec
    description: str = ""

    def file(self, name: str) -> BundleFile:
        """The entry of a file that `bundle.toml` names (parsing made sure there is one)."""
        return next(entry for entry in self.files if entry.name == name)

    @property
    def model_id(self) -> str:
        """Name and hash over everything that shapes a template: weights, preprocessing, alignment,
        and the detector that places the landmarks. Thresholds and addresses leave it unchanged."""
        embedder = asdict(self.embedder) | {"file": self.file(self.embedder.file).sha256}
        shaping = ("kind", "channels", "layout", "scale", "mean", "std", "multiple", "strides", "outputs")
        detector = {key: value for key, value in asdict(self.detector).items() if key in shaping}
        detector["file"] = self.file(self.detector.file).sha256
        shape: dict[str, Any] = {"format": self.format, "embedder": embedder, "detector": detector}
        canonical = json.dumps(shape, sort_keys=True, separators=(",", ":")).encode()
        return f"{self.name}-{hashlib.sha256(canonical).hexdigest()[:16]}"


_BUNDLE: TypeAdapter[Bundle] = TypeAdapter(Bundle)


def parse_bundle(text: str, where: str) -> Bundle:
    """Parse `bundle.toml`'s text; raises `InvalidInput` (BUNDLE_INVALID) naming each wrong key."""
    try:
        document = json.dumps(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, TypeError, RecursionError) as error:
        raise _invalid(where, str(error)) from error
    try:
        # Strict JSON mode: arrays may fill tuples, but no string becomes a number.
        bundle = _BUNDLE.validate_json(document, strict=True)
    except ValidationError as error:
        raise _invalid(where, "; ".join(_line(item) for item in error.errors())) from error
    _check(bundle, where)
    return bundle


def read_bundle(folder: Path) -> Bundle:
    """Parse `folder/bundle.toml`; raises `NotFound` without one, `InvalidInput` when it is wrong.

    The files it names are not touched; `verify_files` and `read_file` check them.
    """
    path = folder / BUNDLE_TOML
    return parse_bundle(read_bundle_text(folder), str(path))


def read_bundle_text(folder: Path) -> str:
    """The text of `folder/bundle.toml`, refused above 64 KiB or when it is not UTF-8."""
    path = folder / BUNDLE_TOML
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TOML_BYTES + 1)
        if len(raw) > MAX_TOML_BYTES:
            raise _invalid(str(path), f"is larger than {MAX_TOML_BYTES} bytes")
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid(str(path), "is not UTF-8") from error
    except OSError as error:
        raise NotFound(f"{path} cannot be read ({error.strerror}); a bundle is a folder with it") from error


def read_file(folder: Path, entry: BundleFile) -> bytes:
    """The bytes of one file after checking size and SHA-256, so that what is checked is what is used.

    Raises `NotFound` without the file and `Corrupt` when it is another one than `bundle.toml` says.
    """
    path = folder / entry.name
    try:
        size = path.stat().st_size
        if size != entry.bytes:
            raise Corrupt(
                f"{path} has {size} bytes, bundle.toml says {entry.bytes}", code="CHECKSUM_MISMATCH"
            )
        with path.open("rb") as file:
            data = file.read(entry.bytes + 1)
    except OSError as error:
        raise NotFound(f"{path} cannot be read ({error.strerror}); it comes from {entry.upstream}") from error
    check_digest(entry, hashlib.sha256(data).hexdigest(), str(path))
    return data


def check_digest(entry: BundleFile, digest: str, where: str) -> None:
    """Raise `Corrupt` (CHECKSUM_MISMATCH) unless `digest` is the file's SHA-256."""
    if digest != entry.sha256:
        raise Corrupt(
            f"{where} is not the file the bundle names: SHA-256 is {digest}, expected {entry.sha256}",
            code="CHECKSUM_MISMATCH",
            file=entry.name,
        )


def verify_files(folder: Path, bundle: Bundle) -> None:
    """Read and check every file of the bundle; raises like `read_file`."""
    for entry in bundle.files:
        read_file(folder, entry)


def _check(bundle: Bundle, where: str) -> None:
    names = [entry.name for entry in bundle.files]
    if len({name.casefold() for name in names}) != len(names):
        raise _invalid(where, "files: two entries have the same name")
    for section, file in (("detector", bundle.detector.file), ("embedder", bundle.embedder.file)):
        if file not in names:
            raise _invalid(where, f"{section}.file: {file} is not among files")
    if bundle.name == DEFAULT:
        raise _invalid(where, f"name: {DEFAULT!r} is the built-in model's")
    if any("{stride}" not in output for output in bundle.detector.outputs):
        raise _invalid(where, "detector.outputs: each must contain {stride}")
    if any(
        stride > bundle.detector.multiple or bundle.detector.multiple % stride
        for stride in bundle.detector.strides
    ):
        raise _invalid(where, "detector.strides: each must divide detector.multiple")
    if bundle.detector.largest_face_px < 4 * bundle.detector.smallest_face_px:
        raise _invalid(where, "detector.largest_face_px: must be at least 4 x smallest_face_px")
    inside = all(0 <= value < bundle.embedder.size for point in bundle.embedder.points for value in point)
    if not inside or len(set(bundle.embedder.points)) != len(bundle.embedder.points):
        raise _invalid(where, "embedder.points: must be five different points inside the crop")


def _line(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    unknown = item["type"] in {"unexpected_keyword_argument", "extra_forbidden"}
    return f"{key}: {'unknown key' if unknown else item['msg']}"


def _invalid(where: str, what: str) -> InvalidInput:
    if re.match(r"^[A-Za-z0-9_.]+: ", what) is None:
        return InvalidInput(f"{where} {what}", code="BUNDLE_INVALID")
    return InvalidInput(f"{where}: {what}", code="BUNDLE_INVALID")
