"""The stored state of a channel. Values only."""

from typing import NamedTuple


class SegmenterState(NamedTuple):
    """Everything of a channel but its audio, below 3.3 kB; a successor is fed again from `keep_from` on.

    `version` changes with everything that the detector's memory depends on.
    """

    version: str
    frame: int
    window: bytes
    history: bytes
    start: int | None
    first_voiced: int
    last_voiced: int
    floor: int
    keep_from: int
    vad: bytes
    last_heard: int = -1
    """Frame of the newest voice; earlier versions did not store it."""
    known_frame: int = 0
    """When the open utterance became known."""
    stretches: tuple[tuple[int, int, bytes], ...] = ()
    """See `echo.Stretch`."""
