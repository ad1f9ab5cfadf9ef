"""docs/metrics.md, generated from the metrics."""

from pathlib import Path
from typing import Any

from callmood.worker import metrics

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
_HEAD = """# Metrics

<!-- written by `make docs` from worker/metrics.py; do not edit -->

Prometheus scrapes `/metrics` on the port `CALLMOOD_WORKER__HEALTH_PORT` (8080). The response covers all processes of a
worker. Counters end in `_total`; a histogram has `_bucket`, `_sum` and `_count`. Labels have few values; a call id is
never a label. [Operations](operations.md#alerts) explains the alerts on these metrics, [logs](logs.md) lists the log
events, [settings](configuration.md) the settings. The chart installs a Grafana dashboard (`dashboards.enabled`).

| metric | kind | labels | meaning |
| --- | --- | --- | --- |
"""


def page() -> str:
    """The content of docs/metrics.md."""
    return _HEAD + "".join(map(_row, every()))


def every() -> list[Any]:
    """All metrics of the worker, in the order of the file."""
    return [value for value in vars(metrics).values() if hasattr(value, "_labelnames")]


def _row(metric: Any) -> str:
    kind = metric._type  # noqa: SLF001 - prometheus_client has no public name for it
    name = metric._name + ("_total" if kind == "counter" else "")  # noqa: SLF001 - as above
    labels = ", ".join(f"`{label}`" for label in metric._labelnames) or "none"  # noqa: SLF001 - as above
    return f"| `{name}` | {kind} | {labels} | {metric._documentation} |\n"  # noqa: SLF001 - as above
