"""Where the photos are that tests use beside the project; without them those tests are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_FOLDER = Path(os.environ.get("HOMEWARD_SHARED", Path(__file__).resolve().parents[2] / "shared"))
SHARED: Path | None = _FOLDER if _FOLDER.is_dir() else None
needs_shared = pytest.mark.skipif(SHARED is None, reason="no ../shared folder; set HOMEWARD_SHARED")
