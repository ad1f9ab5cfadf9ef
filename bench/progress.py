"""How far a long measurement is."""

import sys
import time


class Progress:
    """Says on stderr at each tenth of a step how far it is.

    Args:
        step: its name.
        records: how many it has to do, about.
    """

    def __init__(self, step: str, records: int) -> None:
        self._step, self._records, self._tenths, self._began_s = step, records, 0, time.monotonic()

    def reach(self, count: int) -> None:
        """So many are done."""
        if count * 10 // self._records > self._tenths:
            self._tenths = count * 10 // self._records
            took_s = time.monotonic() - self._began_s
            print(f"{self._step}: {count:,} of {self._records:,} records, {took_s:.0f} s", file=sys.stderr, flush=True)
