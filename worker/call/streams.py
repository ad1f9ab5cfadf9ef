"""Decides which streams of a call belong together, and which are open. Pure.

A stream ends with its `end`. `end` of a stream `a` ends the streams `a/…` too: Twilio's tracks. A stream that was cut
off gets no `end`; it is over when a later stream with the same roles continues in its place, as after a reconnect.
"""

from collections.abc import Mapping
from typing import NamedTuple

from callmood.schemas.common import Event, Scope
from callmood.worker.call.ending import End
from callmood.worker.errors import BadRecord, Reason
from callmood.worker.records import Chunk, Cut, Unheard
from callmood.worker.settings import Settings
from callmood.worker.speech.stream import Stream
from callmood.worker.speech.stream_state import StreamState
from callmood.worker.speech.taken import Taken

_IN_PLACE_MS = 2_000
"""How much the audio of a stream and of the one in its place can overlap."""
_MAX_OPEN = 64
_MAX_STALLED = 64
_FAR_BEHIND_MS = 5_000
"""A stream so far behind the end of another one is silent or stalled."""


class Forgotten(NamedTuple):
    """Of the streams that a call has forgotten: the latest end of any, and whether one had audio."""

    end_ms: int = 0
    had_audio: bool = False

    def adding(self, stream: Stream) -> "Forgotten":
        """With one more."""
        end_ms = max(self.end_ms, stream.time.call_position_ms)
        return Forgotten(end_ms, self.had_audio or stream.time.rate_hz is not None)


def restored(states: Mapping[str, StreamState], settings: Settings, taken_offset: int) -> dict[str, Stream]:
    """The streams as they were stored, after the record at this offset."""
    return {name: Stream.restore(state, settings, taken_offset) for name, state in states.items()}


def require_room(streams: Mapping[str, Stream]) -> None:
    """Let another stream open, unless too many of the call are.

    Raises:
        BadRecord: too many are open.
    """
    if sum(stream.active_at_ms is not None for stream in streams.values()) >= _MAX_OPEN:
        raise BadRecord(Reason.BAD_HEADER, f"more than {_MAX_OPEN} streams of one call are open")


def next_end(taken: Mapping[str, Taken]) -> tuple[str, Chunk] | None:
    """Take out the next `end`, with the name of its stream."""
    return next(((name, brought.ends.pop(0)) for name, brought in taken.items() if brought.ends), None)


def end(name: str, streams: Mapping[str, Stream], taken: dict[str, Taken]) -> list[str]:
    """This stream has ended, and its parts end with it; returns all of them."""
    parts = [other for other, stream in streams.items() if other.startswith(f"{name}/") and not stream.ended]
    for part in parts:
        taken.setdefault(part, Taken()).extend(streams[part].close(Cut.END))
        streams[part].ended = True
    hear_one_copy(streams)
    return [name, *parts]


def quiet_since(at_ms: int, streams: Mapping[str, Stream]) -> list[str]:
    """The streams that have not stalled yet, without a record since this time of the partition's clock."""
    return [name for name, s in streams.items() if s.active_at_ms is not None and s.active_at_ms <= at_ms]


def stalled_first(streams: Mapping[str, Stream]) -> list[str]:
    """The stalled streams that a call forgets: all but the newest 64, which may go on."""
    return [name for name, stream in streams.items() if stream.active_at_ms is None][:-_MAX_STALLED]


def ends_call(end: Chunk, streams: Mapping[str, Stream]) -> bool:
    """Whether the call ends with this stream: the record says so, or no other one with audio is left."""
    return end.scope is Scope.CALL or (end.scope is None and not _are_open(streams, streams[end.stream]))


def early_end(end: Chunk, streams: Mapping[str, Stream]) -> End | None:
    """Where the call is over if nothing more comes: its `end` waits, and nobody is speaking."""
    stream = streams[end.stream]
    is_waiting = end.event is Event.END and not stream.ended and stream.next_seq <= end.seq
    if not (is_waiting and ends_call(end, streams) and all(_is_quiet(one) for one in streams.values())):
        return None
    start_ms, step = stream.time.call_position_ms, stream.time.step_to(end, end.seq - stream.next_seq)
    missing = Unheard(start_ms, start_ms + round(step.lost_ms), is_pause=False)
    end_ms = start_ms + round(step.lost_ms + step.silent_ms)
    at_ms = max(end_ms, *(one.time.call_position_ms for one in streams.values()))
    return End(Event.END.value, at_ms, is_open=True, missing=missing)


