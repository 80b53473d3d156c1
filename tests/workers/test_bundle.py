"""bundle.toml is understood wholly or refused, naming the key."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeward.errors import Corrupt, InvalidInput, NotFound
from tests.workers import tiny_bundle
from workers.bundle import parse_bundle, read_bundle, read_file, verify_files
from workers.registry import NAMES, installable

FILES = {"detector.onnx": b"detector", "embedder.onnx": b"embedder"}
TEXT = tiny_bundle.toml(FILES)


def test_a_whole_bundle_is_read_back_as_written(tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle.write(tmp_path / "tiny"))
    assert (bundle.name, bundle.licence, bundle.embedder.dimension) == ("tiny", "Apache-2.0", 16)
    assert bundle.embedder.points[2] == (16.0, 18.0)
    verify_files(tmp_path / "tiny", bundle)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("mirror = true", "mirror = true\nflip = 1", "embedder.flip: unknown key"),
        ("format = 1", "format = 2", "format: "),
        ("format = 1", "format = 1\nrun = 'setup.py'", "run: unknown key"),
        ('licence = "Apache-2.0"', "", "licence: "),
        ('kind = "yunet"', 'kind = "python"', "detector.kind: "),
        ('layout = "NCHW"', 'layout = "NHWC"', "detector.layout: "),
        ('channels = "RGB"', 'channels = "GRB"', "detector.channels: "),
        ("scale = 1.0", 'scale = "1.0"', "detector.scale: "),
        ("scale = 1.0", "scale = nan", "detector.scale: "),
        ("scale = 1.0", "scale = 0", "detector.scale: "),
        ("strides = [8]", "strides = [16]", "detector.strides: "),
        ("strides = [8]", "strides = []", "detector.strides: "),
        ('"cls_{stride}"', '"cls"', "detector.outputs: "),
        ("largest_face_px = 128.0", "largest_face_px = 40.0", "detector.largest_face_px: "),
        ('file = "embedder.onnx"', 'file = "other.onnx"', "embedder.file: other.onnx is not among files"),
        ('name = "detector.onnx"', 'name = "../detector.onnx"', "files.0.name: "),
        ('name = "detector.onnx"', 'name = "detector.py"', "files.0.name: "),
        ('name = "detector.onnx"', 'name = "EMBEDDER.onnx"', "files: two entries have the same name"),
        ("https://models.example/det", "http://models.example/det", "files.0.upstream: "),
        ("bytes = 8", "bytes = 99999999999", "files.0.bytes: "),
        ('name = "tiny"', 'name = "default"', "name: "),
        ('name = "tiny"', 'name = "../up"', "name: "),
        ("[22.0, 12.0]", "[99.0, 12.0]", "embedder.points: "),
        ("[22.0, 12.0]", "[10.0, 12.0]", "embedder.points: "),
        ("[22.0, 12.0], ", "", "embedder.points"),
        ("mirror = true", "mirror = ", "Invalid value"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, complaint: str) -> None:
    assert old in TEXT
    with pytest.raises(InvalidInput) as refused:
        parse_bundle(TEXT.replace(old, new, 1), "bundle.toml")
    assert refused.value.code == "BUNDLE_INVALID"
    assert complaint in refused.value.message


@given(st.text(max_size=200))
def test_any_text_is_a_bundle_or_a_typed_refusal(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_bundle(text, "bundle.toml")


@given(st.integers(0, len(TEXT) - 1), st.characters(codec="utf-8"))
def test_a_damaged_bundle_is_a_bundle_or_a_typed_refusal(place: int, character: str) -> None:
    with suppress(InvalidInput):
        parse_bundle(TEXT[:place] + character + TEXT[place + 1 :], "bundle.toml")


def test_the_model_id_follows_what_shapes_a_template_and_nothing_else() -> None:
    first = parse_bundle(TEXT, "a").model_id
    assert first.startswith("tiny-")
    for shaping in (
        ("mirror = true", "mirror = false"),
        ("[22.0, 12.0]", "[22.5, 12.0]"),
        ('channels = "BGR"', 'channels = "RGB"'),
        ('channels = "RGB"', 'channels = "BGR"'),
        ("scale = 0.00784313725490196", "scale = 0.0078"),
    ):
        assert parse_bundle(TEXT.replace(*shaping, 1), "b").model_id != first, shaping
    other = tiny_bundle.toml({**FILES, "embedder.onnx": b"embedde_"})
    assert parse_bundle(other, "b").model_id != first
    for neutral in (
        ("score_threshold = 0.5", "score_threshold = 0.6"),
        ("https://models.example/det", "https://elsewhere.example/det"),
        ('version = "1"', 'version = "2"'),
        ("scale = 1.0", "scale = 1"),
    ):
        assert parse_bundle(TEXT.replace(*neutral, 1), "b").model_id == first, neutral


def test_the_built_in_ids_stay_what_stored_templates_carry() -> None:
    assert [installable(name).bundle.model_id for name in NAMES] == ["yunet-mobilefacenet-c6f06095a70c9a49"]


def test_an_unknown_built_in_is_not_found() -> None:
    with pytest.raises(NotFound, match="yunet-mobilefacenet"):
        installable("arcface-r100")


@pytest.mark.parametrize("damage", [b"", b"Xetector", b"detector!"])
def test_a_file_that_is_another_is_corrupt(tmp_path: Path, damage: bytes) -> None:
    folder = tiny_bundle.write(tmp_path / "tiny", files=FILES)
    bundle = read_bundle(folder)
    (folder / "detector.onnx").write_bytes(damage)
    with pytest.raises(Corrupt) as refused:
        read_file(folder, bundle.files[0])
    assert refused.value.code == "CHECKSUM_MISMATCH"


def test_a_missing_file_or_bundle_is_not_found(tmp_path: Path) -> None:
    folder = tiny_bundle.write(tmp_path / "tiny", files=FILES)
    bundle = read_bundle(folder)
    (folder / "detector.onnx").unlink()
    with pytest.raises(NotFound, match=r"https://models\.example/detector\.onnx"):
        read_file(folder, bundle.files[0])
    with pytest.raises(NotFound, match=r"bundle\.toml"):
        read_bundle(tmp_path)


def test_a_huge_bundle_toml_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    (tmp_path / "bundle.toml").write_text("#" * 100_000)
    with pytest.raises(InvalidInput, match="larger"):
        read_bundle(tmp_path)
