"""Lay google/rpc/status.proto, as the installed wheel ships it, where buf finds imports."""

import shutil
import sys
from pathlib import Path

from google.rpc import status_pb2

target = Path(sys.prefix) / "googleapis" / "google" / "rpc"
target.mkdir(parents=True, exist_ok=True)
shutil.copyfile(Path(status_pb2.__file__).with_name("status.proto"), target / "status.proto")
