"""The hold of a call: from a `hold` to an `unhold` of any stream. Its audio is processed as usual. Pure."""

from callmood.worker.records import Unheard
from callmood.worker.speech.taken import Taken


class Hold:
    """Whether a call is on hold.

    Args:
        from_ms: the part of the present hold that is not on the call's time line yet begins here; None: no hold.
    """

    def __init__(self, from_ms: int | None = None) -> None:
        self.from_ms = from_ms

    def follow(self, taken: Taken) -> None:
        """Take what a stream has brought."""
        for is_hold, at_ms in taken.holds:
            if not is_hold:
                self.tell(at_ms, taken.unheard)
            self.from_ms = (at_ms if self.from_ms is None else self.from_ms) if is_hold else None

    def tell(self, until_ms: int, unheard: list[Unheard]) -> None:
        """Add the hold so far: what is said in it must find it on the time line."""
        if self.from_ms is not None and until_ms > self.from_ms:
            unheard.append(Unheard(self.from_ms, until_ms, is_pause=False, is_hold=True))
            self.from_ms = until_ms
