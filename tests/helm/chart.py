"""Rendering the chart with the real helm, and looking things up in what it renders."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from scripts.get_helm import helm

CHART = Path(__file__).resolve().parents[2] / "helm" / "homeward"
NAMESPACE = "agency"
RELEASE = "finder"
OTHER = "other"  # a site's fullnameOverride

Document = dict[str, Any]


class Refused(Exception):
    """Helm rendered nothing; the message is what an operator reads."""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run helm; its files go nowhere."""
    return subprocess.run([str(helm()), *words], capture_output=True, text=True, check=False, timeout=60)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The objects of one release."""

    documents: tuple[Document, ...]
    text: str

    def kind(self, kind: str) -> list[Document]:
        """All objects of a kind."""
        return [one for one in self.documents if one["kind"] == kind]

    def one(self, kind: str, name: str = "") -> Document:
        """The object of a kind whose name is that of the release and this."""
        found = [one for one in self.kind(kind) if _is_named(one, name)]
        assert len(found) == 1, f"{len(found)} of {kind} {name}: {[one['metadata']['name'] for one in found]}"
        return found[0]

    def has(self, kind: str, name: str = "") -> bool:
        """Whether there is such an object."""
        return any(_is_named(one, name) for one in self.kind(kind))

    def pods(self) -> Iterator[tuple[str, Document]]:
        """Every pod that comes to be, by what makes it: its metadata and spec."""
        for document in self.documents:
            name = f"{document['kind']}/{document['metadata']['name']}"
            match document["kind"]:
                case "Deployment":
                    yield name, document["spec"]["template"]
                case "Pod":
                    yield name, document
                case "RayCluster":
                    spec = document["spec"]
                    yield f"{name}/head", spec["headGroupSpec"]["template"]
                    for group in spec["workerGroupSpecs"]:
                        yield f"{name}/{group['groupName']}", group["template"]


def _is_named(document: Document, name: str) -> bool:
    return not name or document["metadata"]["name"] in (f"{RELEASE}{name}", f"{OTHER}{name}")


def render(*files: str, values: Mapping[str, Any] | None = None) -> Rendered:
    """The chart with its values files of these names (values-NAME.yaml) and values over them.

    Raises `Refused`.
    """
    return _render(files, json.dumps(values or {}))


@cache
def _render(files: tuple[str, ...], values: str) -> Rendered:
    words = ["template", RELEASE, str(CHART), "--namespace", NAMESPACE]
    for file in files:
        words += ["-f", str(CHART / f"values-{file}.yaml")]
    done = subprocess.run(
        [str(helm()), *words, "-f", "-"],
        input=values,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        raise Refused(done.stderr)
    documents = tuple(one for one in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if one)
    return Rendered(documents, done.stdout)


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Values over values, as helm lays them."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            before = result.get(key)
            both = isinstance(value, Mapping) and isinstance(before, Mapping)
            result[key] = merged(before, value) if both else value  # type: ignore[arg-type]
    return result