def _is_quiet(stream: Stream) -> bool:
    """Whether nothing is open in it, and nothing is about to open."""
    return all(channel.start is None and not any(channel.window) for channel in stream.snapshot().channels)


def _are_open(streams: Mapping[str, Stream], leaving: Stream) -> bool:
    """Whether streams with audio are left after this one."""
    return any(
        not stream.ended and not any(_replaces(other, stream) for other in streams.values())
        for stream in streams.values()
        if stream is not leaving and stream.time.rate_hz is not None
    )


def sending(streams: Mapping[str, Stream]) -> tuple[str, ...]:
    """The streams with audio that have neither ended nor stalled: more of it may be on its way."""
    return tuple(name for name, stream in streams.items() if _is_sending(stream) and stream.time.rate_hz is not None)


def _replaces(other: Stream, stream: Stream) -> bool:
    return (
        other is not stream
        and other.time.rate_hz is not None
        and set(stream.format.layout) <= set(other.format.layout)
        and stream.time.call_position_ms <= other.time.offset_ms + _IN_PLACE_MS
    )


def reach(leaving: Stream, streams: Mapping[str, Stream], taken: dict[str, Taken]) -> list[str]:
    """The call has come as far as the end of this stream: what is open in streams far behind closes; returns those."""
    at_ms = leaving.time.call_position_ms
    behind = [
        name
        for name, stream in streams.items()
        if _is_sending(stream) and stream.time.call_position_ms < at_ms - _FAR_BEHIND_MS
    ]
    for name in behind:
        taken.setdefault(name, Taken()).extend(streams[name].close(Cut.GAP))
    next(iter(taken.values())).unheard.append(Unheard(at_ms, at_ms, is_pause=False))
    return behind


def hear_one_copy(streams: Mapping[str, Stream]) -> None:
    """Of the open streams of one Twilio track, the first is heard; when it ends or stalls, the next one is."""
    heard = {_track(name) for name, stream in streams.items() if _is_sending(stream) and not stream.is_copy}
    copies = [name for name, stream in streams.items() if stream.is_copy and not stream.ended]
    for name in sorted(copies, key=lambda name: not _is_sending(streams[name])):  # a stalled one may go on
        if _track(name) not in heard:
            streams[name].stop_copying()
            heard.add(_track(name))


def join_track(first: Chunk, new: Stream, streams: Mapping[str, Stream]) -> None:
    """If this new stream is a Twilio track: another open stream may have it, or its `stop` may have overtaken it."""
    if first.has_track:
        track, parent = _track(first.stream), streams.get(first.stream.rpartition("/")[0])
        new.is_copy = any(_track(name) == track and _is_sending(stream) for name, stream in streams.items())
        new.ended = parent is not None and parent.ended


def _is_sending(stream: Stream) -> bool:
    """Whether it has neither ended nor stalled."""
    return not stream.ended and stream.active_at_ms is not None


def _track(name: str) -> str:
    return name.rpartition("/")[2]


def goes_on(chunk: Chunk, streams: Mapping[str, Stream]) -> bool:
    """Whether a record is as nearly all are: audio of a known stream, where the place of each stream is certain."""
    stream = streams.get(chunk.stream)
    is_known = stream is not None and stream.active_at_ms is not None and stream.is_begun
    return is_known and chunk.event is Event.MEDIA and not any(other.is_tentative for other in streams.values())


def follow_pause(
    name: str, streams: Mapping[str, Stream], taken: dict[str, Taken], paused_at_ms: int | None
) -> int | None:
    """If this stream has paused or resumed, so does every other one; returns since when the call is paused.

    A `pause` in a pause counts too: another stream may hold back a `resume` that was sent before it.
    """
    stream, is_paused = streams[name], paused_at_ms is not None
    is_repeated = taken[name].has_paused and stream.is_paused and is_paused
    if stream.is_paused == is_paused and not is_repeated:
        return paused_at_ms
    if not is_repeated:
        paused_at_ms = None if is_paused else stream.paused.at_ms
    paused_ms = max((u.end_ms - u.start_ms for u in taken[name].unheard if u.is_pause), default=0)
    for other_name, other in streams.items():
        if other is not stream:
            followed = other.resume(paused_ms) if paused_at_ms is None else other.pause()
            taken.setdefault(other_name, Taken()).extend(followed)
    return paused_at_ms
