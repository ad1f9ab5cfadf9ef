"""Writes the pages that are generated from code and settings: `python -m deploy.pages`; `--check` only compares."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy import (
    capacity_page,
    chart,
    commands_page,
    configuration,
    decisions_page,
    logs_page,
    metrics_page,
    training_options,
)

PAGES: Mapping[Path, Callable[[], str]] = {
    configuration.PAGE: configuration.page,
    training_options.PAGE: training_options.page,
    metrics_page.PAGE: metrics_page.page,
    commands_page.PAGE: commands_page.page,
    logs_page.PAGE: logs_page.page,
    capacity_page.PAGE: capacity_page.page,
    decisions_page.PAGE: decisions_page.page,
    chart.SCHEMA: lambda: json.dumps(chart.schema(), indent=2) + "\n",
    chart.README: chart.readme,
}


def stale() -> list[Path]:
    """The generated files whose content is out of date."""
    return [path for path, page in PAGES.items() if not path.exists() or path.read_text(encoding="utf-8") != page()]


def main(arguments: list[str]) -> int:
    """Exit code 1 if `--check` finds a stale file."""
    if "--check" in arguments:
        for path in (found := stale()):
            print(f"{path} is stale: make docs", file=sys.stderr)
        return 1 if found else 0
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
