"""A load that has started Ray still ends in order when it is asked to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_DRIVER = """
import os, signal, sys, time
from pathlib import Path
from cluster.load.load_actor import RayRunners
from homeward.config import Settings

asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append("asked"))
with RayRunners(Settings.load(None, data_dir=Path(sys.argv[1]))) as runners:
    runners.prepare()
    assert runners.get().count >= 1  # Ray is there
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)
    print(*asked, flush=True)
"""


def test_ray_leaves_the_handler_of_sigterm_alone(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _DRIVER, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout.split()) == (0, ["asked"]), ran.stderr[-2000:]
