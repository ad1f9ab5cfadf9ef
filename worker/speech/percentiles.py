"""Percentiles of few values. Pure."""

from typing import Any

import numpy as np
import numpy.typing as npt


def percentiles(values: npt.NDArray[np.floating[Any]], *percents: int) -> list[float]:
    """As `np.percentile`, which takes ten times as long for the few hundred values of an utterance."""
    ordered = np.sort(values)
    found = []
    for percent in percents:
        below, share = divmod((len(ordered) - 1) * percent, 100)
        low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
        found.append(low + (high - low) * share / 100)
    return found
