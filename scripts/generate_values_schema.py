"""Write what `settings` of the chart's values may hold into its schema, from the settings' own model.

So that the chart refuses what Homeward would refuse. Left out are secrets, and what the chart says itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from homeward.config import Settings

SCHEMA = Path(__file__).resolve().parents[1] / "helm" / "homeward" / "values.schema.json"
SAID_BY_THE_CHART = {
    "server": {
        "address", "tls_certificate", "tls_key", "tls_client_ca", "tls_root",
        "drain_s", "max_connection_age_s", "health_address", "metrics_address",
    },
    "telemetry": {"log_format", "log_level", "metrics_address"},
    "catalogue": {"uri"},
    "photos": {"uri", "region", "secure"},
    "gallery": {"uri"},
    "workers": {"where", "addresses", "ports", "bundle", "bundles_dir"},
    "index": {"where", "folder", "device", "ports", "replicas", "shard_cpus", "shard_gpus"},
    "loads": {"where", "ray"},
}  # fmt: skip
_KEPT = (
    "type",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "description",
)


def settings_schema() -> dict[str, Any]:
    """Draft 7, one object per section."""
    model = Settings.model_json_schema()
    sections = {}
    for name, said in model["properties"].items():
        if "$ref" not in said:
            continue
        section = model["$defs"][said["$ref"].rsplit("/", 1)[1]]
        fields = {
            field: {key: rule[key] for key in _KEPT if key in rule}
            for field, rule in section["properties"].items()
            if field not in SAID_BY_THE_CHART.get(name, ()) and not _is_secret(rule)
        }
        sections[name] = {"type": "object", "additionalProperties": False, "properties": fields}
    return {"type": "object", "additionalProperties": False, "properties": sections}


def _is_secret(rule: dict[str, Any]) -> bool:
    return any(choice.get("format") == "password" for choice in (rule, *rule.get("anyOf", ())))


def schema_text(before: str) -> str:
    """The schema with its `settings` made anew."""
    schema = json.loads(before)
    schema["$defs"]["settings"] = settings_schema()
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    text = schema_text(SCHEMA.read_text())
    SCHEMA.write_text(text)
    sys.stdout.write(f"{SCHEMA}\n")
