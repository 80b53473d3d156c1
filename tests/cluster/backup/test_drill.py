"""The commands of docs/backup.md, run as they stand there, with real photographs and the default model."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from cluster.cli.main import app
from tests.shared import SHARED

PAGE = Path(__file__).resolve().parents[3] / "docs" / "backup.md"
PEOPLE = 5


def commands() -> list[str]:
    """The lines of the page's shell blocks, in its order."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.fixture
def people(tmp_path: Path) -> None:
    """people/<name>/<photo>, and probe.jpg: another photo of one of them."""
    portrait = Image.fromarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]
    (tmp_path / "people" / "collins").mkdir(parents=True)
    portrait.save(tmp_path / "people" / "collins" / "first.png")
    portrait.rotate(4, Image.Resampling.BICUBIC).resize((400, 400)).save(tmp_path / "probe.jpg", quality=85)
    if SHARED is not None:
        for folder in sorted(path for path in (SHARED / "photos" / "london").iterdir() if path.is_dir())[
            :PEOPLE
        ]:
            shutil.copytree(folder, tmp_path / "people" / folder.name)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder of the drill, and an environment that is put back."""
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def run(line: str) -> str:
    """Run one line; `homeward` in this process, which has the model imported already."""
    if line.startswith("export "):
        name, _, value = line.removeprefix("export ").partition("=")
        os.environ[name] = value.replace("$PWD", str(Path.cwd()))
        return ""
    if not line.startswith("homeward "):
        return subprocess.run(["bash", "-ec", line], check=True, capture_output=True, text=True).stdout
    ours, rest = re.fullmatch(r"homeward (.*?)( [|>].*)?", line).groups()  # type: ignore[union-attr]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        app(shlex.split(ours))
    assert ended.value.code in (0, None), (line, said.getvalue())
    if rest:
        subprocess.run(["bash", "-ec", f"cat {rest}"], input=said.getvalue(), check=True, text=True)
    return said.getvalue()


def test_the_drill_of_the_page_ends_with_everything_as_it_was(people: None, shell: None) -> None:
    lines = commands()
    said = {line: run(line) for line in lines}
    assert [line for line in lines if line.startswith("cmp ")]
    assert '"candidates"' in Path("before").read_text()
    assert "collins" in Path("before").read_text()
    assert "search_id" not in Path("before").read_text()
    checks = said["homeward doctor"]
    assert "failed" not in checks
    old = {path.name: path.read_bytes() for path in Path("lost/photos").rglob("*") if path.is_file()}
    new = {path.name: path.read_bytes() for path in Path("data/photos").rglob("*") if path.is_file()}
    photos = {name for name in old if re.fullmatch("[0-9a-f]{64}", name)}
    assert len(photos) >= 1
    assert {name: old[name] for name in photos} == {name: new.get(name) for name in photos}
    assert not list(Path("backups/monday").glob("*="))


def test_the_page_names_the_reason_codes_that_there_are() -> None:
    root = PAGE.parents[1]
    code = "".join(
        path.read_text()
        for folder in ("cluster/backup", "catalogue")
        for path in (root / folder).glob("*.py")
    )
    raised = set(re.findall(r'code="((?:BACKUP|RESTORE)_[A-Z_]+)"', code))
    assert set(re.findall(r"`((?:BACKUP|RESTORE)_[A-Z_]+)`", PAGE.read_text())) == raised
