"""Percentiles of few values."""

import numpy as np
import pytest

from callmood.worker.speech.percentiles import percentiles


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101, 250])
def test_percentiles_are_those_of_numpy(count):
    """Between two values they are interpolated; one value has every percentile."""
    values = np.random.default_rng(count).normal(0, 20, count)
    assert percentiles(values, 0, 10, 25, 75, 100) == pytest.approx(np.percentile(values, [0, 10, 25, 75, 100]))
