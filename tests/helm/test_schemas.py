"""Every object of every site, held to Kubernetes' schemas and to those of the operators' own kinds."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate.utils
import pytest
import yaml

from tests.helm.sites import SITES, site
from tests.shared import SHARED

KUBERNETES = ("1.30", "1.35")  # the oldest that the chart allows, and the newest of this helm's clients
_CRDS = {
    ("ray.io/v1", "RayCluster"): "ray.io_rayclusters",
    ("ray.io/v1", "RayJob"): "ray.io_rayjobs",
    ("monitoring.coreos.com/v1", "ServiceMonitor"): "monitoring.coreos.com_servicemonitors",
    ("monitoring.coreos.com/v1", "PodMonitor"): "monitoring.coreos.com_podmonitors",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "monitoring.coreos.com_prometheusrules",
}
_NOT_CHECKED = {("cert-manager.io/v1", "Certificate")}  # no package ships its schema
_FOLDER = None if SHARED is None else SHARED / "schemas"

_seen: set[str] = set()


@pytest.fixture(autouse=True)
def _read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The validator reads megabytes of definitions for every object."""
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", _contents)


_contents = cache(kubernetes_validate.utils.schema_contents)


def _kind(document: dict[str, Any]) -> tuple[str, str]:
    return document["apiVersion"], document["kind"]


@pytest.mark.parametrize("name", SITES)
def test_kubernetes_takes_every_object(name: str) -> None:
    for document in site(name).documents:
        text = json.dumps(document, sort_keys=True)
        if _kind(document) in (*_CRDS, *_NOT_CHECKED) or text in _seen:
            continue
        for version in KUBERNETES:
            kubernetes_validate.validate(document, version, strict=True)
        _seen.add(text)


@pytest.mark.skipif(_FOLDER is None or not _FOLDER.is_dir(), reason="no ../shared/schemas")
@pytest.mark.parametrize("name", SITES)
def test_operators_take_every_object_of_their_kinds(name: str) -> None:
    for document in site(name).documents:
        text = json.dumps(document, sort_keys=True)
        if _kind(document) not in _CRDS or text in _seen:
            continue
        errors = [
            f"{'/'.join(str(part) for part in error.absolute_path)}: {error.message[:300]}"
            for error in _validator(_kind(document)).iter_errors(document)
        ]
        assert not errors, f"{_kind(document)}: {errors}"
        _seen.add(text)


@pytest.mark.skipif(_FOLDER is None or not _FOLDER.is_dir(), reason="no ../shared/schemas")
@pytest.mark.parametrize("wrong", ["misspelled", "of another type", "lacking", "deep"])
def test_the_operators_schemas_find_what_is_wrong(wrong: str) -> None:
    document = copy.deepcopy(site("national").one("RayCluster"))
    spec = document["spec"]
    match wrong:
        case "misspelled":
            spec["authOption"] = spec.pop("authOptions")
        case "of another type":
            spec["workerGroupSpecs"][0]["minReplicas"] = "two"
        case "lacking":
            del spec["workerGroupSpecs"][0]["maxReplicas"]
        case "deep":
            spec["headGroupSpec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRoot"] = 1
    assert list(_validator(_kind(document)).iter_errors(document))


def test_the_matrix_makes_every_kind() -> None:
    made = {_kind(document) for name in SITES for document in site(name).documents}
    assert made >= {*_CRDS, *_NOT_CHECKED}


@cache
def _validator(kind: tuple[str, str]) -> jsonschema.protocols.Validator:
    assert _FOLDER is not None
    text = (_FOLDER / f"{_CRDS[kind]}.yaml").read_text()
    definition = yaml.load(text, Loader=yaml.CSafeLoader)
    version = next(one for one in definition["spec"]["versions"] if one["name"] == "v1")
    return jsonschema.Draft7Validator(_strict(version["schema"]["openAPIV3Schema"], is_root=True))


def _strict(schema: Any, *, is_root: bool = False) -> Any:
    """As JSON schema, where fields that are not known are errors; Kubernetes drops those silently."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    result = {key: value for key, value in schema.items() if key in _COPIED}
    for key in ("items", "additionalProperties"):
        if key in schema:
            result[key] = _strict(schema[key])
    if "properties" in schema:
        result["properties"] = {name: _strict(one) for name, one in schema["properties"].items()}
        if not is_root and not schema.get("x-kubernetes-preserve-unknown-fields"):
            result.setdefault("additionalProperties", False)
    if is_root:
        result["properties"] = {"spec": result["properties"]["spec"]}
    return result


_COPIED = ("type", "enum", "pattern", "minimum", "maximum", "required", "minItems", "maxItems", "minLength")
