"""The chart, rendered."""

import json
from functools import cache

import pytest
import yaml
from charting import CHART, HelmError


@pytest.fixture(scope="session")
def render(helm):
    """`render(values)` gives the objects of a release `voice` in the namespace `calls`; values: a file or a mapping."""

    @cache
    def rendered(*arguments):
        return helm("template", "voice", CHART, "--namespace", "calls", *arguments)

    def objects(values, *more):
        path = CHART / "ci" / values if isinstance(values, str) else None
        flags = (
            ["--values", path]
            if path
            else [word for key, value in values.items() for word in ("--set-json", f"{key}={json.dumps(value)}")]
        )
        return [one for one in yaml.load_all(rendered(*flags, *more), Loader=yaml.CSafeLoader) if one]

    return objects


@pytest.fixture(scope="session")
def refused():
    """The error that `helm` raises."""
    return HelmError
