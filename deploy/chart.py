"""Generates the chart's values.schema.json and README.md.

Descriptions come from deploy/chart_schema.yaml, defaults from the chart's values.yaml, and the keys under `config` from
the worker's settings.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from callmood.worker.settings import Settings

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "callmood"
SCHEMA, README = CHART / "values.schema.json", CHART / "README.md"
# Settings that the chart decides, and secrets, which must not be in a ConfigMap.
DECIDED = {
    "kafka": {"membership"},
    "model": {"path", "device"},
    "alert": {"rules_file"},
    "worker": {"name"},
    "log": {"format"},
}
SECRET = {"kafka": {"sasl_password"}, "redis": {"sentinel_password"}}
_HEAD = """# callmood

<!-- written by `make docs` from values.yaml, deploy/chart_schema.yaml and the settings; do not edit -->

This chart runs callmood workers on Kubernetes. You need Kafka, Redis and an image in your registry. No image is
published, so [build it](../../docs/operations.md#the-image) first.

```sh
helm install callmood helm/callmood --set image.registry=registry.example.com \\
  --set config.kafka.bootstrap_servers=kafka:9092 --set config.redis.url=redis://redis:6379/0 \\
  --set topicsJob.enabled=true --set gpu.enabled=false
helm test callmood     # tests Kafka, Redis and the model with these settings
```

- By default a worker requests a GPU, and topics must exist. The command above changes both.
- Set `model.source` to your own model: the bundled one is a demo.
- Enable `podMonitor`, `prometheusRule` and `dashboards` for monitoring. Each alert links to its section of
  [operations](../../docs/operations.md#alerts).
- `config` contains [settings](../../docs/configuration.md) of the worker. Do not write secrets into values: `secretEnv`
  and `secretFiles` refer to existing secrets.
- Before it installs anything, Helm rejects unknown or impossible values and names them.

| value | default | meaning |
| --- | --- | --- |
"""


def schema() -> dict[str, Any]:
    """The JSON Schema of values.yaml."""
    described = yaml.safe_load((ROOT / "deploy" / "chart_schema.yaml").read_text(encoding="utf-8"))
    made = _group({**described, "config": config_schema()})
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "callmood", **made, "allOf": _RULES}


def config_schema() -> dict[str, Any]:
    """The schema of `config`: the worker's settings by group, without secrets and those that the chart decides."""
    settings = Settings.model_json_schema()
    groups = {}
    for name, reference in settings["properties"].items():
        described = settings["$defs"][_reference(reference)]
        hidden = DECIDED.get(name, set()) | SECRET.get(name, set())
        properties = {
            key: _inlined(value, settings["$defs"])
            for key, value in described["properties"].items()
            if key not in hidden
        }
        if name == "redis":
            properties["url"]["pattern"] = "^rediss?://[^@]*$"  # one with a password is a secret: secretEnv
        groups[name] = {"type": "object", "additionalProperties": False, "properties": properties}
    return {
        "type": "object",
        "description": "Settings of the worker by group and name, as listed in `docs/configuration.md`.",
        "additionalProperties": False,
        "properties": groups,
    }


def readme() -> str:
    """The content of the chart's README.md."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    rows = "".join(f"| `{name}` | {default} | {text} |\n" for name, default, text in _rows(schema(), values, ""))
    return _HEAD + rows


_A_GATEWAY = {"httpRoute": {"properties": {"parentRefs": {"minItems": 1}}}}
_RULES: list[dict[str, Any]] = [
    {
        "if": {"properties": {"membership": {"const": "static"}}},
        "then": {"properties": {"autoscaling": {"properties": {"enabled": {"const": False}}}}},
    },
    {
        "if": {"properties": {"autoscaling": {"properties": {"enabled": {"const": True}, "kind": {"const": "keda"}}}}},
        "then": {"properties": {"autoscaling": {"properties": {"prometheusAddress": {"minLength": 1}}}}},
    },
    {
        "if": {"properties": {"page": {"properties": {"enabled": {"const": True}}}}},
        "then": {"properties": {"page": {"properties": {"tokenSecret": {"properties": {"name": {"minLength": 1}}}}}}},
    },
    {
        "if": {"properties": {"page": {"properties": {"httpRoute": {"properties": {"enabled": {"const": True}}}}}}},
        "then": {
            "properties": {"page": {"properties": {"httpRoute": {"properties": {"parentRefs": {"minItems": 1}}}}}}
        },
    },
    {
        "if": {"properties": {"webhooks": {"properties": {"enabled": {"const": True}}}}},
        "then": {"properties": {"webhooks": {"properties": {"secret": {"properties": {"name": {"minLength": 1}}}}}}},
    },
    {
        "if": {"properties": {"model": {"properties": {"source": {"const": "volume"}}}}},
        "then": {"properties": {"model": {"properties": {"claimName": {"minLength": 1}}}}},
    },
    {
        "if": {"properties": {"model": {"properties": {"source": {"const": "hub"}}}}},
        "then": {"properties": {"model": {"properties": {"path": {"pattern": "^hf://[^/@]+/[^/@]+@[0-9a-f]{40}$"}}}}},
    },
]


def _group(described: Mapping[str, Any]) -> dict[str, Any]:
    properties = {name: one if "type" in one else _group(one) for name, one in described.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _reference(one: Mapping[str, Any]) -> str:
    reference: str = one.get("$ref") or one["allOf"][0]["$ref"]
    return reference.rpartition("/")[2]


def _inlined(one: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema with its references resolved: Helm's validator does not follow them."""
    if isinstance(one, list):
        return [_inlined(each, definitions) for each in one]
    if not isinstance(one, dict):
        return one
    if "$ref" in one:
        return _inlined(definitions[_reference(one)], definitions)
    dropped = {"title", "default", "writeOnly", "env_names"}
    return {key: _inlined(value, definitions) for key, value in one.items() if key not in dropped}


def _rows(one: Mapping[str, Any], values: Any, path: str) -> Iterator[tuple[str, str, str]]:
    for name, part in one["properties"].items():
        value = values[name]
        where = f"{path}{name}"
        if "properties" in part and name != "config":
            yield from _rows(part, value, f"{where}.")
            continue
        default = "none" if value in ("", [], {}) else f"`{json.dumps(value)}`"
        text = part.get("description", "")
        yield where, default.replace("|", "&#124;"), text.replace("|", "&#124;")
