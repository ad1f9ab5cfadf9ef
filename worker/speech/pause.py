"""The pause of one stream: where it began on the call's time line, and how long it was. Pure."""

from callmood.worker.records import Unheard


class Pause:
    """A pause that goes on, or one that another stream has ended, or none.

    Args:
        at_ms: its start on the call's time line; None: no pause.
        left_ms: its length, if another stream has ended it: this one goes on with its next record.
    """

    def __init__(self, at_ms: int | None = None, left_ms: int | None = None) -> None:
        self.at_ms = at_ms
        self.left_ms = left_ms

    @property
    def goes_on(self) -> bool:
        """Whether no stream has ended it."""
        return self.at_ms is not None and self.left_ms is None

    def begin(self, at_ms: int) -> None:
        """It begins, or a `pause` in it says that it goes on."""
        self.at_ms = at_ms if self.at_ms is None else self.at_ms
        self.left_ms = None

    def end_elsewhere(self, length_ms: int) -> None:
        """Another stream has ended a pause of this length."""
        if self.at_ms is not None:
            self.left_ms = length_ms

    def end(self, end_ms: int, lost_ms: float, conceal_ms: int) -> list[Unheard]:
        """It ends here, or ended earlier: what was lost since that end is missing, if it cannot be concealed.

        Args:
            end_ms: where the stream is on the call's time line.
            lost_ms: how much was lost right before.
            conceal_ms: how much loss is concealed.
        """
        if self.at_ms is None:
            return []
        start_ms, resumed_ms = self.at_ms, end_ms
        if self.left_ms is not None:
            resumed_ms = min(start_ms + self.left_ms, end_ms)
        self.at_ms = self.left_ms = None
        if end_ms - resumed_ms <= conceal_ms:
            resumed_ms = end_ms
        missing_ms = min(round(lost_ms), end_ms - resumed_ms)
        lost = [Unheard(end_ms - missing_ms, end_ms, is_pause=False)] if missing_ms > conceal_ms else []
        return [Unheard(start_ms, resumed_ms, is_pause=True), *lost]
