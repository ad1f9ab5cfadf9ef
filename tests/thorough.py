"""How much the tests try: little for each change, much at night (`make nightly` sets the variable)."""

import os
from typing import Final

IS_NIGHT: Final = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
_TIMES_AT_NIGHT = 20


def examples(count: int) -> int:
    """Hypothesis examples of a test: this many for a change, twenty times as many at night."""
    return count * _TIMES_AT_NIGHT if IS_NIGHT else count


def fuzzed() -> int:
    """Hypothesis examples of a target of fuzzing: about a minute at night."""
    return 20_000 if IS_NIGHT else 50
