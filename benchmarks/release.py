"""A release of the chart on this machine: what helm renders, with the Secrets and claims that it names.

A pod becomes a folder in the place of its root file system: every mount lies where the manifest says, under
that folder, and the paths of the configuration, of the environment and of commands are taken from there.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from tests.helm.chart import Document, Rendered

_ROOT = Path(__file__).resolve().parents[1]
_CACHE = "cache"  # the volume of compiled kernels: this machine's own, so that they are compiled once
_ANY_ADDRESS = "0.0.0.0"
_KEPT = ("LANG", "LC_ALL", "SSL_CERT_DIR", "TMPDIR")  # of this process's environment


@dataclass(frozen=True, slots=True)
class Pod:
    """Where one pod's files are, and what its first container runs with."""

    name: str
    address: str
    root: Path
    command: tuple[str, ...]
    environment: Mapping[str, str]
    paths: re.Pattern[str]

    def local(self, text: str) -> str:
        """The text with the pod's paths and address in it."""
        said = self.paths.sub(lambda found: f"{self.root}{found[0]}", text)
        return said.replace(_ANY_ADDRESS, self.address)


@dataclass(frozen=True, slots=True)
class Release:
    """What was rendered, and what was there before: Secrets by name and key, claims by name."""

    values: Mapping[str, Any]  # over the values files
    rendered: Rendered
    secrets: Mapping[str, Mapping[str, bytes]]
    claims: Mapping[str, Path]
    folder: Path
    # 127.a.b.: each pod has an address of its own, so that all of a kind can have the same ports.
    network: str = field(
        default_factory=lambda: f"127.{1 + secrets.randbelow(254)}.{secrets.randbelow(256)}."
    )

    def pod(self, template: Document, name: str, address: str) -> Pod:
        """Lay a pod's files out; of a name there may be one."""
        spec = template["spec"]
        container = spec["containers"][0]
        root = self.folder / "pods" / name
        root.mkdir(parents=True)
        mounts = sorted(container["volumeMounts"], key=lambda mount: str(mount["mountPath"]))
        paths = "|".join(sorted((re.escape(mount["mountPath"]) for mount in mounts), key=len, reverse=True))
        pod = Pod(name, address, root, (), {}, re.compile(rf"(?<![\w./-])(?:{paths})(?![\w.-])"))
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in mounts:
            self._mount(pod, volumes[mount["name"]], mount)
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment["PYTHONPATH"] = str(_ROOT)
        for variable in container["env"]:
            environment[variable["name"]] = pod.local(self._value(variable, name))
        command = tuple(pod.local(word) for word in container.get("command", ()))
        return Pod(name, address, root, command, environment, pod.paths)

    def secret(self, name: str, key: str) -> bytes:
        """What is under a key of a Secret."""
        return self.secrets[name][key]

    def _value(self, variable: Mapping[str, Any], pod: str) -> str:
        source = variable.get("valueFrom")
        if source is None:
            return str(variable["value"])
        if "secretKeyRef" in source:
            return self.secret(source["secretKeyRef"]["name"], source["secretKeyRef"]["key"]).decode()
        assert source["fieldRef"]["fieldPath"] == "metadata.name", source
        return pod

    def _mount(self, pod: Pod, volume: Mapping[str, Any], mount: Mapping[str, Any]) -> None:
        place = pod.root / str(mount["mountPath"]).lstrip("/")
        if "persistentVolumeClaim" in volume:
            place.parent.mkdir(parents=True, exist_ok=True)
            within = str(mount.get("subPathExpr", "")).replace("$(POD_NAME)", pod.name)
            source = self.claims[volume["persistentVolumeClaim"]["claimName"]] / within
            source.mkdir(parents=True, exist_ok=True)
            place.symlink_to(source)
        elif volume["name"] == _CACHE:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(user_cache_path())
        else:
            place.mkdir(parents=True, exist_ok=True)
            for name, data in self._files(pod, volume).items():
                (place / name).write_bytes(data)
                (place / name).chmod(0o600)

    def _files(self, pod: Pod, volume: Mapping[str, Any]) -> Mapping[str, bytes]:
        if "secret" in volume:
            return self.secrets[volume["secret"]["secretName"]]
        if "configMap" in volume:
            wanted = volume["configMap"]["name"]
            [found] = [one for one in self.rendered.kind("ConfigMap") if one["metadata"]["name"] == wanted]
            return {name: pod.local(text).encode() for name, text in found["data"].items()}
        return {}
