"""The generated code in the repository is exactly what the generator makes of proto/."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_stubs_are_what_the_generator_writes(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "generate_proto.py"), "--out", str(tmp_path)], check=True
    )
    fresh = {path.name: path.read_text() for path in (tmp_path / "homeward" / "v1").iterdir()}
    committed = {
        path.name: path.read_text()
        for path in (ROOT / "homeward" / "v1").iterdir()
        if path.name.endswith((".py", ".pyi")) and path.name != "__init__.py"
    }
    assert fresh == committed


def test_no_python_file_lies_in_proto() -> None:
    assert not list((ROOT / "proto").rglob("*.py"))  # it would shadow proto-plus's `proto` package
