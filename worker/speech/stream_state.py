"""The stored state of a stream. Values only."""

from typing import NamedTuple

from callmood.worker.speech.doubt import DoubtState
from callmood.worker.speech.media_time import MediaTimeState
from callmood.worker.speech.segment_state import SegmenterState


class StreamState(NamedTuple):
    """All that a successor needs to go on with a stream; holds no audio.

    `seq` is the first record to take again, `format` is encoding, rate and roles. `pause_left_ms` is the length of a
    pause that another stream has ended; None while it goes on. `channels` is empty for a stream that was let go.
    """

    time: MediaTimeState
    seq: int
    paused_at_ms: int | None
    pause_left_ms: int | None
    active_at_ms: int | None
    newest_capture_ms: int
    switch_seq: int
    checksums: list[tuple[int, int]]
    started_again: bool
    format: tuple[str, int, list[str]] | None
    channels: list[SegmenterState]
    doubt: DoubtState = DoubtState()
    is_tentative: bool = False
    ended: bool = False
    is_copy: bool = False
