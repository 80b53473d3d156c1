"""`helm test`: asks a server how it is and, given photos, enrols one, finds it by the other, deletes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

BY = ("--agency", "helm-test", "--gallery", "helm-test")
WHY = "test of the installation"


def homeward(server: str, *words: str) -> dict[str, Any]:
    """What the command says, as its last line of JSON; ends the test where it fails."""
    done = subprocess.run(
        ["homeward", "--server", server, "--json", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"homeward {words[0]} failed ({done.returncode}): {done.stdout}{done.stderr}")
    said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return said


def main(server: str, photos: Path | None) -> None:
    """Run the test; each step is told."""
    status = homeward(server, "status")
    print(f"{server} serves, version {status['version']}")
    if photos is None:
        print("no photos were given (tests.photosSecret): nothing was enrolled")
        return
    # A reference of its own: what was deleted under one would have to be reinstated.
    reference = f"{os.uname().nodename}-{os.urandom(4).hex()}"
    enrolled = homeward(server, "enrol", str(photos / "enrol.jpg"), *BY, "--reference", reference)
    record = str(enrolled["record"]["record_id"])
    print(f"enrolled as {record}")
    try:
        context = ("--case", "helm-test", "--purpose", WHY, "--as", "helm test")
        answer = homeward(server, "search", str(photos / "probe.jpg"), *BY, *context)
        candidates = [one["record_id"] for found in answer["lists"] for one in found.get("candidates", ())]
        if record not in candidates:
            sys.exit(f"the search did not find the record that was just enrolled, but {candidates}")
        print("found by another photo")
    finally:
        homeward(server, "delete", record, "--yes", "--as", "helm test", "--reason", WHY)
        print("deleted")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None)
