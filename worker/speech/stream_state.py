"""The stored state of a stream. Values only."""

from collections.abc import Sequence
from typing import NamedTuple

from callmood.worker.speech.media_rate import MediaRate
from callmood.worker.speech.segment_state import SegmenterState


class MediaTimeState(NamedTuple):
    """What a successor needs to know of a position; states of earlier versions end with `early_ms`."""

    offset_ms: int
    rate_hz: int | None
    sample: int
    early_ms: float
    zero_ms: float | None = None
    record_ms: float = 0.0
    base_ms: float | None = 0.0
    again: tuple[int, float] | None = None
    drift_ms: float = 0.0
    shifts: tuple[tuple[int, int], ...] = ()
    rate: MediaRate = MediaRate()


class DoubtState(NamedTuple):
    """What a successor needs to know.

    `refused` are the numbers of the newest refused records: taken again, they are refused again, and no other older
    record is. `doubted_ms` is the media time of the newest record, if it looked absurd, and `doubted_seq` its number.
    `misnumbered` are the offsets of the newest records whose numbers were absurd: those numbers come again, in turn.
    """

    newest_seq: int = -1
    refused: Sequence[int] = ()
    doubted_ms: float | None = None
    doubted_seq: int | None = None
    misnumbered: Sequence[int] = ()


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
